//! What is set up in real processes before their program runs, by a program that is its own exec shim.
//!
//! A shim is registered at the beginning of `main`, so this file has one, and runs its tests itself, one after the other.
//! What needs a process of its own is this program again, in a role.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking, a skipped one says so, and nobody else prints which tests there are"
)]
#![cfg(target_os = "linux")]

#[expect(
    unreachable_pub,
    dead_code,
    reason = "each test file uses its part of it"
)]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kimi_actors::os::account::account;
use kimi_actors::os::sign::{Listen, Listener, Notice, Sign};
use kimi_actors::os::stdin::Stdin;
use kimi_actors::os::{
    Job, News, Observer, OomCounter, Os, Output, RealOs, RealOsOptions, SpawnError, StartPath,
    means,
};
use kimi_actors::policy::exit::{Exit, StartFailure};
use kimi_actors::policy::setup::{
    Controllers, Identity, Processors, ResourceLimits, Setup, examine, oom_kills,
};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{ChildName, CommandSpec, RunId};
use support::{
    Footprint, Told, assert_same, eventually, real_os, wait_until_dead, wait_until_gone,
};

const ROLE: &str = "KIMI_TEST_ROLE";
const CAPTURE: Output = Output::Capture {
    cap_bytes: 64 * 1024,
    chunks: None,
};
/// Somebody whom no machine knows, so that no process of another counts.
const STRANGER: u32 = 4_000_000_033;
const STRANGERS: u32 = 4_000_000_034;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("each_key_is_seen_from_inside", each_key_is_seen_from_inside),
    ("another_user_is_nobody_else", another_user_is_nobody_else),
    ("a_user_has_its_own_groups", a_user_has_its_own_groups),
    (
        "who_one_is_already_needs_no_shim",
        who_one_is_already_needs_no_shim,
    ),
    (
        "the_shim_leaves_nothing_behind",
        the_shim_leaves_nothing_behind,
    ),
    (
        "the_place_to_notify_by_is_the_same_through_the_shim",
        the_place_to_notify_by_is_the_same_through_the_shim,
    ),
    (
        "what_is_secret_is_in_no_arguments",
        what_is_secret_is_in_no_arguments,
    ),
    (
        "what_another_user_may_not_do_says_why",
        what_another_user_may_not_do_says_why,
    ),
    (
        "what_cannot_be_executed_says_why_as_ever",
        what_cannot_be_executed_says_why_as_ever,
    ),
    (
        "who_has_too_many_processes_is_told_so",
        who_has_too_many_processes_is_told_so,
    ),
    (
        "a_failure_at_each_step_is_named",
        a_failure_at_each_step_is_named,
    ),
    (
        "one_that_is_killed_in_the_shim_is_gone",
        one_that_is_killed_in_the_shim_is_gone,
    ),
    (
        "without_the_newer_system_calls_the_shim_does_the_same",
        without_the_newer_system_calls_the_shim_does_the_same,
    ),
    (
        "the_program_may_be_deleted_while_it_runs",
        the_program_may_be_deleted_while_it_runs,
    ),
    (
        "nobody_can_call_the_shim_by_hand",
        nobody_can_call_the_shim_by_hand,
    ),
    (
        "who_is_not_root_is_told_what_only_root_can",
        who_is_not_root_is_told_what_only_root_can,
    ),
    (
        "protection_from_the_kernel_is_not_inherited",
        protection_from_the_kernel_is_not_inherited,
    ),
    (
        "some_die_with_the_supervisor_and_with_nobody_else",
        some_die_with_the_supervisor_and_with_nobody_else,
    ),
    (
        "an_end_for_lack_of_memory_is_told_apart",
        an_end_for_lack_of_memory_is_told_apart,
    ),
    (
        "what_went_through_the_shim_costs_nothing_any_more",
        what_went_through_the_shim_costs_nothing_any_more,
    ),
];

