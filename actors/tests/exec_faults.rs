//! One-shot commands while the machine, or who asks, gives them what cannot be: each is told of, and leaves nothing behind.
//!
//! What is limited for a whole process is tried in one of its own: this program, started again in a role.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[expect(
    unreachable_pub,
    dead_code,
    reason = "each test file uses its part of it"
)]
mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kimi_actors::os::SpawnError;
use kimi_actors::os::stdin::Stdin;
use kimi_actors::policy::admission::{ClientId, Limits};
use kimi_actors::policy::exit::{Exit, StartFailure};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
use kimi_actors::{Exec, ExecError, ExecOutcome, How, Runtime, RuntimeHandle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Footprint, assert_same, eventually};

const ROLE: &str = "KIMI_TEST_ROLE";

/// Each looks at what the whole process holds.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs this with a runtime, and sees to it that nothing is left of what was run in it.
fn leaving_nothing(run: impl AsyncFnOnce(&RuntimeHandle)) {
    let _alone = alone();
    let tokio = tokio::runtime::Builder::new_current_thread();
    let tokio = { tokio }.enable_all().build().unwrap();
    tokio.block_on(async {
        let handle = Runtime::builder().start().await.unwrap();
        // Its threads and descriptors are there once it has run something.
        exits_with_three(&handle).await;
        let before = Footprint::now().descriptors;
        run(&handle).await;
        eventually("nothing is left", || {
            let now = Footprint::now();
            (now.descriptors == before && now.children.is_empty()).then_some(())
        });
        runs_again(&handle).await;
        assert!(handle.shutdown().await.survivors.is_empty());
    });
}

async fn exits_with_three(handle: &RuntimeHandle) {
    let exec = Exec::new(CommandSpec::shell("exit 3"));
    assert_eq!(handle.exec(exec).await.unwrap().exit, Exit::Code(3));
}

/// What is short for a while is there again, in the end.
async fn runs_again(handle: &RuntimeHandle) {
    for _ in 0..10 {
        let exec = Exec::new(CommandSpec::shell("exit 3"));
        match handle.exec(exec).await {
            Ok(outcome) => return assert_eq!(outcome.exit, Exit::Code(3)),
            result => assert_eq!(refusal(result).kind(), StartFailure::Exhausted),
        }
    }
    panic!("nothing runs any more");
}

