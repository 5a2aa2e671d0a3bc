//! `init`: what is written, and what is left alone.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![cfg(target_os = "linux")]

pub mod support;

use std::fs;
use std::path::Path;

use kimi_actors::policy::event::Fact;
use kimi_actors::policy::signal::Signal;
use support::answer;
use support::golden::assert_golden;
use support::supervisor::{Place, Supervisor};

/// What foreman's own documentation shows, and what people write.
const PROCFILE: &str = "\
# The processes of the shop
release: ./bin/migrate --to=latest

web: bundle exec rails server -p $PORT
_worker:  env QUEUE=* bundle exec rake resque:work   # with a comment of the shell
clock: ruby -e 'puts \"it is #{Time.now}\"; sleep'
--: echo nobody knows my name
";

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let here = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(here.path().join(name), text).unwrap();
    }
    here
}

fn names(here: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(here)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_first_manifest_is_valid_and_has_its_schema_beside_it() {
    for (words, name) in [
        (&["init"][..], "kimi-shell.yaml"),
        (&["init", "--format", "toml"], "kimi-shell.toml"),
        (&["init", "--output", "kimi-shell.yml"], "kimi-shell.yml"),
    ] {
        let here = directory(&[]);
        let written = answer(here.path(), words);
        assert_eq!(
            (written.code, written.stdout.as_str()),
            (Some(0), ""),
            "{}",
            written.stderr
        );
        assert!(
            written.stderr.contains("kimi-shell start --all"),
            "{}",
            written.stderr
        );
        assert_eq!(names(here.path()), ["kimi-shell.schema.json", name]);
        let text = fs::read_to_string(here.path().join(name)).unwrap();
        assert!(text.lines().next().unwrap().contains("schema"), "{text}");
        let valid = answer(here.path(), &["validate", "--strict"]);
        assert_eq!(valid.code, Some(0), "{}", valid.stdout);
        let schema = fs::read_to_string(here.path().join("kimi-shell.schema.json")).unwrap();
        assert_eq!(answer(here.path(), &["schema"]).stdout, schema);
    }
}

#[test]
fn both_formats_of_the_first_manifest_mean_the_same() {
    let here = directory(&[]);
    let resolved = |format: &str| {
        let name = format!("example.{format}");
        let words = ["init", "--output", &name];
        assert_eq!(answer(here.path(), &words).code, Some(0));
        let printed = answer(here.path(), &["config", "-f", &name, "-o", "json"]);
        let mut json: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
        // YAML keeps the last end of a line as it is written, TOML the same between its quotes.
        json["manifest"].take()
    };
    assert_eq!(resolved("yaml"), resolved("toml"));
}

#[test]
fn the_first_manifest_runs_as_it_is() {
    let place = Place::empty();
    let file = place.out("first.yaml");
    let written = place
        .command(&["init", "--output", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(written.status.success());
    let command = place.command(&["-f", file.to_str().unwrap(), "start", "-o", "ndjson"]);
    let supervisor = Supervisor::run(place, command);
    let up = supervisor.object("up");
    assert_eq!(up["down"], serde_json::json!([]), "{up}");
    let chain: Vec<&str> = up["slowest_chain"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["service"].as_str().unwrap())
        .collect();
    assert_eq!(chain, ["prepare", "clock", "worker"]);
    supervisor.line("worker", "working as example");
    supervisor.send(Signal::INT);
    let ended = supervisor.end();
    assert_eq!(ended.code, 130);
    let is_failure = |fact: &Fact| matches!(fact, Fact::Failed { .. });
    assert!(!ended.story.iter().any(|told| is_failure(&told.fact)));
}

#[test]
fn what_exists_is_left_alone_unless_it_is_to_be_replaced() {
    let here = directory(&[
        ("kimi-shell.yaml", "mine"),
        ("kimi-shell.schema.json", "mine"),
    ]);
    let refused = answer(here.path(), &["init"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("`--force`"), "{}", refused.stderr);
    let read = |name: &str| fs::read_to_string(here.path().join(name)).unwrap();
    assert_eq!(read("kimi-shell.yaml"), "mine");
    let rival = answer(here.path(), &["init", "--format", "toml", "--force"]);
    assert_eq!(rival.code, Some(1));
    assert!(rival.stderr.contains("kimi-shell.yaml"), "{}", rival.stderr);
    assert!(rival.stderr.contains("remove it first"), "{}", rival.stderr);
    let elsewhere = answer(here.path(), &["init", "--output", "other.yaml"]);
    assert_eq!(elsewhere.code, Some(0));
    assert_eq!(read("kimi-shell.schema.json"), "mine");
    assert!(
        elsewhere.stderr.contains("was left as it is"),
        "{}",
        elsewhere.stderr
    );
    assert!(
        elsewhere.stderr.contains("start --all -f other.yaml"),
        "{}",
        elsewhere.stderr
    );
    assert_eq!(answer(here.path(), &["init", "--force"]).code, Some(0));
    assert!(read("kimi-shell.yaml").contains("version: 1"));
    assert!(read("kimi-shell.schema.json").contains("$schema"));
    assert_eq!(
        names(here.path()),
        ["kimi-shell.schema.json", "kimi-shell.yaml", "other.yaml"]
    );
}

#[test]
fn it_looks_around() {
    let here = directory(&[("kimi-shell.toml", "version = 1\n")]);
    let below = here.path().join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("Procfile"), "web: x\n").unwrap();
    let written = answer(&below, &["init"]);
    assert_eq!(written.code, Some(0));
    assert!(
        written.stderr.contains("it counts instead of"),
        "{}",
        written.stderr
    );
    assert!(
        written.stderr.contains("init --from Procfile --force"),
        "{}",
        written.stderr
    );
}

#[test]
fn standard_output_and_places_that_cannot_be_written() {
    let here = directory(&[]);
    let printed = answer(here.path(), &["init", "--output", "-", "--format", "toml"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert!(printed.stdout.starts_with("#:schema"), "{}", printed.stdout);
    let nowhere = answer(here.path(), &["init", "--output", "no/where.yaml"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("`--output`"), "{}", nowhere.stderr);
    let torn = answer(
        here.path(),
        &["init", "--output", "a.yaml", "--format", "toml"],
    );
    assert_eq!(torn.code, Some(2));
    assert_eq!(names(here.path()), [""; 0]);
}

#[test]
fn a_procfile_becomes_a_manifest() {
    let here = directory(&[("Procfile", PROCFILE)]);
    for (format, name) in [
        ("yaml", "init/procfile.yaml"),
        ("toml", "init/procfile.toml"),
    ] {
        let words = [
            "init", "--from", "Procfile", "--output", "-", "--format", format,
        ];
        let made = answer(here.path(), &words);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        assert_golden(name, &made.stdout);
        assert_golden("init/procfile.talk", &made.stderr);
    }
}

#[test]
fn the_environment_file_beside_a_procfile_comes_along() {
    let here = directory(&[
        ("Procfile", "web: a\nworker: b\n"),
        (".env", "SECRET=x\nPORT=3000\n"),
    ]);
    let words = ["init", "--from", "Procfile", "--output", "-"];
    let made = answer(here.path(), &words);
    assert_golden("init/procfile-with-env.yaml", &made.stdout);
    assert!(!made.stdout.contains("SECRET"));
}

#[test]
fn a_wrong_procfile_is_told_line_by_line_and_nothing_is_written() {
    let here = directory(&[(
        "Procfile",
        "web: a\nthis is no line\nweb: b\nworker:\nmy app: c\n",
    )]);
    let refused = answer(here.path(), &["init", "--from", "Procfile"]);
    assert_eq!(refused.code, Some(78));
    assert_golden("init/procfile-wrong.talk", &refused.stderr);
    assert_eq!(names(here.path()), ["Procfile"]);
    let foreign = answer(here.path(), &["init", "--from", "docker-compose.yml"]);
    assert_eq!(foreign.code, Some(78));
    assert!(
        foreign.stderr.contains("only Procfiles"),
        "{}",
        foreign.stderr
    );
    let missing = answer(here.path(), &["init", "--from", "Nofile"]);
    assert_eq!(missing.code, Some(78));
    assert!(missing.stderr.contains("`--from`"), "{}", missing.stderr);
}