fn main() -> ExitCode {
    kimi_actors::shim::run_if_asked();
    if let Ok(role) = std::env::var(ROLE) {
        play_role(&role);
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_told = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // None of them is ever ignored.
    if is_told("--ignored") {
        return ExitCode::SUCCESS;
    }
    if is_told("--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| name.contains(*it));
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        let result = panic::catch_unwind(AssertUnwindSafe(test));
        println!(
            "test {name} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        failed += u8::from(result.is_err());
    }
    ExitCode::from(failed)
}

fn is_root() -> bool {
    let is_root = means(Controllers::default()).becomes_anybody;
    if !is_root {
        eprintln!("SKIPPED: only root can become somebody else");
    }
    is_root
}

/// Remembers besides how it was started.
#[derive(Default)]
struct Witness {
    told: Told,
    path: Mutex<Option<StartPath>>,
}

impl Observer for Witness {
    fn tell(&self, news: News) {
        let path = match news {
            News::Started { path, .. } => Some(path),
            News::Over { .. } => Some(StartPath::Direct),
            News::NotStarted(_) | News::OutputLimit | News::Ended(_) => None,
        };
        if path.is_some() {
            *self.path.lock().unwrap() = path;
        }
        self.told.tell(news);
    }
}

fn next_run() -> RunId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    RunId(NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Watched {
    run: RunId,
    process: Box<dyn kimi_actors::os::Process>,
    witness: Arc<Witness>,
}

impl Watched {
    fn told(&self) -> &Told {
        &self.witness.told
    }

    fn path(&self) -> Option<StartPath> {
        *self.witness.path.lock().unwrap()
    }
}

fn begin_with(
    os: &dyn Os,
    command: CommandSpec,
    output: Output,
    listen: Option<Listen>,
) -> Watched {
    let run = next_run();
    let witness = Arc::new(Witness::default());
    let process = os.begin(Job {
        run,
        child: ChildName::new("child").unwrap(),
        command: Arc::new(command),
        stdin: Stdin::default(),
        output,
        rank: kimi_actors::os::Rank::default(),
        observer: Arc::clone(&witness) as Arc<dyn Observer>,
        listen,
    });
    Watched {
        run,
        process,
        witness,
    }
}

fn begin(os: &dyn Os, command: CommandSpec) -> Watched {
    begin_with(os, command, CAPTURE, None)
}

fn with(mut command: CommandSpec, setup: Setup) -> CommandSpec {
    command.setup = Some(Box::new(setup));
    command
}

fn stranger() -> Identity {
    Identity {
        user: Some("stranger".to_owned()),
        group: Some("strangers".to_owned()),
        uid: STRANGER,
        gid: STRANGERS,
        groups: vec![STRANGERS, 7],
    }
}

fn as_stranger() -> Setup {
    Setup {
        identity: Some(stranger()),
        ..Setup::default()
    }
}

/// What a line of shell writes with this setup, and how it was started.
fn seen(os: &dyn Os, line: &str, setup: Setup) -> (String, Option<StartPath>) {
    let run = begin(os, with(CommandSpec::shell(line), setup));
    let end = run.told().end();
    let captured = end.captured.unwrap();
    let text = |kept: &kimi_actors::os::Kept| String::from_utf8_lossy(&kept.head).into_owned();
    let text = text(&captured.stdout) + &text(&captured.stderr);
    wait_until_gone(os, run.run);
    (text, run.path())
}

fn refused(os: &dyn Os, command: CommandSpec) -> SpawnError {
    let run = begin(os, command);
    let error = run.told().not_started();
    wait_until_gone(os, run.run);
    error
}

fn text_of(error: &SpawnError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn nothing_is_left(os: &dyn Os) {
    eventually("no run is left", || (os.live() == 0).then_some(()));
    assert_same(&Footprint::now().children, &Vec::new(), "children");
}

/// Runs this program in a role, started by `launcher`; it must succeed.
#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn play(launcher: &[&str], me: &Path, role: &str) {
    let mut command = match launcher {
        [] => Command::new(me),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(me);
            command
        }
    };
    let output = command
        .env(ROLE, role)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{launcher:?} {role}: {}\n{said}",
        output.status
    );
    eprint!("{said}");
}

fn me() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

/// The same while a system call fails as told; not where strace is missing or forbidden.
#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn play_with_failing(injections: &[&str], role: &str) {
    let can_inject = Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null"])
        .args(["-e", "inject=pipe2:error=EMFILE", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !can_inject {
        eprintln!("SKIPPED: `{role}` with {injections:?}: strace is missing or not permitted here");
        return;
    }
    let injections: Vec<String> = injections.iter().map(|it| format!("inject={it}")).collect();
    let mut launcher = vec!["strace", "-f", "-qqq", "-o", "/dev/null"];
    for injection in &injections {
        launcher.extend(["-e", injection]);
    }
    play(&launcher, &me(), role);
}

fn play_role(role: &str) {
    match role.split_once(": ").unwrap_or((role, "")) {
        ("fails", text) => fails(text),
        ("ordinary", _) => ordinary(),
        ("deleted", _) => deleted(),
        ("not root", _) => not_root(),
        ("protected", _) => protected(),
        ("dies", _) => dies(),
        _ => panic!("no role {role}"),
    }
}

fn each_key_is_seen_from_inside() {
    let os = real_os(16);
    let limits = |limits| Setup {
        limits,
        ..Setup::default()
    };
    let none = ResourceLimits::default();
    let status = "grep -E ^NoNewPrivs /proc/self/status";
    let mut cases = vec![
        (
            "ulimit -Sn; ulimit -Hn",
            limits(ResourceLimits {
                nofile: Some(61),
                ..none
            }),
            "61\n61\n",
        ),
        (
            "ulimit -Sc; ulimit -Hc",
            limits(ResourceLimits {
                core: Some(0),
                ..none
            }),
            "0\n0\n",
        ),
        (
            "ulimit -Sv; ulimit -Hv",
            limits(ResourceLimits {
                memory: Some(512 << 20),
                ..none
            }),
            "524288\n524288\n",
        ),
        (
            "umask",
            Setup {
                umask: Some(0o27),
                ..Setup::default()
            },
            "0027\n",
        ),
        (
            "nice",
            Setup {
                nice: Some(7),
                ..Setup::default()
            },
            "7\n",
        ),
        (
            "cat /proc/self/oom_score_adj",
            Setup {
                oom_score_adj: Some(1000),
                ..Setup::default()
            },
            "1000\n",
        ),
        (
            "cat /proc/self/oom_score_adj",
            Setup {
                oom_score_adj: Some(305),
                ..Setup::default()
            },
            "305\n",
        ),
        (
            status,
            Setup {
                no_new_privs: true,
                ..Setup::default()
            },
            "NoNewPrivs:\t1\n",
        ),
        (status, Setup::default(), "NoNewPrivs:\t0\n"),
    ];
    let can = means(Controllers::default());
    if can.raises_limits && can.least_nice == -20 {
        cases.push((
            "nice; cat /proc/self/oom_score_adj",
            Setup {
                nice: Some(-7),
                oom_score_adj: Some(-1000),
                ..Setup::default()
            },
            "-7\n-1000\n",
        ));
    }
    let is_root = is_root();
    for (line, setup, expected) in cases {
        let (text, path) = seen(&*os, line, setup.clone());
        assert_eq!((text.as_str(), path), (expected, Some(StartPath::Direct)));
        if is_root {
            // The same through the shim.
            let setup = Setup {
                identity: Some(stranger()),
                ..setup
            };
            let (text, path) = seen(&*os, line, setup);
            assert_eq!((text.as_str(), path), (expected, Some(StartPath::Shim)));
        }
    }
    // What is set up in a child is not set up in its supervisor.
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(own.trim().parse::<i16>().unwrap(), can.oom_score_adj);
    assert_eq!(means(Controllers::default()), can);
    nothing_is_left(&*os);
}

fn another_user_is_nobody_else() {
    if !is_root() {
        return;
    }
    let os = real_os(16);
    let line = "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm)' /proc/self/status";
    let (text, path) = seen(&*os, line, as_stranger());
    let (uid, gid) = (STRANGER, STRANGERS);
    assert_eq!(
        text,
        format!(
            "Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\nGroups:\t7 {gid} \n\
             CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
        )
    );
    assert_eq!(path, Some(StartPath::Shim));
    // The supervisor is who it was, and can still be looked at by itself.
    assert!(fs::read_to_string("/proc/self/environ").is_ok());
    let group_only = Setup {
        identity: Some(account(None, Some("4000000077")).unwrap().identity),
        ..Setup::default()
    };
    let (text, _) = seen(&*os, "id -u; id -g; id -G", group_only);
    assert_eq!(text, "0\n4000000077\n4000000077\n");
    nothing_is_left(&*os);
}

fn a_user_has_its_own_groups() {
    let Some(account) = ["daemon", "nobody", "www-data"]
        .iter()
        .find_map(|name| account(Some(name), None).ok())
        .filter(|_| is_root())
    else {
        eprintln!("SKIPPED: there is no user here whom every machine has");
        return;
    };
    let os = real_os(4);
    let setup = Setup {
        identity: Some(account.identity.clone()),
        ..Setup::default()
    };
    let (text, _) = seen(&*os, "id -u; id -g", setup);
    let Identity { uid, gid, .. } = account.identity;
    assert_eq!(text, format!("{uid}\n{gid}\n"));
    nothing_is_left(&*os);
}

fn who_one_is_already_needs_no_shim() {
    let os = real_os(4);
    let uid = rustix::process::getuid().to_string();
    let gid = rustix::process::getgid().to_string();
    let setup = Setup {
        identity: Some(account(Some(&uid), Some(&gid)).unwrap().identity),
        ..Setup::default()
    };
    let (text, path) = seen(&*os, "id -u; id -g", setup);
    assert_eq!(text, format!("{uid}\n{gid}\n"));
    assert_eq!(path, Some(StartPath::Direct));
    nothing_is_left(&*os);
}

fn the_shim_leaves_nothing_behind() {
    if !is_root() {
        return;
    }
    let os = real_os(4);
    // A descriptor that the host forgot to protect.
    let leaky = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let mut command = CommandSpec::new("sleep", ["1000"]);
    command.env.push(("SHOWN".into(), "yes".into()));
    command.cwd = Some("/proc".into());
    let run = begin(&*os, with(command, as_stranger()));
    let pid = run.told().pid();
    eventually("it has three descriptors", || {
        let mut names: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        (names == ["0", "1", "2"]).then_some(())
    });
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for signals in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
        let line = format!("{signals}:\t0000000000000000");
        assert!(status.contains(&line), "{line}: {status}");
    }
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(arguments, b"sleep\x001000\0");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("SHOWN=yes\0"), "{environment}");
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        Path::new("/proc")
    );
    run.process.signal(Signal::TERM).unwrap();
    assert!(matches!(
        run.told().end().exit,
        Exit::Signal {
            signal: Signal::TERM,
            ..
        }
    ));
    wait_until_gone(&*os, run.run);
    nothing_is_left(&*os);
}

