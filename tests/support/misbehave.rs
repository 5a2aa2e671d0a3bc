//! A program that misbehaves as it is told, for tests: `misbehave MODE [ARGUMENT]`.
//!
//! What has something to say says `ready`, or `pid N` of a descendant, on a line of its own, once that is so.

#![expect(unsafe_code, reason = "what it is for is what no library does")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a misuse is told by a panic"
)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// More descendants than these nobody is given, whatever is asked for.
const MOST_FORKS: usize = 500;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mode = words.first().expect("a mode").as_str();
    let argument = words.get(1).map(String::as_str);
    let number = || {
        argument
            .expect("a number")
            .parse::<usize>()
            .expect("a number")
    };
    match mode {
        "ignore-term" => {
            ignore_signals();
            ready();
            for_ever()
        }
        "stop-self" => {
            ready();
            raise(libc::SIGSTOP);
            for_ever()
        }
        "double-fork" => {
            // The one between ends at once, so that nobody's child is left.
            fork_off(|| fork_off(stay));
            ExitCode::SUCCESS
        }
        "setsid" => {
            fork_off(|| {
                leave_the_session();
                stay();
            });
            for_ever()
        }
        "hold-pipe" => {
            let is_chatty = argument == Some("chatty");
            fork_off(|| if is_chatty { flood() } else { stay() });
            ExitCode::from(3)
        }
        "flood" => flood(),
        "longline" => long_line(number()),
        "junk" => junk(),
        "exit" => ExitCode::from(u8::try_from(number()).expect("a code")),
        "signal" => {
            raise(i32::try_from(number()).expect("a signal"));
            for_ever()
        }
        "alloc" => {
            // Written to, so that it is there.
            let held = vec![1_u8; number()];
            ready();
            std::hint::black_box(&held);
            for_ever()
        }
        "fds" => {
            let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            say(&format!("ready {}", held.len()));
            for_ever()
        }
        "fork-bomb" => {
            bomb(number().min(MOST_FORKS));
            ready();
            for_ever()
        }
        "slow-exit" => slow_exit(Duration::from_millis(number() as u64)),
        "close-stdio" => {
            // SAFETY: nothing of this program uses them any more.
            unsafe { libc::close_range(0, 2, 0) };
            for_ever()
        }
        "read-stdin" => {
            let mut input = Vec::new();
            io::stdin()
                .read_to_end(&mut input)
                .expect("stdin can be read");
            say(&format!("read {}", input.len()));
            ExitCode::SUCCESS
        }
        "exec-self" => exec_self(number()),
        "exit-while-writing" => {
            std::thread::spawn(flood);
            // Some of it is on its way.
            std::thread::park_timeout(Duration::from_millis(50));
            ExitCode::from(9)
        }
        _ => panic!("no mode {mode}"),
    }
}

/// Whoever reads may have gone; then there is nobody to tell.
fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
    drop(io::stdout().flush());
}

fn ready() {
    say("ready");
}

fn for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn raise(signal: i32) {
    // SAFETY: the signal is for this process alone.
    unsafe { libc::raise(signal) };
}

fn leave_the_session() {
    // SAFETY: it takes and touches no memory.
    unsafe { libc::setsid() };
}

/// A descendant that no polite signal ends.
fn stay() {
    ignore_signals();
    say(&format!("pid {}", std::process::id()));
    for_ever();
}

/// Does it in a child, which ends with it.
fn fork_off(then: impl FnOnce()) {
    // SAFETY: this program has one thread, so the child may go on as it is.
    match unsafe { libc::fork() } {
        0 => {
            then();
            // SAFETY: it returns to nobody.
            unsafe { libc::_exit(0) }
        }
        pid => assert!(pid > 0, "cannot fork: {}", io::Error::last_os_error()),
    }
}

/// So many descendants, each the parent of the next, and all of them in the way of a signal.
fn bomb(left: usize) {
    if left > 0 {
        fork_off(|| {
            ignore_signals();
            bomb(left - 1);
            for_ever();
        });
    }
}

fn flood() -> ! {
    let chunk = b"y\n".repeat(32 * 1024);
    loop {
        if io::stdout().write_all(&chunk).is_err() {
            for_ever();
        }
    }
}

fn long_line(mut bytes: usize) -> ExitCode {
    let chunk = vec![b'x'; 64 * 1024];
    let mut stdout = io::stdout().lock();
    while bytes > 0 {
        let piece = bytes.min(chunk.len());
        stdout.write_all(&chunk[..piece]).expect("somebody reads");
        bytes -= piece;
    }
    ExitCode::SUCCESS
}

/// Every byte, in every order of two, with what a terminal would take for orders.
fn junk() -> ExitCode {
    let mut stdout = io::stdout().lock();
    for first in 0..=u8::MAX {
        for second in 0..=u8::MAX {
            stdout.write_all(&[first, second]).expect("somebody reads");
        }
    }
    stdout
        .write_all(b"\x1b[2J\x1b]0;title\x07\r\n")
        .expect("somebody reads");
    ExitCode::SUCCESS
}

static IS_ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: i32) {
    IS_ASKED.store(true, Ordering::SeqCst);
}

fn slow_exit(after: Duration) -> ExitCode {
    let handler: extern "C" fn(i32) = note;
    // SAFETY: the handler does nothing but store a value.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    ready();
    while !IS_ASKED.load(Ordering::SeqCst) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    std::thread::park_timeout(after);
    ExitCode::SUCCESS
}

fn exec_self(left: usize) -> ExitCode {
    say(&format!("pid {}", std::process::id()));
    if left == 0 {
        return ExitCode::from(8);
    }
    #[expect(clippy::disallowed_methods, reason = "it replaces itself")]
    let mut again = Command::new(std::env::current_exe().unwrap());
    panic!(
        "{}",
        again.args(["exec-self", &(left - 1).to_string()]).exec()
    )
}
