//! The real operating system when it refuses: failing system calls, missing ones, and hosts that are odd.
//!
//! What needs a process of its own is this program again, in a role; failing system calls are strace's doing.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and a skipped one says so"
)]
#![cfg(target_os = "linux")]

#[expect(unreachable_pub, reason = "each test file uses its part of it")]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kimi_actors::os::stdin::Stdin;
use kimi_actors::os::{
    Drained, Job, Line, LineSink, News, Observer, Os, Output, Process, RealOs, RealOsOptions,
    SpawnError,
};
use kimi_actors::policy::exit::{Exit, StartFailure};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{ChildName, CommandSpec, RunId};
use kimi_actors::testing::FakeOs;
use kimi_actors::{Runtime, ShutdownTimeout, SignalOptions, StartError};
use support::{
    Begun, Footprint, Lines, Told, assert_alive, assert_same, bash, begin, eventually, real_os,
    shell, state_of, wait_until_dead, wait_until_gone,
};

const ROLE: &str = "KIMI_TEST_ROLE";
const CAPTURE: Output = Output::Capture {
    cap_bytes: 64 * 1024,
    chunks: None,
};

/// Tests that look at the whole process run alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs this program in a role, started by `launcher`; it must succeed. Returns what it wrote to stderr.
#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn play(launcher: &[&str], role: &str) -> String {
    // Its process is a child of this one, and others count those.
    let _alone = alone();
    let me = std::env::current_exe().unwrap();
    let mut command = match launcher {
        [] => std::process::Command::new(me),
        [program, arguments @ ..] => {
            let mut command = std::process::Command::new(program);
            command.args(arguments).arg(me);
            command
        }
    };
    let output = command
        .args(["--exact", "in_a_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{launcher:?} {role}: {}\n{}\n{said}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    said
}

/// Runs this program in a role while system calls fail as told; not where strace is missing or forbidden.
fn play_with_failing(injections: &[&str], role: &str) {
    if !can_inject() {
        eprintln!("SKIPPED: `{role}` with {injections:?}: strace is missing or not permitted here");
        return;
    }
    let mut launcher = vec!["strace", "-f", "-qqq", "-o", "/dev/null"];
    let injections: Vec<_> = injections
        .iter()
        .map(|injection| format!("inject={injection}"))
        .collect();
    for injection in &injections {
        launcher.extend(["-e", injection]);
    }
    play(&launcher, role);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn can_inject() -> bool {
    let _alone = alone();
    std::process::Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null"])
        .args(["-e", "inject=pipe2:error=EMFILE", "true"])
        .status()
        .is_ok_and(|status| status.success())
}

/// What the program does when it is started in a role; nothing in an ordinary run of the tests.
#[test]
fn in_a_role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "ordinary" => ordinary(),
        "refused once" => refused_once(),
        "always refused" => always_refused(),
        "refused for a while" => refused_for_a_while(),
        "lost" => lost(),
        "ignores SIGCHLD" => ignores_sigchld(),
        "reaps everything" => reaps_everything(),
        "without descriptors" => without_descriptors(),
        "without stdio" => without_stdio(),
        "two listeners" => two_listeners(),
        _ => panic!("no role {role}"),
    }
}

fn descriptors_of(pid: u32) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The loader of a program opens files of its own before it is through; what was leaked to it would stay.
fn has_three_descriptors(pid: u32) {
    eventually("it has three descriptors", || {
        (descriptors_of(pid) == ["0", "1", "2"]).then_some(())
    });
}

