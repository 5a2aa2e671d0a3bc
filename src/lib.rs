//! The application around `kimi-actors`: command line, manifests and settings.

pub mod cli;
pub mod document;
pub mod exit_code;
pub mod manifest;
pub mod quantity;
pub mod secret;
pub mod settings;
pub mod words;

/// Tries the code in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
