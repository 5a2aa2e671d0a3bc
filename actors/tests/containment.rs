//! Nothing outlives its run, whatever it does: in every mode of containment that the machine has.
//!
//! Each scene plays in a process of its own, which is this program again, in a role; where somebody must adopt what the runs
//! leave behind, below another one, which does so. A mode that the machine lacks is said to be skipped, and fails the tests if
//! `REQUIRE_CONTAINMENT`, a list with commas, names it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and a skipped one says so"
)]
#![cfg(target_os = "linux")]

#[expect(unreachable_pub, reason = "each test file uses its part of it")]
#[expect(dead_code, reason = "each test file uses its part of it")]
mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kimi_actors::os::{
    ContainmentRules, End, Lacking, Os, Output, RealOs, RealOsError, RealOsOptions,
};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{CommandSpec, Containment};
use support::{
    Begun, Footprint, Lines, assert_alive, bash, begin, contained_os, eventually, shell, state_of,
    wait_until_dead, wait_until_gone,
};

const ROLE: &str = "KIMI_TEST_ROLE";
const RUNTIME: &str = "KIMI_TEST_RUNTIME";

/// What plays in a process of its own.
type Scene = fn(&Stage);

const SCENES: [(&str, Scene); 12] = [
    ("escapes", escapes),
    ("stopped", stopped),
    ("bomb", bomb),
    ("forks", forks),
    ("groups", groups),
    ("orphans", orphans),
    ("bare", bare),
    ("branches", branches),
    ("moves", moves),
    ("pool", pool),
    ("waits", waits),
    ("frozen", frozen),
];

/// Where a scene plays.
struct Stage {
    mode: Containment,
    rules: ContainmentRules,
}

impl Stage {
    fn os(&self) -> Arc<RealOs> {
        contained_os(64, self.rules)
    }

    /// Whether what made a session of its own is found when its run ends.
    fn finds_escapes(&self) -> bool {
        self.mode != Containment::Group
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test is not the one under supervision"
)]
fn outside(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

fn in_role(role: &str) -> Command {
    let mut command = outside(std::env::current_exe().unwrap());
    command
        .args(["--exact", "in_a_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env_remove("KIMI_RUN")
        .stdin(Stdio::null());
    command
}

/// Plays a scene in every mode of these that the machine has.
fn play(scene: &str, modes: &[Containment]) {
    for mode in modes {
        if let Err(lacking) = has(*mode) {
            skip(*mode, scene, &lacking);
            continue;
        }
        let role = format!("{mode}/{scene}");
        let mut command = match mode {
            Containment::Subreaper => {
                let mut command = in_role("guardian");
                command.env(RUNTIME, &role);
                command
            }
            Containment::Cgroup | Containment::Group => in_role(&role),
        };
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{role}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Whether the machine has this mode; of the adopting one it is enough that it can be played.
fn has(mode: Containment) -> Result<(), String> {
    if mode != Containment::Cgroup {
        return Ok(());
    }
    let options = RealOsOptions {
        slots: 1,
        containment: insisting_on(mode),
        ..RealOsOptions::default()
    };
    match RealOs::new(&options) {
        Ok(os) => {
            assert_eq!(os.containment(), mode);
            Ok(())
        }
        Err(RealOsError::Containment(error)) => Err(error.lacking.to_string()),
        Err(error) => panic!("{error}"),
    }
}

/// Who is left when it has finished.
fn finished(os: &dyn Os) -> Vec<kimi_actors::os::Survivor> {
    let (tell, told) = std::sync::mpsc::channel();
    os.finish(Box::new(move |left| tell.send(left).unwrap()));
    told.recv().unwrap()
}

fn insisting_on(mode: Containment) -> ContainmentRules {
    ContainmentRules {
        require: Some(mode),
        adopter: None,
        ..ContainmentRules::default()
    }
}

fn skip(mode: Containment, scene: &str, lacking: &str) {
    let required = std::env::var("REQUIRE_CONTAINMENT").unwrap_or_default();
    assert!(
        !required
            .split(',')
            .any(|required| required == mode.as_str()),
        "containment {mode} is required: {lacking}"
    );
    eprintln!("SKIPPED: containment {mode} ({scene}): {lacking}");
}

/// What the program does when it is started in a role; nothing in an ordinary run of the tests.
#[test]
fn in_a_role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "guardian" => guard(),
        "refused" => return refused(),
        _ => {}
    }
    let (mode, scene) = role.split_once('/').unwrap();
    let mode = Containment::ALL
        .into_iter()
        .find(|known| known.as_str() == mode)
        .unwrap();
    let stage = Stage {
        mode,
        rules: ContainmentRules {
            require: Some(mode),
            adopter: (mode == Containment::Subreaper).then(std::os::unix::process::parent_id),
            ..ContainmentRules::default()
        },
    };
    let (_, play) = SCENES.iter().find(|(name, _)| *name == scene).unwrap();
    play(&stage);
    if mode != Containment::Subreaper {
        assert_eq!(Footprint::now().children, []);
    }
}

/// Adopts and reaps what the runtime, which is its only child, and all that comes from it, leaves behind.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    clippy::zombie_processes,
    reason = "its end is that of the runtime, which it reaps with all others"
)]
fn guard() -> ! {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let runtime = in_role(&std::env::var(RUNTIME).unwrap()).spawn().unwrap();
    let runtime = rustix::process::Pid::from_child(&runtime);
    let mut code = None;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == runtime => {
                code = Some(status.exit_status().unwrap_or(100));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Nobody is left: all that there was below it is gone as well.
            Err(error) => {
                assert_eq!(error, rustix::io::Errno::CHILD);
                std::process::exit(code.unwrap());
            }
        }
    }
}

