//! The application around `kimi-actors`: command line, manifests and settings.

pub mod cli;
pub mod critical_path;
pub mod document;
pub mod env_file;
pub mod exec_result;
pub mod exit_code;
pub mod grammar;
pub mod graph;
pub mod manifest;
pub mod performance;
pub mod procfile;
pub mod quantity;
pub mod resolved;
pub mod secret;
pub mod session_result;
pub mod settings;
pub mod wall_time;
pub mod words;
pub mod written;

/// Tries the code in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
