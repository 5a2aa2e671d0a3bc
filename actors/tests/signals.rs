//! Signals and the forced exit in processes of their own: this program, started again in a role.
//!
//! A role says what it did line by line on stderr, and waits on its stdin; both end with the test.
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only what is inside of a test function for a test"
)]

use std::io::{BufRead, BufReader, stdin};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdin, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kimi_actors::os::clock::Clock;
use kimi_actors::os::force_exit::{AtDeadline, ForceExit};
use kimi_actors::os::signals::{ListenError, Received, listen, normalise};
use kimi_actors::os::{Job, Os, Process};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::RunId;
use kimi_actors::policy::telemetry::Subject;
use kimi_actors::{Receipt, Runtime, SignalOptions};
use rustix::process::{Pid, getpid, getuid, kill_process};

const ROLE: &str = "KIMI_TEST_ROLE";
const HOUR: Duration = Duration::from_secs(3_600);

/// This program in a role.
struct Actor {
    child: Child,
    said: BufReader<ChildStderr>,
    stdin: Option<ChildStdin>,
}

impl Actor {
    fn start(role: &str) -> Self {
        Self::start_by(&[], role)
    }

    /// Started by a shell that ignores these signals.
    fn start_ignoring(signals: &str, role: &str) -> Self {
        let script = format!("trap '' {signals}; exec \"$0\" \"$@\"");
        Self::start_by(&["sh", "-c", &script], role)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the test is not the one under supervision"
    )]
    fn start_by(launcher: &[&str], role: &str) -> Self {
        let me = std::env::current_exe().unwrap();
        let mut command = match launcher {
            [] => std::process::Command::new(me),
            [program, arguments @ ..] => {
                let mut command = std::process::Command::new(program);
                command.args(arguments).arg(me);
                command
            }
        };
        let mut child = command
            .args(["--exact", "in_a_role", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let stdin = child.stdin.take();
        Self { child, said, stdin }
    }

    /// The next line that it says.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended after {line:?}");
        line.trim_end().to_owned()
    }

    fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal.number()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Closes its stdin, which it may wait for.
    fn release(&mut self) {
        self.stdin = None;
    }

    fn end(mut self) -> ExitStatus {
        let mut rest = String::new();
        while self.said.read_line(&mut rest).unwrap() > 0 {}
        assert_eq!(rest, "", "nothing more is said");
        self.child.wait().unwrap()
    }
}

#[expect(clippy::print_stderr, reason = "it is how a role talks to the test")]
fn say(line: impl std::fmt::Display) {
    eprintln!("{line}");
}

/// Returns once the test closes it.
fn wait_for_release() {
    let mut line = String::new();
    while stdin().read_line(&mut line).unwrap() > 0 {}
}

/// What the program does when it is started in a role; nothing in an ordinary run of the tests.
#[test]
fn in_a_role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "listener" => listener(),
        "counter" => counter(),
        "flooded" => flooded(),
        "panicking" => panicking(),
        "second" => second(),
        "normal" => normal(),
        "forced" => forced(),
        "noted" => noted(),
        "forced at the deadline" => forced_at_the_deadline(),
        _ => panic!("no role {role}"),
    }
}

fn told(signals: &[Signal]) -> (kimi_actors::os::signals::Listening, Receiver<Received>) {
    let (sender, receiver) = channel();
    let listening = listen(
        signals,
        Clock::start(),
        Box::new(move |received| sender.send(received).unwrap()),
    );
    (listening.unwrap(), receiver)
}

/// Says each signal; TERM is the last one.
fn listener() {
    let signals = [Signal::HUP, Signal::INT, Signal::USR1, Signal::TERM];
    let (listening, received) = told(&signals);
    say(format_args!("honoured {:?}", listening.honoured()));
    for Received { signal, sender, .. } in &received {
        match sender {
            Some(sender) => say(format_args!("{signal} {} {}", sender.pid, sender.uid)),
            None => say(format_args!("{signal} from nobody")),
        }
        if signal == Signal::TERM {
            break;
        }
    }
    drop(listening);
    assert!(received.recv().is_err(), "the thread is gone");
    say("restored");
    wait_for_release();
}