struct Heard(Arc<Mutex<bool>>);

impl Listener for Heard {
    fn hear(&self, _: Notice) {
        *self.0.lock().unwrap() = true;
    }
}

fn the_place_to_notify_by_is_the_same_through_the_shim() {
    if !is_root() {
        return;
    }
    let os = real_os(4);
    for place in [3_u32, 4, 5, 6, 7, 16, 17, 200] {
        let heard = Arc::new(Mutex::new(false));
        let theirs = Arc::clone(&heard);
        let listen = Listen {
            sign: Sign::NotifyFd(place),
            listener: Arc::new(Heard(theirs)),
        };
        // Three of its own, this one, and the one that it is listed by.
        let line =
            format!("test $(ls /proc/self/fd | wc -l) = 5 && echo >&{place} && exec sleep 1000");
        let command = CommandSpec::new("/bin/bash", ["-c", line.as_str()]);
        let run = begin_with(&*os, with(command, as_stranger()), CAPTURE, Some(listen));
        eventually("it is heard", || heard.lock().unwrap().then_some(()));
        drop(run.process);
        wait_until_gone(&*os, run.run);
    }
    nothing_is_left(&*os);
}

fn what_is_secret_is_in_no_arguments() {
    if !is_root() {
        return;
    }
    let os = real_os(4);
    // More than any pipe or socket holds at once.
    let long = "x".repeat(100_000);
    let mut command = CommandSpec::shell("test ${#A} = 100000 && test ${#B} = 100000");
    command.env.push(("A".into(), long.clone().into()));
    command.env.push(("B".into(), long.into()));
    // What works on the loader works on the program alone: the shim would say that it cannot be preloaded.
    command
        .env
        .push(("LD_PRELOAD".into(), "/no/such/library".into()));
    let run = begin(&*os, with(command, as_stranger()));
    let end = run.told().end();
    assert_eq!(end.exit, Exit::Code(0), "{end:?}");
    let said = String::from_utf8(end.captured.unwrap().stderr.head).unwrap();
    assert_eq!(said.matches("/no/such/library").count(), 1, "{said}");
    wait_until_gone(&*os, run.run);
    nothing_is_left(&*os);
}

