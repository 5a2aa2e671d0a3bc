//! Every example as a program: it checks its own claim, and the bridge keeps its promises.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The examples that end by themselves.
const TUTORIAL: [&str; 6] = [
    "01_one_child",
    "02_restart_with_backoff",
    "03_supervisors_nested",
    "04_ordered_shutdown",
    "05_async_tasks",
    "06_readiness",
];

/// Cargo builds the examples for a test run, two steps beside the test itself: `target/…/examples`.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let directory: PathBuf = test.ancestors().nth(2).unwrap().join("examples");
    let program = directory.join(name);
    assert!(
        program.exists(),
        "{} is not built; `cargo build --examples` builds it",
        program.display()
    );
    #[expect(
        clippy::disallowed_methods,
        reason = "a test stands outside of the supervision that it tries"
    )]
    Command::new(program)
}

/// The same, killed after a minute: an example that hangs must not hang the tests.
fn within_a_minute(program: &Command) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test stands outside of the supervision that it tries"
    )]
    let mut bounded = Command::new("timeout");
    bounded
        .args(["-s", "KILL", "60"])
        .arg(program.get_program())
        .stdin(Stdio::null());
    bounded
}

#[test]
fn every_example_of_the_tutorial_holds_what_it_claims() {
    for name in TUTORIAL {
        let output = within_a_minute(&example(name)).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{name}: {stderr}");
        assert_ne!(output.stdout, b"", "{name} says nothing");
    }
}

#[test]
fn no_example_is_forgotten_here_and_none_is_long() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines < 100, "{} has {lines} lines", path.display());
            if path.parent() == Some(&root) {
                found.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert_eq!(found, TUTORIAL);
}

/// A bridge that runs. Dropped before its end, it is killed.
struct Bridge {
    process: Child,
    requests: Option<ChildStdin>,
    results: Option<Lines<BufReader<ChildStdout>>>,
}

impl Bridge {
    fn start() -> Self {
        let mut process = example("bridge")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = process.stdin.take();
        let results = process
            .stdout
            .take()
            .map(|stdout| BufReader::new(stdout).lines());
        Self {
            process,
            requests,
            results,
        }
    }

    fn ask(&mut self, request: &Value) {
        self.write(&format!("{request}\n"));
    }