fn captured(os: &dyn Os, line: &str) -> (Begun, Arc<Lines>) {
    let lines = Arc::new(Lines::default());
    let run = bash(os, line, Output::Lines(Arc::clone(&lines) as _));
    (run, lines)
}

/// Everybody who has this mark, besides zombies, whose environment is gone.
fn marked(mark: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let needle = format!("KIMI_RUN={mark}");
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == needle.as_bytes())
    })
    .collect()
}

fn ended(os: &dyn Os, run: &Begun) -> End {
    let end = *run.told.end();
    assert_eq!(end.survivors, [], "{end:?}");
    wait_until_gone(os, run.run);
    end
}

/// The end of the runtime: nothing is left, and nobody is named.
fn finish(os: Arc<RealOs>) {
    assert_eq!(finished(&*os), []);
    assert_eq!(os.live(), 0);
    drop(os);
    eventually("no directory of ours is left", || {
        directories_of(std::process::id()).is_empty().then_some(())
    });
}

/// Where version 2 of control groups is mounted.
fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(mount.split(' ').nth(4).unwrap().into())
}

fn group_of(pid: u32) -> Option<PathBuf> {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount()?.join(path))
}

/// What the runtimes of a process have made below our own group.
fn directories_of(pid: u32) -> Vec<PathBuf> {
    let Some(ours) = group_of(std::process::id()) else {
        return Vec::new();
    };
    let entries = fs::read_dir(ours).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|name| name.starts_with(&format!("kimi-shell.{pid}.")))
        })
        .map(|entry| entry.path())
        .collect()
}

/// A line that leaves somebody who ignores TERM, in a session of its own, whose parents are gone.
const ESCAPE: &str =
    "(setsid bash -c 'trap \"\" TERM; echo escaped $$; while :; do sleep 1; done' &)";

#[test]
fn who_makes_a_session_of_its_own_does_not_outlive_its_run() {
    play("escapes", &Containment::ALL);
}

