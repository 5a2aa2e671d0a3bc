//! Verbs that start processes run below a guardian: see [`kimi_actors::os::guardian`].

use std::io;
use std::process::ExitCode;

use kimi_actors::os::guardian::{self, Farewell, Side, Ward};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::out;

/// So long is waited for a standard error that takes nothing.
const STALLED: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Runs this in a child of the process that was started; returns in both.
///
/// To be called before there is a second thread. Where there can be no guardian it runs all the same, and says so: then what
/// a death of the runtime leaves is left.
pub fn run<E>(work: impl FnOnce(Option<Ward>) -> Result<ExitCode, E>) -> Result<ExitCode, E> {
    match guardian::split() {
        Ok(Side::Guardian(farewell)) => Ok(part(&farewell)),
        Ok(Side::Runtime(ward)) => {
            let result = work(Some(ward.clone()));
            ward.end();
            result
        }
        Err(error) => {
            out::talk(&alone(&error));
            work(None)
        }
    }
}

fn part(farewell: &Farewell) -> ExitCode {
    if let Some(words) = &farewell.words
        && takes_a_line()
    {
        out::talk(&format!("kimi-shell: {words}\n"));
    }
    ExitCode::from(farewell)
}

/// A terminal that is stopped must not hold up the end.
fn takes_a_line() -> bool {
    let stderr = io::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    poll(&mut polled, Some(&STALLED)).is_ok_and(|ready| ready > 0)
}

fn alone(error: &io::Error) -> String {
    let orphans = if guardian::is_first() {
        "; as PID 1 it reaps no orphans"
    } else {
        ""
    };
    format!(
        "kimi-shell: there is no guardian ({error}): what is left if this process is killed stays{orphans}\n"
    )
}
