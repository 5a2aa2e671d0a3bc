//! What the keys of services do to real processes.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![cfg(target_os = "linux")]

pub mod support;

use std::collections::BTreeSet;
use std::fs;

use support::supervisor::Place;
use support::{Answer, kimi_shell};

/// Runs a manifest of tasks to its end, with more of an environment.
fn answer(place: &Place, words: &[&str], environment: &[(&str, &str)]) -> Answer {
    let mut command = place.command(words);
    command.envs(environment.iter().copied());
    Answer::of(&command.output().unwrap())
}

/// The names of the files that the tasks have made.
fn made(place: &Place) -> BTreeSet<String> {
    fs::read_dir(place.out(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn what_cannot_be_enforced_starts_nothing() {
    let place = Place::new(
        "version: 1
services:
  a: { type: task, shell: touch out/a }
  b: { type: task, shell: touch out/b, user: nobody-of-this-name }
",
    );
    let all = answer(&place, &["start", "--all"], &[]);
    assert_eq!(all.code, Some(78), "{}", all.stderr);
    for phrase in [
        "nothing was started",
        "kimi-shell.yaml:4:40: there is no user `nobody-of-this-name` here",
    ] {
        assert!(all.stderr.contains(phrase), "{phrase}\n{}", all.stderr);
    }
    assert_eq!(made(&place), set(&[]));
    // Who does not need it is not held up.
    let one = answer(&place, &["start", "a"], &[]);
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    assert_eq!(made(&place), set(&["a"]));
    place.assert_tidy();
}

#[test]
fn what_is_asked_of_a_process_is_true_of_it() {
    let place = Place::new(
        r#"version: 1
defaults: { umask: 027, nice: 3, no_new_privs: true, limits: { memory: 512MiB, nofile: 100 } }
services:
  a:
    type: task
    shell: test "$(umask) $(nice) $(ulimit -n) $(ulimit -v)" = '0027 3 100 524288'
  b:
    type: task
    user: 4000000033
    group: 4000000034
    shell: test "$(umask) $(nice) $(ulimit -n) $(id -u) $(id -g) $(id -G)" = '0027 3 100 4000000033 4000000034 4000000034'
"#,
    );
    let answered = answer(&place, &["start", "--all"], &[]);
    if rustix::process::geteuid().is_root() {
        assert_eq!(answered.code, Some(0), "{}", answered.stderr);
        let note = "a: `limits.memory` is kept by RLIMIT_AS";
        assert!(answered.stderr.contains(note), "{}", answered.stderr);
    } else {
        assert_eq!(answered.code, Some(77), "{}", answered.stderr);
        let reason = "`user` cannot be enforced here: only root may become somebody else";
        assert!(answered.stderr.contains(reason), "{}", answered.stderr);
        assert!(answered.stderr.contains("nothing was started"));
    }
    place.assert_tidy();
}

#[test]
fn profiles_are_named_by_a_flag_or_by_the_environment() {
    const TEXT: &str = "version: 1
services:
  a: { type: task, shell: touch out/a }
  b: { type: task, shell: touch out/b, profiles: [one, both] }
  c: { type: task, shell: touch out/c, profiles: [two, both], depends_on: [a] }
";
    for (words, environment, expected) in [
        (&["start"][..], &[][..], &["a"][..]),
        (&["start", "--profile", "one"], &[], &["a", "b"]),
        (
            &["--profile=one", "start", "--profile=two"],
            &[],
            &["a", "c"],
        ),
        (
            &["start"],
            &[("KIMI_SHELL_PROFILES", "one, two")],
            &["a", "b", "c"],
        ),
        (
            &["start", "--profile", "two"],
            &[("KIMI_SHELL_PROFILES", "one")],
            &["a", "c"],
        ),
        (&["start", "--profile", "*"], &[], &["a", "b", "c"]),
        (&["start", "c"], &[], &["a", "c"]),
    ] {
        let place = Place::new(TEXT);
        let answer = answer(&place, words, environment);
        assert_eq!(answer.code, Some(0), "{words:?}: {}", answer.stderr);
        assert_eq!(made(&place), set(expected), "{words:?} {environment:?}");
    }
}

#[test]
fn what_starts_on_request_starts_when_it_is_asked_for_or_needed() {
    const TEXT: &str = "version: 1
services:
  a: { type: task, shell: touch out/a }
  b: { type: task, shell: touch out/b, autostart: false }
  c: { type: task, shell: touch out/c, autostart: false }
  d: { type: task, shell: touch out/d, depends_on: [c] }
";
    for (words, expected) in [
        (&["start", "--all"][..], &["a", "c", "d"][..]),
        (&["start", "b"], &["b"]),
    ] {
        let place = Place::new(TEXT);
        let answer = answer(&place, words, &[]);
        assert_eq!(answer.code, Some(0), "{words:?}: {}", answer.stderr);
        assert_eq!(made(&place), set(expected), "{words:?}");
    }
    let place = Place::new("version: 1\nservices: { a: { shell: x, autostart: false } }\n");
    let none = answer(&place, &["start"], &[]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    assert!(
        none.stderr.contains("name those that are to start"),
        "{}",
        none.stderr
    );
}

#[test]
fn replicas_find_out_who_they_are() {
    let place = Place::new(
        "version: 1
services:
  worker:
    type: task
    shell: echo \"$KIMI_REPLICA_INDEX of $KIMI_REPLICAS at $PORT\" > out/$KIMI_CHILD
    replicas: 3
    port: 7000
  after:
    type: task
    shell: cat out/worker.1 out/worker.2 out/worker.3 > out/after
    depends_on: { worker: { condition: succeeded } }
  later:
    type: task
    shell: cp out/worker.3 out/later
    depends_on: [worker]
",
    );
    let answer = answer(&place, &["start"], &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    let read = |name: &str| fs::read_to_string(place.out(name)).unwrap();
    assert_eq!(
        read("after"),
        "0 of 3 at 7000\n1 of 3 at 7001\n2 of 3 at 7002\n"
    );
    assert_eq!(read("later"), "2 of 3 at 7002\n");
    place.assert_tidy();
}

#[test]
fn a_service_finds_what_it_inherits_what_files_say_and_what_the_manifest_says() {
    let here = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(here.path().join(name), text).unwrap();
    write(".env.a", "A=file\nB='file'\nexport C=\"a\\tb\" # tab\n");
    write(
        "kimi-shell.yaml",
        "version: 1
defaults: { env: { D: default, E: default } }
services:
  a:
    type: task
    shell: env | grep -E '^(A|B|C|D|E|KEPT|LOST)=' | sort > a
    env_file: .env.a
    env: { A: manifest, E: own }
    env_inherit: [PATH, KEPT]
",
    );
    let mut command = kimi_shell(here.path());
    command
        .args(["start"])
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs([("KEPT", "kept"), ("LOST", "lost"), ("B", "outer")]);
    let answer = Answer::of(&command.output().unwrap());
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    let found = fs::read_to_string(here.path().join("a")).unwrap();
    assert_eq!(
        found,
        "A=manifest\nB=file\nC=a\tb\nD=default\nE=own\nKEPT=kept\n"
    );
}
