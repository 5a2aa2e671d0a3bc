//! What `start` says once nothing more is to be expected of the start.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![cfg(target_os = "linux")]

pub mod support;

use kimi_actors::policy::signal::Signal;
use serde_json::json;
use support::supervisor::{Place, Supervisor};

/// Two that are up, one after the other, one that fails, and two that wait for it.
const TORN: &str = r"
version: 1
services:
  db: { command: [sleep, 1000] }
  api: { command: [sleep, 1000], depends_on: [db] }
  seed: { type: task, shell: exit 3 }
  web: { command: [sleep, 1000], depends_on: { seed: { condition: succeeded } } }
  late: { command: [sleep, 1000], depends_on: [web] }
";

fn talk(words: &[&str], ends: &str) -> Vec<String> {
    let place = Place::new(TORN);
    let command = place.command(&[&["start", "-o", "plain"], words].concat());
    let supervisor = Supervisor::run(place, command);
    supervisor.talk(ends, |line| line.starts_with(ends).then_some(()));
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.code, 143);
    ended.stderr
}

#[test]
fn people_are_told_once_what_is_up_and_why_the_rest_is_not() {
    let lines = talk(&[], "late: pending");
    let from = lines
        .iter()
        .position(|line| line.starts_with("up in "))
        .unwrap();
    let [up, chain, seed, web, late] = &lines[from..from + 5] else {
        panic!("{lines:#?}")
    };
    assert!(up.ends_with(": 2 of 5"), "{up}");
    assert!(
        chain.starts_with("slowest chain: db ") && chain.contains(" → api "),
        "{chain}"
    );
    assert!(seed.starts_with("seed: failed: exit 3"), "{seed}");
    assert!(
        web.starts_with("web: pending, blocked by seed (failed: exit 3"),
        "{web}"
    );
    assert_eq!(late, "late: pending, blocked by web (pending)");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("up in "))
            .count(),
        1
    );
}

#[test]
fn a_part_that_was_asked_for_is_up_without_the_rest() {
    let lines = talk(&["db"], "up in ");
    assert!(
        !lines.iter().any(|line| line.contains("slowest chain")),
        "{lines:#?}"
    );
    assert!(
        !lines.iter().any(|line| line.contains("pending")),
        "{lines:#?}"
    );
}

#[test]
fn programs_are_told_the_same_as_an_event_of_its_own() {
    let supervisor = Place::new(TORN).start(&[]);
    let up = supervisor.object("up");
    assert_eq!(up["schema_version"], 1);
    assert_eq!(up["up"], 2);
    assert!(up["took_ms"].is_u64(), "{up}");
    let chain = up["slowest_chain"].as_array().unwrap();
    assert_eq!(
        (&chain[0]["service"], &chain[1]["service"]),
        (&json!("db"), &json!("api"))
    );
    let down = up["down"].as_array().unwrap();
    assert_eq!(down[0]["state"], "failed");
    assert_eq!(
        down[1],
        json!({ "service": "web", "state": "pending", "blocked_by": "seed" })
    );
    assert_eq!(
        down[2],
        json!({ "service": "late", "state": "pending", "blocked_by": "web" })
    );
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}
