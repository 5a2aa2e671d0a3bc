//! One-shot commands, real and badly behaved, through the public face.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[expect(
    unreachable_pub,
    dead_code,
    reason = "each test file uses its part of it"
)]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kimi_actors::os::chunks::Chunks;
use kimi_actors::os::stdin::Stdin;
use kimi_actors::os::{Drained, NotExecutable, SpawnError, Stream};
use kimi_actors::policy::admission::{Limits, Rejection};
use kimi_actors::policy::event::Fact;
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::run::OnOutputLimit;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
use kimi_actors::testing::{FakeOs, Script};
use kimi_actors::{
    Exec, ExecError, ExecOutcome, ExecTicket, How, Runtime, RuntimeHandle, TimedOut,
};
use rustix::process::{Pid, kill_process};
use support::{eventually, state_of, wait_until_dead};
use tokio::sync::broadcast;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Short, since whoever is stopped here ignores it.
const GRACE: Duration = Duration::from_millis(50);

async fn runtime() -> RuntimeHandle {
    Runtime::builder().start().await.unwrap()
}

fn sh(line: &str) -> Exec {
    Exec {
        grace: GRACE,
        timeout: None,
        ..Exec::new(CommandSpec::shell(line))
    }
}

fn within(milliseconds: u64, exec: Exec) -> Exec {
    Exec {
        timeout: Some(Duration::from_millis(milliseconds)),
        ..exec
    }
}

/// Runs one command in a runtime of its own, which must have nothing left at its end.
async fn run(exec: Exec) -> Result<ExecOutcome, ExecError> {
    let handle = runtime().await;
    let result = handle.exec(exec).await;
    let report = handle.shutdown().await;
    assert_eq!(report.survivors, []);
    result
}

async fn ended(exec: Exec) -> ExecOutcome {
    run(exec).await.unwrap()
}

/// Cancels a command when it has written something.
async fn cancelled_once_ready(line: &str) -> ExecOutcome {
    let handle = runtime().await;
    let mut exec = Exec {
        grace: Duration::from_millis(500),
        ..sh(line)
    };
    let mut chunks = exec.stream();
    let mut ticket = handle.begin_exec(exec);
    assert!(chunks.next().await.is_some());
    ticket.cancel();
    let outcome = ticket.ended().await.unwrap();
    assert_eq!(outcome.how, How::Cancelled);
    handle.shutdown().await;
    outcome
}

fn text(outcome: &ExecOutcome) -> String {
    String::from_utf8(outcome.captured.stdout.to_bytes_marked()).unwrap()
}

fn is_killed_by(exit: Exit, by: Signal) -> bool {
    matches!(exit, Exit::Signal { signal, .. } if signal == by)
}

/// The process of the next command to start.
async fn next_pid(events: &mut broadcast::Receiver<kimi_actors::policy::event::TreeEvent>) -> u32 {
    loop {
        if let Fact::Running { pid: Some(pid), .. } = events.recv().await.unwrap().fact {
            return pid;
        }
    }
}