fn what_another_user_may_not_do_says_why() {
    if !is_root() {
        return;
    }
    let os = real_os(4);
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let program = closed.join("program");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let mut elsewhere = CommandSpec::new("/bin/true", [""; 0]);
    elsewhere.cwd = Some(closed.clone());
    let error = refused(&*os, with(elsewhere, as_stranger()));
    assert_eq!(
        text_of(&error),
        format!(
            "cannot enter the working directory `{}`: Permission denied (os error 13)",
            closed.display()
        )
    );
    let theirs = CommandSpec::new(program.as_os_str(), [""; 0]);
    let error = refused(&*os, with(theirs, as_stranger()));
    assert_eq!(
        text_of(&error),
        format!("cannot execute `{}`: permission denied", program.display())
    );
    assert_eq!(error.kind(), StartFailure::NotExecutable);
    nothing_is_left(&*os);
}

fn what_cannot_be_executed_says_why_as_ever() {
    if !is_root() {
        return;
    }
    let os = real_os(4);
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.into_os_string()
    };
    let long = "x".repeat(200_000);
    let commands = [
        CommandSpec::new("/no/such/program", [""; 0]),
        CommandSpec::new("no-such-program", [""; 0]),
        CommandSpec::new(file("plain", "echo hi\n"), [""; 0]),
        CommandSpec::new(file("empty", ""), [""; 0]),
        CommandSpec::new(file("windows", "#!/bin/sh\r\n"), [""; 0]),
        CommandSpec::new("/tmp", [""; 0]),
        CommandSpec::new("/bin/true", [long.as_str()]),
        CommandSpec {
            cwd: Some("/no/such/directory".into()),
            ..CommandSpec::new("/bin/true", [""; 0])
        },
    ];
    for command in commands {
        let directly = refused(&*os, command.clone());
        let through = refused(&*os, with(command, as_stranger()));
        assert_eq!(text_of(&through), text_of(&directly));
        assert_eq!(through.kind(), directly.kind());
    }
    nothing_is_left(&*os);
}