/// Whatever is missing, this holds.
fn ordinary() {
    let os = real_os(16);
    // Descriptors that the host forgot to protect, the last one beyond a limit that was lowered since.
    let leaky = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let far = rustix::io::fcntl_dupfd_cloexec(&leaky, 1500);
    if let Ok(far) = &far {
        rustix::io::fcntl_setfd(far, rustix::io::FdFlags::empty()).unwrap();
        let limit = rustix::process::Rlimit {
            current: Some(1000),
            ..rustix::process::getrlimit(rustix::process::Resource::Nofile)
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    }
    let run = shell(&*os, "echo out; echo err >&2; exit 3", CAPTURE);
    let end = run.told.end();
    assert_eq!(end.exit, Exit::Code(3));
    let captured = end.captured.unwrap();
    assert_eq!(captured.stdout.head, b"out\n");
    assert_eq!(captured.stderr.head, b"err\n");

    let run = begin(&*os, CommandSpec::new("sleep", ["1000"]), CAPTURE);
    let pid = run.told.pid();
    has_three_descriptors(pid);
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
    assert!(text.contains("SigIgn:\t0000000000000000"), "{text}");
    run.process.signal(Signal::TERM).unwrap();
    assert!(matches!(
        run.told.end().exit,
        Exit::Signal {
            signal: Signal::TERM,
            ..
        }
    ));

    let mut nowhere = CommandSpec::new("true", [""; 0]);
    nowhere.cwd = Some("/no/such/directory".into());
    let error = begin(&*os, nowhere, CAPTURE).told.not_started();
    assert!(matches!(error, SpawnError::Cwd { .. }), "{error:?}");

    let run = shell(&*os, "sleep 1000 & exit 0", Output::Discard);
    assert_eq!(run.told.end().exit, Exit::Code(0));
    wait_until_gone(&*os, run.run);
    nothing_is_left(&*os);
}

fn nothing_is_left(os: &dyn Os) {
    eventually("no run is left", || (os.live() == 0).then_some(()));
    assert_same(&Footprint::now().children, &Vec::new(), "children");
}

/// One system call of the first run fails: it is refused and leaves nothing behind, and the next one runs.
fn refused_once() {
    let os = real_os(16);
    let before = Footprint::now();
    let lines = Arc::new(Lines::default());
    let error = shell(&*os, "sleep 1000", Output::Lines(lines))
        .told
        .not_started();
    assert_eq!(error.kind(), StartFailure::Exhausted, "{error:?}");
    nothing_is_left(&*os);
    let after = Footprint::now();
    assert_same(&after.descriptors, &before.descriptors, "descriptors");
    // A second thread that starts processes has its failure still before it.
    let run = (0..2)
        .map(|_| shell(&*os, "echo out; exit 3", CAPTURE))
        .find(|run| {
            wait_until_gone(&*os, run.run);
            run.told.has_ended()
        });
    let end = run.expect("one of two threads runs it").told.end();
    assert_eq!(end.exit, Exit::Code(3));
    assert_eq!(end.captured.unwrap().stdout.head, b"out\n");
    nothing_is_left(&*os);
}

/// The child itself fails before its program runs.
fn always_refused() {
    let os = real_os(16);
    for _ in 0..10 {
        let run = shell(&*os, "sleep 1000", CAPTURE);
        let error = run.told.not_started();
        assert!(matches!(error, SpawnError::System { .. }), "{error:?}");
        nothing_is_left(&*os);
    }
}

/// Neither processes nor threads can be made for a while. Each run is told of, one way or the other.
fn refused_for_a_while() {
    let os = real_os(64);
    let mut refused = false;
    let mut recovered = 0;
    while recovered < 10 {
        let runs: Vec<_> = (0..4)
            .map(|_| shell(&*os, "exit 3", Output::Discard))
            .collect();
        for run in runs {
            wait_until_gone(&*os, run.run);
            if run.told.has_ended() {
                assert_eq!(run.told.end().exit, Exit::Code(3));
                recovered += usize::from(refused);
            } else {
                let error = run.told.not_started();
                assert_eq!(error.kind(), StartFailure::Exhausted, "{error:?}");
                refused = true;
            }
        }
    }
    nothing_is_left(&*os);
}

/// The kernel does not tell how anything ends.
fn lost() {
    let os = real_os(16);
    for output in [
        Output::Discard,
        CAPTURE,
        Output::Lines(Arc::default_lines()),
    ] {
        let run = shell(&*os, "exit 3", output);
        assert_eq!(run.told.end().exit, Exit::Lost);
        wait_until_gone(&*os, run.run);
    }
    eventually("nothing is live", || (os.live() == 0).then_some(()));
}

trait DefaultLines {
    fn default_lines() -> Arc<dyn LineSink>;
}

impl DefaultLines for Arc<dyn LineSink> {
    fn default_lines() -> Self {
        Arc::new(Lines::default())
    }
}

#[expect(unsafe_code, reason = "dispositions are reached through libc only")]
fn ignores_sigchld() {
    // SAFETY: ignoring a signal runs no code.
    let former = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    assert_ne!(former, libc::SIG_ERR);
    lost();
    let os = real_os(4);
    let run = begin(&*os, CommandSpec::new("sleep", ["1000"]), Output::Discard);
    let pid = run.told.pid();
    drop(run.process);
    assert_eq!(run.told.end().exit, Exit::Lost);
    wait_until_gone(&*os, run.run);
    assert_eq!(state_of(pid), None);
}

/// The host waits for whatever ends, so that some ends are lost; each is told all the same, once.
#[expect(unsafe_code, reason = "a host that calls waitpid(-1)")]
fn reaps_everything() {
    let done = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&done);
    let thief = std::thread::spawn(move || {
        let mut stolen = 0;
        while !theirs.load(Ordering::SeqCst) {
            // SAFETY: a null status asks for none.
            if unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {
                stolen += 1;
            }
        }
        stolen
    });
    let os = real_os(256);
    for round in 0..50 {
        let output = if round % 2 == 0 {
            Output::Discard
        } else {
            CAPTURE
        };
        let runs: Vec<_> = (0..4)
            .map(|_| shell(&*os, "exit 3", output.clone()))
            .collect();
        for run in runs {
            let exit = run.told.end().exit;
            assert!(matches!(exit, Exit::Code(3) | Exit::Lost), "{exit:?}");
            wait_until_gone(&*os, run.run);
        }
    }
    let error = begin(&*os, CommandSpec::new("/no/such", [""; 0]), CAPTURE)
        .told
        .not_started();
    assert!(matches!(error, SpawnError::NotFound { .. }), "{error:?}");
    eventually("no run is left", || (os.live() == 0).then_some(()));
    done.store(true, Ordering::SeqCst);
    assert!(thief.join().unwrap() > 0, "the host has reaped some");
}