    fn write(&mut self, text: &str) {
        let requests = self.requests.as_mut().unwrap();
        requests.write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Value {
        let results = self.results.as_mut().unwrap();
        let line = results.next().expect("an answer comes").unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask_and_wait(&mut self, request: &Value) -> Value {
        self.ask(request);
        self.answer()
    }

    /// Closes its stdin, reads what is left and waits for its end.
    fn finish(&mut self) -> (Vec<Value>, Option<i32>) {
        drop(self.requests.take());
        let rest = self.results.take().into_iter().flatten();
        let rest = rest.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        (rest.collect(), self.process.wait().unwrap().code())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // After its end both are no-ops.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn shell(line: &str) -> Value {
    json!({ "command": ["sh", "-c", line] })
}

#[test]
fn the_bridge_runs_a_command_where_and_as_asked() {
    let here = tempfile::tempdir().unwrap();
    let directory = here.path().canonicalize().unwrap();
    let mut bridge = Bridge::start();
    let script = "pwd; echo oops >&2; cat; exit 3";
    let result = bridge.ask_and_wait(&json!({
        "id": "a", "command": ["sh", "-c", script], "cwd": directory, "timeout": "10s",
    }));
    assert_eq!(result["id"], "a");
    assert_eq!(result["argv"], json!(["sh", "-c", script]));
    assert_eq!(result["outcome"], "exited");
    assert_eq!(result["exit_code"], 3);
    assert_eq!(result["signal"], Value::Null);
    assert_eq!(
        result["stdout"]["text"],
        format!("{}\n", directory.display())
    );
    assert_eq!(result["stderr"]["text"], "oops\n");
    assert_eq!(result["drained"], "eof");
    let line = bridge.ask_and_wait(&json!({ "shell": "echo one | tr o O; env" }));
    let text = line["stdout"]["text"].as_str().unwrap();
    assert!(text.starts_with("One\n"), "{text}");
    assert!(
        !text.contains("CARGO"),
        "the environment is minimal: {text}"
    );
    assert_eq!(bridge.finish(), (Vec::new(), Some(0)));
}

#[test]
fn each_end_of_a_command_has_its_outcome() {
    let mut bridge = Bridge::start();
    let killed = bridge.ask_and_wait(&shell("kill -9 $$"));
    assert_eq!(killed["outcome"], "signaled");
    assert_eq!(
        (&killed["exit_code"], &killed["signal"]),
        (&Value::Null, &json!("SIGKILL"))
    );
    let late = bridge.ask_and_wait(&json!({ "command": ["sleep", "60"], "timeout": 0.1 }));
    assert_eq!(late["outcome"], "timed_out");
    let deaf =
        json!({ "command": ["sh", "-c", "trap '' TERM; sleep 60; sleep 60"], "timeout": "100ms" });
    assert_eq!(bridge.ask_and_wait(&deaf)["outcome"], "timed_out");
    let missing = bridge.ask_and_wait(&json!({ "command": ["no-such-program"] }));
    assert_eq!(missing["outcome"], "spawn_failed");
    assert_eq!(
        missing["error"],
        "cannot start the command: cannot find `no-such-program` in the PATH"
    );
    assert_eq!(bridge.finish().1, Some(0));
}

#[test]
fn what_is_no_request_is_answered_with_an_error() {
    let mut bridge = Bridge::start();
    for (number, bad) in ["", "{", "[]", "{\"comand\": []}", "{\"command\": \"echo\"}"]
        .iter()
        .enumerate()
    {
        bridge.write(&format!("{bad}\n"));
        let answer = bridge.answer();
        assert!(answer["error"].is_string(), "{answer}");
        assert_eq!(answer["line"], number + 1);
    }
    for bad in [
        json!({ "command": [] }),
        json!({ "command": ["true"], "timeout": "10" }),
        json!({ "command": ["true"], "timeout": -1 }),
        json!({ "command": ["true"], "shell": "true" }),
        json!({}),
    ] {
        let answer = bridge.ask_and_wait(&bad);
        assert_eq!(answer["outcome"], "rejected", "{answer}");
    }
    assert_eq!(
        bridge.ask_and_wait(&json!({ "command": ["true"] }))["exit_code"],
        0
    );
    assert_eq!(bridge.finish(), (Vec::new(), Some(0)));
}

#[test]
fn output_that_is_bigger_than_a_pipe_comes_whole_and_beyond_the_cap_in_part() {
    let mut bridge = Bridge::start();
    let whole = bridge.ask_and_wait(&shell("yes | head -c 1000000"));
    assert_eq!(whole["stdout"]["text"].as_str().unwrap().len(), 1_000_000);
    assert_eq!(whole["stdout"]["truncated"], false);
    let capped = bridge.ask_and_wait(&shell("yes | head -c 20000000"));
    assert_eq!(capped["stdout"]["bytes_total"], 20_000_000);
    assert_eq!(capped["stdout"]["bytes_kept"], 10 * 1024 * 1024);
    assert_eq!(capped["stdout"]["truncated"], true);
    assert_eq!(bridge.finish().1, Some(0));
}

#[test]
fn three_hundred_requests_at_once_are_all_answered_after_the_end_of_the_input() {
    let mut bridge = Bridge::start();
    for number in 0..300 {
        bridge.ask(
            &json!({ "id": number, "command": ["sh", "-c", format!("sleep 0.1; echo {number}")] }),
        );
    }
    let (results, code) = bridge.finish();
    assert_eq!(code, Some(0));
    let mut ids: Vec<u64> = results
        .iter()
        .map(|result| result["id"].as_u64().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..300).collect::<Vec<_>>());
    for result in &results {
        assert_eq!(result["stdout"]["text"], format!("{}\n", result["id"]));
    }
    // 100 run at once, so most had to wait.
    assert!(
        results
            .iter()
            .any(|result| result["queue_ms"].as_u64().unwrap() > 0)
    );
}

#[test]
fn a_signal_ends_the_bridge_in_order_although_its_input_is_open() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let here = tempfile::tempdir().unwrap();
        let note = here.path().join("pid");
        let mut bridge = Bridge::start();
        bridge.ask(&shell(&format!(
            "mkfifo {0}; echo $$ > {0}; sleep 60 & wait",
            note.display()
        )));
        // A fast command first, so that the bridge is known to listen.
        assert_eq!(
            bridge.ask_and_wait(&json!({ "command": ["true"] }))["exit_code"],
            0
        );
        while !note.exists() {
            bridge.ask_and_wait(&json!({ "command": ["sleep", "0.01"] }));
        }
        let pid = std::fs::read_to_string(&note).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        assert!(process.exists());
        bridge.signal(signal);
        assert_eq!(bridge.answer()["signal"], "SIGTERM");
        assert_eq!(
            bridge.process.wait().unwrap().code(),
            Some(code),
            "{signal:?}"
        );
        assert!(!process.exists(), "nothing outlives the bridge");
    }
}

#[test]
fn the_bridge_ends_when_nobody_reads_its_results() {
    let mut bridge = Bridge::start();
    drop(bridge.results.take());
    bridge.ask(&shell("sleep 60"));
    bridge.ask(&json!({ "command": ["true"] }));
    assert_eq!(bridge.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_session_of_the_bridge_keeps_its_state_and_its_order() {
    let mut bridge = Bridge::start();
    let line = |text: &str| json!({ "session": "a", "shell": text });
    bridge.ask_and_wait(&line("cd /; x=1"));
    let told = bridge.ask_and_wait(&line("pwd; echo $x"));
    assert_eq!(told["stdout"]["text"], "/\n1\n", "{told}");
    assert_eq!(told["state"], "kept");
    let other = bridge.ask_and_wait(&json!({ "session": "b", "shell": "echo \"<$x>\"" }));
    assert_eq!(other["stdout"]["text"], "<>\n", "{other}");
    let mut overrun = line("sleep 1000");
    overrun["timeout"] = json!("100ms");
    let overrun = bridge.ask_and_wait(&overrun);
    assert_eq!(
        (&overrun["outcome"], &overrun["state"]),
        (&json!("timed_out"), &json!("lost"))
    );
    let fresh = bridge.ask_and_wait(&line("echo \"<$x>\""));
    assert_eq!(fresh["stdout"]["text"], "<>\n", "{fresh}");
    assert_eq!(bridge.finish(), (Vec::new(), Some(0)));
}
