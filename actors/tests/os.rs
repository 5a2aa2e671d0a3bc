//! The real operating system: real processes, the real clock.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[expect(unreachable_pub, reason = "each test file uses its part of it")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kimi_actors::os::account::account;
use kimi_actors::os::{
    Drained, Line, LineSink, NotExecutable, Os, Output, SpawnError, means, resolve,
};
use kimi_actors::policy::exit::{Exit, StartFailure};
use kimi_actors::policy::setup::{Controllers, ResourceLimits, Setup};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
use support::{
    Begun, Footprint, Lines, assert_alive, assert_same, bash, begin, eventually, real_os, shell,
    spare_os, state_of, wait_until_dead, wait_until_gone,
};

const CAPTURE: Output = Output::Capture {
    cap_bytes: 10 * 1024 * 1024,
    chunks: None,
};

type Check = fn(&SpawnError) -> bool;

/// Tests that look at the whole process run alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors_of(pid: u32) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The loader of a program opens files of its own before it is through; what was leaked to it would stay.
fn has_three_descriptors(pid: u32) {
    eventually("it has three descriptors", || {
        (descriptors_of(pid) == ["0", "1", "2"]).then_some(())
    });
}

fn text_of(run: &Begun) -> String {
    let captured = run.told.end().captured.unwrap();
    String::from_utf8(captured.stdout.head).unwrap()
}

#[test]
fn every_exit_code_is_told_true() {
    let _alone = alone();
    let os = real_os(300);
    let runs: Vec<_> = (0..=255)
        .map(|code| (code, shell(&*os, &format!("exit {code}"), Output::Discard)))
        .collect();
    for (code, run) in runs {
        assert_eq!(run.told.end().exit, Exit::Code(code));
    }
}

#[test]
fn every_fatal_signal_is_told_true() {
    let _alone = alone();
    let os = real_os(100);
    let harmless = [17, 18, 19, 20, 21, 22, 23, 28, 32, 33];
    let runs: Vec<_> = (1..=64)
        .filter(|number| !harmless.contains(number))
        .map(|number| {
            let line = format!("ulimit -c 0; kill -{number} $$; while :; do sleep 1; done");
            (number, shell(&*os, &line, Output::Discard))
        })
        .collect();
    for (number, run) in runs {
        let exit = run.told.end().exit;
        assert!(
            matches!(exit, Exit::Signal { signal, .. } if signal.number() == number),
            "signal {number}: {exit:?}"
        );
    }
}

#[test]
fn a_child_leads_its_own_session_with_clean_signals_and_three_descriptors() {
    let _alone = alone();
    let os = real_os(4);
    // A descriptor that the host forgot to protect.
    let leaky = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let run = begin(&*os, CommandSpec::new("sleep", ["1000"]), CAPTURE);
    // The start is told when the program runs, so it can be looked at from here on.
    let pid = run.told.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
    assert!(text.contains("SigIgn:\t0000000000000000"), "{text}");
    assert!(text.contains(&format!("NSsid:\t{pid}")), "{text}");
    assert!(text.contains(&format!("NSpgid:\t{pid}")), "{text}");
    let stdin = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    assert_eq!(stdin, Path::new("/dev/null"));
    has_three_descriptors(pid);
}

#[test]
fn starting_children_leaves_our_own_stdio_untouched() {
    let _alone = alone();
    let look = || [0, 1, 2].map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).ok());
    let before = look();
    let os = real_os(64);
    let runs: Vec<_> = (0..50)
        .map(|_| shell(&*os, "echo hi; echo ho >&2", CAPTURE))
        .collect();
    for run in runs {
        assert_eq!(run.told.end().exit, Exit::Code(0));
    }
    assert_eq!(look(), before);
}

#[test]
fn many_descriptors_of_ours_do_not_reach_a_child() {
    let _alone = alone();
    let os = real_os(4);
    let many: Vec<_> = (0..2000)
        .map(|_| fs::File::open("/dev/null").unwrap())
        .collect();
    let run = begin(&*os, CommandSpec::new("sleep", ["1000"]), CAPTURE);
    has_three_descriptors(run.told.pid());
    drop(many);
}

