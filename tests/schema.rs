//! The table of keys, the JSON Schema and the reference: all three say the same.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

pub mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kimi_shell::document::decode::Report;
use kimi_shell::document::record::{Record, Value as Read};
use kimi_shell::document::shape::{IfAbsent, Instead, Key, Kind, Presence, Shape};
use kimi_shell::document::{self, Format, Source};
use kimi_shell::manifest::keys::MANIFEST;
use kimi_shell::manifest::schema;
use kimi_shell::settings::keys::SETTINGS;
use kimi_shell::settings::{self, Layer, Settings};
use serde_json::{Map, Value, json};
use support::schema::{as_json, objections};

/// Whether the decoder finds nothing wrong with the shape of a document, and what it finds.
fn decodes(document: &Value) -> (bool, String) {
    let source = Arc::new(Source {
        name: "a.yaml".to_owned(),
        text: document.to_string(),
    });
    let node = document::parse(&source, Format::Yaml).unwrap_or_else(|problems| {
        panic!("JSON is YAML: {problems:?}\n{document:#}");
    });
    let report = Report::new(source);
    let record = Record::read(&report, &node, &MANIFEST, "the manifest");
    if let Some(Read::Node(node)) = record.get("settings").map(|at| &at.value) {
        drop(settings::of_node(&report, node, Layer::Manifest));
    }
    let problems = report.into_problems();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (told.is_empty(), told.join("\n"))
}

/// Every shape that a manifest is made of, the outer ones first.
fn shapes() -> Vec<&'static Shape> {
    fn below(kind: &'static Kind, all: &mut Vec<&'static Shape>) {
        match kind {
            Kind::Record(shape) | Kind::Deferred(shape) => add(shape, all),
            Kind::List { of, .. } | Kind::Map { of, .. } => below(of, all),
            Kind::OneOf(kinds) => kinds.iter().for_each(|kind| below(kind, all)),
            Kind::Text(_)
            | Kind::Word(_)
            | Kind::Duration { .. }
            | Kind::Size
            | Kind::Whole { .. }
            | Kind::Number { .. }
            | Kind::Truth
            | Kind::Only(_)
            | Kind::Command
            | Kind::Variables => {}
        }
    }
    fn add(shape: &'static Shape, all: &mut Vec<&'static Shape>) {
        if all.iter().all(|known| known.name != shape.name) {
            all.push(shape);
            for key in shape.keys {
                below(&key.kind, all);
            }
        }
    }
    let mut all = Vec::new();
    add(&MANIFEST, &mut all);
    all
}

