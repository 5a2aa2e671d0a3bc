//! A supervisor at work in a process and a directory of its own.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kimi_actors::policy::event::Fact;
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::signal::Signal;
use rustix::process::{Pid, kill_process};

use super::fact::eventually;
use super::process::{self, MARK};
use super::{kimi_shell, outside};

/// Says to this program that it is to play a role instead of running its tests.
pub const ROLE: &str = "KIMI_TEST_ROLE";
/// What a test finds in its directory.
const LAYOUT: [&str; 3] = ["home", "out", "tmp"];
const MANIFEST: &str = "kimi-shell.yaml";

/// A directory of a test's own: `out` is for its children; `home` and `tmp` must stay empty.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Without a manifest.
    pub fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in LAYOUT {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    /// With this manifest.
    pub fn new(manifest: &str) -> Self {
        let place = Self::empty();
        fs::write(place.directory.path().join(MANIFEST), manifest).unwrap();
        place
    }

    /// A file of the children.
    pub fn out(&self, name: &str) -> PathBuf {
        self.directory.path().join("out").join(name)
    }

    /// Its manifest.
    pub fn manifest(&self) -> PathBuf {
        self.directory.path().join(MANIFEST)
    }

    /// Where temporary files are made, and those of a runtime.
    pub fn temporary(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    /// The program with these words, started by another with those.
    pub fn command_by(&self, starter: &str, with: &[&str], words: &[&str]) -> Command {
        let mut command = outside(starter);
        command
            .args(with)
            .arg(env!("CARGO_BIN_EXE_kimi-shell"))
            .args(words)
            .current_dir(self.directory.path())
            .env_clear()
            .stdin(Stdio::null());
        self.settle(&mut command);
        command
    }

    /// The program with these words, to be started here.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = kimi_shell(self.directory.path());
        command.args(words);
        self.settle(&mut command);
        command
    }

    /// The program with these words, started by a shell that says this first.
    pub fn command_after(&self, line: &str, words: &[&str]) -> Command {
        let script = format!("{line}; exec \"$0\" \"$@\"");
        let mut command = outside("/bin/sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_kimi-shell")])
            .args(words)
            .current_dir(self.directory.path())
            .env_clear()
            .stdin(Stdio::null());
        self.settle(&mut command);
        command
    }

    /// This program in a role.
    pub fn role(&self, role: &str) -> Command {
        let mut command = outside(std::env::current_exe().unwrap());
        command
            .args(["--exact", "in_a_role", "--nocapture"])
            .current_dir(self.directory.path())
            .env_clear()
            .env(ROLE, role)
            .stdin(Stdio::null());
        self.settle(&mut command);
        command
    }

    fn settle(&self, command: &mut Command) {
        let here = self.directory.path();
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", here.join("home"))
            .env("TMPDIR", here.join("tmp"))
            .env("XDG_RUNTIME_DIR", here.join("tmp"))
            .env(MARK, here);
    }

    /// What everything started here has in its environment.
    pub fn mark(&self) -> String {
        format!("{MARK}={}", self.mark_value())
    }

    /// The value of it.
    pub fn mark_value(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// Starts the program, with its events as JSON.
    pub fn start(self, words: &[&str]) -> Supervisor {
        let words = [&["start", "-o", "ndjson"], words].concat();
        let command = self.command(&words);
        Supervisor::run(self, command)
    }

    /// Fails if anything but the children's own files is left.
    pub fn assert_tidy(&self) {
        let names = |path: PathBuf| -> Vec<String> {
            let entries = fs::read_dir(path).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name != MANIFEST)
                .collect();
            names.sort();
            names
        };
        let here = self.directory.path();
        assert_eq!(names(here.to_owned()), LAYOUT, "no file is left");
        for empty in ["home", "tmp"] {
            assert_eq!(
                names(here.join(empty)),
                [""; 0],
                "no file is left in {empty}"
            );
        }
    }
}

/// A supervisor at work. What it has started is killed at the latest when this is dropped.
pub struct Supervisor {
    child: Child,
    place: Place,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// One event, as it was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// In milliseconds since the beginning.
    pub at_ms: u64,
    /// What.
    pub fact: Fact,
}

/// How it all ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// Every event.
    pub story: Vec<Told>,
    /// Standard output, by lines.
    pub stdout: Vec<String>,
    /// Standard error, by lines.
    pub stderr: Vec<String>,
}

impl Supervisor {
    /// Starts it and reads both of its outputs.
    pub fn run(place: Place, command: Command) -> Self {
        let (mut supervisor, stdout) = Self::run_unread(place, command);
        let lines = Arc::clone(&supervisor.stdout);
        supervisor.readers.push(reader(stdout, lines));
        supervisor
    }