#[tokio::test]
async fn an_outcome_says_all_that_is_known() {
    let outcome = ended(sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!((outcome.how, outcome.exit), (How::Exited, Exit::Code(7)));
    assert_eq!(text(&outcome), "out\n");
    assert_eq!(outcome.captured.stderr.head, b"err\n");
    assert_eq!(outcome.captured.drained, Drained::Eof);
    assert!(outcome.captured.last_output.is_some());
    assert!(outcome.pid > 1);
    assert!(outcome.started_at.elapsed().is_ok());
    let killed = ended(sh("kill -9 $$")).await;
    assert_eq!(killed.how, How::Signaled);
    assert!(is_killed_by(killed.exit, Signal::KILL));
    assert_eq!(killed.captured.last_output, None);
}

#[tokio::test]
async fn memory_is_told_only_where_it_is_known() {
    let small = ended(Exec::new(CommandSpec::new("true", [""; 0]))).await;
    assert_eq!(small.max_rss, None, "smaller than this program");
    let bytes = 300 * MIB;
    let line = format!("head -c {bytes} /dev/zero | tail -c {bytes} | wc -c");
    let large = ended(sh(&line)).await;
    assert_eq!(text(&large).trim(), bytes.to_string());
    assert!(large.max_rss.is_some_and(|peak| peak >= bytes as u64));
    assert!(large.cpu > Duration::ZERO);
}

#[tokio::test]
async fn one_that_ignores_the_stop_signal_is_killed_after_its_grace() {
    let deaf = "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done";
    let outcome = cancelled_once_ready(deaf).await;
    assert!(is_killed_by(outcome.exit, Signal::KILL), "{outcome:?}");
    let polite = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let outcome = cancelled_once_ready(polite).await;
    assert_eq!(outcome.exit, Exit::Code(9));
    assert_eq!(text(&outcome), "ready\nbye\n");
}

#[tokio::test]
async fn one_that_stopped_itself_ends_all_the_same() {
    let outcome = ended(within(50, sh("kill -STOP $$; exit 1"))).await;
    assert_eq!(outcome.how, How::TimedOut(TimedOut::Total));
    let pid = outcome.pid;
    assert_eq!(state_of(pid), None);
}

#[tokio::test]
async fn who_holds_the_pipe_delays_nothing_and_does_not_survive() {
    let silent = ended(sh("echo first; sleep 1000 & echo last")).await;
    assert_eq!(silent.how, How::Exited);
    assert_eq!(silent.captured.drained, Drained::Idle);
    assert_eq!(text(&silent), "first\nlast\n");
    let [killed] = silent.killed[..] else {
        panic!("one was left: {silent:?}");
    };
    wait_until_dead(killed);
    let chatty = Exec {
        max_output: KIB,
        ..sh("yes & exit 3")
    };
    let chatty = ended(chatty).await;
    assert_eq!(chatty.exit, Exit::Code(3));
    assert_eq!(chatty.captured.drained, Drained::Deadline);
    assert!(chatty.captured.stdout.truncated());
}

#[tokio::test]
async fn the_tail_comes_however_late_within_the_drain_it_is_written() {
    // Each comes within the idle time after the one before, and all of them after the end of the leader.
    let line = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.02; echo $i; done & exit 0";
    assert_eq!(text(&ended(sh(line)).await), "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
}

#[tokio::test]
async fn one_that_left_its_session_delays_nothing() {
    let line = "setsid sh -c 'echo $$; exec sleep 1000' & while :; do sleep 0.01; kill -0 $! || break; \
                [ \"$(ps -o comm= -p $!)\" = sleep ] && break; done; exit 4";
    let outcome = ended(sh(line)).await;
    assert_eq!(outcome.exit, Exit::Code(4));
    assert_eq!(outcome.captured.drained, Drained::Idle);
    let escaped: i32 = text(&outcome).trim().parse().unwrap();
    let escaped = Pid::from_raw(escaped).unwrap();
    // Nobody here contains it; what this test has started it ends.
    kill_process(escaped, rustix::process::Signal::KILL).unwrap();
    wait_until_dead(escaped.as_raw_nonzero().get().cast_unsigned());
}

#[tokio::test]
async fn one_that_closes_its_output_runs_on() {
    let outcome = ended(sh("echo out; exec >&- 2>&-; sleep 0.3; exit 6")).await;
    assert_eq!((outcome.how, outcome.exit), (How::Exited, Exit::Code(6)));
    assert_eq!(text(&outcome), "out\n");
}

#[tokio::test]
async fn stdin_is_at_its_end_unless_something_is_given() {
    assert_eq!(ended(sh("cat; echo end")).await.exit, Exit::Code(0));
    let megabyte: Vec<u8> = (0..=250).cycle().take(MIB).collect();
    let given = Exec {
        stdin: Stdin::bytes(&megabyte).unwrap(),
        ..sh("cat")
    };
    assert!(ended(given).await.captured.stdout.head == megabyte);
    let unread = Exec {
        stdin: Stdin::bytes(&megabyte).unwrap(),
        ..sh("exit 5")
    };
    assert_eq!(ended(unread).await.exit, Exit::Code(5));
    let writes_there = Exec {
        stdin: Stdin::bytes(b"x").unwrap(),
        ..sh("yes >&0; cat")
    };
    assert_eq!(text(&ended(writes_there).await), "x");
}

#[tokio::test]
async fn stdin_can_be_sent_piece_by_piece() {
    let handle = runtime().await;
    let (stdin, sender) = Stdin::channel().unwrap();
    let mut exec = Exec {
        stdin,
        ..sh("while read line; do echo \"<$line>\"; done; echo end")
    };
    let mut chunks = exec.stream();
    let mut ticket = handle.begin_exec(exec);
    for word in ["one", "two"] {
        sender.send(format!("{word}\n").into_bytes()).await.unwrap();
        let answer = chunks.next().await.unwrap();
        assert_eq!(answer.bytes, format!("<{word}>\n").into_bytes());
    }
    drop(sender);
    let outcome = ticket.ended().await.unwrap();
    assert_eq!(text(&outcome), "<one>\n<two>\nend\n");
    handle.shutdown().await;
}

#[tokio::test]
async fn who_never_reads_its_stdin_holds_up_nobody() {
    let handle = runtime().await;
    let (stdin, sender) = Stdin::channel().unwrap();
    let exec = Exec {
        stdin,
        ..sh("sleep 1000")
    };
    let mut ticket = handle.begin_exec(exec);
    // More than the pipe and the channel hold: the last of it waits.
    let sending =
        tokio::spawn(async move { while sender.send(vec![0; 64 * KIB]).await.is_ok() {} });
    let other = handle.exec(sh("echo other")).await.unwrap();
    assert_eq!(text(&other), "other\n");
    ticket.cancel();
    assert_eq!(ticket.ended().await.unwrap().how, How::Cancelled);
    // Nobody reads any more, which is how the sender learns of the end.
    sending.await.unwrap();
    handle.shutdown().await;
}

#[tokio::test]
async fn one_that_runs_out_of_time_in_a_read_of_its_stdin_has_waited_for_input() {
    let (stdin, sender) = Stdin::channel().unwrap();
    let asks = Exec {
        stdin,
        ..within(700, sh("sh -c 'read answer; exit 0'; exit 1"))
    };
    let outcome = ended(asks).await;
    assert!(
        outcome.timed_out() && outcome.waited_for_input,
        "{outcome:?}"
    );
    drop(sender);
    let (stdin, sender) = Stdin::channel().unwrap();
    let reads_another = Exec {
        stdin,
        ..within(700, sh("sleep 1000 | cat"))
    };
    let outcome = ended(reads_another).await;
    assert!(
        outcome.timed_out() && !outcome.waited_for_input,
        "{outcome:?}"
    );
    drop(sender);
}

#[tokio::test]
async fn what_is_written_comes_as_it_is_written_and_whole_to_a_slow_reader() {
    let handle = runtime().await;
    let total = 20 * MIB;
    let mut exec = Exec {
        max_output: KIB,
        ..sh(&format!("yes | head -c {total}; echo done >&2"))
    };
    let mut chunks = exec.stream();
    let mut ticket = handle.begin_exec(exec);
    let (mut stdout, mut stderr) = (0, Vec::new());
    while let Some(chunk) = chunks.next().await {
        match chunk.stream {
            Stream::Stdout => {
                let even = chunk
                    .bytes
                    .iter()
                    .step_by(2)
                    .all(|byte| *byte == chunk.bytes[0]);
                assert!(even, "in order");
                stdout += chunk.bytes.len();
            }
            Stream::Stderr => stderr.extend(chunk.bytes),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((stdout, stderr), (total, b"done\n".to_vec()));
    let outcome = ticket.ended().await.unwrap();
    assert_eq!(outcome.exit, Exit::Code(0));
    assert_eq!(outcome.captured.stdout.bytes_total, total as u64);
    handle.shutdown().await;
}

/// Takes what has come, and nothing more.
async fn bytes_waiting(mut chunks: Chunks) -> usize {
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        bytes += chunk.bytes.len();
    }
    bytes
}

#[tokio::test]
async fn a_reader_that_stalls_slows_the_command_and_not_its_end() {
    let mut exec = Exec {
        idle_timeout: Some(Duration::from_millis(500)),
        ..within(1500, sh("yes"))
    };
    let chunks = exec.stream();
    let outcome = ended(exec).await;
    // It was not silent: nobody read.
    assert_eq!(outcome.how, How::TimedOut(TimedOut::Total));
    let waiting = bytes_waiting(chunks).await;
    assert!((MIB..4 * MIB).contains(&waiting), "{waiting}");
    assert_eq!(waiting as u64, outcome.captured.stdout.bytes_total);
    let mut exec = sh("yes | head -c 3000000");
    drop(exec.stream());
    assert_eq!(ended(exec).await.captured.stdout.bytes_total, 3_000_000);
}

#[tokio::test]
async fn silence_is_counted_from_what_was_written_last() {
    let silent = Exec {
        idle_timeout: Some(Duration::from_millis(500)),
        ..sh("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; sleep 1000")
    };
    let outcome = ended(silent).await;
    assert_eq!(outcome.how, How::TimedOut(TimedOut::Silence));
    assert_eq!(text(&outcome), "1\n2\n3\n4\n5\n6\n");
}

#[tokio::test]
async fn beyond_the_limit_it_goes_on_or_is_killed() {
    let line = "yes | head -c 1000000; echo; echo 99999";
    let truncated = Exec {
        max_output: 1000,
        ..sh(line)
    };
    let outcome = ended(truncated).await;
    assert_eq!((outcome.how, outcome.exit), (How::Exited, Exit::Code(0)));
    assert_eq!(outcome.captured.stdout.bytes_total, 1_000_007);
    assert_eq!(outcome.captured.stdout.bytes_kept(), 1000);
    assert!(text(&outcome).ends_with("\n99999\n"));
    let killed = Exec {
        max_output: 1000,
        on_output_limit: OnOutputLimit::Kill,
        ..sh("yes")
    };
    let outcome = ended(killed).await;
    assert_eq!(outcome.how, How::OutputLimit);
    assert!(is_killed_by(outcome.exit, Signal::KILL));
    let quick = Exec {
        max_output: 4,
        on_output_limit: OnOutputLimit::Kill,
        ..sh("echo 12345; exit 0")
    };
    assert_eq!(ended(quick).await.how, How::OutputLimit);
    let exact = Exec {
        max_output: 6,
        on_output_limit: OnOutputLimit::Kill,
        ..sh("echo 12345; exit 0")
    };
    assert_eq!(ended(exact).await.how, How::Exited);
}

#[tokio::test]
async fn the_cut_spares_characters_and_junk_stays_as_it_is() {
    for cap in 100..108 {
        let exec = Exec {
            max_output: cap,
            ..sh("i=0; while [ $i -lt 100 ]; do printf 'aä€😀'; i=$((i+1)); done")
        };
        let outcome = ended(exec).await;
        assert_eq!(outcome.captured.stdout.bytes_total, 1000);
        assert!(text(&outcome).contains("bytes dropped"));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("junk");
    let line = format!("head -c 300000 /dev/urandom >{0}; cat {0}", path.display());
    let outcome = ended(sh(&line)).await;
    assert!(outcome.captured.stdout.head == fs::read(&path).unwrap());
}

#[tokio::test]
async fn a_gigabyte_in_one_line_costs_the_cap() {
    let exec = Exec {
        max_output: KIB,
        ..sh("head -c 1000000000 /dev/zero")
    };
    let outcome = ended(exec).await;
    assert_eq!(outcome.exit, Exit::Code(0));
    assert_eq!(outcome.captured.stdout.bytes_total, 1_000_000_000);
    assert_eq!(outcome.captured.stdout.bytes_kept(), KIB as u64);
}

#[tokio::test]
async fn what_is_written_right_before_the_end_is_there() {
    for _ in 0..20 {
        let outcome = ended(sh("yes | head -c 70000 & wait; printf end; kill -9 $$")).await;
        assert_eq!(outcome.captured.stdout.bytes_total, 70_003);
        assert!(text(&outcome).ends_with("end"));
    }
}

#[tokio::test]
async fn one_that_forks_and_forks_leaves_nobody() {
    let wide = ended(sh(
        "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; exit 2",
    ))
    .await;
    assert_eq!(wide.exit, Exit::Code(2));
    assert_eq!(wide.killed.len(), 100);
    // A tree of 63 that nobody waits for, and that goes on forking while it is stopped.
    let deep =
        "f() { [ $1 -gt 0 ] && { f $(($1-1)) & f $(($1-1)) & }; sleep 1000; }; trap '' TERM; f 5";
    let deep = ended(within(100, sh(deep))).await;
    assert_eq!(deep.how, How::TimedOut(TimedOut::Total));
    for pid in wide.killed.iter().chain(&deep.killed) {
        wait_until_dead(*pid);
    }
}

#[tokio::test]
async fn one_that_executes_itself_again_is_the_same_run() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("again");
    fs::write(
        &script,
        "#!/bin/sh\necho $$\n[ $1 -gt 0 ] && exec \"$0\" $(($1-1))\nexit 8\n",
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = ended(Exec::new(CommandSpec::new(&script, ["20"]))).await;
    assert_eq!(outcome.exit, Exit::Code(8));
    let pid = format!("{}\n", outcome.pid);
    assert_eq!(text(&outcome), pid.repeat(21));
}

#[tokio::test]
async fn a_thousand_at_once_come_through_a_hundred_places_each_with_its_code() {
    let handle = runtime().await;
    let tickets: Vec<ExecTicket> = (0..1000)
        .map(|n| handle.begin_exec(sh(&format!("exit {}", n % 256))))
        .collect();
    for (n, mut ticket) in tickets.into_iter().enumerate() {
        let outcome = ticket.ended().await.unwrap();
        assert_eq!(outcome.exit, Exit::Code(i32::try_from(n % 256).unwrap()));
    }
    let report = handle.shutdown().await;
    assert_eq!(report.survivors, []);
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_coming_and_refused_beyond_the_queue() {
    let limits = Limits {
        max_concurrent: 1,
        queue: 3,
        queue_timeout: Duration::from_secs(30),
    };
    let handle = Runtime::builder().limits(limits).start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (gate, list) = (directory.path().join("gate"), directory.path().join("list"));
    let first = format!("until [ -e {} ]; do sleep 0.01; done", gate.display());
    let mut first = handle.begin_exec(sh(&first));
    let append = |n: u32| sh(&format!("echo {n} >>{}", list.display()));
    let mut waiting: Vec<ExecTicket> = (0..3).map(|n| handle.begin_exec(append(n))).collect();
    let refused = handle.exec(append(9)).await;
    assert!(matches!(
        refused,
        Err(ExecError::Rejected(Rejection::QueueFull))
    ));
    // The second leaves the queue, and its place in it is free again.
    let mut second = waiting.remove(1);
    second.cancel();
    assert!(matches!(second.ended().await, Err(ExecError::Cancelled)));
    waiting.push(handle.begin_exec(append(3)));
    fs::write(&gate, "").unwrap();
    first.ended().await.unwrap();
    for mut ticket in waiting {
        let outcome = ticket.ended().await.unwrap();
        assert!(outcome.timing.queued > Duration::ZERO);
    }
    assert_eq!(fs::read_to_string(&list).unwrap(), "0\n2\n3\n");
    handle.shutdown().await;
}

#[tokio::test]
async fn nobody_waits_for_a_place_longer_than_he_may() {
    let limits = Limits {
        max_concurrent: 1,
        queue: 1,
        queue_timeout: Duration::from_millis(50),
    };
    let handle = Runtime::builder().limits(limits).start().await.unwrap();
    let first = handle.begin_exec(sh("sleep 1000"));
    let late = handle.exec(sh("true")).await;
    assert!(matches!(
        late,
        Err(ExecError::Rejected(Rejection::QueueTimeout))
    ));
    drop(first);
    handle.shutdown().await;
}

#[tokio::test]
async fn one_that_runs_or_is_read_can_be_cancelled() {
    let handle = runtime().await;
    let mut events = handle.events();
    let mut running = handle.begin_exec(sh("echo before; sleep 1000"));
    let pid = next_pid(&mut events).await;
    running.cancel();
    let outcome = running.ended().await.unwrap();
    assert_eq!((outcome.how, outcome.pid), (How::Cancelled, pid));
    assert!(is_killed_by(outcome.exit, Signal::TERM));
    let mut draining = handle.begin_exec(sh("yes & exit 5"));
    let pid = next_pid(&mut events).await;
    eventually("its leader is dead and not reaped", || {
        (state_of(pid) == Some('Z')).then_some(())
    });
    draining.cancel();
    let outcome = draining.ended().await.unwrap();
    // It had ended by itself before, whether or not that had been noticed.
    assert_eq!(outcome.exit, Exit::Code(5));
    assert!(matches!(outcome.how, How::Exited | How::Cancelled));
    handle.shutdown().await;
}

#[tokio::test]
async fn dropping_the_ticket_stops_the_command() {
    let handle = runtime().await;
    let mut events = handle.events();
    let ticket = handle.begin_exec(sh("sleep 1000"));
    let pid = next_pid(&mut events).await;
    drop(ticket);
    loop {
        if let Fact::Exited { .. } = events.recv().await.unwrap().fact {
            break;
        }
    }
    wait_until_dead(pid);
    handle.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_cancels_what_runs_and_refuses_what_waits() {
    let limits = Limits {
        max_concurrent: 1,
        ..Limits::default()
    };
    let handle = Runtime::builder().limits(limits).start().await.unwrap();
    let mut events = handle.events();
    let mut first = handle.begin_exec(sh("sleep 1000"));
    let mut second = handle.begin_exec(sh("true"));
    next_pid(&mut events).await;
    let report = handle.shutdown().await;
    assert_eq!(report.survivors, []);
    assert_eq!(first.ended().await.unwrap().how, How::Cancelled);
    assert!(matches!(
        second.ended().await,
        Err(ExecError::Rejected(Rejection::ShuttingDown))
    ));
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_in_its_start_ends_in_time_and_can_be_cancelled() {
    let os = FakeOs::default();
    for n in 0..2 {
        os.script(&format!("exec-{n}"), Script::HangsInStart);
    }
    let handle = Runtime::builder()
        .os(std::sync::Arc::new(os))
        .start()
        .await
        .unwrap();
    let late = handle.exec(within(1000, sh("true"))).await;
    assert!(matches!(late, Err(ExecError::TimedOut)), "{late:?}");
    let mut ticket = handle.begin_exec(sh("true"));
    tokio::task::yield_now().await;
    ticket.cancel();
    let cancelled = ticket.ended().await;
    assert!(
        matches!(cancelled, Err(ExecError::Cancelled)),
        "{cancelled:?}"
    );
    handle.shutdown().await;
}

type Check = fn(&SpawnError) -> bool;

#[tokio::test]
async fn what_cannot_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let nothing = [""; 0];
    let command = |program: &str| CommandSpec::new(program, nothing);
    let lost = file("lost", "#!/no/such/thing\n", 0o755);
    let windows = file("windows", "#!/bin/sh\r\n", 0o755);
    let noise = file("noise", "\u{1}\u{2}", 0o755);
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let written = file("written", "#!/bin/sh\n", 0o755);
    let _writer = fs::File::options().append(true).open(&written).unwrap();
    let elsewhere = CommandSpec {
        cwd: Some("/no/such/directory".into()),
        ..command("true")
    };
    let cases: [(CommandSpec, &str, Check); 13] = [
        (
            command("no-such-program"),
            "cannot find `no-such-program` in the PATH",
            |error| matches!(error, SpawnError::NotFound { .. }),
        ),
        (
            command("/no/such/program"),
            "cannot find `/no/such/program`",
            |error| matches!(error, SpawnError::NotFound { .. }),
        ),
        (command(""), "empty", |error| {
            matches!(error, SpawnError::Empty)
        }),
        (command("/etc"), "it is a directory", |error| {
            matches!(
                error,
                SpawnError::NotExecutable {
                    reason: NotExecutable::Directory,
                    ..
                }
            )
        }),
        (command(&plain), "permission denied", |error| {
            matches!(
                error,
                SpawnError::NotExecutable {
                    reason: NotExecutable::Permission,
                    ..
                }
            )
        }),
        (command(&noise), "neither a binary", |error| {
            matches!(
                error,
                SpawnError::NotExecutable {
                    reason: NotExecutable::Format,
                    ..
                }
            )
        }),
        (
            command(&lost),
            "cannot find `/no/such/thing`, the interpreter",
            |error| matches!(error, SpawnError::NoInterpreter { .. }),
        ),
        (command(&windows), "CR LF", |error| {
            matches!(error, SpawnError::NoInterpreter { .. })
        }),
        (
            elsewhere,
            "cannot enter the working directory `/no/such/directory`",
            |error| matches!(error, SpawnError::Cwd { .. }),
        ),
        (
            CommandSpec::new("true", ["a\0b"]),
            "NUL byte in an argument",
            |error| matches!(error, SpawnError::Nul { .. }),
        ),
        (
            CommandSpec::new("true", ["x".repeat(10 * MIB)]),
            "the longest of 10485761",
            |error| matches!(error, SpawnError::TooLarge { .. }),
        ),
        (
            CommandSpec::new("true", vec!["x".repeat(100_000); 200]),
            "bytes of arguments",
            |error| matches!(error, SpawnError::TooLarge { .. }),
        ),
        (command(&written), "cannot execute the program", |error| {
            matches!(error, SpawnError::System { source, .. }
                if source.kind() == std::io::ErrorKind::ExecutableFileBusy)
        }),
    ];
    let handle = runtime().await;
    for (command, words, check) in cases {
        let program = command.program.clone();
        match handle.exec(Exec::new(command)).await {
            Err(ExecError::NotStarted(error)) => {
                assert!(check(&error), "{}: {error:?}", program.display());
                assert!(error.to_string().contains(words), "{error}");
            }
            other => panic!("{}: {other:?}", program.display()),
        }
    }
    handle.shutdown().await;
}

#[tokio::test]
async fn a_minimal_environment_has_no_more_than_it_says() {
    let mut exec = sh("env");
    exec.command.base_env = BaseEnv::Minimal;
    exec.command.env.push(("GIVEN".into(), "1".into()));
    let text = text(&ended(exec).await);
    let names = text.lines().filter_map(|line| line.split_once('='));
    for (name, _) in names {
        let ours = ["GIVEN", "KIMI_CHILD", "KIMI_RUN", "KIMI_RUN_ID"];
        // The shell adds some of its own.
        let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
        let known = [&BaseEnv::MINIMAL[..], &ours, &shells].concat();
        assert!(known.contains(&name), "{name}");
    }
    assert!(text.contains("GIVEN=1\n") && text.contains("PATH="));
}

#[tokio::test]
async fn no_bound_on_time_is_too_large() {
    let exec = Exec {
        timeout: Some(Duration::MAX),
        idle_timeout: Some(Duration::MAX),
        grace: Duration::MAX,
        ..sh("exit 3")
    };
    assert_eq!(ended(exec).await.exit, Exit::Code(3));
}