/// The same numbers at every run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A value that the table allows.
    fn value(&mut self, kind: &Kind) -> Value {
        const TEXTS: [&str; 14] = [
            "a",
            "web-1",
            "Z_9",
            "127.0.0.1:80",
            "[::1]:7",
            "http://localhost:81/x?y",
            "SIGTERM",
            "term",
            "027",
            "off",
            "./a b",
            "listening .*",
            "1000",
            "exec ./x \"$Y\"",
        ];
        match kind {
            Kind::Text(grammar) => {
                let good: Vec<&str> = TEXTS
                    .into_iter()
                    .filter(|text| (grammar.check)(text).is_ok())
                    .collect();
                json!(self.one_of(&good))
            }
            Kind::Word(list) => json!(self.one_of(&(list.words)())),
            Kind::Duration { .. } => json!(self.one_of(&["1s", "1m30s", "500ms", "1.5h"])),
            Kind::Size => self
                .one_of(&[json!("10MiB"), json!(7), json!("1.5 kb"), json!("0")])
                .clone(),
            Kind::Whole { least, most } => {
                json!(self.one_of(&[*least, *most, (*least + 1).min(*most)]))
            }
            Kind::Number { least, most } => {
                let between = (least + 1.0).min(*most);
                json!(self.one_of(&[*least, between]))
            }
            Kind::Truth => json!(self.one_of(&[true, false])),
            Kind::Only(value) => schema::written(value),
            Kind::List { of, least } => {
                let count = *least + self.below(3);
                (0..count).map(|_| self.value(of)).collect()
            }
            Kind::Command => json!(["x", 1, true, "", 1.5]),
            Kind::Map { names, of, .. } => {
                let mut map = Map::new();
                for name in ["a", "web-1", "SIGINT", "x-free"] {
                    if (names.check)(name).is_ok() && self.below(2) == 0 {
                        map.insert(name.to_owned(), self.value(of));
                    }
                }
                Value::Object(map)
            }
            Kind::Variables => json!({ "A": "b", "x-y": 1, "C": true, "D": 1.5 }),
            Kind::Record(shape) | Kind::Deferred(shape) => self.record(shape),
            Kind::OneOf(kinds) => {
                let kind = self.one_of(kinds);
                self.value(kind)
            }
        }
    }

    fn record(&mut self, shape: &Shape) -> Value {
        let mut map = Map::new();
        let chosen = (!shape.choice.is_empty()).then(|| *self.one_of(shape.choice));
        for key in shape.keys {
            let stands = if shape.choice.contains(&key.name) {
                chosen == Some(key.name)
            } else {
                key.presence == Presence::Required || self.below(3) == 0
            };
            // An older name beside the new one would be one key twice.
            if stands && !key.about.starts_with("The older name") {
                map.insert(key.name.to_owned(), self.value(&key.kind));
            }
        }
        if self.below(4) == 0 {
            map.insert("x-anything".to_owned(), json!([{}]));
        }
        Value::Object(map)
    }

    /// Changes something somewhere.
    fn damage(&mut self, value: &mut Value) {
        let goes_deeper = self.below(4) > 0;
        match value {
            Value::Object(map) if goes_deeper && !map.is_empty() => {
                let keys: Vec<String> = map.keys().cloned().collect();
                let key = self.one_of(&keys).clone();
                match self.below(8) {
                    0 => drop(map.remove(&key)),
                    1 => drop(map.insert("strange".to_owned(), json!(1))),
                    2 => {
                        let inner = map.remove(&key).unwrap();
                        map.insert(format!("{key}x"), inner);
                    }
                    _ => self.damage(map.get_mut(&key).unwrap()),
                }
            }
            Value::Array(items) if goes_deeper && !items.is_empty() => {
                let index = self.below(items.len());
                self.damage(&mut items[index]);
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let strange = [
                    json!(null),
                    json!(0),
                    json!(-1),
                    json!(70_000),
                    json!(2.5),
                    json!(true),
                    json!("no"),
                    json!(""),
                    json!("10"),
                    json!("always"),
                    json!([]),
                    json!({}),
                    json!(["a"]),
                    json!("a.1"),
                ];
                *value = self.one_of(&strange).clone();
            }
        }
    }
}

#[test]
fn what_the_table_allows_is_decoded_and_satisfies_the_schema() {
    let schema = schema::schema();
    let mut random = Random(1);
    for _ in 0..400 {
        let document = random.record(&MANIFEST);
        let (is_good, told) = decodes(&document);
        assert!(is_good, "{told}\n{document:#}");
        let objections = objections(&schema, &document);
        assert!(objections.is_empty(), "{objections:#?}\n{document:#}");
    }
}

#[test]
fn what_is_decoded_satisfies_the_schema_and_is_not_often_damaged() {
    let schema = schema::schema();
    let mut random = Random(2);
    let (mut good, mut bad, mut noticed) = (0, 0, 0);
    for _ in 0..1500 {
        let mut document = random.record(&MANIFEST);
        for _ in 0..=random.below(2) {
            random.damage(&mut document);
        }
        let objections = objections(&schema, &document);
        if decodes(&document).0 {
            good += 1;
            assert!(objections.is_empty(), "{objections:#?}\n{document:#}");
        } else {
            bad += 1;
            noticed += u32::from(!objections.is_empty());
        }
    }
    assert!(good > 100 && bad > 500, "{good} good, {bad} bad");
    // What a schema cannot say: a duration that is zero, a name that is kept for others.
    assert!(noticed * 100 > bad * 90, "{noticed} of {bad} noticed");
}

