//! Containment as it is typed: chosen, insisted on, and what becomes of those who get away.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![cfg(target_os = "linux")]

pub mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use support::fact::eventually;
use support::process::{self, is_alive};
use support::supervisor::Place;
use support::{Answer, outside, skip};

/// A line that leaves somebody who ignores TERM, in a session of its own, whose parents are gone; and says who.
const ESCAPE: &str = "(setsid bash -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' &)";

/// Where a cgroup of version 2 may be made, if anywhere.
fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(mount.split(' ').nth(4).unwrap().into())
}

fn exec(place: &Place, words: &[&str]) -> Answer {
    Answer::of(
        &place
            .command(&[&["exec"], words].concat())
            .output()
            .unwrap(),
    )
}

/// Whether the machine has this way; what it lacks is said, with the code for it.
fn has(how: &str) -> bool {
    let place = Place::empty();
    let answer = exec(&place, &[&insisting_on(how), "--", "true"]);
    if answer.code == Some(0) {
        return true;
    }
    assert_eq!(answer.code, Some(78), "{answer:?}");
    let expected = format!("cannot contain processes by {how}\n");
    assert!(answer.stderr.contains(&expected), "{answer:?}");
    let required = std::env::var("REQUIRE_CONTAINMENT").unwrap_or_default();
    assert!(!required.split(',').any(|one| one == how), "{answer:?}");
    skip(&format!("containment {how}: {}", answer.stderr.trim()));
    false
}

fn insisting_on(how: &str) -> String {
    format!("--require-containment={how}")
}

#[test]
fn a_command_leaves_nobody_behind_in_any_containment() {
    for how in ["cgroup", "subreaper", "group"] {
        if !has(how) {
            continue;
        }
        let place = Place::empty();
        let line = format!("{ESCAPE} | {{ read -r pid; echo $pid; }}");
        let words = [&insisting_on(how), "--json", "--", "bash", "-c", &line];
        let answer = exec(&place, &words);
        assert_eq!(
            (answer.code, answer.stderr.as_str()),
            (Some(0), ""),
            "{how}"
        );
        let result: Value = serde_json::from_str(&answer.stdout).unwrap();
        let escaped: u32 = result["stdout"]["text"]
            .as_str()
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(!is_alive(escaped), "{how}");
        assert_eq!(result["escaped"], Value::Array(Vec::new()));
        assert_eq!(process::with_environment(&place.mark()), [0; 0]);
    }
}

#[test]
fn what_the_machine_lacks_is_said_before_anything_starts() {
    let Some(mount) = cgroup_mount() else {
        skip("containment cgroup: no cgroup v2 hierarchy is mounted here");
        return;
    };
    let place = Place::new("version: 1\nservices: { a: { command: [touch, out/began] } }\n");
    let script = "mount -o remount,ro,bind \"$1\" || exit 42; shift; exec \"$@\"";
    for words in [
        &[
            "exec",
            "--require-containment=cgroup",
            "--",
            "touch",
            "out/began",
        ][..],
        &["start", "--require-containment=cgroup"],
        &["session", "--require-containment=cgroup"],
    ] {
        let program = place.command(words);
        let mut command = outside("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(&mount)
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(place.out(".."))
            .stdin(Stdio::null());
        let answer = Answer::of(&command.output().unwrap());
        if answer.code != Some(78) && !answer.stderr.contains("kimi-shell") {
            skip(&format!(
                "a hierarchy that is mounted read-only: {}",
                answer.stderr
            ));
            return;
        }
        let expected = format!(
            "no cgroup v2 hierarchy is writable here: {} is mounted read-only",
            mount.display()
        );
        assert!(answer.stderr.contains(&expected), "{words:?}: {answer:?}");
        assert_eq!(answer.code, Some(78), "{words:?}: {answer:?}");
        assert!(!place.out("began").exists());
    }
}

#[test]
fn what_a_killed_supervisor_has_left_is_cleaned_by_the_next_one_that_says_so() {
    if !has("cgroup") {
        return;
    }
    let place = Place::empty();
    let line = format!("{ESCAPE} > out/escaped; exec sleep 1000");
    let words = ["exec", "--require-containment=cgroup", "--", "bash", "-c"];
    let mut command = place.command(&[&words[..], &[&line]].concat());
    let mut killed = command.stdout(Stdio::null()).spawn().unwrap();
    let escaped: u32 = eventually("somebody got away", || {
        let note = fs::read_to_string(place.out("escaped")).ok()?;
        note.trim().parse().ok()
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Whoever starts next cleans: this one, or one of another test.
    assert_eq!(exec(&place, &["--", "true"]).code, Some(0));
    eventually("it is gone", || (!is_alive(escaped)).then_some(()));
    eventually("all are gone", || {
        process::with_environment(&place.mark())
            .is_empty()
            .then_some(())
    });
}

/// A group of version 1 that freezes: who is frozen there does not die of a kill before it is thawed.
struct Freezer {
    path: PathBuf,
}

impl Freezer {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_freezer = |line: &&str| {
            line.split_once(" - ").is_some_and(|(_, kind)| {
                kind.starts_with("cgroup ") && kind.split([' ', ',']).any(|word| word == "freezer")
            })
        };
        let mount = PathBuf::from(mounts.lines().find(is_freezer)?.split(' ').nth(4)?);
        let path = mount.join(format!("kimi-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    fn thaw(&self) {
        fs::write(self.path.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        eventually("nobody is frozen", || fs::remove_dir(&self.path).ok());
    }
}

#[test]
fn who_cannot_be_killed_is_named_and_the_code_is_not_zero() {
    let Some(freezer) = Freezer::new() else {
        skip("a process that cannot be killed: no freezer of cgroup v1 is writable here");
        return;
    };
    let line = "echo $BASHPID > $FREEZER/cgroup.procs; exec setsid sleep 1000";
    let line = format!(
        "bash -c '{line}' & until [ \"$(cat /proc/$!/comm)\" = sleep ]; do sleep 0.01; done; \
         echo FROZEN > $FREEZER/freezer.state; \
         until grep -q FROZEN $FREEZER/freezer.state; do sleep 0.01; done; echo $!"
    );
    for how in ["cgroup", "subreaper"] {
        if !has(how) {
            continue;
        }
        let place = Place::empty();
        let words = [
            "exec",
            &insisting_on(how),
            "--json",
            "--",
            "bash",
            "-c",
            &line,
        ];
        let output = place.command(&words).env("FREEZER", &freezer.path).output();
        let answer = Answer::of(&output.unwrap());
        let result: Value = serde_json::from_str(&answer.stdout).unwrap();
        let text = result["stdout"]["text"].as_str().unwrap().trim();
        let escaped: u32 = text.parse().unwrap();
        assert_eq!(
            result["escaped"],
            serde_json::json!([{ "pid": escaped, "command": "sleep", "how": "own_session" }]),
            "{how}"
        );
        assert_eq!(
            (answer.code, &result["exit_code"]),
            (Some(1), &Value::from(0))
        );
        freezer.thaw();
        eventually("the kill is carried out", || {
            process::with_environment(&place.mark())
                .is_empty()
                .then_some(())
        });
        // What could not be removed, the next one removes.
        assert_eq!(exec(&place, &["--", "true"]).code, Some(0));
    }
}
