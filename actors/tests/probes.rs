//! Probes of real processes over real sockets: friendly servers, hostile ones, and what each leaves behind.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks only at what it is about"
)]
#![cfg(target_os = "linux")]

#[expect(
    unreachable_pub,
    dead_code,
    reason = "each test file uses its part of it"
)]
mod support;

use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kimi_actors::os::check::{CheckFailure, CheckOrder, Errand, Way};
use kimi_actors::os::{Os, Output, resolve};
use kimi_actors::policy::event::Fact;
use kimi_actors::policy::probe::{Check, Probe, ProbeRules, ProbeStatus};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{ChildName, CommandSpec, Condition, RunId};
use kimi_actors::policy::tree::State;
use kimi_actors::{Child, Runtime, RuntimeHandle};
use support::{Footprint, Lines, PATIENCE, assert_alive, eventually, real_os, wait_until_dead};

const MS: Duration = Duration::from_millis(1);

/// Tests that look at the whole process run alone, and leave it as they found it.
struct Alone {
    before: usize,
    sockets: Vec<PathBuf>,
    _guard: MutexGuard<'static, ()>,
}

fn alone() -> Alone {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    eventually("nothing of a former test is left", || {
        ours_named("kimi-").is_empty().then_some(())
    });
    Alone {
        before: Footprint::now().descriptors,
        sockets: directories_of_sockets(),
        _guard: guard,
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        eventually("no thread, descriptor, process or file is left", || {
            let now = Footprint::now();
            let is_clean = ours_named("kimi-").is_empty()
                && now.children.is_empty()
                && now.descriptors == self.before
                && directories_of_sockets() == self.sockets;
            is_clean.then_some(())
        });
    }
}

/// Our threads whose names begin like this.
fn ours_named(prefix: &str) -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

fn directories_of_sockets() -> Vec<PathBuf> {
    let prefix = format!("kimi-{}-", std::process::id());
    let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let mut found: Vec<PathBuf> = fs::read_dir(base)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(&prefix)
        })
        .collect();
    found.sort();
    found
}

/// Runs the test on a runtime without a driver for sockets, as a host may have it.
fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() })
}

fn name(text: &str) -> ChildName {
    ChildName::new(text).unwrap()
}

fn tcp(at: SocketAddr) -> Check {
    Check::Tcp {
        host: at.ip().to_string(),
        port: at.port(),
    }
}

fn http(at: SocketAddr, path: &str) -> Check {
    Check::Http {
        host: at.ip().to_string(),
        port: at.port(),
        path: path.to_owned(),
    }
}

fn exec(line: &str) -> Check {
    Check::Exec(CommandSpec::shell(line))
}

fn log(pattern: &str) -> Check {
    Check::Log {
        pattern: pattern.to_owned(),
    }
}

/// Asked often, so that no test waits long.
fn often(check: Check) -> Probe {
    Probe {
        check,
        rules: ProbeRules {
            interval: 20 * MS,
            timeout: 10_000 * MS,
            ..ProbeRules::default()
        },
    }
}

fn within(timeout: Duration, check: Check) -> Probe {
    let mut probe = often(check);
    probe.rules.timeout = timeout;
    probe
}

fn sleeper(name: &str) -> Child {
    shell(name, "exec sleep 1000")
}

fn shell(name: &str, line: &str) -> Child {
    Child::command(name, CommandSpec::shell(line)).unwrap()
}

async fn status_when(
    handle: &RuntimeHandle,
    child: &str,
    is_it: impl Fn(&ProbeStatus) -> bool,
) -> ProbeStatus {
    loop {
        let status = handle.probe_status(child).await.unwrap();
        if is_it(&status) {
            return status;
        }
        tokio::time::sleep(5 * MS).await;
    }
}

/// Why the readiness of `child` is not there, once that is known.
async fn failure(handle: &RuntimeHandle, child: &str) -> String {
    let status = status_when(handle, child, |status| status.readiness_failure.is_some()).await;
    status.readiness_failure.unwrap()
}

