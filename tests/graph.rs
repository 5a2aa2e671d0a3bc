//! `graph`: what is drawn of a manifest.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

pub mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::golden::assert_golden;
use support::{Answer, answer, kimi_shell};

/// Something of everything that can be drawn.
const SHOP: &str = r"
version: 1
services:
  db: { shell: exec sleep 1000, stop: { signal: SIGINT, timeout: 9s } }
  cache: { shell: exec sleep 1000, depends_on: { db: { condition: started } } }
  migrate: { type: task, shell: 'true', depends_on: [db] }
  a-service-with-quite-a-long-name-as-people-have-them: { shell: exec sleep 1000, depends_on: [migrate] }
  api:
    shell: exec sleep 1000
    depends_on:
      migrate: { condition: succeeded }
      cache: { condition: ready }
      a-service-with-quite-a-long-name-as-people-have-them: { condition: started }
    stop: { timeout: 2s }
  end: { shell: exec sleep 1000, depends_on: [ingest] }
  queue: { shell: exec sleep 1000 }
  worker: { shell: exec sleep 1000 }
  report: { type: task, shell: 'true', depends_on: { end: { condition: completed } }, restart: never }
  lonely: { shell: exec sleep 1000 }
supervisors:
  ingest: { strategy: rest_for_one, max_restarts: 3, window: 30s, children: [queue, inner] }
  inner: { strategy: one_for_all, children: [worker, api] }
";

const CHAIN: &str = r"
version: 1
services:
  one: { shell: exec sleep 1000, stop: { timeout: 1s } }
  two: { shell: exec sleep 1000, depends_on: [one], stop: { timeout: 1s } }
  other: { shell: exec sleep 1000, stop: { timeout: 1s } }
";

fn at(manifest: &str) -> tempfile::TempDir {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("kimi-shell.yaml"), manifest).unwrap();
    here
}

fn graph(here: &Path, words: &[&str]) -> Answer {
    answer(here, &[&["graph"], words].concat())
}

fn drawn(manifest: &str, words: &[&str]) -> String {
    let here = at(manifest);
    let answer = graph(here.path(), words);
    assert_eq!(
        (answer.code, answer.stderr.as_str()),
        (Some(0), ""),
        "{words:?}"
    );
    answer.stdout
}

fn json(manifest: &str, words: &[&str]) -> Value {
    serde_json::from_str(&drawn(manifest, &[&["-o", "json"], words].concat())).unwrap()
}

#[test]
fn every_format_draws_the_same_as_ever() {
    for (format, name) in [
        ("ascii", "graph/shop.txt"),
        ("mermaid", "graph/shop.mmd"),
        ("dot", "graph/shop.dot"),
        ("json", "graph/shop.json"),
    ] {
        assert_golden(name, &drawn(SHOP, &["-o", format]));
    }
}

#[test]
fn people_need_no_more_than_80_columns_and_no_more_than_ascii() {
    let services: Vec<String> = (0..60)
        .map(|number| {
            let name = format!("{}{number:02}", "n".repeat(61));
            let on = if number > 30 {
                format!(
                    ", depends_on: [{}, {}]",
                    "n".repeat(61) + "00",
                    "n".repeat(61) + "01"
                )
            } else {
                String::new()
            };
            format!("  {name}: {{ shell: exec sleep 1000{on} }}\n")
        })
        .collect();
    let wide = format!("version: 1\nservices:\n{}", services.concat());
    for manifest in [SHOP, CHAIN, &wide] {
        let text = drawn(manifest, &[]);
        for line in text.lines() {
            assert!(line.is_ascii(), "{line}");
            assert!(line.len() <= 80, "{line}");
            assert!(!line.ends_with(' '), "{line:?}");
        }
    }
}

#[test]
fn colours_go_by_the_rules() {
    let here = at(CHAIN);
    assert!(!graph(here.path(), &[]).stdout.contains('\x1b'));
    let coloured = graph(here.path(), &["--color", "always"]).stdout;
    assert!(coloured.contains('\x1b'));
    let never = kimi_shell(here.path())
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1")
        .arg("graph")
        .output()
        .unwrap();
    assert!(!Answer::of(&never).stdout.contains('\x1b'));
}