fn refusal(result: Result<ExecOutcome, ExecError>) -> SpawnError {
    match result {
        Err(ExecError::NotStarted(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Runs this program in a role; it must succeed.
#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn play(launcher: &[&str], role: &str) {
    let _alone = alone();
    let me = std::env::current_exe().unwrap();
    let mut command = match launcher {
        [] => std::process::Command::new(me),
        [program, arguments @ ..] => {
            let mut command = std::process::Command::new(program);
            command.args(arguments).arg(me);
            command
        }
    };
    let output = command
        .args(["--exact", "in_a_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{role}: {}\n{said}", output.status);
}

/// What the program does when it is started in a role; nothing in an ordinary run of the tests.
#[test]
fn in_a_role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "few descriptors" => few_descriptors(),
        "no processes for a while" => no_processes_for_a_while(),
        _ => panic!("no role {role}"),
    }
}

/// From none to enough: wherever they run out, the command is refused whole.
fn few_descriptors() {
    leaving_nothing(async |handle| {
        let open = u64::try_from(Footprint::now().descriptors).unwrap();
        let former = getrlimit(Resource::Nofile);
        let (mut refused, mut ran) = (0, 0);
        for current in std::iter::once(0).chain(open - 2..open + 20) {
            let limit = Rlimit {
                current: Some(current),
                ..former
            };
            setrlimit(Resource::Nofile, limit).unwrap();
            let result = handle.exec(Exec::new(CommandSpec::shell("exit 3"))).await;
            setrlimit(Resource::Nofile, former).unwrap();
            if let Ok(outcome) = result {
                // The limit is the command's own too; the shell says so if that is too little for it.
                assert!(matches!(outcome.exit, Exit::Code(_)), "{outcome:?}");
                ran += 1;
            } else {
                let error = refusal(result);
                assert_eq!(error.kind(), StartFailure::Exhausted, "{error:?}");
                refused += 1;
            }
        }
        assert!(refused >= 2 && ran >= 2, "{refused} refused, {ran} ran");
    });
}

#[test]
fn without_descriptors_a_command_is_refused_and_says_why() {
    play(&[], "few descriptors");
}

fn no_processes_for_a_while() {
    leaving_nothing(async |handle| {
        let (mut refused, mut ran_since) = (0, 0);
        // More than one thread may make processes, and each is refused three.
        while refused == 0 || ran_since < 10 {
            let result = handle.exec(Exec::new(CommandSpec::shell("exit 3"))).await;
            if let Ok(outcome) = result {
                assert_eq!(outcome.exit, Exit::Code(3));
                ran_since += 1;
            } else {
                let error = refusal(result);
                assert_eq!(error.kind(), StartFailure::Exhausted, "{error:?}");
                assert!(error.to_string().contains("make a process"), "{error}");
                refused += 1;
                ran_since = 0;
            }
        }
    });
}

#[test]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the test is not the one under supervision, and says if it is skipped"
)]
fn without_processes_a_command_is_refused_and_the_next_one_runs() {
    // Counted for each thread; the one that starts processes has made some by then, and no other makes so many.
    let launcher = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e"];
    let can_inject = {
        let _alone = alone();
        std::process::Command::new(launcher[0])
            .args(&launcher[1..])
            .args(["inject=pipe2:error=EMFILE", "true"])
            .status()
            .is_ok_and(|status| status.success())
    };
    if !can_inject {
        eprintln!("SKIPPED: EAGAIN of clone3: strace is missing or not permitted here");
        return;
    }
    let injection = "inject=clone3:error=EAGAIN:when=20..22";
    let launcher = [&launcher[..], &[injection]].concat();
    play(&launcher, "no processes for a while");
}

#[test]
fn what_cannot_be_passed_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let written = directory.path().join("written");
    fs::write(&written, "#!/bin/sh\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&written, mode).unwrap();
    leaving_nothing(async |handle| {
        let writer = fs::File::options().append(true).open(&written).unwrap();
        let with = |change: fn(&mut CommandSpec)| {
            let mut command = CommandSpec::new("true", [""; 0]);
            change(&mut command);
            command
        };
        for (command, phrase) in [
            (with(|it| it.program = OsString::new()), "empty command"),
            (
                with(|it| it.program = "tr\0ue".into()),
                "NUL byte in the program",
            ),
            (
                with(|it| it.args.push("a\0".into())),
                "NUL byte in an argument",
            ),
            (
                with(|it| it.env.push(("A".into(), "b\0".into()))),
                "NUL byte in the environment",
            ),
            (
                with(|it| it.cwd = Some("/tmp\0".into())),
                "NUL byte in the working",
            ),
            (
                with(|it| it.cwd = Some("/no/such/directory".into())),
                "cannot enter the working directory",
            ),
            (
                with(|it| it.cwd = Some("/etc/passwd".into())),
                "cannot enter the working directory",
            ),
            (
                with(|it| it.args.push("x".repeat(10 << 20).into())),
                "the longest of 10485761",
            ),
            (
                with(|it| it.env.push(("A".into(), "x".repeat(200_000).into()))),
                "the longest of 200003",
            ),
            (
                with(|it| it.args = vec!["x".repeat(100_000).into(); 200]),
                "bytes of arguments",
            ),
            (
                CommandSpec::new(&written, [""; 0]),
                "cannot execute the program",
            ),
        ] {
            let error = refusal(handle.exec(Exec::new(command)).await);
            assert!(error.to_string().contains(phrase), "{phrase}: {error}");
        }
        drop(writer);
        // What was only being written runs once it is closed.
        let command = CommandSpec::new(&written, [""; 0]);
        let outcome = handle.exec(Exec::new(command)).await.unwrap();
        assert_eq!(outcome.exit, Exit::Code(0));
    });
}

