//! Is our way to start a process faster than libc's `posix_spawn` doing the same?
//!
//! Interleaved rounds, medians. It would worry us if ours were slower, or grew with the number of open descriptors.
//! `KIMI_BENCH_PROGRAM` names another program than `/bin/true`; a tiny static one shows the difference best.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]
#![expect(unsafe_code, reason = "posix_spawn")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use kimi_actors::os::bare::Bare;
use kimi_actors::os::clock::Clock;
use kimi_actors::os::stdin::Stdin;
use kimi_actors::os::{Job, News, Observer, Os, Output, Rank, RealOs, RealOsOptions};
use kimi_actors::policy::spec::{ChildName, CommandSpec, RunId};

type Way<'a> = Box<dyn Fn() + 'a>;

const ROUNDS: usize = 21;
const RUNS: u32 = 100;

unsafe extern "C" {
    fn posix_spawn_file_actions_addclosefrom_np(
        actions: *mut libc::posix_spawn_file_actions_t,
        from: libc::c_int,
    ) -> libc::c_int;
}

const POSIX_SPAWN_SETSID: i32 = 0x80;

fn with_libc(program: &CStr, null: RawFd) {
    // SAFETY: the objects are made before they are used and destroyed after, and all pointers outlive the calls.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of C")]
    unsafe {
        let mut attributes: libc::posix_spawnattr_t = mem::zeroed();
        let mut actions: libc::posix_spawn_file_actions_t = mem::zeroed();
        let mut none: libc::sigset_t = mem::zeroed();
        let mut ignored: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigemptyset(&raw mut ignored);
        libc::sigaddset(&raw mut ignored, libc::SIGPIPE);
        libc::posix_spawnattr_init(&raw mut attributes);
        let flags = POSIX_SPAWN_SETSID | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        libc::posix_spawnattr_setflags(&raw mut attributes, i16::try_from(flags).unwrap());
        libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const none);
        libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const ignored);
        libc::posix_spawn_file_actions_init(&raw mut actions);
        for fd in 0..3 {
            libc::posix_spawn_file_actions_adddup2(&raw mut actions, null, fd);
        }
        posix_spawn_file_actions_addclosefrom_np(&raw mut actions, 3);
        let argv = [program.as_ptr().cast_mut(), ptr::null_mut()];
        let envp = [ptr::null_mut()];
        let mut pid = 0;
        let result = libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions,
            &raw const attributes,
            argv.as_ptr(),
            envp.as_ptr(),
        );
        assert_eq!(result, 0);
        libc::waitpid(pid, ptr::null_mut(), 0);
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
    }
}

struct Tell(Sender<()>);

impl Observer for Tell {
    fn tell(&self, news: News) {
        match news {
            News::Started { .. } | News::OutputLimit => {}
            News::Ended(_) | News::Over { .. } | News::NotStarted(_) => self.0.send(()).unwrap(),
        }
    }
}

/// Through the whole of it, this many at once.
fn with_real_os(os: &RealOs, command: &Arc<CommandSpec>, output: &Output, at_once: usize) {
    let (sender, receiver) = channel();
    let observer: Arc<dyn Observer> = Arc::new(Tell(sender));
    let mut processes = std::collections::VecDeque::new();
    for run in 0..RUNS {
        if processes.len() == at_once {
            receiver.recv().unwrap();
            processes.pop_front();
        }
        processes.push_back(os.begin(Job {
            run: RunId(u64::from(run)),
            child: ChildName::new("bench").unwrap(),
            command: Arc::clone(command),
            stdin: Stdin::default(),
            output: output.clone(),
            observer: Arc::clone(&observer),
            listen: None,
            rank: Rank::default(),
        }));
    }
    for process in processes {
        receiver.recv().unwrap();
        drop(process);
    }
}

fn main() {
    let program = std::env::var("KIMI_BENCH_PROGRAM").unwrap_or_else(|_| "/bin/true".to_owned());
    let path = CString::new(program.clone()).unwrap();
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let null = rustix::io::fcntl_dupfd_cloexec(&null, 3).unwrap();
    let fd = null.as_raw_fd();
    let bare = Bare::new(fd).unwrap();
    let os = RealOs::new(&RealOsOptions::default()).unwrap();
    let command = Arc::new(CommandSpec::new(program, [""; 0]));
    let capture = Output::Capture {
        cap_bytes: 1 << 20,
        chunks: None,
    };
    let clock = Clock::start();
    for descriptors in [0, 10_000] {
        let _open: Vec<_> = (0..descriptors)
            .map(|_| File::open("/dev/null").unwrap())
            .collect();
        let mut ways: [(&str, Way<'_>); 6] = [
            (
                "posix_spawn",
                Box::new(|| (0..RUNS).for_each(|_| with_libc(&path, fd))),
            ),
            (
                "clone3, table shared",
                Box::new(|| (0..RUNS).for_each(|_| bare.run(&path, true).unwrap())),
            ),
            (
                "clone3, table copied",
                Box::new(|| (0..RUNS).for_each(|_| bare.run(&path, false).unwrap())),
            ),
            (
                "RealOs, one at a time",
                Box::new(|| with_real_os(&os, &command, &Output::Discard, 1)),
            ),
            (
                "RealOs, captured",
                Box::new(|| with_real_os(&os, &command, &capture, 1)),
            ),
            (
                "RealOs, captured, 16 at once",
                Box::new(|| with_real_os(&os, &command, &capture, 16)),
            ),
        ];
        let mut rates = vec![Vec::new(); ways.len()];
        for _ in 0..ROUNDS {
            for ((_, way), rates) in ways.iter_mut().zip(&mut rates) {
                let begin = clock.now();
                way();
                rates.push(f64::from(RUNS) / clock.now().since(begin).as_secs_f64());
            }
        }
        for ((name, _), rates) in ways.iter().zip(&mut rates) {
            rates.sort_by(f64::total_cmp);
            println!(
                "{descriptors:>6} descriptors  {name:<30} {:>7.0} a second  ({:.0} to {:.0})",
                rates[ROUNDS / 2],
                rates[ROUNDS / 4],
                rates[ROUNDS * 3 / 4]
            );
        }
    }
}