fn who_has_too_many_processes_is_told_so() {
    if !is_root() {
        return;
    }
    let os = real_os(4);
    let one = Setup {
        limits: ResourceLimits {
            pids: Some(1),
            ..ResourceLimits::default()
        },
        ..as_stranger()
    };
    // The limit is looked at when the user is set, and that one does not count yet.
    let others = [1, 2].map(|_| {
        begin(
            &*os,
            with(CommandSpec::new("sleep", ["1000"]), as_stranger()),
        )
    });
    for run in &others {
        run.told().pid();
    }
    let error = refused(&*os, with(CommandSpec::new("sleep", ["1000"]), one));
    assert_eq!(
        text_of(&error),
        "cannot execute the program: `stranger` has as many processes as its limit allows"
    );
    assert_eq!(error.kind(), StartFailure::Exhausted);
    for Watched { run, process, .. } in others {
        drop(process);
        wait_until_gone(&*os, run);
    }
    nothing_is_left(&*os);
}

/// Everything that can be asked for, here.
fn everything() -> Setup {
    let setup = Setup {
        limits: ResourceLimits {
            nofile: Some(64),
            core: Some(0),
            memory: Some(1 << 30),
            cpu: None,
            pids: Some(1000),
        },
        umask: Some(0o27),
        nice: Some(5),
        oom_score_adj: Some(500),
        no_new_privs: true,
        die_with_parent: true,
        ..as_stranger()
    };
    let examined = examine(&setup, &means(Controllers::default()));
    assert_eq!(examined.unmet, Vec::new());
    setup
}