async fn state(handle: &RuntimeHandle, child: &str) -> State {
    let all = handle.status().await.unwrap();
    let found = all.into_iter().find(|status| status.name.as_str() == child);
    found.unwrap().state
}

async fn shut_down(handle: RuntimeHandle) {
    let report = handle.shutdown().await;
    assert!(report.survivors.is_empty() && !report.forced, "{report:?}");
}

/// A port on which nobody listens.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

type Behave = dyn Fn(&mut TcpStream) + Send + Sync;

/// A server that does as it likes with each connection.
struct Server {
    at: SocketAddr,
    served: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(behave: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", behave)
    }

    fn start_at(at: &str, behave: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let at = listener.local_addr().unwrap();
        let (served, closing) = (Arc::default(), Arc::default());
        let theirs = (Arc::clone(&served), Arc::clone(&closing));
        let behave: Arc<Behave> = Arc::new(behave);
        let thread = std::thread::spawn(move || accept(&listener, &behave, &theirs));
        Self {
            at,
            served,
            closing,
            thread: Some(thread),
        }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn accept(
    listener: &TcpListener,
    behave: &Arc<Behave>,
    (served, closing): &(Arc<AtomicUsize>, Arc<AtomicBool>),
) {
    let mut serving = Vec::new();
    for stream in listener.incoming() {
        if closing.load(Ordering::SeqCst) {
            break;
        }
        served.fetch_add(1, Ordering::SeqCst);
        let (mut stream, behave) = (stream.unwrap(), Arc::clone(behave));
        serving.push(std::thread::spawn(move || behave(&mut stream)));
    }
    for thread in serving {
        thread.join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.at));
        self.thread.take().map(JoinHandle::join);
    }
}

/// Reads the request, or what comes of it before the other side is gone.
fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(length) => request.extend_from_slice(&chunk[..length]),
        }
    }
    String::from_utf8(request).unwrap()
}

/// Answers the request with this.
fn answers(answer: &'static str) -> impl Fn(&mut TcpStream) {
    move |stream| {
        read_request(stream);
        // The other side may have seen enough.
        drop(stream.write_all(answer.as_bytes()));
    }
}

/// Until the other side closes.
fn hang(stream: &mut TcpStream) {
    let mut chunk = [0; 1024];
    while stream.read(&mut chunk).is_ok_and(|length| length > 0) {}
}

type Answered = (Box<dyn Send>, Receiver<Result<(), CheckFailure>>);

/// Makes one check, without a runtime.
fn begin_check(os: &dyn Os, check: &Check) -> Answered {
    static RUN: AtomicUsize = AtomicUsize::new(1);
    let Ok(Way::Ask(question)) = Way::of(check) else {
        panic!("{check:?} is not asked");
    };
    let (tell, told) = channel();
    let order = CheckOrder {
        run: RunId(RUN.fetch_add(1, Ordering::Relaxed) as u64),
        child: name("child"),
        errand: Errand::Readiness,
        question,
    };
    let asked = os.check(order, Box::new(move |result| tell.send(result).unwrap()));
    (asked, told)
}

fn check(os: &dyn Os, check: &Check) -> String {
    let (asked, told) = begin_check(os, check);
    let result = told.recv_timeout(PATIENCE).unwrap();
    drop(asked);
    result.map_or_else(|failure| failure.to_string(), |()| "passed".to_owned())
}

