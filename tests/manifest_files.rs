//! Manifests of several files: how they are found, merged and filled, what they may cost, and how the program refuses them.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

pub mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::spec::{ChildName, ChildRules, CommandSpec, Condition, NodeRules};
use kimi_shell::document::budget::{Cost, Resource};
use kimi_shell::document::problem::Problems;
use kimi_shell::document::{self, Content, Entry, Format, Node, ScalarKind, Source, Span, write};
use kimi_shell::manifest::{Locations, Manifest, ManifestError};
use kimi_shell::settings::Inputs;
use proptest::prelude::*;
use support::{Answer, answer, kimi_shell};
use tempfile::TempDir;

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn inputs(environment: &[(&str, &str)]) -> Inputs {
    let pair = |(name, value): &(&str, &str)| (name.into(), value.into());
    Inputs {
        environment: environment.iter().map(pair).collect(),
        ..Inputs::default()
    }
}

/// Loads these files, each over those before it.
fn try_load(
    directory: &Path,
    names: &[&str],
    environment: &[(&str, &str)],
) -> Result<Manifest, ManifestError> {
    let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
    Manifest::load(Locations::named(&paths).unwrap(), &inputs(environment))
}

fn load(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Manifest {
    let directory = directory(files);
    let names = manifests(files);
    try_load(directory.path(), &names, environment).unwrap_or_else(|error| panic!("{error}"))
}

/// All but what is read beside them.
fn manifests<'a>(files: &[(&'a str, &str)]) -> Vec<&'a str> {
    let names = files.iter().map(|(name, _)| *name);
    names.filter(|name| *name != ".env").collect()
}

fn problems(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Problems {
    let directory = directory(files);
    match try_load(directory.path(), &manifests(files), environment) {
        Err(ManifestError::Invalid(problems)) => problems,
        other => panic!("expected mistakes, found {other:?}"),
    }
}

/// `file:line:column message` of each mistake.
fn mistakes(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Vec<String> {
    let told = problems(files, environment);
    let told = told.0.iter().map(|problem| {
        let file = Path::new(problem.place.file().unwrap());
        let (line, column) = problem.place.line_and_column().unwrap();
        let file = file.file_name().unwrap().to_str().unwrap();
        format!("{file}:{line}:{column} {}", problem.message)
    });
    told.collect()
}

fn child<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a ChildRules> {
    manifest
        .rules
        .root
        .members
        .iter()
        .find_map(|member| match member {
            NodeRules::Child(child) => (child.name.as_str() == name).then_some(child),
            NodeRules::Supervisor(_) => None,
        })
}

fn command<'a>(manifest: &'a Manifest, name: &str) -> &'a CommandSpec {
    manifest.command(&ChildName::new(name).unwrap()).unwrap()
}

fn variables(command: &CommandSpec) -> Vec<(&str, &str)> {
    let env = command.env.iter();
    env.map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap()))
        .collect()
}

const BASE: &str = "version: 1
services:
  db: { command: [./db, --port, 1], env: { A: 1, B: 2 } }
  api:
    command: [./api]
    cwd: data
    restart: never
    depends_on: [db]
  old: { shell: sleep 1 }
settings: { stop: { timeout: 7s } }
";

#[test]
fn later_files_are_laid_over_earlier_ones() {
    let over = "services:
  db: { command: [./db, --fast], env: { B: 3, A: null } }
  api: { depends_on: { db: { condition: started } } }
  old: null
  new: { command: [./new] }
";
    let toml = "[services.api]\nrestart = \"on_failure\"\n[settings]\nstop.timeout = \"9s\"\n";
    let manifest = load(
        &[
            ("a/base.yaml", BASE),
            ("over.yaml", over),
            ("b/last.toml", toml),
        ],
        &[],
    );
    let names: Vec<&str> = manifest
        .commands
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["db", "api", "new"]);
    assert_eq!(command(&manifest, "db").args, ["--fast"]);
    assert_eq!(variables(command(&manifest, "db")), [("B", "3")]);
    let api = child(&manifest, "api").unwrap();
    assert_eq!(api.restart, Restart::OnFailure);
    assert_eq!(api.depends_on[0].condition, Condition::Started);
    assert_eq!(manifest.settings.stop.timeout.as_secs(), 9);
    let origin = manifest.origins.get("stop.timeout").unwrap();
    assert!(origin.place.ends_with("b/last.toml:4:6"), "{origin}");
    // Whoever wrote a path, it starts from the directory of the first file.
    assert!(manifest.project_dir.ends_with("a"));
    assert_eq!(
        command(&manifest, "new").program,
        manifest.project_dir.join("new")
    );
    assert_eq!(
        command(&manifest, "api").cwd,
        Some(manifest.project_dir.join("data"))
    );
}