/// Nobody can open anything any more when a run ends that left somebody in a group of its own.
fn without_descriptors() {
    let os = real_os(8);
    let lines = Arc::new(Lines::default());
    let run = bash(
        &*os,
        "set -m; sleep 1000 & echo pid $!; exec sleep 1000",
        Output::Lines(Arc::clone(&lines) as _),
    );
    let left: u32 = lines.after("pid ").parse().unwrap();
    let former = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let none = rustix::process::Rlimit {
        current: Some(0),
        ..former
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, none).unwrap();
    run.process.signal(Signal::TERM).unwrap();
    let end = run.told.end();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, former).unwrap();
    wait_until_dead(left);
    let named = [end.killed, end.survivors].concat();
    assert_eq!(named, [left]);
    wait_until_gone(&*os, run.run);
}

/// Our own files take the numbers of the host's closed ones; a child must see none of them.
#[expect(unsafe_code, reason = "closes and restores the standard descriptors")]
fn without_stdio() {
    let saved: Vec<_> = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ]
    .iter()
    .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 10).unwrap())
    .collect();
    for fd in 0..3 {
        // SAFETY: they belong to the program as a whole, which has nothing to say until they are restored.
        unsafe { libc::close(fd) };
    }
    let os = real_os(16);
    // Its descriptor in our process is a low one.
    let first = begin(&*os, CommandSpec::new("sleep", ["1000"]), Output::Discard);
    first.told.pid();
    let mut wrong = Vec::new();
    for output in [Output::Inherit, Output::Discard] {
        let run = begin(&*os, CommandSpec::new("sleep", ["1000"]), output);
        let pid = run.told.pid();
        let links = [0, 1, 2].map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")));
        if !links
            .iter()
            .all(|link| link.as_ref().is_ok_and(|link| link == "/dev/null"))
        {
            wrong.push(links);
        }
    }
    let run = shell(&*os, "echo out; echo err >&2; exit 3", CAPTURE);
    let end = run.told.end();
    for (fd, saved) in saved.iter().enumerate() {
        // SAFETY: what took the number belongs to `os`, which is not used any more.
        unsafe { libc::dup2(saved.as_raw_fd(), i32::try_from(fd).unwrap()) };
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(end.exit, Exit::Code(3));
    let captured = end.captured.unwrap();
    assert_eq!(captured.stdout.head, b"out\n");
    assert_eq!(captured.stderr.head, b"err\n");
}

