//! Wrong manifests, each with what is said about it, where, and that nothing was started.
//!
//! The texts are in `tests/golden/wrong`; after a change that is meant, `KIMI_BLESS=1 cargo test --test wrong_manifests`
//! writes them anew, to be read before they are committed.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use support::{Answer, kimi_shell};

#[expect(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]
mod support;

/// A manifest by its name, and the bytes of the file.
struct Wrong {
    name: &'static str,
    file: &'static str,
    bytes: Vec<u8>,
}

fn yaml(name: &'static str, text: &str) -> Wrong {
    Wrong {
        name,
        file: "kimi-shell.yaml",
        bytes: text.as_bytes().to_vec(),
    }
}

fn toml(name: &'static str, text: &str) -> Wrong {
    Wrong {
        file: "kimi-shell.toml",
        ..yaml(name, text)
    }
}

/// A manifest in which a service that would leave a trace stands beside this.
fn beside(name: &'static str, services: &str) -> Wrong {
    let text =
        format!("version: 1\nservices:\n  first:\n    command: [touch, started]\n{services}");
    yaml(name, &text)
}

/// The body of one service, to which `command` is added.
fn service(name: &'static str, keys: &str) -> Wrong {
    beside(name, &format!("  web:\n    command: [sleep, '9']\n{keys}"))
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn table() -> Vec<Wrong> {
    let mut all = vec![
        // Names and their relations.
        beside(
            "cycle",
            "  a: { command: [sleep, '9'], depends_on: [b] }\n  b: { command: [sleep, '9'], depends_on: [c] }\n  c: { command: [sleep, '9'], depends_on: [a] }\n",
        ),
        beside(
            "self-dependency",
            "  a: { command: [sleep, '9'], depends_on: [a] }\n",
        ),
        beside(
            "unknown-dependency",
            "  database: { command: [sleep, '9'] }\n  web: { command: [sleep, '9'], depends_on: [databse] }\n",
        ),
        beside(
            "dependency-twice",
            "  a: { command: [sleep, '9'] }\n  b: { command: [sleep, '9'], depends_on: [a, a] }\n",
        ),
        beside("name-with-a-slash", "  a/b: { command: [sleep, '9'] }\n"),
        beside("name-of-a-replica", "  web.1: { command: [sleep, '9'] }\n"),
        beside("name-of-the-root", "  root: { command: [sleep, '9'] }\n"),
        beside(
            "name-too-long",
            &format!("  {}: {{ command: [sleep, '9'] }}\n", "n".repeat(64)),
        ),
        beside(
            "name-twice",
            "  web: { command: [sleep, '9'] }\n  web: { command: [sleep, '8'] }\n",
        ),
        beside(
            "name-of-both",
            "supervisors:\n  first: { children: [first] }\n",
        ),
        beside(
            "supervisor-of-nobody",
            "supervisors:\n  group: { children: [frist] }\n",
        ),
        beside(
            "supervisor-is-empty",
            "supervisors:\n  group: { children: [] }\n",
        ),
        beside(
            "two-supervisors",
            "supervisors:\n  one: { children: [first] }\n  two: { children: [first] }\n",
        ),
        beside(
            "supervisors-in-a-circle",
            "supervisors:\n  one: { children: [two] }\n  two: { children: [one] }\n",
        ),
        beside(
            "order-contradicts-dependency",
            "  a: { command: [sleep, '9'], depends_on: [b] }\n  b: { command: [sleep, '9'] }\nsupervisors:\n  group: { children: [a, b] }\n",
        ),
        beside(
            "strategy-misspelt",
            "supervisors:\n  group: { strategy: one_for_al, children: [first] }\n",
        ),
        // Keys.
        service("unknown-key", "    comand: [true]\n"),
        service(
            "unknown-key-of-others",
            "    environment: { A: b }\n    working_dir: /\n    healthcheck: { test: x }\n",
        ),
        service("kebab-case", "    depends-on: [first]\n"),
        service("duplicate-key", "    cwd: /\n    cwd: /tmp\n"),
        yaml(
            "unknown-section",
            "version: 1\nservice:\n  web: { command: [sleep, '9'] }\n",
        ),
        yaml("no-services", "version: 1\n"),
        yaml(
            "no-version",
            "services:\n  web: { command: [touch, started] }\n",
        ),
        yaml(
            "version-of-the-future",
            "version: 2\nservices:\n  web: { command: [touch, started] }\n",
        ),
        // What is executed.
        beside("no-command", "  web: { cwd: / }\n"),
        beside(
            "command-and-shell",
            "  web: { command: [sleep, '9'], shell: sleep 9 }\n",
        ),
        beside("command-is-text", "  web: { command: sleep 9 }\n"),
        beside("command-is-empty", "  web: { command: [] }\n"),
        beside("shell-is-empty", "  web: { shell: '  ' }\n"),
        beside(
            "missing-binary",
            "  web: { command: [no-such-program-anywhere] }\n",
        ),
        beside("binary-is-a-directory", "  web: { command: [/etc] }\n"),
        beside(
            "binary-is-no-program",
            "  web: { command: [/etc/passwd] }\n",
        ),
        // Values.
        service(
            "wrong-type",
            "    depends_on: 5\n    env: [1]\n    cwd: {}\n",
        ),
        service(
            "bad-duration",
            "    stop: { timeout: 5 }\n    restart: { window: 3 minutes }\n",
        ),
        service("bad-signal", "    stop: { signal: SIGTREM }\n"),
        service("bad-restart", "    restart: sometimes\n"),
        service(
            "bad-number",
            "    restart: { max_restarts: -1, backoff: { factor: 0.5, jitter: 2 } }\n",
        ),
        service(
            "bad-exit-code",
            "    success_exit_codes: [0, 256, SIGNOTHING]\n",
        ),
        service(
            "bad-condition",
            "    depends_on: { first: { condition: redy } }\n",
        ),
        service(
            "truth-as-a-word",
            "    sd_notify: yes\n    no_new_privs: on\n",
        ),
        service("octal-number", "    restart: { max_restarts: 010 }\n"),
        service("nothing-in-env", "    env: { A: }\n"),
        service("name-of-a-variable", "    env: { 'A=B': c, '': d }\n"),
        service("secret-in-env", "    env: { TOKEN: [hunter2] }\n"),
        // Readiness and liveness.
        service("probe-of-nothing", "    readiness: { interval: 1s }\n"),
        service(
            "probe-of-two",
            "    readiness: { tcp: '127.0.0.1:80', exec: [true] }\n",
        ),
        service("probe-port", "    readiness: { tcp: '127.0.0.1:99999' }\n"),
        service(
            "probe-url",
            "    readiness: { http: 'https://localhost/' }\n",
        ),
        service("probe-expression", "    readiness: { log: 'ready (' }\n"),
        service("probe-descriptor", "    readiness: { notify_fd: 1 }\n"),
        service(
            "probe-zero",
            "    liveness: { exec: [true], interval: 0s, failure_threshold: 0 }\n",
        ),
        service("liveness-by-log", "    liveness: { log: ready }\n"),
        service(
            "edge-misspelt",
            "    depends_on: { first: { on_lost: restrat } }\n",
        ),
        // Limits, replicas, profiles.
        service(
            "limits-misspelt",
            "    limits: { memory: lots, nofiles: 3 }\n",
        ),
        service("max-runtime-none", "    max_runtime: 0s\n"),
        service("idle-timeout-negative", "    idle_timeout: -5s\n"),
        service("timeout-of-a-service", "    timeout: 5s\n"),
        service("replicas-none", "    replicas: 0\n"),
        service("replicas-many", "    replicas: 100000\n"),
        service("profiles-by-number", "    profiles: 7\n"),
        service("umask-in-decimal", "    umask: 9\n"),
        // Settings.
        beside(
            "unknown-setting",
            "settings:\n  signals: { gracefull_shutdown_timeout: 5s }\n",
        ),
        beside(
            "setting-twice",
            "settings:\n  signals: { graceful_shutdown_timeout: 5s, gracefulShutdownTimeoutMs: 5000 }\n",
        ),
        // Interpolation.
        service("unset-variable", "    cwd: /${NO_SUCH_VARIABLE}\n"),
        service(
            "unset-variable-with-words",
            "    cwd: ${NO_SUCH_VARIABLE:?say where it lives}\n",
        ),
        service("open-brace", "    cwd: ${HOME\n"),
        service("lone-dollar", "    cwd: /a$\n"),
        // Environment files.
        service("env-file-missing", "    env_file: .env.nowhere\n"),
        service("env-file-is-a-directory", "    env_file: /etc\n"),
        service("env-file-is-endless", "    env_file: /dev/zero\n"),
        // YAML itself.
        yaml(
            "tab",
            "version: 1\nservices:\n\tweb: { command: [touch, started] }\n",
        ),
        yaml(
            "bad-indentation",
            "version: 1\nservices:\n  web:\n    command: [touch, started]\n   cwd: /\n",
        ),
        yaml(
            "open-quote",
            "version: 1\nservices:\n  web: { command: [touch, 'started] }\n",
        ),
        yaml(
            "open-bracket",
            "version: 1\nservices:\n  web: { command: [touch, started }\n",
        ),
        yaml(
            "at-sign",
            "version: 1\nservices:\n  web: { command: [touch, started], cwd: @home }\n",
        ),
        yaml("unknown-alias", "version: 1\nservices:\n  web: *nothing\n"),
        yaml("empty", ""),
        yaml("only-comments", "# nothing\n"),
        yaml("a-list", "- version: 1\n"),
        yaml(
            "two-documents",
            "version: 1\nservices: { a: { command: [touch, started] } }\n---\nversion: 1\n",
        ),
        // TOML.
        toml(
            "toml-key-twice",
            "version = 1\nversion = 1\n[services.web]\ncommand = ['touch', 'started']\n",
        ),
        toml(
            "toml-wrong-type",
            "version = 1\n[services.web]\ncommand = 'touch started'\nstop.timeout = 5\n",
        ),
        toml("toml-no-value", "version = 1\n[services.web]\ncommand =\n"),
        toml(
            "toml-bare-word",
            "version = 1\n[services.web]\ncommand = [touch]\n",
        ),
        toml(
            "toml-cycle",
            "version = 1\n[services.a]\ncommand = ['touch', 'started']\ndepends_on = ['b']\n[services.b]\ncommand = ['touch', 'started']\ndepends_on = ['a']\n",
        ),
    ];
    // Bytes that are no text, and bombs.
    let good = "version: 1\nservices:\n  web: { command: [touch, started] }\n";
    let bytes = |name, bytes: &[u8]| Wrong {
        bytes: bytes.to_vec(),
        ..yaml(name, "")
    };
    all.push(bytes(
        "not-utf-8",
        &[good.as_bytes(), b"x-note: caf\xe9\n"].concat(),
    ));
    all.push(bytes("nul", &[good.as_bytes(), b"x-note: a\0b\n"].concat()));
    all.push(bytes(
        "utf-16",
        &[&b"\xff\xfe"[..], b"v\0e\0r\0s\0i\0o\0n\0"].concat(),
    ));
    all.push(bytes("huge", &vec![b'#'; 100 << 20]));
    let levels = format!(
        "{good}x-deep: {}{}\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    all.push(yaml("ten-thousand-levels", &levels));
    let levels = format!(
        "version = 1\nx = {}1{}\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    all.push(toml("toml-ten-thousand-levels", &levels));
    let mut bomb = format!("{good}x-a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for n in 1..10 {
        let of = vec![format!("*a{}", n - 1); 10].join(",");
        writeln!(bomb, "x-a{n}: &a{n} [{of}]").unwrap();
    }
    all.push(yaml("alias-bomb", &bomb));
    let mut bomb = format!("{good}x-m0: &m0 {{ k0: 1 }}\n");
    for n in 1..3_000 {
        writeln!(bomb, "x-m{n}: &m{n} {{ <<: *m{}, k{n}: 1 }}", n - 1).unwrap();
    }
    all.push(yaml("merge-bomb", &bomb));
    let nested = format!("{}x{}", "${A:-".repeat(5_000), "}".repeat(5_000));
    all.push(service("expansion-bomb", &format!("    cwd: /{nested}\n")));
    all
}

/// What the program says; the manifest stands alone in a directory, and what is started there leaves a trace.
fn said_of(wrong: &Wrong, words: &[&str]) -> (Answer, bool) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(wrong.file), &wrong.bytes).unwrap();
    let mut answer = run(directory.path(), words);
    let here = directory.path().display().to_string();
    answer.stderr = answer.stderr.replace(&here, "HERE");
    (answer, directory.path().join("started").exists())
}

fn run(directory: &Path, words: &[&str]) -> Answer {
    let mut command = kimi_shell(directory);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    Answer::of(&command.args(words).stdin(Stdio::null()).output().unwrap())
}

/// Long lines of bombs add nothing.
fn shortened(text: &str) -> String {
    const MOST: usize = 240;
    let short = |line: &str| match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} [...]\n", &line[..end]),
        None => format!("{line}\n"),
    };
    text.lines().map(short).collect()
}