#[test]
fn real_servers_become_ready_and_their_dependents_start_then() {
    let _alone = alone();
    let (web, db) = (free_port(), free_port());
    let directory = tempfile::tempdir().unwrap();
    let mut python = CommandSpec::new(
        "python3",
        [
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            &web.port().to_string(),
        ],
    );
    python.cwd = Some(directory.path().to_owned());
    let redis = CommandSpec::new(
        "redis-server",
        [
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
            "--port",
            &db.port().to_string(),
        ],
    );
    let ping = format!("test \"$(redis-cli -p {} ping)\" = PONG", db.port());
    block_on(async {
        let handle = Runtime::builder()
            .child(
                Child::command("web", python)
                    .unwrap()
                    .readiness(often(http(web, "/")))
                    .liveness(often(tcp(web)))
                    .depends_on("db", Condition::Ready)
                    .unwrap(),
            )
            .child(
                Child::command("db", redis)
                    .unwrap()
                    .readiness(often(exec(&ping)))
                    .liveness(often(exec(&ping))),
            )
            .start_idle()
            .await
            .unwrap();
        let mut events = handle.events();
        handle.start_all().unwrap();
        handle.ready("web").await.unwrap();
        let mut ready = Vec::new();
        while let Ok(event) = events.try_recv() {
            match event.fact {
                Fact::Ready { child, .. } => ready.push(child.to_string()),
                Fact::Starting { child, .. } if child.as_str() == "web" => {
                    assert_eq!(ready, ["db"], "the dependent starts when it is ready");
                }
                _ => {}
            }
        }
        assert_eq!(ready, ["db", "web"]);
        let live = |status: &ProbeStatus| status.run.is_some() && status.liveness_failure.is_none();
        status_when(&handle, "db", live).await;
        shut_down(handle).await;
    });
}

#[test]
fn a_server_that_answers_badly_is_not_ready_and_it_is_said_why() {
    let _alone = alone();
    let os = real_os(16);
    let says = |answer: &'static str| {
        let server = Server::start(answers(answer));
        check(&*os, &http(server.at, "/health"))
    };
    assert_eq!(says("HTTP/1.1 200 OK\r\n\r\n"), "passed");
    assert_eq!(
        says("HTTP/1.1 299 Fine\r\nContent-Length: 9\r\n\r\nshort"),
        "passed"
    );
    assert_eq!(says("HTTP/1.1 503 Busy\r\n\r\n"), "status 503");
    assert_eq!(
        says("HTTP/1.1 199 Odd\r\n\r\n").split(" to ").next(),
        Some("the connection")
    );
    assert_eq!(says("220 smtp.example ESMTP\r\n"), "the answer is not HTTP");
    assert_eq!(says("\0\u{1}\u{2}garbage\n\n\n"), "the answer is not HTTP");
    let closed = says("HTTP/1.1 200 OK\r\nHalf-a-head: ");
    assert!(closed.ends_with("ended before an answer came"), "{closed}");
    let rude = Server::start(|_| {});
    let closed = check(&*os, &http(rude.at, "/"));
    assert!(closed.ends_with("ended before an answer came"), "{closed}");
    assert_eq!(check(&*os, &tcp(rude.at)), "passed");
    let nobody = free_port();
    let refused = format!("connection refused at {nobody}");
    assert_eq!(check(&*os, &tcp(nobody)), refused);
    assert_eq!(check(&*os, &http(nobody, "/")), refused);
}

#[test]
fn the_request_is_a_plain_get_and_redirects_are_not_followed() {
    let _alone = alone();
    let os = real_os(16);
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let theirs = Arc::clone(&requests);
    let server = Server::start(move |stream| {
        theirs.lock().unwrap().push(read_request(stream));
        let answer = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n";
        drop(stream.write_all(answer));
    });
    let found = check(&*os, &http(server.at, "/health?deep"));
    assert_eq!(found, "302 to /again, redirects are not followed");
    assert_eq!(server.served(), 1);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET /health?deep HTTP/1.1\r\nHost: {}\r\nUser-Agent: kimi-shell/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        server.at
    );
    assert_eq!(*requests.lock().unwrap(), [expected]);
}

