//! Warm shells: real shells, the real clock.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]
mod support;

use std::time::Duration;

use kimi_actors::os::Kept;
use kimi_actors::policy::exit::Exit;
use kimi_actors::session::{
    Line, LineEnd, LineOutcome, Session, SessionError, SessionPool, SessionSpec, Shell,
};
use kimi_actors::{Runtime, RuntimeHandle};
use support::eventually;

async fn runtime() -> RuntimeHandle {
    Runtime::builder().start().await.unwrap()
}

fn session(handle: &RuntimeHandle, shell: Shell) -> Session {
    let spec = SessionSpec {
        shell,
        ..SessionSpec::default()
    };
    Session::new(handle.clone(), spec)
}

async fn run(session: &mut Session, text: &str) -> LineOutcome {
    session.run(&Line::new(text)).await.unwrap()
}

fn text(kept: &Kept) -> String {
    String::from_utf8(kept.to_bytes_marked()).unwrap()
}

/// What it wrote to stdout, after it ended with 0 and wrote nothing to stderr.
async fn said(session: &mut Session, line: &str) -> String {
    let outcome = run(session, line).await;
    assert_eq!(outcome.end, LineEnd::Status(0), "{line}: {outcome:?}");
    assert_eq!(text(&outcome.stderr), "", "{line}");
    text(&outcome.stdout)
}

/// The end of the runtime leaves nothing behind.
async fn end(handle: RuntimeHandle) {
    let report = handle.shutdown().await;
    assert!(report.survivors.is_empty(), "{report:?}");
}

#[tokio::test]
async fn state_stays_from_one_command_to_the_next() {
    let handle = runtime().await;
    for shell in [Shell::Sh, Shell::Bash] {
        let mut session = session(&handle, shell);
        run(
            &mut session,
            "cd /; x='a b'; export Y=z; f() { echo \"f:$x\"; }",
        )
        .await;
        assert_eq!(said(&mut session, "pwd").await, "/\n");
        assert_eq!(said(&mut session, "f; sh -c 'echo $Y'").await, "f:a b\nz\n");
    }
    end(handle).await;
}

#[tokio::test]
async fn each_command_has_its_own_status_and_streams() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    for (line, status, stdout, stderr) in [
        ("echo out; echo err >&2", 0, "out\n", "err\n"),
        ("(exit 3)", 3, "", ""),
        ("false", 1, "", ""),
        ("sh -c 'kill -9 $$'", 137, "", "Killed\n"),
        ("", 0, "", ""),
        ("# nothing", 0, "", ""),
        ("cat", 0, "", ""),
        ("printf 'no newline'", 0, "no newline", ""),
        ("echo 'it'\\''s'", 0, "it's\n", ""),
        ("cat <<END\n$((1 + 1))\nEND", 0, "2\n", ""),
        ("echo 1\n\necho 2", 0, "1\n2\n", ""),
    ] {
        let outcome = run(&mut session, line).await;
        assert_eq!(outcome.end, LineEnd::Status(status), "{line}");
        assert_eq!(text(&outcome.stdout), stdout, "{line}");
        assert_eq!(text(&outcome.stderr), stderr, "{line}");
    }
    end(handle).await;
}

#[tokio::test]
async fn a_line_that_is_no_shell_ends_nothing() {
    let handle = runtime().await;
    for shell in [Shell::Sh, Shell::Bash] {
        let mut session = session(&handle, shell);
        run(&mut session, "x=kept").await;
        for line in [
            "if then",
            "echo 'open",
            "echo \"open",
            ")",
            "f() {",
            "${",
            "echo $((",
        ] {
            let outcome = run(&mut session, line).await;
            let LineEnd::Status(status) = outcome.end else {
                panic!("{line}: {outcome:?}");
            };
            assert_ne!(status, 0, "{line}");
            assert_ne!(text(&outcome.stderr), "", "{line}");
        }
        assert_eq!(said(&mut session, "echo $x").await, "kept\n");
    }
    end(handle).await;
}

#[tokio::test]
async fn nothing_that_a_command_does_to_its_descriptors_or_names_reaches_the_next() {
    let handle = runtime().await;
    for shell in [Shell::Sh, Shell::Bash] {
        let mut session = session(&handle, shell);
        for line in [
            "exec >/dev/null",
            "exec 1>&- 2>&- 0<&-",
            "exec 3>&-",
            "echo 0 >&3",
            "echo() { printf wrong; return 9; }",
            "alias command=false echo=false",
            "trap 'echo trapped' DEBUG 2>/dev/null",
            "IFS=0123456789",
            "cat >/dev/null",
            "set -x; set +x",
            "readonly PATH",
        ] {
            run(&mut session, line).await;
            let outcome = run(&mut session, "\\command echo here; (exit 5)").await;
            assert_eq!(outcome.end, LineEnd::Status(5), "after {line}");
            assert!(text(&outcome.stdout).ends_with("here\n"), "after {line}");
        }
    }
    end(handle).await;
}

