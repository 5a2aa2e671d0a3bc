//! The guardian above the runtime: whoever of the two dies, and however, nothing is left.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

pub mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use kimi_actors::policy::event::Fact;
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::signal::Signal;
use rustix::process::{Pid, Signal as Number, kill_process, kill_process_group};
use support::fact::eventually;
use support::process::{self, Footprint, is_alive, state_of};
use support::supervisor::{Place, Supervisor};
use support::{Answer, outside, skip};

/// Services that do what they can to stay: they ignore being asked, leave their session, fork twice, are stopped. What leaves its family says so with the mark by which a runtime is to know it.
const STAYING: &str = r#"
version: 1
services:
  deaf: { shell: "trap '' TERM INT HUP; echo up; while :; do sleep 1000; done" }
  leaving:
    shell: |
      export KIMI_RUN="$PPID-$(cut -d ' ' -f 22 "/proc/$PPID/stat")-boot-0.7"
      trap '' TERM
      setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' &
      (setsid sh -c '(setsid sleep 1000 > /dev/null 2>&1 &) ; sleep 1000' > /dev/null 2>&1 &)
      echo up
      wait
  stopped: { shell: 'echo up; kill -STOP $$; sleep 1000' }
"#;

/// What is asked for where a test is about the guardian and the ledger alone.
const BY_ADOPTION: &str = "--require-containment=subreaper";

/// So many processes these are at least, once all of them are there.
const STAYERS: usize = 2 + 4 + 2 + 1;

/// One that goes on to write where nobody reads.
const CHATTY: &str = r#"
  chatty: { shell: "trap '' PIPE; echo up; while :; do echo more; sleep 0.01; done 2> /dev/null" }
"#;

const QUIET: &str = "
version: 1
services:
  quiet: { command: [sleep, 1000] }
";

const OVER_AT_ONCE: &str = "
version: 1
services:
  over: { type: task, command: ['true'] }
";

fn staying() -> Supervisor {
    all_there(Place::new(STAYING).start(&[]))
}

fn all_there(supervisor: Supervisor) -> Supervisor {
    for name in ["deaf", "leaving", "stopped"] {
        supervisor.line(name, "up");
    }
    let own = [supervisor.pid(), supervisor.runtime()];
    eventually("all are there", || {
        let all = process::with_environment(&supervisor.place().mark());
        let started = all.iter().filter(|pid| !own.contains(pid));
        (started.count() >= STAYERS).then_some(())
    });
    supervisor
}

fn send(pid: u32, signal: Number) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn assert_says(supervisor: &Supervisor, beginning: &str) {
    supervisor.talk(beginning, |line| line.starts_with(beginning).then_some(()));
}

/// A process that no runtime has started.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(outside("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_runtime_that_is_killed_leaves_nothing() {
    let place = Place::new(&format!("{STAYING}{CHATTY}"));
    let mut supervisor = all_there(place.start(&[]));
    supervisor.line("chatty", "more");
    send(supervisor.runtime(), Number::KILL);
    assert_eq!(supervisor.end_with_all().code(), Some(137));
    assert_says(
        &supervisor,
        "kimi-shell: the runtime died of SIGKILL; killed ",
    );
    supervisor.place().assert_tidy();
}

#[test]
fn a_guardian_that_is_killed_takes_everything_with_it() {
    let mut supervisor = staying();
    send(supervisor.pid(), Number::KILL);
    assert_eq!(supervisor.end_with_all().signal(), Some(9));
    eventually("no file is left", || {
        let runtime_directory = supervisor.place().temporary().join("kimi-shell");
        (!runtime_directory.exists()).then_some(())
    });
    supervisor.place().assert_tidy();
}

#[test]
fn a_guardian_that_is_killed_lets_children_end_in_their_own_way() {
    let mut supervisor = Place::new(
        r#"
version: 1
services:
  polite: { shell: "trap 'echo asked > out/asked; exit' TERM; echo up; while :; do sleep 0.01; done" }
"#,
    )
    .start(&[]);
    supervisor.line("polite", "up");
    send(supervisor.pid(), Number::KILL);
    supervisor.end_with_all();
    assert!(supervisor.place().out("asked").exists());
}

#[test]
fn when_both_are_killed_the_next_start_cleans_up_and_touches_no_stranger() {
    let stranger = Stranger::new();
    let mut supervisor = all_there(Place::new(STAYING).start(&[BY_ADOPTION]));
    let runtime = supervisor.runtime();
    supervisor.kill_both();
    let mark = supervisor.place().mark();
    eventually("the runtime is gone", || (!is_alive(runtime)).then_some(()));
    let left = process::with_environment(&mark);
    assert!(left.len() >= STAYERS, "what was started lives on");

    let answer = again(supervisor.place());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    for pid in left {
        let end = format!(" (pid {pid}), left by a runtime that died");
        let is_said = |line: &str| line.starts_with("cleaned up: ") && line.ends_with(&end);
        assert!(answer.stderr.lines().any(is_said), "{pid}: {answer:?}");
        assert!(!is_alive(pid), "{pid} is left");
    }
    assert!(is_alive(stranger.0.id()));
    supervisor.place().assert_tidy();
}

