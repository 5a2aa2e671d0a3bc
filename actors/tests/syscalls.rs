//! Each system call of a small life fails once, at each of its places: no process, descriptor or thread is left, nothing
//! hangs, and who asked is told. And the same life on a kernel that lacks some of them.
//!
//! The life is lived by this program again, in a role; strace lets it fail, attached once the program has come up, so that the
//! fault is in what the runtime does and not in the loader. A life tells what came of it in a file, and ends when it is told
//! to: in between it can be looked at.
//!
//! An ordinary run tries some of the places, `KIMI_SEED` says which; `KIMI_FULL=1` tries all.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and a skipped one says so"
)]
#![cfg(target_os = "linux")]

#[expect(
    unreachable_pub,
    dead_code,
    reason = "each test file uses its part of it"
)]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child as StdChild, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kimi_actors::os::clock;
use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{CommandSpec, Governor};
use kimi_actors::policy::tree::State;
use kimi_actors::{Child, Exec, Runtime, RuntimeHandle};
use rustix::process::{Pid, kill_process};
use support::{Footprint, PATIENCE, eventually};

/// The directory of a life, which makes this program live it.
const HERE: &str = "KIMI_TEST_LIFE";
/// Which system calls its kernel lacks, by number.
const LACKS: &str = "KIMI_TEST_LACKS";
/// How long a start that is refused again and again is waited for.
const ENOUGH: Duration = Duration::from_secs(5);
/// How long strace may take to let go of a life.
const LETTING_GO: Duration = Duration::from_secs(2);
/// How many places of each call an ordinary run tries.
const SOME: usize = 3;
/// What fails, and how.
const FAILURES: [(&str, &str); 18] = [
    ("clone3", "EAGAIN"),
    ("clone", "EAGAIN"),
    ("pipe2", "EMFILE"),
    ("epoll_create1", "EMFILE"),
    ("epoll_ctl", "ENOSPC"),
    ("pidfd_open", "EMFILE"),
    ("pidfd_send_signal", "EPERM"),
    ("waitid", "EINTR"),
    ("kill", "EPERM"),
    ("openat", "EMFILE"),
    ("read", "EIO"),
    ("write", "EIO"),
    ("dup3", "EINVAL"),
    ("fcntl", "EINVAL"),
    ("eventfd2", "EMFILE"),
    ("mmap", "ENOMEM"),
    ("close_range", "ENOSYS"),
    ("setsid", "EPERM"),
];

/// A life is looked at from outside, and so is what it starts.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the program does when it is started for a life; nothing in an ordinary run of the tests.
#[test]
fn in_a_role() {
    let Some(here) = std::env::var_os(HERE) else {
        return;
    };
    let here = Path::new(&here);
    // What a program makes once and keeps is there before the life that is looked at.
    let said = on_a_thread_of_its_own("");
    assert!(is_sound(&said), "{said}");
    insist(|| fs::write(here.join("ready"), ""));
    wait_for(&here.join("go"));
    let lacks = std::env::var(LACKS).unwrap_or_default();
    let came_of_it = on_a_thread_of_its_own(&lacks);
    insist(|| fs::write(here.join("said"), &came_of_it));
    insist(|| fs::rename(here.join("said"), here.join("done")));
    wait_for(&here.join("end"));
}

/// A call of the role's own may be the one that fails.
fn insist(act: impl Fn() -> std::io::Result<()>) {
    eventually("it is written", || act().ok());
}

/// By calls that do not fail here.
fn wait_for(path: &Path) {
    eventually("it is told to go on", || path.exists().then_some(()));
}

/// Whether nothing went wrong. Who is slow to die, or cannot be pinned, is named at the end as one that may be left; whether
/// he is, is seen from outside.
fn is_sound(said: &str) -> bool {
    said.starts_with("ready, ready again, hi, stopped, ")
}