#[test]
fn names_show_a_part_with_what_it_depends_on() {
    let part = json(SHOP, &["migrate"]);
    let names = |key: &str| -> Vec<String> {
        let nodes = part[key].as_array().unwrap();
        nodes
            .iter()
            .map(|node| node["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("nodes"), ["root", "db", "migrate"]);
    assert_eq!(part["start"], serde_json::json!([["db"], ["migrate"]]));
    let supervisor = json(SHOP, &["inner"]);
    let start = supervisor["start"].to_string();
    for (name, is_there) in [
        ("worker", true),
        ("api", true),
        ("db", true),
        ("queue", false),
    ] {
        assert_eq!(
            start.contains(&format!("\"{name}\"")),
            is_there,
            "{name} {start}"
        );
    }
}

#[test]
fn the_stop_is_the_start_in_reverse_and_says_how_long_it_may_take() {
    let whole = json(CHAIN, &[]);
    assert_eq!(whole["schema_version"], 1);
    assert_eq!(
        whole["start"],
        serde_json::json!([["one", "other"], ["two"]])
    );
    assert_eq!(
        whole["stop"],
        serde_json::json!({
            "waves": [
                { "children": ["two"], "timeout_ms": 1000 },
                { "children": ["one", "other"], "timeout_ms": 1000 },
            ],
            "total_ms": 2000,
            "limit_ms": 5000,
        })
    );
    let forever =
        format!("{CHAIN}settings: {{ signals: {{ force_exit_after_timeout: false }} }}\n");
    assert_eq!(json(&forever, &[])["stop"]["limit_ms"], Value::Null);
    assert!(drawn(&forever, &[]).contains("Stop order, as long as it takes"));
    let short = format!("{CHAIN}settings: {{ signals: {{ graceful_shutdown_timeout: 1s }} }}\n");
    assert!(drawn(&short, &[]).contains("Together these would be 2s"));
    assert!(!drawn(CHAIN, &[]).contains("Together"));
}

#[test]
fn what_cannot_be_drawn_says_what_to_do() {
    let here = at(CHAIN);
    let unknown = graph(here.path(), &["tow"]);
    assert_eq!(unknown.code, Some(2));
    for phrase in [
        "`tow`",
        "did you mean `two`?",
        "`kimi-shell graph` shows all names",
    ] {
        assert!(unknown.stderr.contains(phrase), "{}", unknown.stderr);
    }
    let cycle = at(
        "version: 1\nservices: { a: { shell: x, depends_on: [b] }, b: { shell: x, depends_on: [a] } }\n",
    );
    let cycle = graph(cycle.path(), &[]);
    assert_eq!(cycle.code, Some(78));
    assert!(
        cycle.stderr.contains("wait for each other"),
        "{}",
        cycle.stderr
    );
    assert!(
        cycle.stderr.contains("kimi-shell validate"),
        "{}",
        cycle.stderr
    );
}

#[test]
fn without_a_manifest_the_demonstration_is_drawn_and_called_so() {
    let here = tempfile::tempdir().unwrap();
    let answer = graph(here.path(), &[]);
    assert_eq!(answer.code, Some(0));
    assert!(answer.stdout.contains("heartbeat"), "{}", answer.stdout);
    assert!(
        answer.stderr.contains("kimi-shell init"),
        "{}",
        answer.stderr
    );
}

/// No tool is needed to see that frames and quotes are closed and that every node that is named is drawn.
#[test]
fn other_tools_find_every_node_and_every_frame_closed() {
    let mermaid = drawn(SHOP, &["-o", "mermaid"]);
    let count = |text: &str, begins: &str| {
        text.lines()
            .filter(|line| line.trim().starts_with(begins))
            .count()
    };
    assert_eq!(count(&mermaid, "subgraph "), 2);
    assert_eq!(
        mermaid.lines().filter(|line| line.trim() == "end").count(),
        2
    );
    let drawn_nodes: Vec<&str> = mermaid
        .lines()
        .filter_map(|line| {
            line.trim()
                .trim_start_matches("subgraph ")
                .split_once(['[', '('])
        })
        .map(|(id, _)| id)
        .collect();
    for edge in mermaid.lines().filter(|line| line.contains('|')) {
        let ends: Vec<&str> = edge
            .split_whitespace()
            .filter(|word| word.starts_with('n'))
            .collect();
        assert_eq!(ends.len(), 2, "{edge}");
        assert!(ends.iter().all(|end| drawn_nodes.contains(end)), "{edge}");
    }
    let dot = drawn(SHOP, &["-o", "dot"]);
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    assert!(
        dot.lines().all(|line| line.matches('"').count() % 2 == 0),
        "{dot}"
    );
}
