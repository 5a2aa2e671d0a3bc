//! The exit codes of the program, each with what it says.

use std::fmt::Write as _;
use std::io;

use kimi_actors::os::SpawnError;
use kimi_actors::policy::event::ShutdownReason;
use kimi_actors::policy::exit::{Exit, StartFailure};
use kimi_actors::policy::signal::Signal;
use kimi_actors::{ExecError, ExecOutcome, ShutdownReport};

/// Done; in the foreground, everything ended well or `down` was asked.
pub const DONE: u8 = 0;
/// The operation failed: a child gave up, a start failed, survivors were left.
pub const FAILED: u8 = 1;
/// The command line was not understood.
pub const USAGE: u8 = 2;
/// `status`: a named service is not running.
pub const NOT_RUNNING: u8 = 3;
/// `status`: a named service does not exist.
pub const NO_SUCH_SERVICE: u8 = 4;
/// No runtime can be reached (`EX_UNAVAILABLE`).
pub const NO_RUNTIME: u8 = 69;
/// The queue is full, or the runtime is shutting down: later may be better (`EX_TEMPFAIL`).
pub const TRY_LATER: u8 = 75;
/// Permission denied (`EX_NOPERM`).
pub const NO_PERMISSION: u8 = 77;
/// The manifest or a setting is invalid (`EX_CONFIG`).
pub const INVALID_CONFIGURATION: u8 = 78;
/// `exec`: the command ran out of time.
pub const TIMED_OUT: u8 = 124;
/// `exec`: kimi-shell itself failed.
pub const EXEC_FAILED: u8 = 125;
/// `exec`: the command is not executable.
pub const NOT_EXECUTABLE: u8 = 126;
/// `exec`: the command was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to a signal's number: a shutdown by that signal, or the death of a command by it.
pub const SIGNAL_BASE: u8 = 128;
/// The foreground ended after SIGHUP.
pub const HANGUP: u8 = 129;
/// The foreground ended after SIGINT (Ctrl-C).
pub const INTERRUPTED: u8 = 130;
/// The foreground was forced by SIGQUIT.
pub const QUIT: u8 = 131;
/// The foreground was forced: the deadline passed, or a second signal came.
pub const KILLED: u8 = 137;
/// `exec`: nobody reads what the command writes any more, as if it had died of SIGPIPE.
pub const NO_READER: u8 = 141;
/// The foreground ended after SIGTERM.
pub const TERMINATED: u8 = 143;

/// Every code with its meaning, in order.
pub const TABLE: [(&str, &str); 15] = [
    (
        "0",
        "done; foreground `start`: everything ended well, or `down` was asked",
    ),
    (
        "1",
        "the operation failed: a child gave up, a start failed, survivors were left",
    ),
    ("2", "usage: the command line was not understood"),
    ("3", "`status`: a named service is not running"),
    ("4", "`status`: a named service does not exist"),
    ("69", "no runtime can be reached"),
    (
        "75",
        "the queue is full, or the runtime is shutting down: try later",
    ),
    ("77", "permission denied"),
    ("78", "the manifest or a setting is invalid"),
    ("124", "`exec`: the command ran out of time"),
    ("125", "`exec`: kimi-shell itself failed"),
    (
        "126, 127",
        "`exec`: the command is not executable, was not found",
    ),
    (
        "129, 130, 143",
        "foreground `start`: ended in order after SIGHUP, SIGINT (Ctrl-C), SIGTERM",
    ),
    (
        "131, 137",
        "foreground `start`: forced by SIGQUIT; by the deadline or a second signal",
    ),
    ("128 + n", "`exec`: the command died of signal n"),
];

/// What the foreground supervisor ends with.
///
/// A shutdown led by a signal keeps its 128+n whatever had failed before; 1 is for a tree that ended by itself with a
/// failure, and for survivors.
pub fn of_report(report: &ShutdownReport) -> u8 {
    let is_unclean = !report.failed.is_empty() || !report.survivors.is_empty();
    match report.reason {
        ShutdownReason::Signal(Signal::QUIT) => QUIT,
        ShutdownReason::Signal(_) if report.forced => KILLED,
        ShutdownReason::Signal(signal) => of_signal(signal),
        ShutdownReason::Asked | ShutdownReason::AllEnded if is_unclean => FAILED,
        ShutdownReason::Asked | ShutdownReason::AllEnded => DONE,
        ShutdownReason::Limit | ShutdownReason::Internal => FAILED,
    }
}