fn escapes(stage: &Stage) {
    let os = stage.os();
    assert_eq!(os.containment(), stage.mode);
    for is_asked in [true, false] {
        let line = if is_asked {
            format!("{ESCAPE}; exec sleep 1000")
        } else {
            // It goes only when the other one is there.
            format!("{ESCAPE} | {{ read -r line; echo $line; }}")
        };
        let (run, lines) = captured(&*os, &format!("echo mark $KIMI_RUN; {line}"));
        let mark = lines.after("mark ");
        let escaped: u32 = lines.after("escaped ").parse().unwrap();
        if is_asked {
            run.process.signal(Signal::TERM).unwrap();
        }
        let end = ended(&*os, &run);
        if stage.finds_escapes() {
            assert!(!is_asked || end.killed.contains(&escaped), "{end:?}");
            wait_until_dead(escaped);
        } else {
            // Honestly so: it is found when the runtime ends.
            assert_alive(escaped);
            assert_eq!(finished(&*os), []);
        }
        wait_until_dead(escaped);
        eventually("nobody has its mark", || {
            marked(&mark).is_empty().then_some(())
        });
    }
    finish(os);
}

#[test]
fn who_is_stopped_does_not_outlive_its_run() {
    play("stopped", &Containment::ALL);
}

fn stopped(stage: &Stage) {
    let os = stage.os();
    let line = "(setsid bash -c 'echo escaped $$; kill -STOP $$; sleep 1000' &); kill -STOP $$; sleep 1000";
    let (run, lines) = captured(&*os, line);
    let escaped: u32 = lines.after("escaped ").parse().unwrap();
    for pid in [run.told.pid(), escaped] {
        eventually("it is stopped", || {
            (state_of(pid) == Some('T')).then_some(())
        });
    }
    run.process.signal(Signal::TERM).unwrap();
    run.process.signal(Signal::CONT).unwrap();
    let end = ended(&*os, &run);
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
    finish(os);
    wait_until_dead(escaped);
}

#[test]
fn a_bomb_of_five_hundred_is_cleared() {
    play("bomb", &Containment::ALL);
}

fn bomb(stage: &Stage) {
    let os = stage.os();
    let line = "trap '' TERM; echo mark $KIMI_RUN; \
        for i in $(seq 250); do (setsid sleep 1000 &); (sleep 1000 &); done; echo lit; exec sleep 1000";
    let (run, lines) = captured(&*os, line);
    let mark = lines.after("mark ");
    lines.after("lit");
    // By then they have the sessions that they want.
    let sleeps = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    };
    eventually("all of them sleep", || {
        let all = marked(&mark);
        (all.len() == 501 && all.iter().all(sleeps)).then_some(())
    });
    run.process.kill();
    let end = ended(&*os, &run);
    if stage.finds_escapes() {
        // Those in the leader's own group have died with it.
        assert!(end.killed.len() >= 250, "{}", end.killed.len());
        assert_eq!(marked(&mark), []);
    }
    finish(os);
    assert_eq!(marked(&mark), []);
}

#[test]
fn who_forks_while_it_is_killed_does_not_get_away() {
    play("forks", &Containment::ALL);
}

fn forks(stage: &Stage) {
    let os = stage.os();
    for round in 0..5 {
        // Bounded, should it get away.
        let forking = "for i in $(seq 2000); do sleep 60 & done";
        let line = format!(
            "echo mark $KIMI_RUN; (setsid bash -c '{forking}' &); (set -m; bash -c '{forking}' &); echo lit; exec sleep 1000"
        );
        let (run, lines) = captured(&*os, &line);
        let mark = lines.after("mark ");
        lines.after("lit");
        eventually("it forks", || {
            (marked(&mark).len() > 10 * round).then_some(())
        });
        run.process.kill();
        ended(&*os, &run);
        if stage.finds_escapes() {
            assert_eq!(marked(&mark), []);
        } else {
            assert_eq!(finished(&*os), []);
        }
        eventually("nobody has its mark", || {
            marked(&mark).is_empty().then_some(())
        });
    }
    finish(os);
}