/// Starts what is over at once in the same project.
fn again(place: &Place) -> Answer {
    fs::write(place.manifest(), OVER_AT_ONCE).unwrap();
    Answer::of(&place.command(&["start", "-o", "plain"]).output().unwrap())
}

/// The ledger of a runtime that was killed with its guardian, and what it had started.
///
/// Without control groups, since any other start would empty what is left of them.
fn orphaned() -> (Supervisor, u32, PathBuf) {
    let mut supervisor = Place::new(QUIET).start(&[BY_ADOPTION]);
    let child = supervisor.pid_of("quiet", 1);
    let runtime = supervisor.runtime();
    supervisor.kill_both();
    eventually("the runtime is gone", || (!is_alive(runtime)).then_some(()));
    let directory = supervisor.place().temporary().join("kimi-shell");
    let mut files = fs::read_dir(directory).unwrap();
    let ledger = files.next().unwrap().unwrap().path();
    (supervisor, child, ledger)
}

/// Where the entry of this process stands in a ledger.
fn place_of(pid: u32, ledger: &[u8]) -> usize {
    let head = 72;
    let entries = ledger[head..].chunks_exact(16);
    let index = entries
        .enumerate()
        .find(|(_, entry)| entry[12..] == pid.to_ne_bytes())
        .unwrap()
        .0;
    head + index * 16
}

#[test]
fn a_stranger_who_got_a_recorded_id_is_not_touched() {
    let (supervisor, child, ledger) = orphaned();
    let stranger = Stranger::new();
    let mut text = fs::read(&ledger).unwrap();
    let at = place_of(child, &text);
    // As if that id had been given out again: it began later than what is recorded.
    text[at + 12..at + 16].copy_from_slice(&stranger.0.id().to_ne_bytes());
    let began = u64::from_ne_bytes(text[at..at + 8].try_into().unwrap());
    text[at..at + 8].copy_from_slice(&(began - 1000).to_ne_bytes());
    fs::write(&ledger, text).unwrap();

    let answer = again(supervisor.place());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(is_alive(stranger.0.id()));
    let name = format!("pid {}", stranger.0.id());
    assert!(!answer.stderr.contains(&name), "{answer:?}");
    assert!(!is_alive(child), "its mark names it still");
}

#[test]
fn a_ledger_of_an_earlier_start_of_the_machine_names_nobody() {
    let (supervisor, child, ledger) = orphaned();
    let mut text = fs::read(&ledger).unwrap();
    text[8] = if text[8] == b'0' { b'1' } else { b'0' };
    fs::write(&ledger, text).unwrap();
    let answer = again(supervisor.place());
    assert!(is_alive(child));
    assert!(!answer.stderr.contains("cleaned up"), "{answer:?}");
    assert!(!ledger.exists());
}

#[test]
fn what_is_no_ledger_is_neither_believed_nor_followed() {
    let (supervisor, child, ledger) = orphaned();
    let whole = fs::read(&ledger).unwrap();
    let elsewhere = supervisor.place().out("elsewhere");
    for (what, spoil) in [
        (
            "truncated",
            Box::new(|| fs::write(&ledger, &whole[..70]).unwrap()) as Box<dyn Fn()>,
        ),
        (
            "corrupt",
            Box::new(|| fs::write(&ledger, [7; 4096]).unwrap()),
        ),
        (
            "a link",
            Box::new(|| {
                fs::remove_file(&ledger).unwrap();
                fs::write(&elsewhere, &whole).unwrap();
                symlink(&elsewhere, &ledger).unwrap();
            }),
        ),
        (
            "writable by others",
            Box::new(|| {
                fs::remove_file(&ledger).unwrap();
                fs::write(&ledger, &whole).unwrap();
                fs::set_permissions(&ledger, fs::Permissions::from_mode(0o666)).unwrap();
            }),
        ),
        (
            "a directory",
            Box::new(|| {
                fs::remove_file(&ledger).unwrap();
                fs::create_dir(&ledger).unwrap();
            }),
        ),
    ] {
        spoil();
        let answer = again(supervisor.place());
        assert_eq!(answer.code, Some(0), "{what}: {answer:?}");
        assert!(
            answer.stderr.contains("is left alone"),
            "{what}: {answer:?}"
        );
        assert!(is_alive(child), "{what}");
        assert!(ledger.symlink_metadata().is_ok(), "{what} is left alone");
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), whole);
}