#[test]
fn each_wrong_manifest_is_refused_with_its_text_and_nothing_is_started() {
    let bless = std::env::var_os("KIMI_BLESS").is_some();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wrong");
    let table = table();
    assert!(table.len() >= 60, "{}", table.len());
    let mut failures = String::new();
    for wrong in &table {
        let (answer, was_started) = said_of(wrong, &["start", "--all"]);
        let path = golden.join(format!("{}.txt", wrong.name));
        let said = shortened(&answer.stderr);
        if bless {
            fs::write(&path, &said).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if answer.code != Some(78) || !answer.stdout.is_empty() || was_started {
            writeln!(
                failures,
                "{}: exit {:?}, started: {was_started}\n{}{said}",
                wrong.name, answer.code, answer.stdout
            )
            .unwrap();
        } else if said != expected {
            writeln!(
                failures,
                "{}:\nexpected\n{expected}found\n{said}",
                wrong.name
            )
            .unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_text_names_a_place_and_belongs_to_a_manifest() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wrong");
    let names: Vec<&str> = table().iter().map(|wrong| wrong.name).collect();
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            names.contains(&name.as_str()),
            "{name} belongs to no manifest"
        );
        // Of what cannot be read at all there is no line; programs are looked for when the manifest is good.
        let has_no_line = [
            "huge",
            "missing-binary",
            "binary-is-a-directory",
            "binary-is-no-program",
        ];
        let text = fs::read_to_string(&path).unwrap();
        let is_placed = text.contains("kimi-shell.yaml:") || text.contains("kimi-shell.toml:");
        assert!(
            is_placed || has_no_line.contains(&name.as_str()),
            "{name}: {text}"
        );
    }
}

#[test]
fn files_that_never_end_or_never_begin_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo.yaml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for file in [
        "/dev/zero",
        "/dev/urandom",
        "fifo.yaml",
        "/",
        "/proc/self/mem",
        "nowhere.yaml",
    ] {
        for words in [["start", "-f", file], ["validate", "-f", file]] {
            let answer = run(directory.path(), &words);
            assert_eq!(answer.code, Some(78), "{words:?}: {answer:?}");
            assert!(
                format!("{}{}", answer.stdout, answer.stderr).contains("cannot read"),
                "{words:?}: {answer:?}"
            );
        }
    }
}