#[test]
fn each_value_keeps_the_place_where_it_was_written() {
    let over = "services:\n  db: { restart: sometimes }\n  api: { depends_on: [dbb] }\n";
    let toml = "[services.new]\ncomand = [\"x\"]\n";
    let found = mistakes(&[("a.yaml", BASE), ("b.yaml", over), ("c.toml", toml)], &[]);
    assert_eq!(found.len(), 3, "{found:#?}");
    for (found, place) in found
        .iter()
        .zip(["b.yaml:2:18", "b.yaml:3:23", "c.toml:2:1"])
    {
        assert!(found.starts_with(place), "{found:#?}");
    }
    let text = problems(&[("a.yaml", BASE), ("b.yaml", over)], &[]).to_string();
    assert!(
        text.contains("    2 |   db: { restart: sometimes }\n"),
        "{text}"
    );
}

#[test]
fn what_is_wrong_in_several_files_is_told_at_once() {
    let found = mistakes(
        &[
            ("a.yaml", "version: 1\nservices:\n\ta: 1\n"),
            ("b.toml", "x = \n"),
            ("c.yaml", "services: { a: { cwd: $NONE } }\n"),
        ],
        &[],
    );
    let places: Vec<&str> = found
        .iter()
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        places,
        ["a.yaml:3:1", "b.toml:1:5", "c.yaml:1:23"],
        "{found:#?}"
    );
}

#[test]
fn a_file_that_says_nothing_changes_nothing_and_one_that_is_no_map_is_refused() {
    let manifest = load(&[("a.yaml", BASE), ("b.yaml", "# nothing yet\n")], &[]);
    assert_eq!(manifest.commands.len(), 3);
    let found = mistakes(&[("a.yaml", BASE), ("b.yaml", "- a\n")], &[]);
    assert_eq!(
        found,
        ["b.yaml:1:1 expected the manifest to be a map, found a list"]
    );
    for text in ["", "# only\n", "- a\n", "a\n"] {
        let found = mistakes(&[("a.yaml", text)], &[]);
        assert!(
            found[0].contains("expected the manifest to be a map"),
            "{found:?}"
        );
    }
}

#[test]
fn a_key_that_stands_twice_in_one_file_is_a_mistake_and_in_two_is_none() {
    let twice = "services:\n  db: { cwd: a, cwd: b }\n";
    let found = mistakes(&[("a.yaml", BASE), ("b.yaml", twice)], &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("b.yaml:2:17 the key `cwd` stands twice"),
        "{found:?}"
    );
}