/// A runtime that cannot have the signals leaves nothing running.
fn two_listeners() {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let options = SignalOptions::default;
        let first = Runtime::builder().signals(options()).start().await.unwrap();
        let threads = Footprint::now().threads;
        let second = Runtime::builder().signals(options()).start().await;
        assert!(matches!(second, Err(StartError::Signals(_))));
        drop(second);
        // They end by and by, and the actors that held them need the runtime for it.
        let clock = kimi_actors::os::clock::Clock::start();
        while Footprint::now().threads > threads {
            assert!(
                clock.now().since_begin() < support::PATIENCE,
                "threads are left"
            );
            tokio::task::yield_now().await;
        }
        first.shutdown().await;
    });
}

#[test]
fn without_the_newer_system_calls_all_is_the_same() {
    for missing in [
        &["clone3:error=ENOSYS"][..],
        &["close_range:error=ENOSYS"],
        &["clone3,close_range:error=ENOSYS"],
    ] {
        play_with_failing(missing, "ordinary");
    }
    play(&[], "ordinary");
}

#[test]
fn an_error_at_any_step_leaves_nothing_behind() {
    // Counted for each thread: the thread that starts processes adds stdout, stderr and the process in this order; the one
    // that makes the operating system adds one descriptor only.
    for failing in [
        "epoll_ctl:error=ENOSPC:when=2",
        "epoll_ctl:error=ENOSPC:when=3",
        "epoll_ctl:error=ENOMEM:when=3",
        "pipe2:error=EMFILE:when=1",
        "pipe2:error=EMFILE:when=2",
    ] {
        play_with_failing(&[failing], "refused once");
    }
    play_with_failing(&["setsid:error=EPERM"], "always refused");
}

#[test]
fn without_processes_and_threads_each_run_is_told_of() {
    // The first two threads of the operating system are made, later ones are not.
    play_with_failing(&["clone3:error=EAGAIN:when=3..8"], "refused for a while");
}

#[test]
fn an_end_that_the_kernel_does_not_tell_is_lost_and_holds_up_nobody() {
    play_with_failing(&["waitid:error=ECHILD"], "lost");
    play(&[], "ignores SIGCHLD");
    play(&[], "reaps everything");
}

#[test]
fn what_a_run_left_is_killed_although_no_file_can_be_opened() {
    play(&[], "without descriptors");
}

#[test]
fn a_host_without_standard_descriptors_gives_its_children_some() {
    play(&[], "without stdio");
}

#[test]
fn a_runtime_that_cannot_listen_to_signals_leaves_nothing_running() {
    play(&[], "two listeners");
}

/// Notes how many lines had come when the end was told.
struct Order {
    lines: Arc<Lines>,
    told: Told,
    at_the_end: Mutex<Option<Vec<String>>>,
}

impl Observer for Order {
    fn tell(&self, news: News) {
        if matches!(news, News::Ended(_)) {
            *self.at_the_end.lock().unwrap() = Some(self.lines.all());
        }
        self.told.tell(news);
    }
}

fn begin_in_order(os: &dyn Os, run: u64, line: &str) -> (Box<dyn Process>, Arc<Order>) {
    let lines = Arc::new(Lines::default());
    let order = Arc::new(Order {
        lines: Arc::clone(&lines),
        told: Told::default(),
        at_the_end: Mutex::default(),
    });
    let process = os.begin(Job {
        stdin: Stdin::default(),
        run: RunId(1_000_000 + run),
        child: ChildName::new("child").unwrap(),
        command: Arc::new(CommandSpec::shell(line)),
        output: Output::Lines(lines),
        observer: Arc::clone(&order) as Arc<dyn Observer>,
        listen: None,
    });
    (process, order)
}