fn a_failure_at_each_step_is_named() {
    if !is_root() {
        return;
    }
    for (failing, text) in [
        (
            "setgroups:error=EPERM",
            "cannot set its groups to those of `stranger`: Operation not permitted (os error 1)",
        ),
        (
            "setresgid:error=EPERM",
            "cannot set its group to `strangers`: Operation not permitted (os error 1)",
        ),
        (
            "setresuid:error=EPERM",
            "cannot set its user to `stranger`: Operation not permitted (os error 1)",
        ),
        // It says that it worked, and did nothing: the gravest of failures.
        (
            "setresuid:retval=0",
            "cannot verify that it runs as `stranger`: Operation not permitted (os error 1)",
        ),
        (
            "setresgid:retval=0",
            "cannot verify that it runs as `stranger`: Operation not permitted (os error 1)",
        ),
        (
            "setuid:retval=0",
            "cannot verify that it runs as `stranger`: Operation not permitted (os error 1)",
        ),
        (
            "setpriority:error=EACCES",
            "cannot set its nice value to 5: Permission denied (os error 13)",
        ),
        (
            "chdir:error=EACCES",
            "cannot enter the working directory `/`: Permission denied (os error 13)",
        ),
        (
            "execveat:error=ENOMEM",
            "cannot execute the exec shim: Cannot allocate memory (os error 12)",
        ),
        (
            "memfd_create:error=EMFILE",
            "cannot prepare the exec shim: Too many open files (os error 24)",
        ),
        ("fcntl:error=EMFILE:when=60+", ""),
    ] {
        play_with_failing(&[failing], &format!("fails: {text}"));
    }
}

/// Whatever fails, it is told and nothing is left. An empty text: it may also be that nothing fails.
fn fails(text: &str) {
    let os = real_os(4);
    let mut command = with(CommandSpec::new("sleep", ["1000"]), everything());
    command.cwd = Some("/".into());
    let before = Footprint::now();
    if text.is_empty() {
        for _ in 0..20 {
            let run = begin(&*os, command.clone());
            drop(run.process);
            wait_until_gone(&*os, run.run);
            assert!(run.witness.told.is_over());
        }
    } else {
        let error = refused(&*os, command);
        assert_eq!(text_of(&error), text);
    }
    nothing_is_left(&*os);
    // Who is given up hears of it before the thread that was at it has let go of everything.
    eventually("every descriptor is closed", || {
        (Footprint::now().descriptors == before.descriptors).then_some(())
    });
}

fn one_that_is_killed_in_the_shim_is_gone() {
    if !is_root() {
        return;
    }
    let os = real_os(64);
    for round in 0..100 {
        let command = with(CommandSpec::new("sleep", ["1000"]), as_stranger());
        let run = begin(&*os, command);
        for _ in 0..round {
            std::thread::yield_now();
        }
        drop(run.process);
        wait_until_gone(&*os, run.run);
        assert!(run.witness.told.is_over());
    }
    // A signal that comes while the shim works reaches the program: it is blocked until then.
    for round in 0..50 {
        let run = begin(
            &*os,
            with(CommandSpec::new("sleep", ["1000"]), as_stranger()),
        );
        for _ in 0..round {
            std::thread::yield_now();
        }
        run.process.signal(Signal::INT).unwrap();
        let end = run.told().end();
        assert!(
            matches!(
                end.exit,
                Exit::Signal {
                    signal: Signal::INT,
                    ..
                }
            ),
            "{end:?}"
        );
        wait_until_gone(&*os, run.run);
    }
    nothing_is_left(&*os);
}