#[test]
fn an_endless_answer_costs_its_head_and_no_more() {
    const GIGABYTE: usize = 1 << 30;
    let _alone = alone();
    let os = real_os(16);
    let sent = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&sent);
    let endless = |head: &'static str| {
        let counts = Arc::clone(&counts);
        Server::start(move |stream| {
            read_request(stream);
            let chunk = vec![b'x'; 64 * 1024];
            let mut written = stream.write(head.as_bytes()).unwrap();
            while let Ok(length) = stream.write(&chunk) {
                written += length;
                if written >= GIGABYTE {
                    break;
                }
            }
            counts.fetch_add(written, Ordering::SeqCst);
        })
    };
    let body = endless("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
    assert_eq!(check(&*os, &http(body.at, "/")), "passed");
    let head = endless("HTTP/1.1 200 OK\r\nX: ");
    assert_eq!(
        check(&*os, &http(head.at, "/")),
        "the head of the answer is longer than 16384 bytes"
    );
    drop((body, head));
    // What the sockets' buffers took, twice.
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[test]
fn a_server_that_does_not_get_to_the_point_runs_out_of_time() {
    let _alone = alone();
    let hangs = Server::start(hang);
    let drips = Server::start(|stream| {
        read_request(stream);
        for byte in b"HTTP/1.1 200 OK\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::park_timeout(50 * MS);
        }
    });
    block_on(async {
        let handle = Runtime::builder()
            .child(sleeper("hangs").readiness(within(100 * MS, http(hangs.at, "/"))))
            .child(sleeper("drips").readiness(within(200 * MS, http(drips.at, "/"))))
            .start()
            .await
            .unwrap();
        assert_eq!(failure(&handle, "hangs").await, "timed out after 100ms");
        assert_eq!(failure(&handle, "drips").await, "timed out after 200ms");
        while hangs.served() < 3 {
            tokio::time::sleep(5 * MS).await;
        }
        shut_down(handle).await;
    });
    drop((hangs, drips));
}

#[test]
fn a_server_that_flaps_is_not_ready_before_it_answers_well_often_enough() {
    let _alone = alone();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |stream| {
        read_request(stream);
        let number = asked.fetch_add(1, Ordering::SeqCst);
        let is_well = number >= 20 || number.is_multiple_of(2);
        let answer = if is_well {
            "HTTP/1.1 200 OK\r\n\r\n"
        } else {
            "HTTP/1.1 500 Oh\r\n\r\n"
        };
        drop(stream.write_all(answer.as_bytes()));
    });
    block_on(async {
        let mut probe = often(http(server.at, "/"));
        probe.rules.success_threshold = 3;
        let handle = Runtime::builder()
            .child(sleeper("web").readiness(probe))
            .start()
            .await
            .unwrap();
        handle.ready("web").await.unwrap();
        assert_eq!(server.served(), 23);
        shut_down(handle).await;
    });
}

#[test]
fn localhost_is_both_of_its_addresses() {
    let _alone = alone();
    let os = real_os(16);
    let six = Server::start_at("[::1]:0", hang);
    let port = six.at.port();
    let host = "localhost".to_owned();
    assert_eq!(
        check(
            &*os,
            &Check::Tcp {
                host: host.clone(),
                port
            }
        ),
        "passed"
    );
    assert_eq!(check(&*os, &tcp(six.at)), "passed");
    drop(six);
    let refused = format!("connection refused at 127.0.0.1:{port}");
    assert_eq!(check(&*os, &Check::Tcp { host, port }), refused);
}

#[test]
fn a_name_that_takes_its_time_holds_up_nobody() {
    let _alone = alone();
    let os = real_os(16);
    let server = Server::start(hang);
    let nowhere = Check::Tcp {
        host: "nowhere.invalid".to_owned(),
        port: 80,
    };
    let asked: Vec<_> = (0..20).map(|_| begin_check(&*os, &nowhere)).collect();
    assert_eq!(check(&*os, &tcp(server.at)), "passed");
    let (first, told) = asked.into_iter().next().unwrap();
    let failure = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(
        failure.to_string(),
        "cannot find the address of `nowhere.invalid`"
    );
    drop(first);
}

#[test]
fn checks_that_are_given_up_leave_nothing_and_a_thousand_at_once_are_answered() {
    let _alone = alone();
    let os = real_os(16);
    let hangs = Server::start(hang);
    let given_up: Vec<_> = (0..100)
        .map(|_| begin_check(&*os, &http(hangs.at, "/")))
        .collect();
    let well = Server::start(answers("HTTP/1.1 204 Fine\r\n\r\n"));
    let answered: Vec<_> = (0..1000)
        .map(|_| begin_check(&*os, &http(well.at, "/")))
        .collect();
    for (_, told) in &answered {
        // Some are reset by a full queue of connections; none is forgotten.
        drop(told.recv_timeout(PATIENCE).unwrap());
    }
    drop(given_up);
    drop(hangs);
}

