//! What the tests of the program share.

pub mod fact;
pub mod golden;
pub mod hanging;
pub mod library;
pub mod process;
pub mod schema;
pub mod supervisor;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A command outside of any supervision.
#[expect(
    clippy::disallowed_methods,
    reason = "a test stands outside of the supervision that it tries"
)]
pub fn outside(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Says why a test does not try what it is for.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

/// The program that misbehaves as it is told; cargo builds it for a test run, beside the tests: `target/…/examples`.
pub fn misbehave() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/misbehave");
    assert!(
        program.exists(),
        "{} is not built; `cargo build --example misbehave` builds it",
        program.display()
    );
    program
}

/// The program, with an environment and a home of the test's own.
pub fn kimi_shell(directory: &Path) -> Command {
    let mut command = outside(env!("CARGO_BIN_EXE_kimi-shell"));
    command
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .stdin(Stdio::null());
    command
}

/// What the program answers to these words.
pub fn answer(directory: &Path, words: &[&str]) -> Answer {
    Answer::of(&kimi_shell(directory).args(words).output().unwrap())
}

/// An answer of the program.
#[derive(Debug)]
pub struct Answer {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// From what was collected.
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
