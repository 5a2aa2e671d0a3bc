//! The `kimi-shell` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kimi_actors::shim::run_if_asked();
    kimi_shell::cli::main()
}