#[test]
fn a_command_checks_in_the_directory_and_environment_of_its_child() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let mut command = CommandSpec::new("sleep", ["1000"]);
    command.cwd = Some(directory.path().to_owned());
    command.env = vec![
        ("COLOUR".into(), "blue".into()),
        ("SIZE".into(), "1".into()),
    ];
    let mut checks = CommandSpec::shell(
        "echo \"$COLOUR $SIZE $KIMI_CHILD $KIMI_RUN_ID ${NOTIFY_SOCKET-none}\" > seen.part; mv seen.part seen",
    );
    checks.env = vec![("SIZE".into(), "2".into())];
    block_on(async {
        let handle = Runtime::builder()
            .child(
                Child::command("db", command)
                    .unwrap()
                    .readiness(often(Check::Exec(checks))),
            )
            .start_idle()
            .await
            .unwrap();
        let mut events = handle.events();
        handle.start_all().unwrap();
        handle.ready("db").await.unwrap();
        let run = loop {
            if let Fact::Ready { run, .. } = events.recv().await.unwrap().fact {
                break run;
            }
        };
        let seen = fs::read_to_string(directory.path().join("seen")).unwrap();
        assert_eq!(seen, format!("blue 2 db {run} none\n"));
        shut_down(handle).await;
    });
}

#[test]
fn a_command_that_fails_says_why() {
    let _alone = alone();
    let os = real_os(16);
    let says = |line: &str| check(&*os, &exec(line));
    assert_eq!(says("exit 0"), "passed");
    assert_eq!(says("exit 3"), "exit code 3");
    assert_eq!(
        says("echo fine; echo no connection >&2; exit 1"),
        "exit code 1: no connection"
    );
    assert_eq!(says("echo only this; exit 2"), "exit code 2: only this");
    assert_eq!(says("kill -9 $$"), "SIGKILL");
    let missing = Check::Exec(CommandSpec::new("no-such-program", [""; 0]));
    let (asked, told) = begin_check(&*os, &missing);
    let failure = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    let cause = std::error::Error::source(&failure).unwrap();
    assert_eq!(
        cause.to_string(),
        "cannot find `no-such-program` in the PATH"
    );
    drop(asked);
    // Its grandchild holds its output open.
    assert_eq!(says("sleep 1000 & echo done; exit 0"), "passed");
    eventually("nothing is live", || (os.live() == 0).then_some(()));
}

/// The process whose id a command writes into this file.
fn pid_in(path: &Path) -> u32 {
    eventually("a command has begun", || {
        let text = fs::read_to_string(path).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
}

#[test]
fn a_command_that_hangs_is_killed_with_all_that_it_started_when_its_time_is_over() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let line = format!(
        "trap '' TERM INT HUP; (trap '' TERM; echo $(exec sh -c 'echo $PPID') > {0}/grandchild; while :; do sleep 1; done) & \
         echo $$ > {0}/child; while :; do sleep 1; done",
        here.display()
    );
    let writes = "yes 'a line that comes again and again'";
    block_on(async {
        let handle = Runtime::builder()
            .child(sleeper("hangs").readiness(within(500 * MS, exec(&line))))
            .child(sleeper("writes").readiness(within(200 * MS, exec(writes))))
            .start()
            .await
            .unwrap();
        let first = [
            pid_in(&here.join("child")),
            pid_in(&here.join("grandchild")),
        ];
        assert_eq!(failure(&handle, "hangs").await, "timed out after 500ms");
        first.into_iter().for_each(wait_until_dead);
        assert_eq!(failure(&handle, "writes").await, "timed out after 200ms");
        // Its next check is under way, or comes; the stop does not wait for its time to be over.
        let again = loop {
            let pid = pid_in(&here.join("child"));
            if pid != first[0] {
                break pid;
            }
            tokio::time::sleep(5 * MS).await;
        };
        handle.stop(&["hangs"]).await.unwrap();
        assert_eq!(
            support::state_of(again),
            None,
            "nothing is left when the stop returns"
        );
        assert_eq!(state(&handle, "writes").await, State::Running);
        shut_down(handle).await;
    });
}

#[test]
fn a_run_that_ends_takes_its_check_with_it() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let note = directory.path().join("check");
    let line = format!("echo $$ > {}; exec sleep 1000", note.display());
    block_on(async {
        let handle = Runtime::builder()
            .child(
                shell("db", "read line < /dev/null; exec sleep 1000").liveness(often(exec(&line))),
            )
            .start()
            .await
            .unwrap();
        let check = pid_in(&note);
        assert_alive(check);
        fs::remove_file(&note).unwrap();
        let pid = handle.status().await.unwrap()[1].pid.unwrap();
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        wait_until_dead(check);
        // The next run has a check of its own.
        assert_ne!(pid_in(&note), check);
        shut_down(handle).await;
    });
}

