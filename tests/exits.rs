//! How a child ended is told true, whatever way it was.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

pub mod support;

use std::collections::BTreeMap;

use kimi_actors::policy::event::{EndedBy, Fact};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::spec::{CommandSpec, Lifetime};
use kimi_actors::{Child, Runtime};
use support::library::{Library, alone, assert_nothing_left};
use support::process::Footprint;

/// What a process does about these when it does nothing about them: ignore them, or stop.
const NOT_FATAL: [i32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
/// What no process can catch, or only the C library itself.
const NOT_CATCHABLE: [i32; 4] = [9, 19, 32, 33];

/// How each of these lines of shell ended.
fn exits_of(lines: BTreeMap<i32, String>) -> BTreeMap<i32, Exit> {
    let before = Footprint::here();
    let count = lines.len();
    let mut builder = Runtime::builder().lifetime(Lifetime::UntilAllEnded);
    for (number, line) in lines {
        let child = Child::command(&format!("child-{number}"), CommandSpec::shell(line));
        builder = builder.child(child.unwrap().once());
    }
    let (report, story) = Library::start(builder).wait();
    assert_eq!(report.survivors, []);
    assert_nothing_left(&before);
    let exits: Vec<(i32, Exit)> = story
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::Exited {
                child, exit, by, ..
            } => {
                assert_eq!(*by, EndedBy::Itself, "{child}");
                let number = child.as_str().strip_prefix("child-")?.parse().unwrap();
                Some((number, *exit))
            }
            _ => None,
        })
        .collect();
    assert_eq!(exits.len(), count, "each is told once");
    exits.into_iter().collect()
}

#[test]
fn every_exit_code_is_told_true() {
    let _alone = alone();
    let lines = (0..=255).map(|code| (code, format!("exit {code}")));
    for (code, exit) in exits_of(lines.collect()) {
        assert_eq!(exit, Exit::Code(code));
    }
}

#[test]
fn every_signal_that_a_child_dies_of_is_told_true() {
    let _alone = alone();
    let fatal = (1..=64).filter(|number| !NOT_FATAL.contains(number));
    let lines = fatal.map(|number| {
        let line = format!("ulimit -c 0; kill -{number} $$; while :; do sleep 1; done");
        (number, line)
    });
    for (number, exit) in exits_of(lines.collect()) {
        let is_true =
            matches!(exit, Exit::Signal { signal, core: false } if signal.number() == number);
        assert!(is_true, "signal {number}: {exit:?}");
    }
}

#[test]
fn who_catches_a_signal_and_ends_by_a_code_is_told_by_the_code() {
    let _alone = alone();
    let catchable = (1..=64).filter(|number| !NOT_CATCHABLE.contains(number));
    let lines = catchable.map(|number| {
        let line =
            format!("trap 'exit {number}' {number}; kill -{number} $$; while :; do sleep 1; done");
        (number, line)
    });
    for (number, exit) in exits_of(lines.collect()) {
        assert_eq!(exit, Exit::Code(number));
    }
}