#[test]
fn the_sender_of_a_signal_is_told_and_the_former_disposition_comes_back() {
    let mut actor = Actor::start("listener");
    actor.expect("honoured []");
    let (pid, uid) = (getpid(), getuid());
    for signal in [Signal::USR1, Signal::INT, Signal::HUP, Signal::TERM] {
        actor.send(signal);
        actor.expect(&format!("{signal} {pid} {uid}"));
    }
    actor.expect("restored");
    actor.send(Signal::TERM);
    assert_eq!(actor.end().signal(), Some(libc::SIGTERM));
}

#[test]
fn an_inherited_ignored_hup_is_honoured_and_an_ignored_int_is_not() {
    let mut actor = Actor::start_ignoring("HUP INT", "listener");
    actor.expect("honoured [SIGHUP]");
    actor.send(Signal::HUP);
    actor.send(Signal::INT);
    assert!(actor.line().starts_with("SIGINT "));
    actor.send(Signal::TERM);
    assert!(actor.line().starts_with("SIGTERM "));
    actor.expect("restored");
    actor.release();
    assert!(actor.end().success());
}

const COUNTED: usize = 1_000;

/// A real-time signal: the kernel queues each one, where it would merge standard ones.
fn realtime() -> Signal {
    "SIGRTMIN+1".parse().unwrap()
}

fn counter() {
    let (_listening, received) = told(&[realtime()]);
    say("ready");
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
    let known = received
        .iter()
        .take(COUNTED)
        .filter(|received| {
            let sender = received.sender.expect("its sender is known");
            i32::try_from(sender.pid) == Ok(parent)
        })
        .count();
    say(known);
}

#[test]
fn a_thousand_signals_are_a_thousand_reports() {
    let mut actor = Actor::start("counter");
    actor.expect("ready");
    for _ in 0..COUNTED {
        let pid = Pid::from_child(&actor.child).as_raw_nonzero().get();
        send_raw(pid, realtime());
    }
    actor.expect(&COUNTED.to_string());
    assert!(actor.end().success());
}

/// `rustix` names no real-time signals.
#[expect(unsafe_code, reason = "a plain `kill`")]
fn send_raw(pid: i32, signal: Signal) {
    // SAFETY: it touches no memory.
    let code = unsafe { libc::kill(pid, signal.number()) };
    assert_eq!(code, 0);
}

const FLOOD: usize = 6_000;

/// Sends itself more signals than the pipe holds records while nobody reads.
fn flooded() {
    let (release, held) = channel::<()>();
    let (sender, received) = channel();
    let mut held = Some(held);
    let _listening = listen(
        &[realtime()],
        Clock::start(),
        Box::new(move |received: Received| {
            if let Some(held) = held.take() {
                held.recv().unwrap();
            }
            sender.send(received.sender.is_some()).unwrap();
        }),
    )
    .unwrap();
    for _ in 0..FLOOD {
        send_raw(getpid().as_raw_nonzero().get(), realtime());
    }
    release.send(()).unwrap();
    let known = received.iter().take(FLOOD).filter(|known| *known).count();
    say(if known < FLOOD { "flooded" } else { "held all" });
}

#[test]
fn what_does_not_fit_into_the_pipe_is_reported_without_its_sender() {
    let mut actor = Actor::start("flooded");
    actor.expect("flooded");
    assert!(actor.end().success());
}

fn panicking() {
    std::panic::set_hook(Box::new(|_| ()));
    let mut first = true;
    let (sender, received) = channel();
    let _listening = listen(
        &[Signal::USR1],
        Clock::start(),
        Box::new(move |received: Received| {
            sender.send(received.signal).unwrap();
            assert!(!std::mem::take(&mut first), "once");
        }),
    )
    .unwrap();
    say("ready");
    for signal in received.iter().take(2) {
        say(signal);
    }
}

#[test]
fn a_panic_of_the_listener_does_not_make_it_deaf() {
    let mut actor = Actor::start("panicking");
    actor.expect("ready");
    for _ in 0..2 {
        actor.send(Signal::USR1);
        actor.expect("SIGUSR1");
    }
    assert!(actor.end().success());
}

/// Says what is noted of the first signal that comes.
fn noted() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SignalOptions::default();
        let handle = Runtime::builder().signals(options).start().await.unwrap();
        say("ready");
        let entry = loop {
            if let Some(entry) = handle.telemetry().await.unwrap().first().copied() {
                break entry;
            }
        };
        assert_eq!(entry.subject, Subject::Tree);
        assert_eq!(handle.receipts().await.len(), 1);
        say(format_args!("{:?} {:?}", entry.operation, entry.outcome));
        handle.shutdown().await;
    });
}