/// A run is ready when its output matches, wherever that goes.
fn is_heard(line: &str, pattern: &str, output: Output) {
    block_on(async {
        let handle = Runtime::builder()
            .child(
                shell("db", line)
                    .readiness(often(log(pattern)))
                    .output(output),
            )
            .start()
            .await
            .unwrap();
        handle.ready("db").await.unwrap();
        shut_down(handle).await;
    });
}

#[test]
fn a_line_of_the_output_is_heard_wherever_the_output_goes() {
    let _alone = alone();
    let lines = Arc::new(Lines::default());
    let line = "echo starting; echo 'listening on port 80' >&2; echo more; exec sleep 1000";
    for output in [
        Output::Discard,
        Output::Inherit,
        Output::Lines(Arc::clone(&lines) as _),
    ] {
        is_heard(line, r"^listening on port \d+$", output);
    }
    assert!(lines.all().contains(&"listening on port 80".to_owned()));
    assert!(lines.all().contains(&"starting".to_owned()));
}

#[test]
fn a_line_is_heard_although_it_has_no_end_or_is_long_or_stands_among_junk() {
    let _alone = alone();
    for output in [|| Output::Discard, || Output::Inherit] {
        is_heard(
            "printf 'ready> ' >&2; exec sleep 1000",
            "ready> $",
            output(),
        );
        let junk = "head -c 100000 /dev/zero | tr '\\0' '\\377'; printf '\\n\\000\\376up\\r\\n'; exec sleep 1000";
        is_heard(junk, "up$", Output::Discard);
    }
    // Longer than the bound of a line, and never ended: matched in the part in which it is.
    let long = "head -c 300000 /dev/zero | tr '\\0' x; printf ready; exec sleep 1000";
    is_heard(long, "ready$", Output::Discard);
}

#[test]
fn what_is_not_said_is_not_heard() {
    let _alone = alone();
    block_on(async {
        let handle = Runtime::builder()
            .child(shell("db", "yes not-yet & exec sleep 1000").readiness(often(log("^ready$"))))
            .child(
                shell("eof", "exec 3>&-; exec sleep 1000")
                    .readiness(often(Check::NotifyFd { fd: 3 })),
            )
            .child(sleeper("web"))
            .start()
            .await
            .unwrap();
        handle.ready("web").await.unwrap();
        tokio::time::sleep(300 * MS).await;
        assert_eq!(state(&handle, "db").await, State::Running);
        assert_eq!(state(&handle, "eof").await, State::Running);
        shut_down(handle).await;
    });
}