#[test]
fn the_last_lines_of_a_service_come_before_its_end() {
    let _alone = alone();
    let os = real_os(64);
    let runs: Vec<_> = (0..20)
        .map(|run| begin_in_order(&*os, run, "echo one; seq 1 5000; printf last"))
        .collect();
    for (_, order) in &runs {
        assert_eq!(order.told.end().exit, Exit::Code(0));
        let lines = order.at_the_end.lock().unwrap().take().unwrap();
        assert_eq!(lines.len(), 5002);
        assert_eq!(lines.last().unwrap(), "last");
    }
    let stop = "exec 2>/dev/null; trap 'printf bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let (process, order) = begin_in_order(&*os, 100, stop);
    order.lines.after("ready");
    process.signal(Signal::TERM).unwrap();
    assert_eq!(order.told.end().exit, Exit::Code(0));
    let lines = order.at_the_end.lock().unwrap().take().unwrap();
    assert_eq!(lines, ["ready", "bye"]);
}

/// A process that nothing but the test knows, killed with it.
struct Escaped(i32);

impl Drop for Escaped {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

#[test]
fn a_line_without_its_newline_survives_the_end_of_the_runtime() {
    let _alone = alone();
    let os = real_os(4);
    let lines = Arc::new(Lines::default());
    // Somebody who escaped holds the pipe, so that its end never comes.
    let run = shell(
        &*os,
        "setsid sh -c 'echo pid $$ >&2; exec sleep 1000' & printf partial; echo ready >&2; exec sleep 1000",
        Output::Lines(Arc::clone(&lines) as _),
    );
    let _escaped = Escaped(lines.after("pid ").parse().unwrap());
    lines.after("ready");
    drop(os);
    run.told.end();
    lines.after("partial");
}

/// The processes of these sessions that are not dead.
fn members(sessions: &BTreeSet<u32>) -> Vec<(u32, String)> {
    let stat = |entry: io::Result<fs::DirEntry>| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let session: u32 = fields.get(3)?.parse().ok()?;
        (sessions.contains(&session) && fields[0] != "Z").then(|| (pid, stat.clone()))
    };
    fs::read_dir("/proc").unwrap().filter_map(stat).collect()
}

#[test]
fn one_that_forks_again_while_its_leader_ends_does_not_escape() {
    let _alone = alone();
    let os = real_os(64);
    let mut leaders = BTreeSet::new();
    for _ in 0..60 {
        let runs: Vec<Begun> = (0..4)
            .map(|_| {
                let line = "set -m; { { sleep 1000 & } & } & exit 0";
                bash(&*os, line, Output::Discard)
            })
            .collect();
        for run in runs {
            leaders.insert(run.told.pid());
            run.told.end();
            wait_until_gone(&*os, run.run);
        }
    }
    eventually("nobody of them is left", || {
        members(&leaders).is_empty().then_some(())
    });
}

fn memory_bytes(of: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(of)).unwrap();
    let kib: u64 = line
        .trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

#[test]
fn two_thousand_runs_cost_no_memory_no_descriptor_and_no_thread() {
    let _alone = alone();
    let os = real_os(64);
    let round = |count: usize| {
        for batch in 0..count / 20 {
            let lines: Arc<dyn LineSink> = Arc::new(Lines::default());
            let output = [Output::Discard, CAPTURE, Output::Lines(lines)][batch % 3].clone();
            let command = CommandSpec::new("/bin/true", [""; 0]);
            let runs: Vec<_> = (0..20)
                .map(|_| begin(&*os, command.clone(), output.clone()))
                .collect();
            for run in runs {
                assert_eq!(run.told.end().exit, Exit::Code(0));
                wait_until_gone(&*os, run.run);
            }
        }
    };
    round(400);
    let before = (Footprint::now(), memory_bytes("VmRSS"));
    round(2000);
    let after = Footprint::now();
    assert_same(&after.children, &Vec::new(), "children");
    // Those of a former test may have been there still.
    assert!(
        after.descriptors <= before.0.descriptors,
        "{before:?} {after:?}"
    );
    assert!(
        after.threads <= before.0.threads + 2,
        "{before:?} {after:?}"
    );
    let grown = memory_bytes("VmRSS").saturating_sub(before.1);
    assert!(grown < 2 * 1024 * 1024, "grown by {grown} bytes");
}