fn without_the_newer_system_calls_the_shim_does_the_same() {
    if !is_root() {
        return;
    }
    for missing in [
        &["clone3:error=ENOSYS"][..],
        &["close_range:error=ENOSYS"],
        &["clone3:error=ENOSYS", "close_range:error=ENOSYS"],
    ] {
        play_with_failing(missing, "ordinary");
    }
}

fn ordinary() {
    each_key_is_seen_from_inside();
    the_shim_leaves_nothing_behind();
    what_cannot_be_executed_says_why_as_ever();
}

fn the_program_may_be_deleted_while_it_runs() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("program");
    fs::copy(me(), &copy).unwrap();
    play(&[], &copy, "deleted");
}

fn deleted() {
    let os = real_os(4);
    fs::remove_file(me()).unwrap();
    let (text, path) = seen(&*os, "id -u", as_stranger());
    assert_eq!(text, format!("{STRANGER}\n"));
    assert_eq!(path, Some(StartPath::Shim));
    nothing_is_left(&*os);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn nobody_can_call_the_shim_by_hand() {
    // It goes on as if nobody had asked, and lists its tests or runs those of this name: none.
    for stdin in ["</dev/null", "3</dev/null", "3<&-"] {
        let line = format!("exec \"$0\" __exec {stdin}");
        let status = Command::new("/bin/sh")
            .args(["-c", &line])
            .arg(me())
            .status()
            .unwrap();
        assert!(status.success(), "{stdin}: {status}");
    }
}

fn who_is_not_root_is_told_what_only_root_can() {
    if is_root() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = directory.path().join("program");
        fs::copy(me(), &copy).unwrap();
        let launcher = [
            "setpriv",
            "--reuid=4000000033",
            "--regid=4000000034",
            "--clear-groups",
        ];
        play(&launcher, &copy, "not root");
    } else {
        not_root();
    }
}

fn not_root() {
    let os = real_os(4);
    let sleep = || CommandSpec::new("sleep", ["1000"]);
    for (setup, text) in [
        (
            Setup {
                identity: Some(account(Some("root"), None).unwrap().identity),
                ..Setup::default()
            },
            "`user` cannot be enforced here: only root may become somebody else",
        ),
        (
            Setup {
                nice: Some(-5),
                ..Setup::default()
            },
            "`nice` cannot be enforced here: only root may give less than 0",
        ),
        (
            Setup {
                limits: ResourceLimits {
                    cpu: Some(Processors(500)),
                    ..ResourceLimits::default()
                },
                ..Setup::default()
            },
            "`limits.cpu` cannot be enforced here: no control group with the controller `cpu` can be had",
        ),
    ] {
        let error = refused(&*os, with(sleep(), setup.clone()));
        assert_eq!(text_of(&error), text);
        assert_eq!(error.kind(), StartFailure::NotExecutable);
        // What is there for a fair share can be done without.
        let setup = Setup {
            best_effort: true,
            ..setup
        };
        let run = begin(&*os, with(CommandSpec::new("true", [""; 0]), setup.clone()));
        if setup.identity.is_some() {
            run.told().not_started();
        } else {
            assert_eq!(run.told().end().exit, Exit::Code(0));
        }
        wait_until_gone(&*os, run.run);
    }
    let pids = Setup {
        limits: ResourceLimits {
            pids: Some(1000),
            ..ResourceLimits::default()
        },
        ..Setup::default()
    };
    let line = "grep -o 'Max processes *[0-9]*' /proc/self/limits";
    assert_eq!(seen(&*os, line, pids).0, "Max processes             1000\n");
    who_one_is_already_needs_no_shim();
    nothing_is_left(&*os);
}

fn protection_from_the_kernel_is_not_inherited() {
    if !means(Controllers::default()).raises_limits {
        eprintln!("SKIPPED: only root has protection from the kernel's choice");
        return;
    }
    play(&["choom", "-n", "-700", "--"], &me(), "protected");
}