#[test]
fn a_newline_on_the_notification_descriptor_means_ready() {
    let _alone = alone();
    block_on(async {
        for (fd, line) in [
            (3, "echo >&3; exec sleep 1000"),
            (
                3,
                "printf 'some bytes' >&3; printf '\\nmore' >&3; exec 3>&-; exec sleep 1000",
            ),
            (7, "bash -c 'echo up >&7'; exec sleep 1000"),
            // Nobody reads what follows, and it must not be killed for that.
            (5, "echo >&5; yes >&5; exit 1"),
            (999, "exec bash -c 'echo >&999; exec sleep 1000'"),
        ] {
            let shell = CommandSpec::new("/bin/bash", ["-c", line]);
            let child = Child::command("db", shell).unwrap();
            let handle = Runtime::builder()
                .child(child.readiness(often(Check::NotifyFd { fd })))
                .start()
                .await
                .unwrap();
            handle.ready("db").await.unwrap();
            assert_eq!(state(&handle, "db").await, State::Ready, "{line}");
            shut_down(handle).await;
        }
    });
}

#[test]
fn a_child_has_its_notification_descriptor_and_no_other() {
    let _alone = alone();
    let many: Vec<_> = (0..500)
        .map(|_| fs::File::open("/dev/null").unwrap())
        .collect();
    block_on(async {
        for fd in [3, 4, 9, 300, 1000] {
            let sleep = CommandSpec::new("sleep", ["1000"]);
            let handle = Runtime::builder()
                .child(
                    Child::command("db", sleep)
                        .unwrap()
                        .readiness(often(Check::NotifyFd { fd })),
                )
                .start()
                .await
                .unwrap();
            let pid = loop {
                if let Some(pid) = handle.status().await.unwrap()[1].pid {
                    break pid;
                }
                tokio::time::sleep(MS).await;
            };
            let expected = ["0", "1", "2", &fd.to_string()].map(str::to_owned);
            eventually("it has four descriptors", || {
                let found = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
                let mut found: Vec<String> = found
                    .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                    .collect();
                found.sort();
                let mut expected = expected.clone();
                expected.sort();
                (found == expected).then_some(())
            });
            shut_down(handle).await;
        }
    });
    drop(many);
}

fn python(lines: &str) -> CommandSpec {
    let head = "import os, socket, time\n\
                s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                to = os.environ['NOTIFY_SOCKET']\n";
    CommandSpec::new(
        "python3",
        ["-c", &format!("{head}{lines}\ntime.sleep(1000)")],
    )
}

#[test]
fn sd_notify_is_understood_and_garbage_is_not() {
    let _alone = alone();
    let hostile = "\
for garbage in (b'', b'\\n', b'=', b'READY=0', b'x' * 60000, b'READY=1\\n' + b'x' * 60000, b'\\xff' * 1000):
    s.sendto(garbage, to)
for _ in range(20000):
    s.sendto(b'STATUS=flood', to)
r, w = os.pipe()
s.connect(to)
socket.send_fds(s, [b'BARRIER=1'], [w] * 100)
os.close(w)
assert os.read(r, 1) == b''
s.send(b'EXTEND_TIMEOUT_USEC=2000000\\nSTATUS=still loading')";
    let friendly = "s.sendto(b'READY=1\\nSTATUS=up \\xc3\\xa4', to)\ns.sendto(b'STOPPING=1', to)";
    block_on(async {
        let child = |name: &str, lines: &str| {
            let child = Child::command(name, python(lines)).unwrap();
            child.readiness(often(Check::SdNotify))
        };
        let handle = Runtime::builder()
            .child(child("hostile", hostile))
            .child(child("friendly", friendly))
            .start()
            .await
            .unwrap();
        handle.ready("friendly").await.unwrap();
        let status = status_when(&handle, "friendly", |status| status.is_stopping).await;
        assert_eq!(status.text.as_deref(), Some("up ä"));
        let loading = |status: &ProbeStatus| status.text.as_deref() == Some("still loading");
        let status = status_when(&handle, "hostile", loading).await;
        assert_eq!(status.extended_by, Some(Duration::from_secs(2)));
        assert_eq!(state(&handle, "hostile").await, State::Running);
        assert!(!directories_of_sockets().is_empty());
        shut_down(handle).await;
    });
}

