//! The `kimi-shell` program.

fn main() {}