#[test]
fn arguments_environment_and_directory_arrive() {
    let _alone = alone();
    let os = real_os(4);
    let directory = tempfile::tempdir().unwrap();
    let mut command = CommandSpec::new("sh", ["-c", "pwd; echo \"$1\"; env", "sh", "a b"]);
    command.cwd = Some(directory.path().to_owned());
    command.base_env = BaseEnv::Empty;
    command.env = vec![
        ("ONE".into(), "1".into()),
        ("TWO".into(), "x".into()),
        ("TWO".into(), "2".into()),
    ];
    let run = begin(&*os, command, CAPTURE);
    let text = text_of(&run);
    let path = directory.path().canonicalize().unwrap();
    assert!(
        text.starts_with(&format!("{}\na b\n", path.display())),
        "{text}"
    );
    assert!(
        text.contains("ONE=1\n") && text.contains("TWO=2\n"),
        "{text}"
    );
    assert!(!text.contains("HOME="), "{text}");
}

#[test]
fn a_grandchild_in_a_group_of_its_own_does_not_outlive_the_stop() {
    let _alone = alone();
    let os = real_os(4);
    let lines = Arc::new(Lines::default());
    let run = bash(
        &*os,
        "set -m; (trap '' TERM; echo sub $(exec sh -c 'echo $PPID'); while :; do sleep 1; done) & echo pid $!; wait",
        Output::Lines(Arc::clone(&lines) as _),
    );
    let grandchild: u32 = lines.after("pid ").parse().unwrap();
    lines.after("sub ");
    assert_alive(grandchild);
    run.process.signal(Signal::TERM).unwrap();
    let end = run.told.end();
    assert!(
        matches!(
            end.exit,
            Exit::Signal {
                signal: Signal::TERM,
                ..
            }
        ),
        "{end:?}"
    );
    assert!(end.killed.contains(&grandchild), "{end:?}");
    assert!(end.survivors.is_empty(), "{end:?}");
    wait_until_dead(grandchild);
    wait_until_gone(&*os, run.run);
    eventually("nothing is live", || (os.live() == 0).then_some(()));
}

