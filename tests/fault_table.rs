//! `tests/FAULTS.md` names a test for each fault, and that test exists.

use std::fs;
use std::path::PathBuf;

const FAULTS: usize = 60;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The tests that are named, each with its file.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_whitespace().filter_map(|word| {
        let word = word.trim_end_matches([',', ';']);
        word.trim_matches('`').split_once("::")
    })
}

/// In the file itself, or among those that a macro makes tests of.
fn has_test(file: &str, name: &str) -> bool {
    let text = read(file);
    let is_function = text.contains(&format!("fn {name}("));
    let mut lists = text
        .lines()
        .filter_map(|line| line.strip_prefix("fuzzed!("));
    is_function || lists.any(|list| list.split([' ', ')']).any(|one| one == name))
}

#[test]
fn every_fault_has_its_row_and_every_test_that_is_named_exists() {
    let table = read("tests/FAULTS.md");
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| #"))
        .collect();
    assert_eq!(rows.len(), FAULTS);
    for (number, row) in (1..).zip(rows) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [first, fault, tried] = cells[..] else {
            panic!("three columns: {row}");
        };
        assert_eq!(first.parse(), Ok(number), "{row}");
        assert!(!fault.is_empty());
        let tests: Vec<_> = named(tried).collect();
        assert!(!tests.is_empty() || tried.contains("comes with"), "{row}");
        for (file, name) in tests {
            assert!(
                has_test(file, name),
                "{number}: {file}::{name} does not exist"
            );
        }
    }
}