#[tokio::test]
async fn output_that_looks_like_a_status_is_output() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    let line = "printf '0\\n1\\n'; printf '2\\n' >&2; printf '\\0\\377\\n'; (exit 4)";
    let outcome = run(&mut session, line).await;
    assert_eq!(outcome.end, LineEnd::Status(4));
    assert_eq!(outcome.stdout.head, b"0\n1\n\0\xff\n");
    assert_eq!(outcome.stderr.head, b"2\n");
    end(handle).await;
}

#[tokio::test]
async fn a_background_job_that_goes_on_writing_is_not_mixed_in_and_lives() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    let begun = "(while sleep 0.001; do echo late; echo late >&2; done) & echo $!";
    let pid = said_by_job(&mut session, begun).await;
    for n in 0..100 {
        let outcome = run(&mut session, &format!("echo {n}; echo {n} >&2")).await;
        assert_eq!(text(&outcome.stdout), format!("{n}\n"));
        assert_eq!(text(&outcome.stderr), format!("{n}\n"));
    }
    let alive = run(&mut session, &format!("kill -0 {pid}")).await;
    assert_eq!(alive.end, LineEnd::Status(0), "its pipe is still read");
    end(handle).await;
}

/// The first line: the job may have written more before the command had ended.
async fn said_by_job(session: &mut Session, line: &str) -> String {
    let outcome = run(session, line).await;
    let text = text(&outcome.stdout);
    let digits = |line: &&str| line.parse::<u32>().is_ok();
    text.lines().find(digits).unwrap().to_owned()
}

#[tokio::test]
async fn much_output_keeps_its_head_and_tail_and_its_count() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    let line = Line {
        max_output: 1000,
        ..Line::new("head -c 3000000 /dev/zero | tr '\\0' x; printf end; echo hi >&2")
    };
    let outcome = session.run(&line).await.unwrap();
    assert_eq!(outcome.end, LineEnd::Status(0));
    assert_eq!(outcome.stdout.bytes_total, 3_000_003);
    assert_eq!(outcome.stdout.bytes_kept(), 1000);
    assert!(outcome.stdout.tail.ends_with(b"xend"));
    assert_eq!(text(&outcome.stderr), "hi\n");
    end(handle).await;
}

#[tokio::test]
async fn a_command_that_overruns_is_killed_with_all_it_started_and_the_next_has_a_new_shell() {
    let handle = runtime().await;
    for shell in [Shell::Sh, Shell::Bash] {
        let mut session = session(&handle, shell);
        run(&mut session, "x=kept").await;
        for line in [
            "echo begun; sleep 1000",
            "echo begun; while :; do :; done",
            "trap '' TERM INT; echo begun; sleep 1000 & wait; sleep 1000",
            "echo begun; yes",
            "echo begun; kill -STOP $$",
            "echo begun; sh -c \"trap '' TERM INT; kill -STOP \\$\\$; sleep 1000\"",
        ] {
            let line = Line {
                timeout: Some(Duration::from_millis(200)),
                max_output: 1000,
                ..Line::new(line)
            };
            let outcome = session.run(&line).await.unwrap();
            assert_eq!(outcome.end, LineEnd::TimedOut, "{line:?}");
            assert!(outcome.end.lost_state());
            assert!(outcome.stdout.head.starts_with(b"begun\n"), "{line:?}");
            assert_eq!(said(&mut session, "echo \"<$x>\"").await, "<>\n");
            run(&mut session, "x=kept").await;
        }
    }
    end(handle).await;
}

#[tokio::test]
async fn a_shell_that_survives_the_interrupt_of_its_command_goes_on_with_its_state() {
    let handle = runtime().await;
    for shell in [Shell::Sh, Shell::Bash] {
        let mut session = session(&handle, shell);
        // What it catches, its commands do not.
        run(&mut session, "trap : INT; x=kept").await;
        let line = Line {
            timeout: Some(Duration::from_millis(200)),
            ..Line::new("echo begun; sleep 1000")
        };
        let outcome = session.run(&line).await.unwrap();
        assert_eq!(outcome.end, LineEnd::Interrupted(130));
        assert!(!outcome.end.lost_state());
        assert_eq!(text(&outcome.stdout), "begun\n");
        assert_eq!(said(&mut session, "echo \"<$x>\"").await, "<kept>\n");
    }
    end(handle).await;
}

#[tokio::test]
async fn an_overrun_command_is_interrupted_before_its_shell_is_killed() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    // The start of the shell counts too.
    session.warm().await.unwrap();
    let cares = "trap 'echo tidied; exit' INT; echo begun; while :; do sleep 0.01; done";
    let line = Line {
        timeout: Some(Duration::from_millis(500)),
        ..Line::new(cares)
    };
    let outcome = session.run(&line).await.unwrap();
    assert_eq!(outcome.end, LineEnd::TimedOut);
    assert_eq!(text(&outcome.stdout), "begun\ntidied\n");
    end(handle).await;
}

