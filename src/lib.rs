//! The application around `kimi-actors`: command line, manifests and settings.

pub mod cli;
pub mod critical_path;
pub mod document;
pub mod exit_code;
pub mod graph;
pub mod manifest;
pub mod procfile;
pub mod quantity;
pub mod resolved;
pub mod secret;
pub mod settings;
pub mod words;
pub mod written;

/// Tries the code in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
