//! The walls of `ARCHITECTURE.md`, held by reading the sources.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part of `actors/src`, and the parts that it may name besides itself.
const MAY_NAME: [(&str, &[&str]); 11] = [
    ("policy", &[]),
    ("os", &["policy"]),
    ("exit", &[]),
    // What a child executes may be a task of the program, which runs among the actors.
    ("work", &["policy", "tree"]),
    ("exec", &["policy", "os", "work"]),
    ("testing", &["policy", "os"]),
    ("tree", &["policy", "os", "work", "exec", "exit", "testing"]),
    ("child", &["policy", "os", "work", "tree"]),
    (
        "runtime",
        &[
            "policy", "os", "work", "exec", "exit", "testing", "tree", "child",
        ],
    ),
    ("session", &["policy", "os", "exec", "runtime"]),
    (
        "lib",
        &[
            "policy", "os", "exec", "exit", "testing", "tree", "child", "runtime", "session",
        ],
    ),
];

/// Each actor's file, and the siblings that it may name; the root may name all.
const SIBLINGS: [(&str, &[&str]); 11] = [
    ("supervisor", &["child", "children"]),
    ("children", &["child"]),
    ("child", &["log", "probe", "probes", "task"]),
    ("probes", &["probe"]),
    ("probe", &["log"]),
    ("task", &[]),
    ("signals", &[]),
    ("timer", &[]),
    ("log", &[]),
    ("oneshot", &[]),
    (
        "mod",
        &[
            "child",
            "children",
            "log",
            "oneshot",
            "probe",
            "probes",
            "root",
            "signals",
            "supervisor",
            "task",
            "timer",
        ],
    ),
];

/// What decisions must not know.
const NOT_IN_POLICY: [&str; 16] = [
    "tokio",
    "ractor",
    "rustix",
    "libc",
    "tracing",
    "async",
    "await",
    "Instant",
    "SystemTime",
    "thread_local",
    "std::thread",
    "std::process",
    "std::fs",
    "std::net",
    "std::env",
    "std::sync::Mutex",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below with this extension, by its path from the root of the repository.
fn files(below: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(below)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is_built = path.ends_with("target") || path.ends_with(".git");
            if path.is_dir() && !is_built {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The source without its comments and its tests.
fn code(path: &str) -> String {
    let text = read(path);
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    text.lines()
        .filter(|line| !is_comment(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether the word is there, not as a part of another.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// What stands right after each of these prefixes, up to the end of the name.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let name = |rest: &str| {
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap()
            .to_owned()
    };
    code.match_indices(prefix)
        .map(|(at, _)| name(&code[at + prefix.len()..]))
        .collect()
}

fn part_of(path: &str) -> &str {
    let inside = path.strip_prefix("actors/src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

fn allowed<'a>(table: &[(&str, &'a [&'a str])], part: &str) -> &'a [&'a str] {
    let row = table.iter().find(|(name, _)| *name == part);
    row.unwrap_or_else(|| panic!("{part} has no row in this test yet"))
        .1
}

#[test]
fn imports_of_the_runtime_go_one_way() {
    for path in files("actors/src", "rs") {
        let part = part_of(&path);
        let allowed = allowed(&MAY_NAME, part);
        for named in names_after(&code(&path), "crate::") {
            let is_inside = named == part || allowed.contains(&named.as_str());
            assert!(is_inside, "{path} names crate::{named}");
        }
    }
}

#[test]
fn actors_do_not_know_each_other_but_for_those_they_hold() {
    for path in files("actors/src/tree", "rs") {
        let part = Path::new(&path).file_stem().unwrap().to_str().unwrap();
        if part == "root" {
            continue;
        }
        let allowed = allowed(&SIBLINGS, part);
        for named in names_after(&code(&path), "crate::tree::") {
            assert!(
                allowed.contains(&named.as_str()),
                "{path} names crate::tree::{named}"
            );
        }
    }
}

#[test]
fn decisions_know_no_clock_no_thread_and_no_io() {
    for path in files("actors/src/policy", "rs") {
        let code = code(&path);
        for word in NOT_IN_POLICY {
            assert!(!names(&code, word), "{path} names {word}");
        }
    }
}

#[test]
fn unsafe_code_stands_only_beside_the_kernel() {
    for path in files("", "rs") {
        let is_mechanism = path.starts_with("actors/src/os/");
        let is_test_or_bench = path.contains("tests/") || path.contains("benches/");
        if !is_mechanism && !is_test_or_bench {
            assert!(!names(&code(&path), "unsafe"), "{path} has unsafe code");
        }
    }
}

#[test]
fn the_application_does_not_know_the_actors_of_the_runtime() {
    for path in files("src", "rs") {
        assert!(!names(&code(&path), "ractor"), "{path} names ractor");
    }
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    assert!(manifest["dependencies"].get("ractor").is_none());
}

#[test]
fn the_runtime_does_not_know_what_only_an_application_needs() {
    let manifest: toml::Table = toml::from_str(&read("actors/Cargo.toml")).unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    for name in [
        "anyhow",
        "clap",
        "config",
        "toml",
        "serde_json",
        "granit-parser",
        "axum",
        "opentelemetry",
    ] {
        assert!(
            !dependencies.contains_key(name),
            "kimi-actors depends on {name}"
        );
    }
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut known = files("", "rs");
    known.extend(files("", "md"));
    for document in files("", "md") {
        let here = Path::new(&document).parent().unwrap();
        for named in files_named(&read(&document)) {
            let beside = root().join(here).join(&named).exists() || root().join(&named).exists();
            let below = format!("/{named}");
            assert!(
                beside || known.iter().any(|path| path.ends_with(&below)),
                "{document} names {named}, which is not there"
            );
        }
    }
}

/// Targets of links, and what stands between backquotes and looks like a file of ours.
fn files_named(document: &str) -> Vec<String> {
    let links = document
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap());
    let links = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
    let prose: String = document.split("```").step_by(2).collect();
    let quoted: Vec<&str> = prose.split('`').skip(1).step_by(2).collect();
    let is_ours = |text: &&str| {
        let ends = [".rs", ".md"].iter().any(|end| text.ends_with(end));
        let begins = [
            "actors/",
            "benches/",
            "config/",
            "examples/",
            "src/",
            "tests/",
            ".ci/",
        ];
        !text.contains(' ') && (ends || begins.iter().any(|begin| text.starts_with(begin)))
    };
    // What stands behind colons is something in the file.
    let file = |text| str::split_once(text, "::").map_or(text, |(file, _)| file);
    let quoted = quoted.into_iter().map(file).filter(is_ours);
    let quoted = quoted.flat_map(expand);
    links.map(str::to_owned).chain(quoted).collect()
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expand(text: &str) -> Vec<String> {
    match text
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        Some((before, (choices, after))) => choices
            .split(',')
            .map(|choice| format!("{before}{choice}{after}"))
            .collect(),
        None => vec![text.to_owned()],
    }
}

#[test]
fn no_text_sends_its_reader_to_a_package_host() {
    // Put together here, so that this file does not name them itself.
    let hosts = [
        ["crates", "io"],
        ["docs", "rs"],
        ["npmjs", "com"],
        ["pypi", "org"],
    ]
    .map(|parts| parts.join("."));
    for path in files("", "rs").into_iter().chain(files("", "md")) {
        let text = read(&path);
        for host in &hosts {
            assert!(!text.contains(host.as_str()), "{path} names {host}");
        }
    }
}
