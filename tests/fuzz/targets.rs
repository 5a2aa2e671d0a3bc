//! What is fuzzed: whatever comes in from outside, each with what must hold for any bytes.
//!
//! Each answers in a word or two what came of it, by which inputs that lead somewhere new are known. They are plain functions,
//! so that any fuzzer can drive them.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use kimi_actors::os::sign::{Notice, Pattern, STATUS_MAX, notices};
use kimi_shell::document::budget::{Cost, Resource};
use kimi_shell::document::problem::{Place, Problem};
use kimi_shell::document::{Format, Source, write};
use kimi_shell::manifest::{Location, Manifest, ManifestError, escape_dollars};
use kimi_shell::procfile::{self, Surroundings};
use kimi_shell::settings::Inputs;
use kimi_shell::{env_file, resolved};

use crate::request::Request;

/// Everything that the budget of a document counts.
const RESOURCES: [Resource; 7] = [
    Resource::Bytes,
    Resource::Values,
    Resource::Depth,
    Resource::Aliases,
    Resource::Text,
    Resource::Variables,
    Resource::Problems,
];

/// A directory of this thread, so that paths stay the same from one input to the next.
fn with_directory<T>(act: impl FnOnce(&mut PathBuf) -> T) -> T {
    thread_local! {
        static DIRECTORY: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    DIRECTORY.with(|directory| {
        let mut directory = directory.borrow_mut();
        let directory = directory.get_or_insert_with(|| tempfile::tempdir().unwrap());
        act(&mut directory.path().to_owned())
    })
}

fn load(name: &str, text: &[u8], environment: &[(&str, &str)]) -> Result<Manifest, ManifestError> {
    with_directory(|path| {
        path.push(name);
        fs::write(&path, text).unwrap();
        let as_os = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let inputs = Inputs {
            environment: environment.iter().map(as_os).collect(),
            ..Inputs::default()
        };
        Manifest::load(Location::File(path.clone()), &inputs)
    })
}

/// The beginning of what is said, without what was quoted.
fn gist(message: &str) -> String {
    message
        .split('`')
        .step_by(2)
        .flat_map(str::split_whitespace)
        .take(6)
        .collect::<Vec<_>>()
        .join(" ")
}

fn check_problems(problems: &[Problem]) -> String {
    assert!(
        !problems.is_empty(),
        "what is refused is refused for something"
    );
    for problem in problems {
        assert!(!problem.message.is_empty());
        if let Place::File { source, span } = &problem.place {
            assert!(span.start <= span.end, "{problem:?}");
            assert!(span.end <= source.text.len() + 1, "{problem:?}");
            let (line, column) = problem.place.line_and_column().unwrap();
            assert!(line >= 1 && column >= 1, "{problem:?}");
            assert!(line <= source.text.split('\n').count(), "{problem:?}");
        }
        problem.snippet();
    }
    format!(
        "{} wrong: {}",
        problems.len().min(4),
        gist(&problems[0].message)
    )
}

fn check_manifest(name: &str, loaded: Result<Manifest, ManifestError>) -> String {
    let manifest = match loaded {
        Ok(manifest) => manifest,
        Err(ManifestError::Invalid(problems)) => return check_problems(&problems.0),
        Err(error) => return gist(&error.to_string()),
    };
    for resource in RESOURCES {
        assert!(
            manifest.cost.of(resource) <= Cost::BUDGET.of(resource),
            "{resource:?}"
        );
    }
    let shown = |manifest: &Manifest| {
        let mut node = resolved::manifest(manifest).unwrap();
        let json = write::json(&node, &write::unveiled);
        escape_dollars(&mut node);
        (
            write::yaml(&node, &write::unveiled),
            write::toml(&node, &write::unveiled),
            json,
        )
    };
    let (yaml, toml, json) = shown(&manifest);
    for (format, text) in [("yaml", &yaml), ("toml", &toml)] {
        // Its paths are relative to the same directory.
        let name = format!("{name}.again.{format}");
        let again = load(&name, text.as_bytes(), &[]);
        let again = again.unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(
            shown(&again).2,
            json,
            "printed as {format}, it means the same:\n{text}"
        );
    }
    format!("{} children", manifest.commands.len().min(5))
}

/// A manifest in YAML.
pub(crate) fn manifest_yaml(data: &[u8]) -> String {
    check_manifest("m.yaml", load("m.yaml", data, &[("A", "a"), ("EMPTY", "")]))
}

/// A manifest in TOML.
pub(crate) fn manifest_toml(data: &[u8]) -> String {
    check_manifest("m.toml", load("m.toml", data, &[("A", "a"), ("EMPTY", "")]))
}

/// A value with variables in it.
pub(crate) fn interpolation(data: &[u8]) -> String {
    const SECRET: &str = "canary-7f3a";
    let text = String::from_utf8_lossy(data);
    // JSON is YAML, but for a few characters that no text may hold.
    let value = serde_json::to_string(&text).unwrap();
    let manifest = format!("version: 1\nservices:\n  a:\n    command: [x, {value}]\n");
    let environment = [
        ("A", "a"),
        ("EMPTY", ""),
        ("SECRET", SECRET),
        ("B", "${A}$$"),
    ];
    let loaded = load("i.yaml", manifest.as_bytes(), &environment);
    match &loaded {
        Err(ManifestError::Invalid(problems)) => {
            // Who knows it may have written it.
            let told = text.contains(SECRET) || !problems.to_string().contains(SECRET);
            assert!(told, "no value is told: {problems}");
        }
        Ok(manifest) => {
            let words = &manifest.commands[0].1.args;
            if !text.contains('$') {
                assert_eq!(
                    words[0].to_str(),
                    Some(&*text),
                    "without variables it stays as it is"
                );
            }
        }
        Err(_) => {}
    }
    check_manifest("i.yaml", loaded)
}

/// A file of variables.
pub(crate) fn env_file(data: &[u8]) -> String {
    let Ok(text) = String::from_utf8(data.to_vec()) else {
        return "no text".to_owned();
    };
    let name = ".env".to_owned();
    match env_file::parse(&Arc::new(Source { name, text })) {
        Ok(variables) => {
            for (name, value) in &variables {
                assert!(
                    !name.is_empty() && !name.contains(['=', '\0', '\n']),
                    "{name:?}"
                );
                assert!(!value.contains('\0'), "{value:?}");
            }
            format!("{} variables", variables.len().min(5))
        }
        Err(problems) => check_problems(&problems),
    }
}

/// A request to the bridge.
pub(crate) fn bridge(data: &[u8]) -> String {
    match serde_json::from_slice::<Request>(data) {
        Ok(request) => match request.work() {
            Ok(_) => "work".to_owned(),
            Err(error) => gist(&error),
        },
        Err(error) => gist(&error.to_string()),
    }
}

/// A datagram of `sd_notify(3)`.
pub(crate) fn sd_notify(data: &[u8]) -> String {
    let lines = data.split(|byte| *byte == b'\n').count();
    let heard: Vec<Notice> = notices(data).collect();
    assert!(heard.len() <= lines);
    for notice in &heard {
        if let Notice::Status(status) = notice {
            assert!(status.len() <= STATUS_MAX, "{status:?}");
            assert!(!status.contains(char::is_control), "{status:?}");
        }
    }
    let kinds = heard.iter().map(|notice| match notice {
        Notice::Ready => 'r',
        Notice::Status(_) => 's',
        Notice::Extend(_) => 'e',
        Notice::Stopping => 't',
    });
    kinds.take(4).collect()
}

/// A Procfile: what is made of it is a manifest, in both formats.
pub(crate) fn procfile(data: &[u8]) -> String {
    let Ok(text) = String::from_utf8(data.to_vec()) else {
        return "no text".to_owned();
    };
    let name = "Procfile".to_owned();
    let parsed = match procfile::parse(&Arc::new(Source { name, text })) {
        Ok(parsed) => parsed,
        Err(problems) => return check_problems(&problems),
    };
    let around = Surroundings {
        name: "Procfile",
        env_file: None,
    };
    for (name, format) in [("p.yaml", Format::Yaml), ("p.toml", Format::Toml)] {
        let manifest = parsed.manifest(format, around);
        let loaded = load(name, manifest.as_bytes(), &[]);
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}\n{manifest}"));
        assert_eq!(loaded.commands.len(), parsed.processes.len(), "{manifest}");
        for process in &parsed.processes {
            let command = loaded.command(&process.name).unwrap();
            let line = command.args.last().unwrap();
            assert_eq!(line.to_str(), Some(process.command.as_str()), "{manifest}");
        }
    }
    format!(
        "{} {}",
        parsed.processes.len().min(5),
        parsed.untranslated.len().min(3)
    )
}

/// An expression for a line of the output, and after the first newline what it is looked for in.
pub(crate) fn log_pattern(data: &[u8]) -> String {
    let end = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let (expression, lines) = data.split_at(end);
    let Ok(expression) = std::str::from_utf8(expression) else {
        return "no text".to_owned();
    };
    match Pattern::new(expression) {
        Ok(pattern) => {
            let found = lines
                .split(|byte| *byte == b'\n')
                .any(|line| pattern.is_in(line));
            // The longest line that is shown to it, of one kind of byte.
            let longest = vec![lines.last().copied().unwrap_or(b'a'); 8 * 1024];
            format!("{found} {}", pattern.is_in(&longest))
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            gist(&error.problem.to_string())
        }
    }
}