fn on_a_thread_of_its_own(lacks: &str) -> String {
    let lacks: Vec<u32> = lacks
        .split_whitespace()
        .map(|it| it.parse().unwrap())
        .collect();
    let life = std::thread::Builder::new().spawn(move || {
        if !lacks.is_empty() {
            older::forget(&lacks);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let lived = runtime.block_on(async { tokio::time::timeout(PATIENCE / 2, live()).await });
        lived.unwrap_or_else(|_| "hangs".to_owned())
    });
    match life {
        Ok(life) => life.join().unwrap_or_else(|_| "panicked".to_owned()),
        Err(error) => format!("no thread: {error}"),
    }
}

/// A command that leaves somebody in a group of his own.
fn leaver() -> CommandSpec {
    CommandSpec::new("/bin/bash", ["-c", "set -m; sleep 1000 & printf hi"])
}

/// Starts one service, restarts it once, runs one command, stops all; says what came of each.
async fn live() -> String {
    let service = Child::command("service", CommandSpec::new("sleep", ["1000"]))
        .unwrap()
        .restart(Restart::Always)
        .stop(Signal::TERM, Duration::from_millis(100))
        .governor(Governor {
            backoff: kimi_actors::policy::backoff::Backoff {
                initial: Duration::from_millis(1),
                max: Duration::from_millis(1),
                ..Governor::default().backoff
            },
            ..Governor::default()
        });
    let handle = match Runtime::builder().child(service).start().await {
        Ok(handle) => handle,
        Err(error) => return format!("not begun: {error}"),
    };
    let mut said = Vec::new();
    let first = settled(&handle, None).await;
    said.push(if first.is_some() { "ready" } else { "failed" }.to_owned());
    if let Some(pid) = first {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        // The test's own call may be the one that fails.
        eventually("it is killed, or has ended", || {
            let killed = kill_process(pid, rustix::process::Signal::KILL);
            matches!(killed, Ok(()) | Err(rustix::io::Errno::SRCH)).then_some(())
        });
        let second = settled(&handle, first).await;
        said.push(
            if second.is_some() {
                "ready again"
            } else {
                "failed"
            }
            .to_owned(),
        );
    }
    said.push(match handle.exec(Exec::new(leaver())).await {
        Ok(outcome) => String::from_utf8_lossy(&outcome.captured.stdout.head).into_owned(),
        Err(error) => error.to_string(),
    });
    said.push(match handle.stop(&["service"]).await {
        Ok(()) => "stopped".to_owned(),
        Err(error) => error.to_string(),
    });
    let report = handle.shutdown().await;
    said.push(if report.survivors.is_empty() {
        "down".to_owned()
    } else {
        format!("{report:?}")
    });
    said.join(", ")
}

/// The process of the service once it is ready and another than before; none: it does not come up.
async fn settled(handle: &RuntimeHandle, before: Option<u32>) -> Option<u32> {
    let clock = clock::Clock::start();
    loop {
        let all = handle.status().await.unwrap();
        let service = &all[1];
        match service.state {
            State::Ready if service.pid != before => return service.pid,
            State::Failed | State::Lost => return None,
            // What lacks is tried for again and again, and here it lacks each time.
            State::Backoff if clock.now().since_begin() > ENOUGH => return None,
            State::Pending
            | State::Starting
            | State::Running
            | State::Ready
            | State::Stopping
            | State::Stopped
            | State::Backoff
            | State::Completed => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// A life in a process of its own. Whatever becomes of it, it ends with this.
struct Life {
    process: StdChild,
    here: tempfile::TempDir,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        for pid in self.left() {
            let pid = Pid::from_raw(pid.cast_signed()).unwrap();
            kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn outside(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.stdin(Stdio::null());
    command
}

impl Life {
    fn begin(lacks: &str) -> Self {
        let here = tempfile::tempdir().unwrap();
        let talk = fs::File::create(here.path().join("talk")).unwrap();
        let process = outside(std::env::current_exe().unwrap())
            .args(["--exact", "in_a_role", "--nocapture", "--test-threads=1"])
            .env(HERE, here.path())
            .env(LACKS, lacks)
            .stdout(talk.try_clone().unwrap())
            .stderr(talk)
            .spawn()
            .unwrap();
        let mut life = Self { process, here };
        assert!(life.comes_to("ready"), "it comes up: {}", life.talk());
        life
    }

    fn talk(&self) -> String {
        fs::read_to_string(self.here.path().join("talk")).unwrap()
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it gets there before it ends.
    fn comes_to(&mut self, point: &str) -> bool {
        let path = self.here.path().join(point);
        eventually(&format!("it is {point}: {}", self.talk()), || {
            let is_there = path.exists();
            (is_there || self.process.try_wait().unwrap().is_some()).then_some(is_there)
        })
    }

    fn tell(&self, what: &str) {
        fs::write(self.here.path().join(what), "").unwrap();
    }

    /// The processes that it has started, however deep.
    fn left(&self) -> Vec<u32> {
        let mark = format!("{HERE}={}", self.here.path().display());
        let has_mark = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
        };
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != self.pid() && has_mark(pid))
            .collect()
    }

    /// Lives with strace attached; what it says of itself, or none if it died. Afterwards nothing may be left.
    fn live(mut self, tracing: &[&str], told: &str) -> Option<String> {
        let before = Footprint::of(self.pid());
        let strace = (!tracing.is_empty()).then(|| Strace::attach(self.pid(), tracing));
        self.tell("go");
        let is_done = self.comes_to("done");
        drop(strace);
        if !is_done {
            return None;
        }
        eventually(&format!("{told}: only {before:?} is left"), || {
            let now = Footprint::of(self.pid());
            let is_within = now.descriptors <= before.descriptors
                && now.threads <= before.threads
                && now.children.is_empty();
            (is_within && self.left().is_empty()).then_some(())
        });
        let said = fs::read_to_string(self.here.path().join("done")).unwrap();
        self.tell("end");
        let status = eventually("it ends", || self.process.try_wait().unwrap());
        assert!(status.success(), "{told}: {}", self.talk());
        Some(said)
    }
}

/// At a process. It lets go of it when it is dropped.
struct Strace(StdChild);

impl Strace {
    fn attach(pid: u32, arguments: &[&str]) -> Self {
        let strace = outside("strace")
            .args(["-f", "-qqq", "-p", &pid.to_string()])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut strace = Self(strace);
        eventually("strace is attached", || {
            assert!(strace.0.try_wait().unwrap().is_none(), "strace goes on");
            is_traced(pid).then_some(())
        });
        strace
    }
}

fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}

impl Drop for Strace {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.0), rustix::process::Signal::INT).ok();
        let clock = clock::Clock::start();
        // One that waits for a process that does not stop never comes to it; killed, it lets go as well.
        while self.0.try_wait().unwrap().is_none() && clock.now().since_begin() < LETTING_GO {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn can_attach() -> bool {
    let ended = outside("strace").arg("-V").stdout(Stdio::null()).status();
    if !ended.is_ok_and(|status| status.success()) {
        return false;
    }
    let life = Life::begin("");
    let attached = outside("strace")
        .args([
            "-f",
            "-qqq",
            "-o",
            "/dev/null",
            "-p",
            &life.pid().to_string(),
        ])
        .stderr(Stdio::null())
        .spawn();
    let mut attached = attached.unwrap();
    let can = eventually("strace is attached or gives up", || {
        let has_given_up = attached.try_wait().unwrap().is_some();
        (has_given_up || is_traced(life.pid())).then_some(!has_given_up)
    });
    drop(Strace(attached));
    can
}

/// How often one thread at most makes each call in a life in which all goes well.
fn places() -> BTreeMap<String, usize> {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let calls = FAILURES.map(|(call, _)| call).join(",");
    let tracing = [
        "-o",
        trace.to_str().unwrap(),
        "-e",
        &format!("trace={calls}"),
    ];
    let said = Life::begin("").live(&tracing, "all goes well");
    assert!(said.as_deref().is_some_and(is_sound), "{said:?}");
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        if let Some((name, _)) = call.trim_start().split_once('(')
            && !name.starts_with('<')
        {
            *counts
                .entry((name.to_owned(), thread.to_owned()))
                .or_default() += 1;
        }
    }
    let mut places = BTreeMap::new();
    for ((name, _), count) in counts {
        let most = places.entry(name).or_default();
        *most = count.max(*most);
    }
    places
}

#[test]
fn whichever_system_call_fails_nothing_is_left_and_nothing_hangs() {
    let _alone = alone();
    if std::env::var_os(HERE).is_some() {
        return;
    }
    if !can_attach() {
        eprintln!("SKIPPED: failing system calls: strace is missing or not permitted here");
        return;
    }
    let is_full = std::env::var("KIMI_FULL").is_ok_and(|value| value == "1");
    let seed = std::env::var("KIMI_SEED").map_or_else(|_| clock::seed(), |it| it.parse().unwrap());
    eprintln!("KIMI_SEED={seed}");
    let places = places();
    eprintln!("{places:?}");
    let mut tried = 0;
    for (call, error) in FAILURES {
        let most = places.get(call).copied().unwrap_or_default();
        let step = if is_full {
            1
        } else {
            most.div_ceil(SOME).max(1)
        };
        let first = usize::try_from(seed % 1024).unwrap() % step;
        for place in (1..=most).skip(first).step_by(step) {
            let inject = format!("inject={call}:error={error}:when={place}");
            eprintln!("{inject}");
            let tracing = [
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
                &inject,
            ];
            let life = Life::begin("");
            let talk = life.here.path().join("talk");
            match life.live(&tracing, &inject) {
                Some(said) => {
                    eprintln!("    {said}");
                    assert!(
                        !said.contains("hangs") && !said.contains("panicked"),
                        "{said}"
                    );
                }
                // A program that gets no memory may end; what then becomes of its children is tried elsewhere.
                None => assert_eq!(
                    call,
                    "mmap",
                    "{}",
                    fs::read_to_string(talk).unwrap_or_default()
                ),
            }
            tried += 1;
        }
    }
    assert!(tried > FAILURES.len(), "{tried}");
}

#[test]
fn on_an_older_kernel_all_is_the_same() {
    let _alone = alone();
    for lacking in [
        &[libc::SYS_pidfd_open][..],
        &[libc::SYS_close_range],
        &[libc::SYS_clone3],
        &[
            libc::SYS_pidfd_open,
            libc::SYS_close_range,
            libc::SYS_clone3,
        ],
    ] {
        let numbers: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        let said = Life::begin(&numbers.join(" ")).live(&[], "an older kernel");
        let is_sound = said.as_deref().is_some_and(is_sound);
        assert!(is_sound, "without {lacking:?}: {said:?}");
    }
}

/// A kernel that lacks system calls: a filter answers as one would that does not know them (`seccomp(2)`).
#[expect(unsafe_code, reason = "a filter is installed through libc only")]
mod older {
    /// For this thread and all that it starts.
    pub(super) fn forget(calls: &[u32]) {
        let length = u8::try_from(calls.len()).unwrap();
        let step = |code: u32, then: u8, otherwise: u8, k: u32| libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt: then,
            jf: otherwise,
            k,
        };
        // The number of the call is what the record of it begins with.
        let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
        for (left, call) in (0..length).rev().zip(calls) {
            program.push(step(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                left + 1,
                0,
                *call,
            ));
        }
        let unknown = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::ENOSYS).unwrap();
        program.push(step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ALLOW,
        ));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, unknown));
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).unwrap(),
            filter: program.as_mut_ptr(),
        };
        // SAFETY: it takes numbers only.
        let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        assert_eq!(promised, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the filter and its program live as long as the call, and its jumps stay within it.
        let installed = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            )
        };
        assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
    }
}