/// What a one-shot command that died of this signal ends with.
pub fn of_signal(signal: Signal) -> u8 {
    u8::try_from(signal.number()).map_or(FAILED, |number| SIGNAL_BASE + number)
}

/// What `exec` ends with.
pub fn of_exec(result: &Result<ExecOutcome, ExecError>) -> u8 {
    match result {
        Ok(outcome) if outcome.timed_out() => TIMED_OUT,
        Ok(outcome) => match outcome.exit {
            Exit::Code(0) if !outcome.survivors.is_empty() => FAILED,
            Exit::Code(code) => u8::try_from(code).unwrap_or(FAILED),
            Exit::Signal { signal, core: _ } => of_signal(signal),
            Exit::Lost | Exit::NotStarted(_) => EXEC_FAILED,
        },
        Err(error) => of_exec_error(error),
    }
}

/// What `exec` ends with when the command did not run.
pub fn of_exec_error(error: &ExecError) -> u8 {
    match error {
        ExecError::Rejected(_) => TRY_LATER,
        ExecError::TimedOut => TIMED_OUT,
        ExecError::NotStarted(SpawnError::System { source, .. })
            if source.kind() == io::ErrorKind::ExecutableFileBusy =>
        {
            NOT_EXECUTABLE
        }
        ExecError::NotStarted(error) => match error.kind() {
            StartFailure::NotFound => NOT_FOUND,
            StartFailure::NotExecutable | StartFailure::BadFormat => NOT_EXECUTABLE,
            StartFailure::Exhausted | StartFailure::NotReady | StartFailure::Other => EXEC_FAILED,
        },
        ExecError::Cancelled | ExecError::Lost | ExecError::Ended => EXEC_FAILED,
    }
}

/// What `help exit-codes` prints.
pub fn help_text() -> String {
    let mut text = String::from("Exit codes of kimi-shell:\n\n");
    for (code, meaning) in TABLE {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  {code:<15}{meaning}");
    }
    text.push_str(
        "\nA shutdown led by a signal keeps its code whatever had failed before; 1 is for a tree that ended by itself\n\
         with a failure. A command of `exec` that itself ends with 124 to 127 cannot be told apart by the code alone.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use kimi_actors::policy::admission::Rejection;

    use super::*;

    #[test]
    fn what_cannot_start_has_the_code_of_its_reason() {
        let refused = |errno: i32| SpawnError::System {
            step: "make a process",
            source: io::Error::from_raw_os_error(errno),
        };
        let not_found = SpawnError::NotFound {
            program: "x".to_owned(),
        };
        for (error, code) in [
            (not_found, NOT_FOUND),
            (SpawnError::Empty, NOT_FOUND),
            (refused(libc::ETXTBSY), NOT_EXECUTABLE),
            (refused(libc::EAGAIN), EXEC_FAILED),
            (refused(libc::ENOMEM), EXEC_FAILED),
            (refused(libc::EMFILE), EXEC_FAILED),
            (refused(libc::EPERM), EXEC_FAILED),
            (SpawnError::TableFull { slots: 1 }, EXEC_FAILED),
        ] {
            let shown = error.to_string();
            assert_eq!(
                of_exec_error(&ExecError::NotStarted(error)),
                code,
                "{shown}"
            );
        }
        assert_eq!(
            of_exec_error(&ExecError::Rejected(Rejection::QueueFull)),
            TRY_LATER
        );
        assert_eq!(of_exec_error(&ExecError::TimedOut), TIMED_OUT);
    }

    #[test]
    fn every_constant_is_in_the_help() {
        let help = help_text();
        for code in [
            DONE,
            FAILED,
            USAGE,
            NOT_RUNNING,
            NO_SUCH_SERVICE,
            NO_RUNTIME,
            TRY_LATER,
            NO_PERMISSION,
            INVALID_CONFIGURATION,
            TIMED_OUT,
            EXEC_FAILED,
            NOT_EXECUTABLE,
            NOT_FOUND,
            SIGNAL_BASE,
            HANGUP,
            INTERRUPTED,
            QUIT,
            KILLED,
            TERMINATED,
        ] {
            let code = code.to_string();
            assert!(
                help.split(|c: char| !c.is_ascii_digit())
                    .any(|word| word == code),
                "{code}"
            );
        }
    }
}
