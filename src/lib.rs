//! The application around `kimi-actors`.