#[test]
fn the_stop_signal_reaches_those_outside_the_leaders_group() {
    play("groups", &Containment::ALL);
}

fn groups(stage: &Stage) {
    let os = stage.os();
    let line = "set -m; \
        bash -c 'trap \"echo heard; exit\" TERM; echo ready; while :; do sleep 0.01; done' & \
        trap 'echo leader' TERM; while :; do wait; done";
    let (run, lines) = captured(&*os, line);
    lines.after("ready");
    run.process.signal(Signal::TERM).unwrap();
    lines.after("leader");
    lines.after("heard");
    drop(run.process);
    run.told.end();
    wait_until_gone(&*os, run.run);
    finish(os);
}

#[test]
fn the_orphans_of_a_run_that_lives_are_left_alone() {
    play("orphans", &Containment::ALL);
}

fn orphans(stage: &Stage) {
    let os = stage.os();
    let (stays, lines) = captured(&*os, &format!("{ESCAPE}; exec sleep 1000"));
    let orphan: u32 = lines.after("escaped ").parse().unwrap();
    for _ in 0..5 {
        let (goes, lines) = captured(&*os, &format!("{ESCAPE}; exec sleep 1000"));
        let own: u32 = lines.after("escaped ").parse().unwrap();
        goes.process.signal(Signal::TERM).unwrap();
        let end = ended(&*os, &goes);
        assert!(!end.killed.contains(&orphan), "{end:?}");
        if stage.finds_escapes() {
            wait_until_dead(own);
        }
        assert_alive(orphan);
    }
    stays.process.signal(Signal::TERM).unwrap();
    ended(&*os, &stays);
    if stage.finds_escapes() {
        wait_until_dead(orphan);
    }
    finish(os);
    wait_until_dead(orphan);
}

#[test]
fn who_has_neither_its_session_nor_its_environment_is_found_where_it_can_be() {
    play("bare", &[Containment::Cgroup, Containment::Subreaper]);
}

fn bare(stage: &Stage) {
    let os = stage.os();
    let (stays, _) = captured(&*os, "exec sleep 1000");
    let line = "(env -i setsid /bin/bash -c 'echo escaped $$; while :; do sleep 1; done' &); exec sleep 1000";
    let (goes, lines) = captured(&*os, line);
    let escaped: u32 = lines.after("escaped ").parse().unwrap();
    goes.process.signal(Signal::TERM).unwrap();
    ended(&*os, &goes);
    if stage.mode == Containment::Subreaper {
        // It may be of the one that lives.
        assert_alive(escaped);
        stays.process.signal(Signal::TERM).unwrap();
        let end = ended(&*os, &stays);
        assert!(end.killed.contains(&escaped), "{end:?}");
    }
    wait_until_dead(escaped);
    drop(stays.process);
    wait_until_gone(&*os, stays.run);
    finish(os);
}

#[test]
fn groups_that_a_run_makes_below_its_own_go_with_it() {
    play("branches", &[Containment::Cgroup]);
}

fn branches(stage: &Stage) {
    let os = stage.os();
    for _ in 0..3 {
        let mut command = CommandSpec::new(
            "/bin/bash",
            [
                "-c",
                "d=$MOUNT/$(sed -n s,^0::/,,p /proc/self/cgroup); mkdir -p $d/a/b $d/c; \
                 (echo $BASHPID > $d/a/b/cgroup.procs; exec setsid bash -c 'echo escaped $$; exec sleep 1000') & \
                 wait",
            ],
        );
        command.env = vec![("MOUNT".into(), mount().unwrap().into())];
        let lines = Arc::new(Lines::default());
        let run = begin(&*os, command, Output::Lines(Arc::clone(&lines) as _));
        let escaped: u32 = lines.after("escaped ").parse().unwrap();
        let group = group_of(run.told.pid()).unwrap();
        assert!(group_of(escaped).unwrap().ends_with("a/b"));
        run.process.signal(Signal::TERM).unwrap();
        // The signal reaches it there as well, so it may have been quicker than the kill.
        ended(&*os, &run);
        wait_until_dead(escaped);
        assert!(!group.join("a").exists() && !group.join("c").exists());
    }
    finish(os);
}