#[test]
fn systemd_notify_returns_and_its_child_is_ready() {
    let _alone = alone();
    if resolve(&CommandSpec::new("systemd-notify", [""; 0])).is_err() {
        return;
    }
    let line = "systemd-notify --ready --status=running && touch \"$1\"; exec sleep 1000";
    let directory = tempfile::tempdir().unwrap();
    let done = directory.path().join("done");
    let mut command = CommandSpec::new("/bin/sh", ["-c", line, "sh"]);
    command.args.push(done.clone().into());
    block_on(async {
        let handle = Runtime::builder()
            .child(
                Child::command("db", command)
                    .unwrap()
                    .readiness(often(Check::SdNotify)),
            )
            .start()
            .await
            .unwrap();
        handle.ready("db").await.unwrap();
        while !done.exists() {
            tokio::time::sleep(MS).await;
        }
        let status = handle.probe_status("db").await.unwrap();
        assert_eq!(status.text.as_deref(), Some("running"));
        shut_down(handle).await;
    });
}

#[test]
fn a_notification_socket_of_ours_is_not_passed_on() {
    const NAME: &str = "a_notification_socket_of_ours_is_not_passed_on";
    let _alone = alone();
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        #[expect(
            clippy::disallowed_methods,
            reason = "the test itself, in an environment"
        )]
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env("NOTIFY_SOCKET", "/run/ours")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && stdout.contains("1 passed"),
            "{stdout}"
        );
        return;
    }
    let os = real_os(16);
    assert_eq!(
        check(&*os, &exec("test -z \"${NOTIFY_SOCKET+set}\"")),
        "passed"
    );
    let mut command = CommandSpec::shell("test \"$NOTIFY_SOCKET\" = given");
    command.env.push(("NOTIFY_SOCKET".into(), "given".into()));
    assert_eq!(check(&*os, &Check::Exec(command)), "passed");
}

/// Stops a child by this command and returns how it ended, and after how many of its own lines.
fn stopped_by(line: &str, command: CommandSpec) -> String {
    let lines = Arc::new(Lines::default());
    let output = Output::Lines(Arc::clone(&lines) as _);
    block_on(async {
        let child = shell("db", line)
            .stop_command(command)
            .stop(Signal::INT, 20_000 * MS)
            .output(output);
        let handle = Runtime::builder().child(child).start().await.unwrap();
        lines.after("up");
        let mut events = handle.events();
        handle.stop(&["db"]).await.unwrap();
        let exit = loop {
            if let Fact::Exited { exit, .. } = events.recv().await.unwrap().fact {
                break exit;
            }
        };
        shut_down(handle).await;
        exit.to_string()
    })
}

#[test]
fn a_command_stops_its_child_and_the_signal_follows_only_if_it_must() {
    let _alone = alone();
    let waits =
        "trap 'exit 2' INT; trap 'exit 5' USR1; echo up; while :; do sleep 1000 & wait; done";
    let by = |line: &str| stopped_by(waits, CommandSpec::shell(line));
    // The command waits until it has done its work: the child knows no signal of ours.
    assert_eq!(
        by("kill -USR1 $KIMI_PID; while kill -0 $KIMI_PID; do sleep 0.01; done"),
        "exit 5"
    );
    // A command that hangs does not outlive its child.
    assert_eq!(by("kill -USR1 $KIMI_PID; exec sleep 1000"), "exit 5");
    assert_eq!(by("exit 1"), "exit 2");
    let missing = CommandSpec::new("no-such-program", [""; 0]);
    assert_eq!(stopped_by(waits, missing), "exit 2");
}

#[test]
fn neither_a_command_nor_a_child_that_hangs_outlives_the_grace() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let note = directory.path().join("command");
    let line = format!(
        "trap '' TERM; echo $$ > {}; while :; do sleep 1; done",
        note.display()
    );
    block_on(async {
        let child = shell("db", "trap '' INT TERM; while :; do sleep 1; done")
            .stop_command(CommandSpec::shell(line))
            .stop(Signal::TERM, 500 * MS);
        let handle = Runtime::builder().child(child).start().await.unwrap();
        handle.ready("db").await.unwrap();
        handle.stop(&["db"]).await.unwrap();
        assert_eq!(
            support::state_of(pid_in(&note)),
            None,
            "nothing is left when the stop returns"
        );
        shut_down(handle).await;
    });
}