#[test]
fn the_ledger_of_a_living_runtime_is_not_touched() {
    let supervisor = Place::new(QUIET).start(&[]);
    let child = supervisor.pid_of("quiet", 1);
    let answer = again(supervisor.place());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(!answer.stderr.contains("cleaned up"), "{answer:?}");
    assert!(is_alive(child));
    supervisor.send(Signal::TERM);
    fs::write(supervisor.place().manifest(), QUIET).unwrap();
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn every_exit_code_passes_through() {
    let place = Place::empty();
    for code in 0..=255 {
        let script = format!("exit {code}");
        let mut command = place.command(&["exec", "--", "sh", "-c", &script]);
        assert_eq!(command.status().unwrap().code(), Some(code));
    }
}

#[test]
fn the_signal_that_killed_a_runtime_is_in_the_exit_code() {
    for signal in [Number::KILL, Number::ABORT, Number::FPE, Number::ALARM] {
        let mut supervisor = Place::new(QUIET).start(&[]);
        supervisor.pid_of("quiet", 1);
        send(supervisor.runtime(), signal);
        let code = supervisor.end_with_all().code();
        assert_eq!(code, Some(128 + signal.as_raw()));
        let text = "kimi-shell: the runtime died of SIG";
        assert_says(&supervisor, text);
    }
}

#[test]
fn a_command_whose_runtime_is_killed_ends_with_it() {
    let place = Place::empty();
    let script = "echo up; (setsid sleep 1000 &); sleep 1000";
    let command = place.command(&["exec", "--", "sh", "-c", script]);
    let mut supervisor = Supervisor::run(place, command);
    supervisor.says("up");
    send(supervisor.runtime(), Number::KILL);
    assert_eq!(supervisor.end_with_all().code(), Some(137));
}

#[test]
fn signals_pass_the_guardian_with_their_sender_and_none_arrives_twice() {
    let place = Place::new(QUIET);
    let mut command = place.command(&["start", "-o", "ndjson"]);
    command
        .env("KIMI_SHELL_LOG", "kimi_actors::tree::signals=info")
        .process_group(0);
    let supervisor = Supervisor::run(place, command);
    supervisor.pid_of("quiet", 1);
    let group = Pid::from_raw(supervisor.pid().cast_signed()).unwrap();
    // Receipts have no other face on the command line than the log.
    let received = |signal: &str| {
        let signal = format!("signal={signal} ");
        let sender = format!("pid: {},", std::process::id());
        let is_it = |line: &&String| line.contains(&signal) && line.contains(&sender);
        supervisor.talked().iter().filter(is_it).count()
    };
    kill_process_group(group, Number::USR1).unwrap();
    eventually("both have it", || (received("SIGUSR1") > 0).then_some(()));
    supervisor.send(Signal::USR2);
    // It has come the longer way, so what came before it on that way would be there.
    eventually("it is passed on", || {
        (received("SIGUSR2") > 0).then_some(())
    });
    assert_eq!(received("SIGUSR1"), 1);
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let place = Place::new(QUIET);
    let command = place.command_after("trap '' HUP", &["start", "-o", "ndjson"]);
    let supervisor = Supervisor::run(place, command);
    supervisor.pid_of("quiet", 1);
    supervisor.send(Signal::HUP);
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn they_stop_and_go_on_together() {
    let supervisor = Place::new(QUIET).start(&[]);
    supervisor.pid_of("quiet", 1);
    let (guardian, runtime) = (supervisor.pid(), supervisor.runtime());
    send(runtime, Number::STOP);
    eventually("both have stopped", || {
        [guardian, runtime]
            .iter()
            .all(|pid| state_of(*pid) == Some('T'))
            .then_some(())
    });
    supervisor.send(Signal::CONT);
    eventually("both go on", || {
        [guardian, runtime]
            .iter()
            .all(|pid| state_of(*pid) == Some('S'))
            .then_some(())
    });
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn a_guardian_holds_nothing() {
    let supervisor = Place::new(QUIET).start(&[]);
    supervisor.pid_of("quiet", 1);
    let guardian = supervisor.pid();
    // Whatever a program is started with here. Its program may run a moment before the rest is closed.
    let given = Stranger::new();
    eventually("it has what any program is given", || {
        let descriptors = |pid| Footprint::of(pid).descriptors;
        (descriptors(guardian) == descriptors(given.0.id())).then_some(())
    });
    assert_eq!(Footprint::of(guardian).children, 1);
    let threads = fs::read_dir(format!("/proc/{guardian}/task")).unwrap();
    assert_eq!(threads.count(), 1);
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn orphans_are_reaped_and_what_is_left_at_the_end_is_named() {
    let place = Place::new(
        r"
version: 1
services:
  leaving:
    shell: |
      for each in 1 2 3 4 5; do (setsid true > /dev/null 2>&1 &); done
      (setsid sleep 1000 > /dev/null 2>&1 &)
      echo up
      exec sleep 1000
",
    );
    let command = place.command(&["start", "-o", "ndjson"]);
    let mut supervisor = Supervisor::run(place, command);
    supervisor.line("leaving", "up");
    let guardian = supervisor.pid();
    let left = eventually("one orphan is left, and no zombie", || {
        let children = process::children_of(guardian);
        let runtime = supervisor.runtime();
        let mut orphans = children.iter().filter(|pid| **pid != runtime);
        let first = orphans.next().copied();
        first.filter(|pid| orphans.next().is_none() && is_alive(*pid))
    });
    supervisor.send(Signal::TERM);
    supervisor.end_with_all();
    assert!(!is_alive(left));
}

#[test]
fn what_is_to_be_left_alone_is_left_alone() {
    let mut supervisor = Place::new(
        "
version: 1
settings: { on_runtime_death: leave }
services:
  quiet: { command: [sleep, 1000] }
",
    )
    .start(&[]);
    let child = supervisor.pid_of("quiet", 1);
    send(supervisor.runtime(), Number::KILL);
    assert_eq!(supervisor.status().code(), Some(137));
    assert!(is_alive(child));
    let answer = again(supervisor.place());
    assert!(!answer.stderr.contains("cleaned up"), "{answer:?}");
    assert!(is_alive(child));
}

/// Starts it as PID 1 of a namespace, if that may be made here; with its guardian as seen from outside.
fn first_of_a_namespace(manifest: &str) -> Option<(Supervisor, u32)> {
    let flags = ["--pid", "--fork", "--mount-proc"];
    let can = outside("unshare")
        .args(flags)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !can.is_ok_and(|status| status.success()) {
        skip("no PID namespace may be made here");
        return None;
    }
    let place = Place::new(manifest);
    let command = place.command_by("unshare", &flags, &["start", "-o", "ndjson"]);
    let supervisor = Supervisor::run(place, command);
    let guardian = eventually("there is a first process", || {
        process::children_of(supervisor.pid()).into_iter().next()
    });
    Some((supervisor, guardian))
}

#[test]
fn as_the_first_process_it_reaps_strangers_and_steals_no_status() {
    let Some((mut supervisor, guardian)) = first_of_a_namespace(
        r#"
version: 1
services:
  seven: { type: task, shell: "(setsid true &); exit 7" }
  strangers:
    shell: |
      for each in 1 2 3 4 5 6 7 8 9 10; do (setsid sh -c 'exit 3' > /dev/null 2>&1 &); done
      while grep -qs ') Z ' /proc/[0-9]*/stat; do sleep 0.01; done
      echo "clean below $PPID"
      exec sleep 1000
"#,
    ) else {
        return;
    };
    supervisor.line("strangers", "clean below 2");
    let exit = supervisor.fact("the task is over", |fact| match fact {
        Fact::Exited { child, exit, .. } if child.as_str() == "seven" => Some(*exit),
        _ => None,
    });
    assert_eq!(exit, Exit::Code(7));
    send(guardian, Number::TERM);
    assert_eq!(supervisor.end_with_all().code(), Some(143));
}

#[test]
fn as_the_first_process_it_ends_with_a_runtime_that_is_killed() {
    let Some((mut supervisor, guardian)) = first_of_a_namespace(STAYING) else {
        return;
    };
    supervisor.line("leaving", "up");
    let runtime = eventually("there is a runtime", || process::runtime_of(guardian));
    send(runtime, Number::KILL);
    assert_eq!(supervisor.end_with_all().code(), Some(137));
}

/// A terminal of its own for the program, which leads the session; says how that ended after one act of the terminal.
const TERMINAL: &str = r#"
import os, pty, sys
act, program = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program[0], program)
told = b""
while b"up in" not in told and b"1 up" not in told:
    told += os.read(terminal, 4096)
if act == "interrupt":
    os.write(terminal, b"\x03")
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass
else:
    os.close(terminal)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status))
"#;

#[test]
fn a_key_and_the_end_of_a_terminal_reach_the_runtime() {
    let python = outside("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        return skip("there is no python3 to make a terminal");
    }
    for (act, code) in [("interrupt", "130\n"), ("hang up", "129\n")] {
        let place = Place::new(QUIET);
        let words = ["start", "-o", "plain"];
        let mut command = place.command_by("python3", &["-c", TERMINAL, act], &words);
        let output = command.output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            code,
            "{act}: {output:?}"
        );
        assert_eq!(process::with_environment(&place.mark()), [0; 0], "{act}");
        place.assert_tidy();
    }
}