#[test]
fn one_that_moves_itself_to_another_group_is_stopped_all_the_same() {
    play("moves", &[Containment::Cgroup]);
}

fn moves(stage: &Stage) {
    let os = stage.os();
    let ours = group_of(std::process::id()).unwrap();
    let mut command = CommandSpec::new(
        "/bin/bash",
        [
            "-c",
            "trap '' TERM; echo $$ > $OURS/cgroup.procs; (while :; do sleep 1; done) & echo member $!; wait",
        ],
    );
    command.env = vec![("OURS".into(), ours.clone().into())];
    let lines = Arc::new(Lines::default());
    let run = begin(&*os, command, Output::Lines(Arc::clone(&lines) as _));
    let member: u32 = lines.after("member ").parse().unwrap();
    assert_eq!(group_of(run.told.pid()).unwrap(), ours);
    run.process.kill();
    ended(&*os, &run);
    wait_until_dead(member);
    finish(os);
}

#[test]
fn a_thousand_runs_use_a_few_directories_again_and_again() {
    play("pool", &[Containment::Cgroup]);
}

fn pool(stage: &Stage) {
    let os = stage.os();
    let home = directories_of(std::process::id());
    assert_eq!(home.len(), 1);
    let leaves = || {
        let entries = fs::read_dir(&home[0]).unwrap().flatten();
        entries
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .count()
    };
    let round = |count: usize| {
        for _ in 0..count {
            let run = begin(
                &*os,
                CommandSpec::new("/bin/true", [""; 0]),
                Output::Discard,
            );
            assert_eq!(run.told.end().exit, Exit::Code(0));
            wait_until_gone(&*os, run.run);
        }
    };
    round(20);
    let before = (leaves(), Footprint::now().descriptors);
    round(1000);
    assert_eq!((leaves(), Footprint::now().descriptors), before);
    // One at a time: what one run has left the next one takes.
    assert!(before.0 <= 2, "{}", before.0);
    finish(os);
    assert_eq!(directories_of(std::process::id()), Vec::<PathBuf>::new());
}

#[test]
fn a_run_that_freezes_its_own_group_ends_and_spoils_it_for_nobody() {
    play("frozen", &[Containment::Cgroup]);
}

fn frozen(stage: &Stage) {
    let os = stage.os();
    for _ in 0..3 {
        let mut command = CommandSpec::new(
            "/bin/bash",
            [
                "-c",
                "d=$MOUNT/$(sed -n s,^0::/,,p /proc/self/cgroup); echo ready; echo 1 > $d/cgroup.freeze; sleep 1000",
            ],
        );
        command.env = vec![("MOUNT".into(), mount().unwrap().into())];
        let lines = Arc::new(Lines::default());
        let run = begin(&*os, command, Output::Lines(Arc::clone(&lines) as _));
        lines.after("ready");
        let group = group_of(run.told.pid()).unwrap();
        eventually("it is frozen", || {
            let events = fs::read_to_string(group.join("cgroup.events")).unwrap();
            events.contains("frozen 1").then_some(())
        });
        run.process.kill();
        ended(&*os, &run);
        let next = shell(&*os, "exit 3", Output::Discard);
        assert_eq!(next.told.end().exit, Exit::Code(3));
        wait_until_gone(&*os, next.run);
    }
    finish(os);
}

/// Has a run with somebody who escaped, says so, and waits to be killed.
fn waits(stage: &Stage) {
    let os = stage.os();
    let (_run, lines) = captured(&*os, &format!("{ESCAPE}; exec sleep 1000"));
    eprintln!("escaped {}", lines.after("escaped "));
    loop {
        std::thread::park();
    }
}