    /// Starts it and leaves its standard output to the test.
    pub fn run_unread(place: Place, mut command: Command) -> (Self, ChildStdout) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut supervisor = Self {
            child,
            place,
            stdout: Arc::default(),
            stderr: Arc::default(),
            readers: Vec::new(),
        };
        let lines = Arc::clone(&supervisor.stderr);
        supervisor.readers.push(reader(stderr, lines));
        (supervisor, stdout)
    }

    /// Its visible process: the guardian.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process below it that supervises.
    pub fn runtime(&self) -> u32 {
        eventually("there is a runtime", || process::runtime_of(self.pid()))
    }

    /// Kills both of its processes at once: the guardian is stopped before, so that it does nothing in between.
    pub fn kill_both(&mut self) {
        let runtime = self.runtime();
        kill_process(Pid::from_child(&self.child), rustix::process::Signal::STOP).unwrap();
        eventually("it has stopped", || {
            (process::state_of(self.pid()) == Some('T')).then_some(())
        });
        assert!(process::kill(runtime, &self.place.mark()));
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end of its visible process, however that comes, and of all that it has started.
    pub fn end_with_all(&mut self) -> ExitStatus {
        let status = self.wait();
        let mark = self.place.mark();
        eventually("every process is gone", || {
            process::with_environment(&mark).is_empty().then_some(())
        });
        status
    }

    /// Waits for the end of its visible process.
    pub fn status(&mut self) -> ExitStatus {
        self.wait()
    }

    /// What it has said so far on standard error.
    pub fn talked(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Its directory.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Sends it a signal.
    pub fn send(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal.number()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has told so far.
    pub fn story(&self) -> Vec<Told> {
        story(&self.stdout.lock().unwrap())
    }

    /// Waits for an event and what is to be known of it.
    pub fn fact<T>(&self, what: &str, find: impl FnMut(&Fact) -> Option<T>) -> T {
        self.fact_after(0, what, find)
    }

    /// The same, among the events after so many.
    pub fn fact_after<T>(
        &self,
        skipped: usize,
        what: &str,
        mut find: impl FnMut(&Fact) -> Option<T>,
    ) -> T {
        self.watch(what, |supervisor| {
            let story = supervisor.story();
            story.iter().skip(skipped).find_map(|told| find(&told.fact))
        })
    }

    /// Waits for an object of this type.
    pub fn object(&self, kind: &str) -> serde_json::Value {
        self.watch(&format!("it tells {kind}"), |supervisor| {
            let lines = supervisor.stdout.lock().unwrap();
            objects(&lines).find(|object| object["type"] == kind)
        })
    }

    /// Waits for a line on standard error and what is to be known of it.
    pub fn talk<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        self.watch(what, |supervisor| {
            let lines = supervisor.stderr.lock().unwrap();
            lines.iter().find_map(|line| find(line))
        })
    }

    /// Waits for a line on standard output.
    pub fn says(&self, text: &str) {
        self.watch(&format!("it says {text}"), |supervisor| {
            let lines = supervisor.stdout.lock().unwrap();
            lines.iter().any(|line| line == text).then_some(())
        });
    }

    /// Waits for a line that a child of it has written, without its beginning.
    pub fn line(&self, child: &str, prefix: &str) -> String {
        self.watch(&format!("{child} writes {prefix}"), |supervisor| {
            let lines = child_lines(&supervisor.stdout.lock().unwrap(), child);
            lines
                .iter()
                .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
        })
    }

    /// Waits, and says what was told if that was in vain.
    fn watch<T>(&self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || ask(self))
        }));
        asked.unwrap_or_else(|_| {
            let stdout = self.stdout.lock().unwrap().join("\n");
            let stderr = self.stderr.lock().unwrap().join("\n");
            panic!("in vain until {what}:\n{stdout}\n{stderr}")
        })
    }

    /// Waits until a child runs for the nth time, from 1; returns its process.
    pub fn pid_of(&self, child: &str, nth: usize) -> u32 {
        self.watch(&format!("{child} runs for time {nth}"), |supervisor| {
            pids_of(&supervisor.story(), child).get(nth - 1).copied()
        })
    }

    /// Kills a process that it has started.
    pub fn kill(&self, pid: u32) {
        let mark = self.place.mark();
        // The kernel shows the environment a moment after the program has begun.
        eventually(&format!("{pid} is ours"), || {
            process::kill(pid, &mark).then_some(())
        });
    }

    /// Waits for its end and fails if it leaves anything.
    pub fn end(mut self) -> Ended {
        let status = self.wait();
        self.ended(status)
    }

    /// The same, but for nothing to be left in the very moment of its end.
    pub fn end_at_once(mut self) -> Ended {
        let status = self.wait();
        let left = process::with_environment(&self.place.mark());
        assert_eq!(left, [0; 0], "processes are left");
        self.ended(status)
    }

    fn ended(mut self, status: ExitStatus) -> Ended {
        let forced = matches!(status.code(), Some(131 | 137));
        let story = self.story_at_the_end();
        for pid in story.iter().filter_map(|told| pid_in(&told.fact)) {
            if forced {
                eventually("what was killed is dead", || {
                    (!process::is_alive(pid)).then_some(())
                });
            } else {
                assert_eq!(process::state_of(pid), None, "{pid} is left: {story:#?}");
            }
        }
        let mark = self.place.mark();
        eventually("every process is gone", || {
            process::with_environment(&mark).is_empty().then_some(())
        });
        self.place.assert_tidy();
        let code = status.code();
        let lines = |of: &Mutex<Vec<String>>| of.lock().unwrap().clone();
        Ended {
            code: code.unwrap_or_else(|| panic!("it died of {:?}", status.signal())),
            story,
            stdout: lines(&self.stdout),
            stderr: lines(&self.stderr),
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("it ends", || self.child.try_wait().unwrap())
        }));
        asked.unwrap_or_else(|_| panic!("it does not end: {:#?}", self.story()))
    }

    fn story_at_the_end(&mut self) -> Vec<Told> {
        for reader in self.readers.drain(..) {
            eventually("its outputs are closed", || {
                reader.is_finished().then_some(())
            });
            reader.join().unwrap();
        }
        self.story()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It is not reaped, or has been by `wait`, and then this does nothing.
        drop(self.child.kill());
        drop(self.child.wait());
        let mark = self.place.mark();
        for pid in process::with_environment(&mark) {
            process::kill(pid, &mark);
        }
    }
}

