//! Supervisors as processes: ours, the library alone, and the reference in C; their children report to a FIFO.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use tempfile::TempDir;

use crate::support::library;
use crate::support::now_ns;

/// Nothing that is waited for takes so long.
const PATIENCE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};
/// What a child writes when it begins.
const RECORD_BYTES: usize = 16;
/// So many reports a FIFO holds for certain.
const BATCH: usize = 2000;
const LOOK_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Who supervises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `kimi-shell start` with a manifest.
    Program,
    /// The library with nothing around it.
    Library,
    /// The reference in C.
    Reference,
}

/// Whether the children tell when they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    Telling,
    Silent,
}

/// The compiled reference and a place for files.
#[derive(Debug)]
pub(crate) struct Bed {
    directory: TempDir,
    supervisor: PathBuf,
    child: PathBuf,
}

impl Bed {
    /// Compiles what is written in C into the target directory.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is a place for temporary files");
        let supervisor = compile("supervisor", &[]);
        let child = compile(
            "child",
            &[
                "-static",
                "-nostdlib",
                "-ffreestanding",
                "-fno-stack-protector",
            ],
        );
        Self {
            directory,
            supervisor,
            child,
        }
    }

    /// Starts a supervisor with so many children; returns at once.
    pub(crate) fn start(&self, kind: Kind, count: usize, children: Children) -> Supervisor {
        let fifo = self.directory.path().join(format!("fifo-{}", now_ns()));
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .expect("a FIFO can be made");
        // Held open for reading and writing, opening it waits for nobody, and it never ends.
        let reports = File::options()
            .read(true)
            .write(true)
            .open(&fifo)
            .expect("the FIFO was just made");
        let mut command = command(match kind {
            Kind::Program => Path::new(env!("CARGO_BIN_EXE_kimi-shell")).to_owned(),
            Kind::Library => std::env::current_exe().expect("the system knows this program"),
            Kind::Reference => self.supervisor.clone(),
        });
        let mut words = vec![self.child.clone()];
        if children == Children::Telling {
            words.push(fifo);
        }
        match kind {
            Kind::Program => {
                let manifest = self
                    .directory
                    .path()
                    .join(format!("manifest-{}.yaml", now_ns()));
                std::fs::write(&manifest, manifest_of(count, &words))
                    .expect("the temporary place can be written to");
                command
                    .arg("start")
                    .arg("-f")
                    .arg(manifest)
                    .stdout(Stdio::null());
            }
            Kind::Library => {
                command
                    .arg(library::ARGUMENT)
                    .arg(count.to_string())
                    .args(words)
                    .stdout(Stdio::piped());
            }
            Kind::Reference => {
                command
                    .arg(count.to_string())
                    .args(words)
                    .stdout(Stdio::piped());
            }
        }
        command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .env("HOME", self.directory.path());
        let begun_ns = now_ns();
        let process = command.spawn().expect("the supervisor can be executed");
        Supervisor {
            process,
            reports,
            begun_ns,
            is_over: false,
        }
    }

    /// Starts a supervisor and waits until every child runs.
    pub(crate) fn up(&self, kind: Kind, count: usize) -> Supervisor {
        let mut supervisor = self.start(kind, count, Children::Telling);
        supervisor.reports(count);
        supervisor
    }
}

pub(crate) fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/reference/{name}.c"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reference-{name}"));
    let status = command("cc".into())
        .arg("-O2")
        .args(flags)
        .arg("-o")
        .arg(&target)
        .arg(&source)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cc compiles {}",
        source.display()
    );
    target
}

/// A command outside of any supervision.
pub(crate) fn command(program: PathBuf) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench stands outside of the supervision that it measures"
    )]
    Command::new(program)
}

/// Services that restart at once, however often: each run counts as stable.
fn manifest_of(count: usize, words: &[PathBuf]) -> String {
    let mut text = String::from("version: 1\n");
    text.push_str("settings: { restart: { max_restarts: 1000000, backoff: { initial: 0s, reset_after: 0s } } }\n");
    text.push_str("services:\n");
    let words = words
        .iter()
        .map(|word| word.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    for number in 0..count {
        writeln!(text, "  child-{number}: {{ command: [{words}] }}")
            .expect("memory can be written to");
    }
    text
}

/// What a child says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    pub(crate) at_ns: i64,
    pub(crate) pid: i32,
}

impl Began {
    /// How long a report is.
    pub(crate) const BYTES: usize = RECORD_BYTES;

    pub(crate) fn of(record: [u8; RECORD_BYTES]) -> Self {
        let (at, rest) = record.split_at(8);
        Self {
            at_ns: i64::from_ne_bytes(at.try_into().expect("eight bytes")),
            pid: i32::from_ne_bytes(rest[..4].try_into().expect("four bytes")),
        }
    }
}

/// A supervisor that runs; ended with what it holds when it is dropped.
#[derive(Debug)]
pub(crate) struct Supervisor {
    process: Child,
    reports: File,
    /// When it was started.
    pub(crate) begun_ns: i64,
    is_over: bool,
}

impl Supervisor {
    /// The process that supervises.
    pub(crate) fn pid(&self) -> u32 {
        *self.pids().last().expect("there is one at least")
    }