/// A runtime at work in a process of its own.
struct Elsewhere {
    process: Child,
    escaped: u32,
}

impl Elsewhere {
    fn begin() -> Self {
        let mut process = in_role("cgroup/waits")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let escaped = stderr
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("escaped ").map(str::to_owned))
            .unwrap();
        Self {
            process,
            escaped: escaped.parse().unwrap(),
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn what_a_dead_runtime_has_left_is_removed_and_what_a_living_one_has_is_not() {
    if let Err(lacking) = has(Containment::Cgroup) {
        skip(Containment::Cgroup, "stale", &lacking);
        return;
    }
    let (mut dead, mut living) = (Elsewhere::begin(), Elsewhere::begin());
    dead.kill();
    assert_alive(dead.escaped);
    let left = directories_of(dead.process.id());
    assert_eq!(left.len(), 1);
    // Other tests start runtimes as well, each of which may be the one to remove it.
    let os = contained_os(4, insisting_on(Containment::Cgroup));
    eventually("it is removed", || (!left[0].exists()).then_some(()));
    wait_until_dead(dead.escaped);
    for note in os.notes() {
        assert!(note.contains("is gone: killed"), "{note}");
    }
    assert_alive(living.escaped);
    assert_eq!(directories_of(living.process.id()).len(), 1);
    living.kill();
    drop(contained_os(4, insisting_on(Containment::Cgroup)));
    eventually("that as well", || {
        directories_of(living.process.id()).is_empty().then_some(())
    });
    wait_until_dead(living.escaped);
}

#[test]
fn where_the_kernel_refuses_it_goes_on_without_or_says_so_if_it_was_required() {
    if let Err(lacking) = has(Containment::Cgroup) {
        skip(Containment::Cgroup, "refused", &lacking);
        return;
    }
    let played = in_role("refused");
    let strace = [
        "-f",
        "-qqq",
        "-o",
        "/dev/null",
        "-e",
        "inject=clone3:error=ENOSYS",
    ];
    let mut command = outside("strace");
    command
        .args(strace)
        .arg(played.get_program())
        .args(played.get_args())
        .env(ROLE, "refused")
        .env_remove("KIMI_RUN")
        .stdin(Stdio::null());
    let tried = outside("strace").args(strace).arg("true").status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a kernel that refuses: strace is missing or not permitted here");
        return;
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn refused() {
    let options = RealOsOptions {
        slots: 1,
        containment: insisting_on(Containment::Cgroup),
        ..RealOsOptions::default()
    };
    let Err(RealOsError::Containment(error)) = RealOs::new(&options) else {
        panic!("nothing can be made in a control group");
    };
    let said = error.lacking.to_string();
    assert!(said.starts_with("no process can be made in a control group here: "));
    let os = contained_os(4, ContainmentRules::default());
    assert_eq!(os.containment(), Containment::Cgroup);
    for _ in 0..3 {
        let run = shell(&*os, "exit 3", Output::Discard);
        assert_eq!(run.told.end().exit, Exit::Code(3));
        wait_until_gone(&*os, run.run);
        assert_eq!(os.containment(), Containment::Group);
    }
    finish(os);
}

#[test]
fn what_the_machine_lacks_is_said_before_anything_starts() {
    let options = |adopter| RealOsOptions {
        slots: 1,
        containment: ContainmentRules {
            require: Some(Containment::Subreaper),
            adopter,
            ..ContainmentRules::default()
        },
        ..RealOsOptions::default()
    };
    let stranger = Some(std::process::id());
    for adopter in [None, stranger] {
        let Err(RealOsError::Containment(error)) = RealOs::new(&options(adopter)) else {
            panic!("nobody adopts for us");
        };
        assert_eq!(error.wanted, Containment::Subreaper);
        assert!(matches!(error.lacking, Lacking::Adopter(_)), "{error:?}");
    }
    assert!(Path::new("/proc/self/mountinfo").exists());
}