#[test]
fn every_example_and_every_default_is_a_value_of_its_key() {
    for shape in shapes() {
        for key in shape.keys {
            let default = match key.if_absent {
                IfAbsent::Value(value) => value,
                IfAbsent::Setting(path) => settings::default_of(path)
                    .unwrap_or_else(|| panic!("there is no setting `{path}`")),
                IfAbsent::Nothing => "",
            };
            for written in [key.example, default] {
                if !written.is_empty() {
                    check_value(key, &schema::written(written));
                }
            }
        }
    }
}

fn check_value(key: &'static Key, value: &Value) {
    let source = Arc::new(Source {
        name: key.name.to_owned(),
        text: value.to_string(),
    });
    let node = document::parse(&source, Format::Yaml).unwrap();
    let report = Report::new(source);
    drop(Read::read(&report, &node, &key.kind, key.name));
    assert!(report.is_clean(), "{:?}", report.into_problems());
}

#[test]
fn every_key_of_a_manifest_has_an_example_and_a_sentence() {
    for shape in shapes() {
        assert!(shape.about.ends_with('.'), "{}", shape.name);
        for key in shape.keys {
            let name = format!("{}.{}", shape.name, key.name);
            assert!(key.about.ends_with('.'), "{name}");
            let is_setting = shape.name.starts_with("settings");
            assert!(is_setting || !key.example.is_empty(), "{name}");
        }
        for foreign in shape.foreign {
            if let Instead::Write(here) = foreign.instead {
                let first = here.split(':').next().unwrap();
                assert!(shape.key(first).is_some(), "{}: {here}", shape.name);
            }
        }
        for choice in shape.choice {
            assert!(shape.key(choice).is_some(), "{choice}");
        }
    }
}

#[test]
fn the_table_of_settings_has_the_keys_and_the_defaults_of_the_settings() {
    fn leaves(shape: &Shape, path: &str, into: &mut Vec<(String, Value)>) {
        for key in shape.keys {
            let path = format!("{path}{}", key.name);
            match (&key.kind, key.if_absent) {
                (Kind::Record(section), _) => leaves(section, &format!("{path}."), into),
                (_, IfAbsent::Value(value)) => into.push((path, schema::written(value))),
                (Kind::Map { .. }, _) => {}
                (_, _) => assert!(key.about.starts_with("The older name"), "{path}"),
            }
        }
    }
    fn values(value: &Value, path: &str, into: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(_) if path == "signals.actions" => {}
            Value::Object(map) => {
                for (key, value) in map {
                    let dot = if path.is_empty() { "" } else { "." };
                    values(value, &format!("{path}{dot}{key}"), into);
                }
            }
            // The table says it as people do.
            Value::String(text) if text == "1m" => into.push((path.to_owned(), json!("60s"))),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => into.push((path.to_owned(), value.clone())),
        }
    }
    let (mut in_table, mut in_settings) = (Vec::new(), Vec::new());
    leaves(&SETTINGS, "", &mut in_table);
    let defaults = serde_json::to_value(Settings::default()).unwrap();
    values(&defaults, "", &mut in_settings);
    in_table.sort_by(|a, b| a.0.cmp(&b.0));
    in_settings.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(in_table, in_settings);
}

#[test]
fn the_schema_in_the_repository_is_the_one_of_this_version() {
    same_or_written(
        "config/kimi-shell.schema.json",
        &schema::text(),
        "kimi-shell schema > config/kimi-shell.schema.json",
    );
}

#[test]
fn the_manifests_in_the_repository_name_the_schema_and_satisfy_it() {
    let schema = schema::schema();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut manifests = 0;
    for directory in ["config", "examples"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap_or_default();
            let extension = path.extension().and_then(|it| it.to_str()).unwrap_or("");
            let is_manifest = text
                .lines()
                .any(|line| line.replace(' ', "").starts_with("version"));
            if !["yaml", "yml", "toml"].contains(&extension) || !is_manifest {
                continue;
            }
            manifests += 1;
            let format = Format::of(&path);
            let header = match format {
                Format::Yaml => "# yaml-language-server: $schema=",
                Format::Toml => "#:schema ",
            };
            let named = text.lines().next().unwrap().strip_prefix(header);
            let named = named.unwrap_or_else(|| panic!("{} names no schema", path.display()));
            assert!(path.parent().unwrap().join(named).exists(), "{named}");
            let name = path.display().to_string();
            let node = document::parse(&Arc::new(Source { name, text }), format).unwrap();
            let objections = objections(&schema, &as_json(&node));
            assert!(objections.is_empty(), "{}: {objections:#?}", path.display());
        }
    }
    assert!(manifests > 0);
}