impl Ended {
    /// The children that an event of a kind was told of, in order.
    pub fn order(&self, pick: impl Fn(&Fact) -> Option<&str>) -> Vec<&str> {
        order(&self.story, pick)
    }

    /// Every object that was told.
    pub fn objects(&self) -> impl Iterator<Item = serde_json::Value> {
        objects(&self.stdout)
    }

    /// The lines that a child has written.
    pub fn lines_of(&self, child: &str) -> Vec<String> {
        child_lines(&self.stdout, child)
    }

    /// How a run of a child ended, from 1.
    pub fn exit_of(&self, child: &str, nth: usize) -> Exit {
        let exits: Vec<Exit> = self
            .story
            .iter()
            .filter_map(|told| match &told.fact {
                Fact::Exited {
                    child: of, exit, ..
                } if of.as_str() == child => Some(*exit),
                _ => None,
            })
            .collect();
        exits[nth - 1]
    }
}

/// The children that an event of a kind was told of, in order.
pub fn order(story: &[Told], pick: impl Fn(&Fact) -> Option<&str>) -> Vec<&str> {
    story.iter().filter_map(|told| pick(&told.fact)).collect()
}

/// Picks the children whose process came to exist.
pub fn running(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Running { child, .. } => Some(child.as_str()),
        _ => None,
    }
}

/// Picks the children that were asked to stop.
pub fn stopping(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Stopping { child, .. } => Some(child.as_str()),
        _ => None,
    }
}

/// Picks the children whose run ended.
pub fn exited(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Exited { child, .. } => Some(child.as_str()),
        _ => None,
    }
}

/// Picks the children that failed.
pub fn failed(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Failed { child, .. } => Some(child.as_str()),
        _ => None,
    }
}

fn pids_of(story: &[Told], child: &str) -> Vec<u32> {
    let pid = |told: &Told| pid_in(&told.fact).filter(|_| running(&told.fact) == Some(child));
    story.iter().filter_map(pid).collect()
}

fn pid_in(fact: &Fact) -> Option<u32> {
    match fact {
        Fact::Running { pid, .. } => *pid,
        _ => None,
    }
}

/// What is told in JSON, one object a line; other lines are none of ours.
fn objects(lines: &[String]) -> impl Iterator<Item = serde_json::Value> {
    lines
        .iter()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(serde_json::Value::is_object)
}

fn story(lines: &[String]) -> Vec<Told> {
    objects(lines)
        .filter(|object| object["type"] == "event")
        .map(|object| Told {
            at_ms: object["at_ms"].as_u64().unwrap(),
            fact: serde_json::from_value(object["fact"].clone()).unwrap(),
        })
        .collect()
}

fn child_lines(lines: &[String], child: &str) -> Vec<String> {
    objects(lines)
        .filter(|object| object["type"] == "line" && object["service"] == child)
        .map(|object| object["text"].as_str().unwrap().to_owned())
        .collect()
}

fn reader(from: impl Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            into.lock().unwrap().push(line);
        }
    })
}