#[tokio::test]
async fn a_shell_that_ends_is_an_outcome_and_the_next_command_has_a_new_one() {
    let handle = runtime().await;
    for (line, exit) in [
        ("echo last; exit 7", Exit::Code(7)),
        ("echo last; exec true", Exit::Code(0)),
        ("echo last; set -e; false", Exit::Code(1)),
        (
            "echo last; kill -9 $$",
            Exit::Signal {
                signal: kimi_actors::policy::signal::Signal::KILL,
                core: false,
            },
        ),
        ("echo last; . /nowhere", Exit::Code(2)),
    ] {
        let mut session = session(&handle, Shell::Sh);
        let outcome = run(&mut session, line).await;
        // `command eval` keeps a failing special builtin from ending the shell, in newer ones.
        if outcome.end != LineEnd::Status(2) {
            assert_eq!(outcome.end, LineEnd::ShellEnded(exit), "{line}");
        }
        assert_eq!(text(&outcome.stdout), "last\n", "{line}");
        assert_eq!(said(&mut session, "echo again").await, "again\n");
    }
    end(handle).await;
}

#[tokio::test]
async fn a_shell_that_died_between_two_commands_is_replaced() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    said(&mut session, "(sleep 0.05; kill -9 $$) & echo armed").await;
    let mut pid = said(&mut session, "echo $$").await;
    let first = pid.clone();
    while pid == first {
        let outcome = run(&mut session, "echo $$").await;
        match outcome.end {
            LineEnd::Status(0) => pid = text(&outcome.stdout),
            LineEnd::ShellEnded(_) => {}
            LineEnd::Status(_) | LineEnd::TimedOut | LineEnd::Interrupted(_) => {
                panic!("{outcome:?}")
            }
        }
    }
    end(handle).await;
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_any_more_ends_with_its_shell() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    let first = said(&mut session, "x=kept; echo $$").await;
    {
        let line = Line::new("sleep 1000");
        let run = session.run(&line);
        let given_up = tokio::time::timeout(Duration::from_millis(50), run).await;
        assert!(given_up.is_err());
    }
    let second = said(&mut session, "echo $$").await;
    assert_ne!(first, second);
    assert_eq!(said(&mut session, "echo \"<$x>\"").await, "<>\n");
    drop(session);
    eventually("both shells are gone", || {
        let gone = |pid: &str| !std::path::Path::new(&format!("/proc/{}", pid.trim())).exists();
        (gone(&first) && gone(&second)).then_some(())
    });
    end(handle).await;
}

#[tokio::test]
async fn a_long_line_is_no_trouble_and_a_nul_byte_is_refused() {
    let handle = runtime().await;
    let mut session = session(&handle, Shell::Sh);
    let long = "x".repeat(500_000);
    let outcome = run(&mut session, &format!("printf %s '{long}' | wc -c")).await;
    assert_eq!(text(&outcome.stdout).trim(), "500000");
    let refused = session.run(&Line::new("echo \0")).await;
    assert!(matches!(refused, Err(SessionError::Nul)));
    assert_eq!(said(&mut session, "echo on").await, "on\n");
    end(handle).await;
}

#[tokio::test]
async fn a_shell_that_cannot_begin_says_why() {
    let handle = runtime().await;
    let spec = SessionSpec {
        cwd: Some("/nowhere".into()),
        ..SessionSpec::default()
    };
    let mut nowhere = Session::new(handle.clone(), spec);
    let error = nowhere.run(&Line::new("true")).await.unwrap_err();
    assert!(matches!(error, SessionError::NotStarted(_)), "{error:?}");
    let spec = SessionSpec {
        shell: Shell::Bash,
        env: vec![("PATH".into(), "/nowhere".into())],
        ..SessionSpec::default()
    };
    let mut no_bash = Session::new(handle.clone(), spec);
    let error = no_bash.run(&Line::new("true")).await.unwrap_err();
    assert!(error.to_string().contains("bash"), "{error}");
    end(handle).await;
}

#[tokio::test]
async fn a_pool_has_a_clean_shell_at_once_and_replaces_it() {
    let handle = runtime().await;
    let pool = SessionPool::new(handle.clone(), SessionSpec::default(), 2);
    while pool.warm() < 2 {
        tokio::task::yield_now().await;
    }
    let mut first = pool.take().await.unwrap();
    run(&mut first, "x=dirty").await;
    while pool.warm() < 2 {
        tokio::task::yield_now().await;
    }
    let mut second = pool.take().await.unwrap();
    assert_eq!(said(&mut second, "echo \"<$x>\"").await, "<>\n");
    assert_eq!(said(&mut first, "echo \"<$x>\"").await, "<dirty>\n");
    end(handle).await;
}