/// Counts bytes, and how long the longest piece was.
#[derive(Default)]
struct Weigh {
    bytes: AtomicU64,
    longest: AtomicUsize,
}

impl LineSink for Weigh {
    fn line(&self, line: Line<'_>) {
        self.bytes
            .fetch_add(line.bytes.len() as u64, Ordering::Relaxed);
        self.longest.fetch_max(line.bytes.len(), Ordering::Relaxed);
    }
}

#[test]
fn a_line_of_a_gigabyte_is_no_gigabyte_of_memory() {
    const GIGABYTE: u64 = 1 << 30;
    let _alone = alone();
    let os = real_os(4);
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory_bytes("VmHWM");
    let sink = Arc::new(Weigh::default());
    for output in [Output::Lines(Arc::clone(&sink) as _), CAPTURE] {
        let command = CommandSpec::new("head", ["-c", "1G", "/dev/zero"]);
        let run = begin(&*os, command, output);
        let end = run.told.end();
        assert_eq!(end.exit, Exit::Code(0));
        wait_until_gone(&*os, run.run);
        if let Some(captured) = end.captured {
            assert_eq!(captured.stdout.bytes_total, GIGABYTE);
            assert_eq!(captured.stdout.bytes_kept(), 64 * 1024);
        }
    }
    assert_eq!(sink.bytes.load(Ordering::Relaxed), GIGABYTE);
    assert!(sink.longest.load(Ordering::Relaxed) <= kimi_actors::os::output::LINE_MAX);
    let grown = memory_bytes("VmHWM").saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "grown by {grown} bytes");
}

#[test]
fn one_that_closes_its_output_early_runs_on() {
    let _alone = alone();
    let os = real_os(4);
    for output in [CAPTURE, Output::Lines(Arc::new(Lines::default()))] {
        let directory = tempfile::tempdir().unwrap();
        let proof = directory.path().join("proof");
        let line = format!("exec >&- 2>&-; : > '{}'; exec sleep 1000", proof.display());
        let run = shell(&*os, &line, output);
        eventually("it has closed them", || proof.exists().then_some(()));
        assert!(!run.told.has_ended());
        assert_alive(run.told.pid());
        run.process.kill();
        let end = run.told.end();
        assert!(
            end.captured
                .is_none_or(|captured| captured.drained == Drained::Eof)
        );
    }
}

#[test]
fn children_get_the_limit_on_open_files_that_is_set_for_them() {
    let _alone = alone();
    let os = RealOs::new(&RealOsOptions {
        slots: 4,
        child_nofile: Some(321),
        ..RealOsOptions::default()
    })
    .unwrap();
    let run = shell(&os, "ulimit -Sn", CAPTURE);
    assert_eq!(run.told.end().captured.unwrap().stdout.head, b"321\n");
}

/// Blocks whoever tells it of the end.
struct Wedge {
    told: Sender<()>,
    gate: Mutex<Receiver<()>>,
}

impl Observer for Wedge {
    fn tell(&self, news: News) {
        if matches!(news, News::Ended(_)) {
            self.told.send(()).unwrap();
            self.gate.lock().unwrap().recv().ok();
        }
    }
}

#[test]
fn all_are_killed_although_the_thread_that_watches_hangs() {
    let _alone = alone();
    let os = real_os(8);
    let others: Vec<_> = (0..3)
        .map(|_| begin(&*os, CommandSpec::new("sleep", ["1000"]), Output::Discard))
        .collect();
    let pids: Vec<_> = others.iter().map(|run| run.told.pid()).collect();
    let (sender, wedged) = channel();
    let (release, gate) = channel();
    let observer = Arc::new(Wedge {
        told: sender,
        gate: Mutex::new(gate),
    });
    let process = os.begin(Job {
        stdin: Stdin::default(),
        run: RunId(2_000_000),
        child: ChildName::new("child").unwrap(),
        command: Arc::new(CommandSpec::new("true", [""; 0])),
        output: Output::Discard,
        observer,
        listen: None,
    });
    wedged.recv().unwrap();
    os.kill_all();
    assert!(os.live() >= 3);
    pids.into_iter().for_each(wait_until_dead);
    assert!(others.iter().all(|run| !run.told.has_ended()));
    drop(release);
    for run in &others {
        run.told.end();
        wait_until_gone(&*os, run.run);
    }
    drop(process);
    wait_until_gone(&*os, RunId(2_000_000));
}