#[test]
fn bytes_that_are_no_text_arrive_and_come_back_as_they_are() {
    let junk = OsStr::from_bytes(b"\xff\xfe=\x80 \xc3(").to_owned();
    leaving_nothing(async |handle| {
        let line = r#"printf %s "$JUNK"; printf %s "$1" >&2; cat"#;
        let mut exec = Exec::new(CommandSpec::new("/bin/sh", ["-c", line, "sh"]));
        exec.command.args.push(junk.clone());
        exec.command.base_env = BaseEnv::Minimal;
        exec.command.env.push(("JUNK".into(), junk.clone()));
        exec.stdin = Stdin::bytes(b"\0\xff").unwrap();
        let outcome = handle.exec(exec).await.unwrap();
        assert_eq!(outcome.exit, Exit::Code(0));
        let expected = [junk.as_bytes(), b"\0\xff"].concat();
        assert_eq!(outcome.captured.stdout.head, expected);
        assert_eq!(outcome.captured.stderr.head, junk.as_bytes());
    });
}

#[test]
fn a_time_that_is_none_is_over_at_once() {
    leaving_nothing(async |handle| {
        let exec = Exec {
            timeout: Some(Duration::ZERO),
            grace: Duration::ZERO,
            ..Exec::new(CommandSpec::new("sleep", ["1000"]))
        };
        match handle.exec(exec).await {
            Err(ExecError::TimedOut) => {}
            Ok(outcome) => assert!(outcome.timed_out(), "{outcome:?}"),
            Err(error) => panic!("{error:?}"),
        }
    });
}

#[test]
fn a_command_is_asked_to_stop_with_the_signal_that_it_names() {
    leaving_nothing(async |handle| {
        let exec = Exec {
            timeout: Some(Duration::from_millis(100)),
            stop_signal: Signal::INT,
            grace: Duration::from_secs(60),
            ..Exec::new(CommandSpec::shell("trap '' TERM; sleep 1000"))
        };
        let outcome = handle.exec(exec).await.unwrap();
        assert!(matches!(outcome.how, How::TimedOut(_)));
        let is_int = matches!(outcome.exit, Exit::Signal { signal, .. } if signal == Signal::INT);
        assert!(is_int, "{outcome:?}");
    });
}

#[test]
fn who_asks_for_little_is_served_in_turn_with_who_asks_for_much() {
    let _alone = alone();
    let tokio = tokio::runtime::Builder::new_current_thread();
    let tokio = { tokio }.enable_all().build().unwrap();
    tokio.block_on(async {
        let limits = Limits {
            max_concurrent: 1,
            ..Limits::default()
        };
        let handle = Runtime::builder().limits(limits).start().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("list");
        let append = |client: u64, word: &str| Exec {
            client: ClientId(client),
            ..Exec::new(CommandSpec::shell(format!(
                "echo {word} >>{}",
                list.display()
            )))
        };
        let first = handle.begin_exec(Exec::new(CommandSpec::new("sleep", ["1000"])));
        let mut waiting = Vec::new();
        for word in ["a1", "a2", "a3", "a4"] {
            waiting.push(handle.begin_exec(append(1, word)));
        }
        waiting.push(handle.begin_exec(append(2, "b1")));
        waiting.push(handle.begin_exec(append(2, "b2")));
        drop(first);
        for mut ticket in waiting {
            ticket.ended().await.unwrap();
        }
        let served = fs::read_to_string(&list).unwrap();
        assert_same(
            &served.split_whitespace().collect::<Vec<_>>(),
            &vec!["a1", "b1", "a2", "b2", "a3", "a4"],
            "turns",
        );
        handle.shutdown().await;
    });
}
