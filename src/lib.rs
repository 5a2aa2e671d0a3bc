//! The application around `kimi-actors`: command line, manifests and settings.

pub mod cli;
pub mod document;
pub mod env_file;
pub mod exec_result;
pub mod exit_code;
pub mod grammar;
pub mod manifest;
pub mod performance;
pub mod quantity;
pub mod session_result;
pub mod settings;
pub mod wall_time;
pub mod words;

/// Tries the code in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