#[test]
fn a_signal_that_comes_is_noted_with_what_became_of_it() {
    assert!(size_of::<Receipt>() <= 128, "with what it holds: nothing");
    let mut actor = Actor::start("noted");
    actor.expect("ready");
    actor.send(Signal::USR1);
    actor.expect("Signal(SIGUSR1) Done");
    assert!(actor.end().success());
}

fn second() {
    for _ in 0..3 {
        let (first, received) = told(&[Signal::USR1]);
        let refused = listen(&[Signal::USR2], Clock::start(), Box::new(|_| ()));
        assert!(matches!(refused, Err(ListenError::AlreadyListening)));
        send_raw(getpid().as_raw_nonzero().get(), Signal::USR1);
        received.recv().unwrap();
        drop(first);
    }
    say("three in turn");
}

#[test]
fn there_is_one_listener_at_a_time() {
    let mut actor = Actor::start("second");
    actor.expect("three in turn");
    assert!(actor.end().success());
}

#[expect(
    clippy::disallowed_methods,
    reason = "asks whether an ordinary child can be awaited"
)]
fn normal() {
    block_usr1();
    ignore_chld();
    say(format_args!("ignored {:?}", normalise()));
    assert!(normalise().iter().all(|signal| *signal != Signal::CHLD));
    let status = std::process::Command::new("true").status();
    assert!(status.unwrap().success());
    let (_listening, received) = told(&[Signal::USR1]);
    // To this very thread: it comes only if this thread does not block it.
    #[expect(unsafe_code, reason = "`raise` has no other form")]
    // SAFETY: the signal has a handler.
    let code = unsafe { libc::raise(libc::SIGUSR1) };
    assert_eq!(code, 0);
    say(received.recv().unwrap().signal);
}

#[expect(unsafe_code, reason = "what a careless parent would have left behind")]
fn ignore_chld() {
    // SAFETY: no handler is involved.
    let former = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    assert_ne!(former, libc::SIG_ERR);
}

#[expect(unsafe_code, reason = "what a careless parent would have left behind")]
fn block_usr1() {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: it initialises the set.
    assert_eq!(unsafe { libc::sigemptyset(set.as_mut_ptr()) }, 0);
    // SAFETY: the set was initialised.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: the set is valid.
    let added = unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR1) };
    assert_eq!(added, 0);
    // SAFETY: the set is valid, the former mask is not asked for.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    assert_eq!(blocked, 0);
}

#[test]
fn signals_work_whatever_the_process_was_started_with() {
    let mut actor = Actor::start_ignoring("QUIT", "normal");
    actor.expect("ignored [SIGQUIT, SIGCHLD]");
    actor.expect("SIGUSR1");
    assert!(actor.end().success());
}

/// Has nothing to kill.
struct Empty;

impl Os for Empty {
    fn begin(&self, _: Job) -> Box<dyn Process> {
        unreachable!("nothing begins here")
    }

    fn when_gone(&self, _: RunId, then: Box<dyn FnOnce() + Send>) {
        then();
    }

    fn kill_all(&self) {
        say("kill");
    }

    fn live(&self) -> usize {
        0
    }
}

fn forced() {
    let force = ForceExit::start(Arc::new(Empty), Clock::start(), AtDeadline::ExitProcess).unwrap();
    force.set_last_words(Box::new(|| say("farewell")));
    force.now(137);
    wait_for_release();
}

fn forced_at_the_deadline() {
    let clock = Clock::start();
    let force = ForceExit::start(Arc::new(Empty), clock, AtDeadline::ExitProcess).unwrap();
    force.arm(clock.now() + HOUR, 1);
    force.arm(clock.now() + Duration::from_millis(20), 131);
    force.arm(clock.now() + HOUR, 2);
    wait_for_release();
}

#[test]
fn force_kills_says_its_last_words_and_exits_with_the_code() {
    let mut actor = Actor::start("forced");
    actor.expect("kill");
    actor.expect("farewell");
    assert_eq!(actor.end().code(), Some(137));
}

#[test]
fn the_deadline_exits_although_the_program_hangs() {
    let mut actor = Actor::start("forced at the deadline");
    actor.expect("kill");
    assert_eq!(actor.end().code(), Some(131));
}