#[test]
fn the_reference_is_the_table_in_words() {
    const MARK: &str =
        "<!-- What follows is written from the table of keys, `src/manifest/keys.rs`. -->\n";
    const PATH: &str = "docs/manifest.md";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PATH);
    let text = fs::read_to_string(path).unwrap();
    let (head, _) = text.split_once(MARK).unwrap();
    let mut expected = format!("{head}{MARK}");
    for shape in shapes() {
        write_shape(&mut expected, shape);
    }
    same_or_written(PATH, &expected, "KIMI_BLESS=1 cargo test --test schema");
}

/// Compares a file with what it should be; with `KIMI_BLESS=1`, writes it.
fn same_or_written(path: &str, expected: &str, remedy: &str) {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("KIMI_BLESS").is_some() {
        fs::write(&whole, expected).unwrap();
    }
    let found = fs::read_to_string(&whole).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is not what the table of keys says; write it anew with `{remedy}`"
    );
}

fn write_shape(text: &mut String, shape: &Shape) {
    let title = shape.name.replace('_', " ");
    write!(text, "\n## {title}\n\n{}\n", shape.about).unwrap();
    if !shape.choice.is_empty() {
        let names: Vec<String> = shape.choice.iter().map(|key| format!("`{key}`")).collect();
        write!(
            text,
            "\nExactly one of {} stands there.\n",
            names.join(", ")
        )
        .unwrap();
    }
    text.push_str("\n| key | value | default | |\n|---|---|---|---|\n");
    for key in shape.keys {
        let default = match (key.presence, key.if_absent) {
            (Presence::Required, _) => "required".to_owned(),
            (_, IfAbsent::Value(value)) => format!("`{value}`"),
            (_, IfAbsent::Setting(path)) => {
                let value = settings::default_of(path).unwrap();
                format!("setting `{path}`: `{value}`")
            }
            (_, IfAbsent::Nothing) => String::new(),
        };
        let example = if key.example.is_empty() {
            String::new()
        } else {
            format!(" `{}: {}`", key.name, flow(&schema::written(key.example)))
        };
        let row = [
            format!("`{}`", key.name),
            in_words(&key.kind),
            default,
            format!("{}{example}", key.about),
        ]
        .map(|cell| cell.replace('|', "\\|"));
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
}

/// What stands there, with links to what has a table of its own.
fn in_words(kind: &Kind) -> String {
    match kind {
        Kind::Record(shape) | Kind::Deferred(shape) => {
            let title = shape.name.replace('_', " ");
            format!("map: [{title}](#{})", title.replace(' ', "-"))
        }
        Kind::List { of, .. } => format!("list: {}", in_words(of)),
        Kind::Map { of, names, .. } => format!("map: {} → {}", names.expected, in_words(of)),
        Kind::OneOf(kinds) => {
            let each: Vec<String> = kinds.iter().map(in_words).collect();
            each.join(", or ")
        }
        Kind::Text(_)
        | Kind::Word(_)
        | Kind::Duration { .. }
        | Kind::Size
        | Kind::Whole { .. }
        | Kind::Number { .. }
        | Kind::Truth
        | Kind::Only(_)
        | Kind::Command
        | Kind::Variables => kind.expected(),
    }
}

/// A value as YAML people write it in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            let reads_back = text.parse::<f64>().is_err() && text != "true" && text != "false";
            if reads_back
                && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/')
                && text.chars().all(is_plain)
            {
                text.clone()
            } else {
                value.to_string()
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