#[test]
fn a_grandchild_of_a_run_that_ended_unasked_is_swept_right_after() {
    let _alone = alone();
    let os = real_os(4);
    let lines = Arc::new(Lines::default());
    let run = bash(
        &*os,
        "set -m; sleep 1000 & echo pid $!; exit 3",
        Output::Lines(Arc::clone(&lines) as _),
    );
    let end = run.told.end();
    assert_eq!(end.exit, Exit::Code(3));
    let grandchild: u32 = lines.after("pid ").parse().unwrap();
    wait_until_gone(&*os, run.run);
    wait_until_dead(grandchild);
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_delay_the_result() {
    let _alone = alone();
    let os = real_os(4);
    let run = shell(&*os, "sleep 1000 & echo pid $!; exit 0", CAPTURE);
    let end = run.told.end();
    assert_eq!(end.exit, Exit::Code(0));
    let captured = end.captured.unwrap();
    assert_eq!(captured.drained, Drained::Idle);
    let text = String::from_utf8(captured.stdout.head).unwrap();
    let grandchild: u32 = text.strip_prefix("pid ").unwrap().trim().parse().unwrap();
    assert_eq!(end.killed, [grandchild]);
    wait_until_dead(grandchild);
}

#[test]
fn a_grandchild_that_never_stops_writing_is_cut_off() {
    let _alone = alone();
    let os = real_os(4);
    let run = shell(
        &*os,
        "yes & exit 0",
        Output::Capture {
            cap_bytes: 1000,
            chunks: None,
        },
    );
    let end = run.told.end();
    let captured = end.captured.unwrap();
    assert_eq!(captured.drained, Drained::Deadline);
    assert_eq!(
        captured.stdout.head.len() + captured.stdout.tail.len(),
        1000
    );
    assert!(captured.stdout.bytes_total > 1000);
    wait_until_gone(&*os, run.run);
}

#[test]
fn much_output_is_captured_whole() {
    let _alone = alone();
    let os = real_os(4);
    let run = shell(&*os, "seq 1 100000; seq 1 20000 >&2", CAPTURE);
    let captured = run.told.end().captured.unwrap();
    assert_eq!(captured.drained, Drained::Eof);
    assert_eq!(captured.stdout.bytes_total, 588_895);
    assert!(captured.stdout.head.ends_with(b"\n99999\n100000\n"));
    assert!(captured.stderr.head.ends_with(b"\n20000\n"));
}

/// Counts what it is given.
#[derive(Default)]
struct Count(AtomicU64);

impl LineSink for Count {
    fn line(&self, _line: Line<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn one_that_writes_without_pause_does_not_starve_the_others() {
    let _alone = alone();
    let os = real_os(20);
    let loud: Vec<_> = (0..2)
        .map(|_| {
            let count = Arc::new(Count::default());
            let output = Output::Lines(Arc::clone(&count) as _);
            let run = begin(&*os, CommandSpec::new("yes", [""; 0]), output);
            (run, count)
        })
        .collect();
    for (_, count) in &loud {
        eventually("it writes", || {
            (count.0.load(Ordering::Relaxed) > 0).then_some(())
        });
    }
    for _ in 0..5 {
        let run = shell(&*os, "exit 4", CAPTURE);
        assert_eq!(run.told.end().exit, Exit::Code(4));
    }
    for (run, _) in &loud {
        assert!(!run.told.has_ended());
        run.process.kill();
        run.told.end();
    }
}

#[test]
fn what_cannot_start_says_why() {
    let _alone = alone();
    let os = real_os(4);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let lost = file("lost", "#!/no/such/thing -x\n", 0o755);
    let windows = file("windows", "#!/bin/sh\r\necho\r\n", 0o755);
    let noise = file("noise", "\u{1}\u{2}\u{3}", 0o755);
    let cases: [(&Path, StartFailure, Check); 7] = [
        (
            Path::new("no-such-program-anywhere"),
            StartFailure::NotFound,
            |e| matches!(e, SpawnError::NotFound { .. }),
        ),
        (Path::new("/no/such/program"), StartFailure::NotFound, |e| {
            matches!(e, SpawnError::NotFound { .. })
        }),
        (directory.path(), StartFailure::NotExecutable, |e| {
            matches!(
                e,
                SpawnError::NotExecutable {
                    reason: NotExecutable::Directory,
                    ..
                }
            )
        }),
        (&plain, StartFailure::NotExecutable, |e| {
            matches!(
                e,
                SpawnError::NotExecutable {
                    reason: NotExecutable::Permission,
                    ..
                }
            )
        }),
        (
            &lost,
            StartFailure::NotFound,
            |e| matches!(e, SpawnError::NoInterpreter { interpreter, .. } if interpreter == "/no/such/thing"),
        ),
        (
            &windows,
            StartFailure::NotFound,
            |e| matches!(e, SpawnError::NoInterpreter { interpreter, .. } if interpreter == "/bin/sh\\r"),
        ),
        (&noise, StartFailure::BadFormat, |e| {
            matches!(
                e,
                SpawnError::NotExecutable {
                    reason: NotExecutable::Format,
                    ..
                }
            )
        }),
    ];
    for (program, kind, check) in cases {
        let command = CommandSpec::new(program, [""; 0]);
        if program != noise {
            let error = resolve(&command).unwrap_err();
            assert!(check(&error), "resolving {}: {error:?}", program.display());
        }
        let run = begin(&*os, command, CAPTURE);
        let error = run.told.not_started();
        assert!(check(&error), "{}: {error:?}", program.display());
        assert_eq!(error.kind(), kind);
    }
    let mut elsewhere = CommandSpec::new("true", [""; 0]);
    elsewhere.cwd = Some("/no/such/directory".into());
    let error = begin(&*os, elsewhere, CAPTURE).told.not_started();
    assert!(matches!(error, SpawnError::Cwd { .. }), "{error:?}");
    let nul = begin(&*os, CommandSpec::new("true", ["a\0b"]), CAPTURE);
    assert!(matches!(nul.told.not_started(), SpawnError::Nul { .. }));
    eventually("nothing is left", || (os.live() == 0).then_some(()));
}

#[test]
fn a_full_table_refuses() {
    let _alone = alone();
    let os = real_os(1);
    let first = shell(&*os, "sleep 1000", Output::Discard);
    let second = shell(&*os, "true", Output::Discard);
    assert!(matches!(
        second.told.not_started(),
        SpawnError::TableFull { slots: 1 }
    ));
    first.process.kill();
    wait_until_gone(&*os, first.run);
    let third = shell(&*os, "exit 5", Output::Discard);
    assert_eq!(third.told.end().exit, Exit::Code(5));
}

#[test]
fn dropping_a_run_kills_and_reaps_it() {
    let _alone = alone();
    let os = real_os(4);
    let run = shell(
        &*os,
        "trap '' TERM INT HUP; while :; do sleep 1; done",
        Output::Discard,
    );
    let pid = run.told.pid();
    assert_alive(pid);
    drop(run.process);
    wait_until_gone(&*os, run.run);
    assert_eq!(state_of(pid), None);
}

#[test]
fn killing_all_kills_all_and_dropping_the_runtime_too() {
    let _alone = alone();
    let os = real_os(40);
    let runs: Vec<_> = (0..20)
        .map(|_| shell(&*os, "sleep 1000", Output::Discard))
        .collect();
    let pids: Vec<_> = runs.iter().map(|run| run.told.pid()).collect();
    os.kill_all();
    for run in &runs {
        assert!(matches!(
            run.told.end().exit,
            Exit::Signal {
                signal: Signal::KILL,
                ..
            }
        ));
    }
    for pid in pids {
        wait_until_dead(pid);
    }
    let last = shell(&*os, "sleep 1000", Output::Discard);
    let pid = last.told.pid();
    drop(os);
    assert!(matches!(
        last.told.end().exit,
        Exit::Signal {
            signal: Signal::KILL,
            ..
        }
    ));
    eventually("it is reaped", || state_of(pid).is_none().then_some(()));
}

#[test]
fn many_short_runs_leave_nothing_behind() {
    let _alone = alone();
    let os = spare_os(256);
    // The first few start the threads.
    let warm: Vec<_> = (0..20)
        .map(|_| shell(&*os, "sleep 0 & exit 0", CAPTURE))
        .collect();
    for run in &warm {
        run.told.end();
        wait_until_gone(&*os, run.run);
    }
    let before = Footprint::now();
    let runs: Vec<_> = (0..200)
        .map(|_| shell(&*os, "echo out; echo err >&2; exit 7", CAPTURE))
        .collect();
    for run in &runs {
        let end = run.told.end();
        assert_eq!(end.exit, Exit::Code(7));
        let captured = end.captured.unwrap();
        assert_eq!(captured.stdout.head, b"out\n");
        assert_eq!(captured.stderr.head, b"err\n");
    }
    for run in &runs {
        wait_until_gone(&*os, run.run);
    }
    eventually("nothing is live", || (os.live() == 0).then_some(()));
    let after = Footprint::now();
    assert_same(&after.children, &Vec::new(), "children");
    // Those of a former test may have been there still.
    assert!(
        after.descriptors <= before.descriptors,
        "{before:?} {after:?}"
    );
    assert!(after.threads <= before.threads + 4, "{before:?} {after:?}");
}

#[test]
fn a_run_whose_directory_hangs_can_be_given_up_and_others_are_served() {
    let _alone = alone();
    let Some(hanging) = Hanging::new() else {
        return;
    };
    let os = real_os(64);
    let stuck: Vec<_> = (0..8)
        .map(|which| {
            let mut command = CommandSpec::new("/bin/true", [""; 0]);
            if which % 2 == 0 {
                command.cwd = Some(hanging.path().join("directory"));
            } else {
                command.program = hanging.path().join("program").into();
            }
            begin(&*os, command, CAPTURE)
        })
        .collect();
    // More hang than there are threads, and yet others run.
    for _ in 0..3 {
        let run = shell(&*os, "exit 6", CAPTURE);
        assert_eq!(run.told.end().exit, Exit::Code(6));
    }
    // All of them before waiting for any: the kernel lets one of them ask the server and holds the others, unkillable,
    // behind it.
    let stuck: Vec<_> = stuck
        .into_iter()
        .map(|run| {
            assert!(!run.told.is_over());
            drop(run.process);
            (run.told, run.run)
        })
        .collect();
    for (told, run) in stuck {
        assert!(matches!(told.not_started(), SpawnError::Abandoned));
        wait_until_gone(&*os, run);
    }
    eventually("nothing is live", || (os.live() == 0).then_some(()));
    assert_same(&Footprint::now().children, &Vec::new(), "children");
}

/// A file system whose server never answers.
struct Hanging {
    directory: tempfile::TempDir,
    _server: fs::File,
}

impl Hanging {
    /// `None`, and a word about it, where that is not permitted.
    fn new() -> Option<Self> {
        use std::os::fd::AsRawFd;
        let directory = tempfile::tempdir().unwrap();
        let made = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|error| error.to_string())
            .and_then(|server| {
                let options = format!(
                    "fd={},rootmode=40000,user_id=0,group_id=0",
                    server.as_raw_fd()
                );
                mount(directory.path(), &options).map(|()| server)
            });
        match made {
            Ok(server) => Some(Self {
                directory,
                _server: server,
            }),
            Err(reason) => {
                skip(&format!("no hanging file system: {reason}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        unmount(self.directory.path());
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

fn c_path(path: &Path) -> std::ffi::CString {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[expect(unsafe_code, reason = "mount(2)")]
fn mount(target: &Path, options: &str) -> Result<(), String> {
    let options = std::ffi::CString::new(options).unwrap();
    // SAFETY: all texts end with NUL and outlive the call.
    let result = unsafe {
        libc::mount(
            c"kimi-test".as_ptr(),
            c_path(target).as_ptr(),
            c"fuse".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error().to_string())
    }
}

#[expect(unsafe_code, reason = "umount2(2)")]
fn unmount(target: &Path) {
    // SAFETY: the text ends with NUL and outlives the call.
    unsafe { libc::umount2(c_path(target).as_ptr(), libc::MNT_DETACH) };
}

#[test]
fn without_a_shim_all_is_set_up_but_another_user() {
    let os = real_os(4);
    let mut command = CommandSpec::shell("umask; nice; ulimit -n; cat /proc/self/oom_score_adj");
    let setup = Setup {
        limits: ResourceLimits {
            nofile: Some(77),
            ..ResourceLimits::default()
        },
        umask: Some(0o77),
        nice: Some(9),
        oom_score_adj: Some(900),
        ..Setup::default()
    };
    command.setup = Some(Box::new(setup));
    let run = begin(&*os, command.clone(), CAPTURE);
    let end = run.told.end();
    assert_eq!(end.captured.unwrap().stdout.head, b"0077\n9\n77\n900\n");

    let identity = account(Some("4000000033"), Some("4000000034"));
    command.setup = Some(Box::new(Setup {
        identity: Some(identity.unwrap().identity),
        ..Setup::default()
    }));
    let error = begin(&*os, command, CAPTURE).told.not_started();
    assert_eq!(error.kind(), StartFailure::NotExecutable);
    let text = error.to_string();
    let reason = if means(Controllers::default()).becomes_anybody {
        "`kimi_actors::shim::run_if_asked()`"
    } else {
        "only root may become somebody else"
    };
    assert!(text.contains(reason), "{text}");
    eventually("no run is left", || (os.live() == 0).then_some(()));
}
