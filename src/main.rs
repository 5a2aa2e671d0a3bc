//! The `kimi-shell` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kimi_shell::cli::main()
}