/// Counts who kills everything.
struct CountKills {
    os: FakeOs,
    kills: AtomicUsize,
}

impl Os for CountKills {
    fn begin(&self, job: Job) -> Box<dyn Process> {
        self.os.begin(job)
    }

    fn when_gone(&self, run: RunId, then: Box<dyn FnOnce() + Send>) {
        self.os.when_gone(run, then);
    }

    fn kill_all(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    fn live(&self) -> usize {
        0
    }
}

fn threads_named(wanted: &str) -> usize {
    let name =
        |task: io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(name)
        .filter(|name| name.trim_end() == wanted)
        .count()
}

#[test]
fn no_deadline_outlives_the_runtime_that_it_was_set_for() {
    let _alone = alone();
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let os = Arc::new(CountKills {
        os: FakeOs::default(),
        kills: AtomicUsize::new(0),
    });
    // Far longer than such a shutdown takes, and no longer than a test may wait.
    let budget = ShutdownTimeout::Set(support::PATIENCE / 2);
    tokio.block_on(async {
        for _ in 0..300 {
            let handle = Runtime::builder()
                .os(Arc::clone(&os) as Arc<dyn Os>)
                .shutdown_timeout(budget)
                .start()
                .await
                .unwrap();
            handle.shutdown().await;
        }
    });
    drop(tokio);
    // The thread of one that is still armed ends after it has killed.
    eventually("no deadline is left", || {
        (threads_named("kimi-deadline") == 0).then_some(())
    });
    assert_eq!(os.kills.load(Ordering::SeqCst), 0);
}

/// Panics at whatever it is told.
struct Panics;

impl Observer for Panics {
    fn tell(&self, _: News) {
        panic!("an observer panics");
    }
}

impl LineSink for Panics {
    fn line(&self, _: Line<'_>) {
        panic!("a sink panics");
    }
}

#[test]
fn a_panic_of_an_observer_a_sink_or_a_waiter_stops_nobody_else() {
    let _alone = alone();
    let os = real_os(8);
    for program in ["/bin/echo", "/no/such"] {
        let run = RunId(3_000_000);
        let process = os.begin(Job {
            stdin: Stdin::default(),
            run,
            child: ChildName::new("child").unwrap(),
            command: Arc::new(CommandSpec::new(program, ["hi"])),
            output: Output::Lines(Arc::new(Panics)),
            observer: Arc::new(Panics),
            listen: None,
        });
        os.when_gone(run, Box::new(|| panic!("a waiter panics")));
        wait_until_gone(&*os, run);
        drop(process);
    }
    let run = shell(&*os, "exit 3", CAPTURE);
    assert_eq!(run.told.end().exit, Exit::Code(3));
}

#[test]
fn begun_killed_and_dropped_at_any_moment_each_run_ends_once() {
    let _alone = alone();
    let os = real_os(512);
    let workers: Vec<_> = (0..3)
        .map(|seed: u64| {
            let os = Arc::clone(&os);
            std::thread::spawn(move || {
                let mut random = seed + 1;
                let mut next = move |below: u64| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (random >> 33) % below
                };
                for _ in 0..150 {
                    let line = [
                        "exit 0",
                        "sleep 1000",
                        "sleep 1000 & exit 1",
                        "echo x; exec sleep 1000",
                    ];
                    let line = line[usize::try_from(next(4)).unwrap()];
                    let output =
                        [Output::Discard, CAPTURE][usize::try_from(next(2)).unwrap()].clone();
                    let run = shell(&*os, line, output);
                    for _ in 0..1 << next(20) {
                        std::hint::spin_loop();
                    }
                    match next(4) {
                        0 => run.process.kill(),
                        1 => run.process.signal(Signal::TERM).unwrap(),
                        2 => os.kill_all(),
                        _ => {}
                    }
                    drop(run.process);
                    wait_until_gone(&*os, run.run);
                    assert!(
                        run.told.is_over(),
                        "the run of `{line}` is gone and was not told of"
                    );
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    nothing_is_left(&*os);
}