fn protected() {
    let os = real_os(4);
    let line = "cat /proc/self/oom_score_adj";
    assert_eq!(seen(&*os, line, Setup::default()).0, "0\n");
    let run = begin(&*os, CommandSpec::shell(line));
    assert_eq!(run.told().end().captured.unwrap().stdout.head, b"0\n");
    wait_until_gone(&*os, run.run);
    let asked = Setup {
        oom_score_adj: Some(-300),
        ..Setup::default()
    };
    assert_eq!(seen(&*os, line, asked).0, "-300\n");
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(own, "-700\n");
    nothing_is_left(&*os);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn some_die_with_the_supervisor_and_with_nobody_else() {
    let mut supervisor = Command::new(me())
        .env(ROLE, "dies")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut stdout = std::io::BufReader::new(supervisor.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut text).unwrap();
    let pids: Vec<u32> = text
        .split_whitespace()
        .map(|it| it.parse().unwrap())
        .collect();
    assert!(!pids.is_empty(), "{text}");
    pids.iter().copied().for_each(support::assert_alive);
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    pids.into_iter().for_each(wait_until_dead);
}

fn dies() {
    let os = real_os(64);
    let bound = |identity| Setup {
        identity,
        die_with_parent: true,
        ..Setup::default()
    };
    let mut setups = vec![bound(None)];
    if is_root() {
        setups.push(bound(Some(stranger())));
    }
    let runs: Vec<Watched> = setups
        .into_iter()
        .cycle()
        .take(20)
        .map(|setup| begin(&*os, with(CommandSpec::new("sleep", ["1000"]), setup)))
        .collect();
    let pids: Vec<String> = runs
        .iter()
        .map(|run| run.told().pid().to_string())
        .collect();
    println!("{}", pids.join(" "));
    eventually("it is killed", || None::<()>);
}

/// Counts by a file in the form of `memory.events`.
struct Recorded(tempfile::NamedTempFile);

impl OomCounter for Recorded {
    fn oom_kills(&self, _: RunId) -> Option<u64> {
        oom_kills(&fs::read_to_string(self.0.path()).ok()?)
    }
}

fn an_end_for_lack_of_memory_is_told_apart() {
    let events = |kills: u32| {
        format!("low 0\nhigh 0\nmax 131\noom {kills}\noom_kill {kills}\noom_group_kill 0\n")
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    fs::write(&path, events(4)).unwrap();
    let os = RealOs::new(&RealOsOptions {
        slots: 4,
        oom: Some(Arc::new(Recorded(file))),
        ..RealOsOptions::default()
    })
    .unwrap();
    let plain = begin(&os, CommandSpec::shell("kill -KILL $$"));
    assert!(!plain.told().end().oom);
    wait_until_gone(&os, plain.run);
    let starved = begin(&os, CommandSpec::new("sleep", ["1000"]));
    let pid = starved.told().pid();
    fs::write(&path, events(5)).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let end = starved.told().end();
    assert!(end.oom, "{end:?}");
    wait_until_gone(&os, starved.run);
    // The count is gone: nothing is known, and nothing is claimed.
    let unknown = begin(&os, CommandSpec::new("sleep", ["1000"]));
    unknown.told().pid();
    fs::write(&path, "").unwrap();
    unknown.process.kill();
    assert!(!unknown.told().end().oom);
    wait_until_gone(&os, unknown.run);
}

fn what_went_through_the_shim_costs_nothing_any_more() {
    if !is_root() {
        return;
    }
    let os = real_os(64);
    let rounds = |count: usize| {
        for _ in 0..count {
            let run = begin(
                &*os,
                with(CommandSpec::new("/bin/true", [""; 0]), as_stranger()),
            );
            assert_eq!(run.told().end().exit, Exit::Code(0));
            wait_until_gone(&*os, run.run);
        }
    };
    rounds(20);
    let before = Footprint::now();
    rounds(200);
    let after = Footprint::now();
    assert_same(&after.descriptors, &before.descriptors, "descriptors");
    assert_same(&after.children, &Vec::new(), "children");
}