#[test]
fn a_fifo_as_an_environment_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        directory.path().join("fifo.env"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let text = "version: 1\nservices:\n  web: { command: [touch, started], env_file: fifo.env }\n";
    fs::write(directory.path().join("kimi-shell.yaml"), text).unwrap();
    let answer = run(directory.path(), &["start", "--all"]);
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.stderr.contains("kimi-shell.yaml:3:"), "{answer:?}");
    assert!(!directory.path().join("started").exists());
}

#[test]
fn what_people_write_and_mean_is_understood() {
    let good = "version: 1\nservices:\n  web:\n    command: [\"true\"]\n    type: task\n";
    for (name, text) in [
        ("BOM", format!("\u{feff}{good}")),
        ("CRLF", good.replace('\n', "\r\n")),
        (
            "country codes",
            format!(
                "{good}    env: {{ COUNTRY: NO, ON: on, MODE: 0777, TIME: 22:22, VERSION: 1.10 }}\n"
            ),
        ),
        (
            "merge keys",
            format!("x-common: &common {{ cwd: / }}\n{good}    <<: *common\n"),
        ),
        ("a comment at the end", format!("{good}# the end")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("kimi-shell.yaml"), text).unwrap();
        let answer = run(directory.path(), &["start", "--all"]);
        assert_eq!(answer.code, Some(0), "{name}: {answer:?}");
    }
}