    /// All processes that it consists of: the guardian, if it has one, and the one that supervises.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let visible = self.process.id();
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{visible}/{name}"));
        if file("comm").expect("the process is there") != "kimi-guardian\n" {
            return vec![visible];
        }
        let children = file(&format!("task/{visible}/children")).expect("the kernel tells them");
        let runtime = children.split_ascii_whitespace().next();
        let runtime = runtime.and_then(|pid| pid.parse().ok());
        vec![visible, runtime.expect("a guardian has a runtime")]
    }

    /// The next beginnings of children, so many.
    ///
    /// Looks only now and then: whoever is woken by each of a thousand children takes their processor time.
    pub(crate) fn reports(&mut self, count: usize) -> Vec<Began> {
        let mut began = Vec::with_capacity(count);
        let deadline_ns = now_ns() + PATIENCE.tv_sec * 1_000_000_000;
        while began.len() < count {
            let batch = (count - began.len()).min(BATCH);
            let waiting = ioctl_fionread(&self.reports).expect("a FIFO knows how much it holds");
            if waiting >= (batch * RECORD_BYTES) as u64 {
                began.extend((0..batch).map(|_| self.report()));
            } else {
                assert!(
                    now_ns() < deadline_ns,
                    "{} of {count} children began in a minute",
                    began.len()
                );
                pause(LOOK_AGAIN);
            }
        }
        began
    }

    /// The next beginning of a child.
    pub(crate) fn report(&mut self) -> Began {
        let mut polled = [PollFd::new(&self.reports, PollFlags::IN)];
        let ready = poll(&mut polled, Some(&PATIENCE)).expect("a FIFO can be waited for");
        assert!(
            ready > 0,
            "no child began for a minute; the supervisor: {:?}",
            self.process.try_wait()
        );
        let mut record = [0; RECORD_BYTES];
        self.reports
            .read_exact(&mut record)
            .expect("a report is written whole");
        Began::of(record)
    }

    /// Waits until the library or the reference says that it is set up.
    pub(crate) fn ready(&mut self) {
        let stdout = self.process.stdout.as_mut().expect("these two have a pipe");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the pipe can be read");
        assert_eq!(line, "ready\n");
    }

    /// Asks it to end and waits for that; returns how many milliseconds it took.
    pub(crate) fn stop(mut self) -> f64 {
        let begin_ns = now_ns();
        self.end();
        super::ms_since(begin_ns)
    }

    /// The same; returns how often its threads were switched since this many switches.
    pub(crate) fn stop_counting(mut self, before: u64) -> f64 {
        send(self.process.id(), Signal::TERM);
        let after = wait_counting(self.process.id());
        self.is_over = true;
        #[expect(clippy::cast_precision_loss, reason = "these are few")]
        let switches = after.saturating_sub(before) as f64;
        switches
    }

    fn end(&mut self) {
        if !self.is_over {
            send(self.process.id(), Signal::TERM);
            self.process
                .wait()
                .expect("our own child can be waited for");
            self.is_over = true;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a signal to a process that is not reaped.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = pid
        .try_into()
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process has a positive id");
    kill_process(pid, signal).expect("the process is there");
}

/// Waits for our child; returns how often its threads were switched, those that have ended included.
#[expect(unsafe_code, reason = "no safe wrapper of wait4 returns the usage")]
fn wait_counting(pid: u32) -> u64 {
    let pid = pid.try_into().expect("an id is small");
    // SAFETY: a rusage of zeros is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: both places live until the call returns.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(reaped, pid, "our own child can be waited for");
    (usage.ru_nvcsw + usage.ru_nivcsw).unsigned_abs()
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the process is there")
        .count()
}

/// How often the threads that a process has were switched until now.
pub(crate) fn switches(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    tasks
        .map(|task| {
            let path = task.expect("a directory can be read").path().join("status");
            // A thread may end while we look.
            let status = std::fs::read_to_string(path).unwrap_or_default();
            field(&status, "voluntary_ctxt_switches:")
                + field(&status, "nonvoluntary_ctxt_switches:")
        })
        .sum()
}

/// A line of `/proc/PID/status`, its number; kilobytes where it is memory.
pub(crate) fn status(pid: u32, key: &str) -> u64 {
    field(
        &std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there"),
        key,
    )
}

/// Kilobytes of memory, of which what several processes share is divided among them.
pub(crate) fn proportional(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    field(
        &std::fs::read_to_string(path).expect("the process is there"),
        "Pss:",
    )
}

fn field(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    value
        .and_then(|value| value.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

/// How many children a supervisor can have that holds three descriptors for each: at most so many.
pub(crate) fn most_children(wanted: usize) -> usize {
    let hard = getrlimit(Resource::Nofile)
        .maximum
        .and_then(|limit| usize::try_from(limit).ok());
    hard.map_or(wanted, |hard| {
        wanted.min(hard.saturating_sub(200) / 3 / 500 * 500)
    })
}

/// Lets things settle. A bench may wait for a while, where a test must wait for a fact.
pub(crate) fn pause(duration: Timespec) {
    drop(rustix::thread::nanosleep(&duration));
}
