//! What the tests of the program share.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, with an environment and a home of the test's own.
pub(crate) fn kimi_shell(directory: &Path) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test stands outside of the supervision that it tries"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_kimi-shell"));
    command
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .stdin(Stdio::null());
    command
}

/// What the program answers to these words.
pub(crate) fn answer(directory: &Path, words: &[&str]) -> Answer {
    Answer::of(&kimi_shell(directory).args(words).output().unwrap())
}

/// An answer of the program.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The exit code.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Answer {
    /// From what was collected.
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