const FILLED: &str = "version: 1
services:
  web:
    command: [./web, \"--port=${PORT:-80}\", \"$$HOME\"]
    shell_: x
    cwd: ${DIR}
    env: { TOKEN: $TOKEN, COUNTRY: NO, VERSION: 1.10, MODE: 0755, DAY: 2026-01-01, ON: yes, MAP: 22:22 }
    restart: { policy: '${POLICY-never}', max_restarts: \"${MOST}\" }
settings:
  signals: { force_exit_after_timeout: \"${FORCE:-false}\" }
";

#[test]
fn variables_are_put_into_values_and_take_the_kind_that_is_wanted() {
    let text = FILLED.replace("    shell_: x\n", "");
    let dotenv = "export MOST=3\nDIR=from-file # where\nTOKEN='a b'\n";
    let files = [("kimi.yaml", text.as_str()), (".env", dotenv)];
    let manifest = load(&files, &[("DIR", "5"), ("HOME", "/root")]);
    let web = command(&manifest, "web");
    assert_eq!(web.args, ["--port=80", "$HOME"]);
    assert_eq!(web.cwd, Some(manifest.project_dir.join("5")));
    assert_eq!(
        variables(web),
        [
            ("TOKEN", "a b"),
            ("COUNTRY", "NO"),
            ("VERSION", "1.10"),
            ("MODE", "0755"),
            ("DAY", "2026-01-01"),
            ("ON", "yes"),
            ("MAP", "22:22"),
        ]
    );
    let rules = child(&manifest, "web").unwrap();
    assert_eq!(rules.restart, Restart::Never);
    assert_eq!(rules.governor.limit.unwrap().max_restarts, 3);
    assert!(!manifest.settings.signals.force_exit_after_timeout);
    let written: Vec<&str> = manifest
        .document
        .filled
        .iter()
        .map(|it| it.written.as_str())
        .collect();
    assert_eq!(
        written,
        [
            "--port=${PORT:-80}",
            "${DIR}",
            "$TOKEN",
            "${POLICY-never}",
            "${MOST}",
            "${FORCE:-false}"
        ]
    );
    let shown = write::yaml(&manifest.document.root, &|_, node| match manifest
        .document
        .through_variable(node)
    {
        Some(_) => write::Shown::Hidden,
        None => write::Shown::Whole,
    });
    assert!(
        shown.contains("cwd: \"***\"") && !shown.contains("a b"),
        "{shown}"
    );
}

#[test]
fn toml_has_variables_too() {
    let text =
        "version = 1\n[services.a]\ncommand = [\"./$NAME\"]\nrestart.max_restarts = \"${MOST}\"\n";
    let manifest = load(&[("a.toml", text)], &[("NAME", "x"), ("MOST", "4")]);
    assert_eq!(
        command(&manifest, "a").program,
        manifest.project_dir.join("x")
    );
    let found = mistakes(&[("a.toml", text)], &[]);
    assert!(
        found[0].starts_with("a.toml:3:15 the variable `NAME` is not set"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("a.toml:4:25 the variable `MOST` is not set"),
        "{found:?}"
    );
}

#[test]
fn no_mistake_shows_what_a_variable_holds() {
    let secret = "hunter2secret";
    let text = "version: 1
services:
  a:
    shell: x
    depends_on: [ok, $S, \"${S}\"]
    restart: { policy: $S, max_restarts: '${S}', window: \"$S\", backoff: { factor: $S } }
    stop: { signal: $S, timeout: '${S}' }
    success_exit_codes: [$S]
    type: $S
    cwd: { a: $S }
  ok: { command: [$S, \"${S}\"] }
supervisors:
  s: { strategy: $S, children: [$S] }
settings: { dashboard: { port: $S }, signals: { actions: { INT: $S } }, stop: $S }
";
    let text = problems(&[("a.yaml", text)], &[("S", secret)]).to_string();
    assert!(!text.contains("hunter"), "{text}");
    for phrase in ["`$S`", "`${S}`", "found", "does not exist"] {
        assert!(text.contains(phrase), "no {phrase} in {text}");
    }
    let found = mistakes(
        &[(
            "a.yaml",
            "version: 1\nservices: { a: { shell: x, restart: { max_restarts: $N } } }\n",
        )],
        &[("N", "-5")],
    );
    assert!(
        found[0].starts_with("a.yaml:2:53 expected `max_restarts`") && !found[0].contains("-5"),
        "{found:?}"
    );
}

#[test]
fn what_is_not_set_is_told_once_for_each_place_with_all_else_that_is_wrong() {
    let text = "version: 1
services:
  a: { shell: x, restart: { max_restarts: $NONE }, depends_on: [\"$NOBODY\"], comand: [x] }
  b: { command: [\"${PRT}\", '${PORT:?where?}'], cwd: $PORT- }
";
    let found = mistakes(&[("a.yaml", text)], &[("PORT", "")]);
    let places: Vec<&str> = found
        .iter()
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "a.yaml:3:43",
            "a.yaml:3:66",
            "a.yaml:3:77",
            "a.yaml:4:19",
            "a.yaml:4:29"
        ],
        "{found:#?}"
    );
    assert!(found[3].ends_with("did you mean `PORT`?"), "{found:#?}");
    assert!(
        found[4].ends_with("the variable `PORT` is empty: where?"),
        "{found:#?}"
    );
}

#[test]
fn the_file_of_variables_is_read_only_where_there_are_any() {
    let broken = (".env", "A=1\nnot a hunter2 line\nB=\"hunter2\n");
    let without = (
        "a.yaml",
        "version: 1\nservices: { a: { shell: echo $A } }\n",
    );
    load(&[without, broken], &[]);
    let with = (
        "a.yaml",
        "version: 1\nservices: { a: { command: [$A, $NONE] } }\n",
    );
    let found = mistakes(&[with, broken], &[]);
    let places: Vec<&str> = found
        .iter()
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    assert_eq!(places, [".env:2:1", ".env:3:3"], "{found:?}");
    let text = problems(&[with, broken], &[]).to_string();
    assert!(!text.contains("hunter2"), "{text}");
    // Where it is a directory it holds something else.
    let directory = directory(&[with, (".env/bin/python", "")]);
    assert!(try_load(directory.path(), &["a.yaml"], &[("A", "x"), ("NONE", "y")]).is_ok());
}

#[test]
fn a_value_that_yaml_takes_for_something_else_is_explained() {
    for (line, place, phrase) in [
        ("a: { shell: x, env: { A: ~ } }", "3:25", "write `\"\"`"),
        (
            "a: { shell: x, restart: { max_restarts: 0777 } }",
            "3:43",
            "numbers are decimal here",
        ),
        (
            "a: { shell: x, restart: { max_restarts: 0o7 } }",
            "3:43",
            "numbers are decimal here",
        ),
        (
            "a: { shell: x, restart: { max_restarts: \"5\" } }",
            "3:43",
            "write it without quotes",
        ),
        (
            "a: { shell: x, description: true }",
            "3:31",
            "put it in quotes",
        ),
        (
            "a: { shell: x }\nsettings: { signals: { enabled: yes } }",
            "4:33",
            "`true` or `false`",
        ),
    ] {
        let text = format!("version: 1\nservices:\n  {line}\n");
        let found = mistakes(&[("a.yaml", &text)], &[]);
        let place = format!("a.yaml:{place}");
        assert!(
            found.len() == 1 && found[0].starts_with(&place) && found[0].contains(phrase),
            "expected {place} {phrase:?} for {line}, found {found:?}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_key() {
    let manifest = load(
        &[("a.yaml", &format!("\u{feff}{}", BASE.replace('\n', "\r\n")))],
        &[],
    );
    assert_eq!(manifest.commands.len(), 3);
    let found = mistakes(&[("a.toml", "\u{feff}vers = 1\r\n")], &[]);
    assert!(
        found
            .iter()
            .any(|it| it.starts_with("a.toml:1:1 unknown key `vers`")),
        "{found:?}"
    );
}

#[test]
fn the_cost_of_a_manifest_grows_with_its_size_alone() {
    let of = |services: usize| {
        let lines: Vec<String> = (0..services)
            .map(|n| format!("  s{n}: {{ <<: *base, env: {{ A: $A }} }}\n"))
            .collect();
        let text = format!(
            "version: 1\nx-base: &base {{ command: [x] }}\nservices:\n{}",
            lines.concat()
        );
        load(&[("a.yaml", &text)], &[("A", "v")]).cost
    };
    let (one, ten, hundred) = (of(1), of(10), of(100));
    for resource in [Resource::Values, Resource::Aliases, Resource::Variables] {
        let (one, ten, hundred) = (one.of(resource), ten.of(resource), hundred.of(resource));
        assert_eq!(hundred - ten, (ten - one) * 10, "{resource}");
        assert!(hundred < Cost::BUDGET.of(resource), "{resource}");
    }
    assert_eq!(hundred.of(Resource::Variables), 100);
    assert_eq!(hundred.of(Resource::Depth), one.of(Resource::Depth));
}

#[test]
fn nobody_is_told_more_mistakes_than_he_can_read() {
    let lines: Vec<String> = (0..3_000).map(|n| format!("k{n}: 1\n")).collect();
    let told = problems(&[("a.yaml", &format!("{TRACE}{}", lines.concat()))], &[]);
    assert_eq!(told.0.len(), Cost::BUDGET.of(Resource::Problems));
    assert!(told.to_string().ends_with("and 950 more"));
}

/// A manifest that would leave a trace if anything of it started.
const TRACE: &str = "version: 1\nservices: { a: { type: task, shell: touch started } }\n";

/// Starts these words, which must be refused before anything starts.
fn refused(directory: &Path, words: &[&str], environment: &[(&str, &OsStr)]) -> String {
    let output = kimi_shell(directory)
        .envs(environment.iter().copied())
        .args(words)
        .output()
        .unwrap();
    let answer = Answer::of(&output);
    assert_eq!(answer.code, Some(78), "{words:?}: {}", answer.stderr);
    assert!(
        !directory.join("started").exists(),
        "{words:?} started something"
    );
    answer.stderr
}

#[test]
fn bombs_are_refused_by_the_program_before_anything_starts() {
    let laughs: Vec<String> = (1..12)
        .map(|n| {
            format!(
                "x-{n}: &x{n} [{}]\n",
                vec![format!("*x{}", n - 1); 9].join(", ")
            )
        })
        .collect();
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let here = directory(&[
        (
            "laughs.yaml",
            &format!("{TRACE}x-0: &x0 [lol]\n{}", laughs.concat()),
        ),
        ("deep.yaml", &format!("{TRACE}x-a: {}\n", deep("[", "]"))),
        (
            "block.yaml",
            &format!("{TRACE}x-a:\n {}a\n", "- ".repeat(10_000)),
        ),
        (
            "deep.toml",
            &format!("version = 1\nx-a = {}\n", deep("[", "]")),
        ),
        (
            "tables.toml",
            &format!("version = 1\n{} = 1\n", vec!["a"; 10_000].join(".")),
        ),
        (
            "inline.toml",
            &format!(
                "version = 1\nx = {}1{}\n",
                "{a=".repeat(10_000),
                "}".repeat(10_000)
            ),
        ),
        (
            "wide.yaml",
            &format!("{TRACE}x-a: [{}]\n", "1,".repeat(110_000)),
        ),
        (
            "large.yaml",
            &format!("{TRACE}#{}\n", "x".repeat(1024 * 1024)),
        ),
        (
            "defaults.yaml",
            &format!(
                "{TRACE}name: {}{}\n",
                "${A:-".repeat(10_000),
                "}".repeat(10_000)
            ),
        ),
        (
            "many.yaml",
            &format!("{TRACE}name: {}\n", "$B".repeat(100_000)),
        ),
        (
            "expanding.yaml",
            &format!("{TRACE}name: {}\n", "$B".repeat(9_000)),
        ),
        ("nul.yaml", &format!("{TRACE}x-a: \0\n")),
    ]);
    fs::write(
        here.path().join("latin.yaml"),
        [TRACE.as_bytes(), b"x-a: \xe4\n"].concat(),
    )
    .unwrap();
    let long = "b".repeat(100_000);
    for (name, phrase) in [
        (
            "laughs.yaml",
            "too much: more than 20000 values that come from anchors",
        ),
        ("deep.yaml", "too much: more than 64 levels"),
        ("block.yaml", "too much: more than 64 levels"),
        ("deep.toml", "too much"),
        ("tables.toml", "too much"),
        ("inline.toml", "too much"),
        ("wide.yaml", "too much: more than 100000 values"),
        ("large.yaml", "larger than 1024 KiB"),
        ("defaults.yaml", "too much: more than 64 levels"),
        ("many.yaml", "too much: more than"),
        (
            "expanding.yaml",
            "too much: more than 4194304 bytes of text",
        ),
        ("nul.yaml", "NUL"),
        ("latin.yaml", "line 3 is not UTF-8 text from column 6 on"),
        ("/dev/zero", "not a regular file"),
        (".", "not a regular file"),
        ("none.yaml", "cannot read"),
    ] {
        let told = refused(here.path(), &["-f", name, "start"], &[("B", long.as_ref())]);
        assert!(told.contains(phrase), "{name}: {told}");
        assert!(
            told.len() < 20_000,
            "{name} is told in {} bytes",
            told.len()
        );
    }
}

#[test]
fn files_are_named_by_flags_before_and_after_the_verb_or_by_a_variable() {
    let over = "settings: { stop: { timeout: 7s } }\n";
    let last = "[settings]\nstop.timeout = \"9s\"\n";
    let here = directory(&[("a.yaml", TRACE), ("b.yaml", over), ("c.toml", last)]);
    let timeout = |words: &[&str], files: &str| {
        let mut command = kimi_shell(here.path());
        if !files.is_empty() {
            command.env("KIMI_SHELL_FILE", files);
        }
        let printed = Answer::of(&command.args(words).arg("--settings").output().unwrap());
        assert_eq!(printed.code, Some(0), "{words:?}: {}", printed.stderr);
        let settings: toml::Table = toml::from_str(&printed.stdout).unwrap();
        settings["stop"]["timeout"].as_str().unwrap().to_owned()
    };
    for (words, files, expected) in [
        (&["config", "-f", "a.yaml", "-f", "b.yaml"][..], "", "7s"),
        (
            &["-f", "a.yaml", "config", "-f", "b.yaml", "-f", "c.toml"],
            "",
            "9s",
        ),
        (
            &["-f", "a.yaml", "-f", "c.toml", "-f", "b.yaml", "config"],
            "",
            "7s",
        ),
        (&["config"], "a.yaml:b.yaml::c.toml", "9s"),
        (&["-f", "a.yaml", "config"], "b.yaml:c.toml", "5s"),
        (&["config"], "", "5s"),
    ] {
        assert_eq!(timeout(words, files), expected, "{words:?} {files}");
    }
}

#[test]
fn an_override_is_laid_over_what_is_found_and_not_over_what_is_named() {
    let over = "services: { a: { bogus: 1 } }\n";
    let here = directory(&[
        ("kimi-shell.yaml", TRACE),
        ("kimi-shell.override.yaml", over),
        ("below/deeper/x", ""),
    ]);
    let below = here.path().join("below/deeper");
    let told = refused(&below, &["start"], &[]);
    assert!(
        told.contains("kimi-shell.override.yaml:1:18: unknown key `bogus`"),
        "{told}"
    );
    assert_eq!(
        answer(here.path(), &["-f", "kimi-shell.yaml", "config"]).code,
        Some(0)
    );
    fs::write(here.path().join("kimi-shell.override.toml"), "").unwrap();
    let told = refused(here.path(), &["start"], &[]);
    assert!(told.contains("cannot choose between"), "{told}");
}

#[test]
fn standard_input_is_read_once() {
    let here = directory(&[
        ("b.yaml", "settings: { stop: { timeout: 7s } }\n"),
        (".env", "T=touch\n"),
    ]);
    let run = |words: &[&str]| {
        let mut child = kimi_shell(here.path())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may be refused before it is read.
        drop(stdin.write_all(b"version: 1\nservices: { a: { command: [$T] } }\n"));
        drop(stdin);
        Answer::of(&child.wait_with_output().unwrap())
    };
    for input in ["-", "/dev/stdin"] {
        let printed = run(&["-f", input, "-f", "b.yaml", "config"]);
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        assert!(printed.stdout.contains("timeout: 7s"));
    }
    let told = run(&["-f", "-", "-f", "-", "config"]);
    assert_eq!(told.code, Some(78));
    assert!(told.stderr.contains("only once"), "{}", told.stderr);
}

/// A tree without its places.
fn plain(node: &Node) -> Node {
    let span = Span::default();
    let content = match &node.content {
        Content::Scalar(scalar) if scalar.kind == ScalarKind::Null => {
            return Node::of_scalar("", ScalarKind::Null, span);
        }
        Content::Scalar(scalar) => Content::Scalar(scalar.clone()),
        Content::List(items) => Content::List(items.iter().map(plain).collect()),
        Content::Map(entries) => Content::Map(
            entries
                .iter()
                .map(|entry| Entry {
                    key: entry.key.clone(),
                    key_span: span,
                    value: plain(&entry.value),
                })
                .collect(),
        ),
    };
    Node { span, content }
}

fn parse(text: &str, format: Format) -> Node {
    let source = Arc::new(Source {
        name: "a".to_owned(),
        text: text.to_owned(),
    });
    document::parse(&source, format).unwrap_or_else(|problems| panic!("{problems:?} in\n{text}"))
}

#[test]
fn what_the_project_ships_survives_every_format() {
    let mut texts = vec![
        (FILLED.to_owned(), Format::Yaml),
        (BASE.to_owned(), Format::Yaml),
    ];
    let mut directories = ["config", "examples"].map(PathBuf::from).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(OsStr::to_str).unwrap_or("");
            if path.is_dir() {
                directories.push(path);
            } else if ["yaml", "yml", "toml"].contains(&extension) {
                texts.push((fs::read_to_string(&path).unwrap(), Format::of(&path)));
            }
        }
    }
    assert!(texts.len() >= 4);
    for (text, format) in texts {
        let tree = plain(&parse(&text, format));
        let yaml = write::yaml(&tree, &write::unveiled);
        let toml = write::toml(&tree, &write::unveiled);
        assert_eq!(plain(&parse(&yaml, Format::Yaml)), tree, "{yaml}");
        assert_eq!(plain(&parse(&toml, Format::Toml)), tree, "{toml}");
        let json = write::json(&tree, &write::unveiled);
        assert_eq!(
            write::json(&parse(&json, Format::Yaml), &write::unveiled),
            json
        );
    }
}

/// Pieces that mean something to some reader.
const PIECES: [&str; 28] = [
    "\n", " ", "\t", ":", "- ", "[", "]", "{", "}", "&a ", "*a", "\"", "'", "!!str ", "|\n", "ä",
    "$", "${", "${A:-", "$$", "<<: ", "null", "\0", "\u{feff}", "---\n", "#", "= ", "[[a]]\n",
];

fn damaged(whole: &'static str) -> impl Strategy<Value = String> {
    let chars: Vec<char> = whole.chars().collect();
    let edit = (
        0..chars.len(),
        0..10_usize,
        proptest::sample::select(PIECES.to_vec()),
    );
    proptest::collection::vec(edit, 1..5).prop_map(move |edits| {
        let mut chars = chars.clone();
        for (at, length, piece) in edits {
            let at = at.min(chars.len());
            let end = (at + length).min(chars.len());
            drop(chars.splice(at..end, piece.chars()));
        }
        chars.into_iter().collect()
    })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..60)
            .prop_map(|pieces| pieces.concat().into_bytes()),
        damaged(FILLED).prop_map(String::into_bytes),
        damaged(BASE).prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_in_the_files_they_are_understood_or_refused(
        first in bytes(),
        second in bytes(),
        variables in bytes(),
        is_toml in any::<bool>(),
    ) {
        let here = tempfile::tempdir().unwrap();
        let name = if is_toml { "a.toml" } else { "a.yaml" };
        fs::write(here.path().join(name), first).unwrap();
        fs::write(here.path().join("b.yaml"), second).unwrap();
        fs::write(here.path().join(".env"), variables).unwrap();
        match try_load(here.path(), &[name, "b.yaml"], &[("DIR", "x"), ("MOST", "3"), ("TOKEN", "t")]) {
            Ok(manifest) => prop_assert!(manifest.cost.of(Resource::Bytes) > 0),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
