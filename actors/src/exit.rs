//! The exit codes that this crate itself ends a process with.

/// The force-exit deadline passed, or a second signal forced the end: 128 + SIGKILL.
pub const FORCED: u8 = 137;
/// SIGQUIT asked for the end at once: 128 + SIGQUIT.
pub const QUIT: u8 = 131;
