//! Control groups, version 2: one directory for a runtime, and below it one for each run, used again and again.
//!
//! A child is born inside (`CLONE_INTO_CGROUP`), and whatever it forks stays there, whatever session it makes. The kernel
//! says when nobody is left (`cgroup.events`), and kills all that are there at once, also those that fork meanwhile
//! (`cgroup.kill`, Linux 5.14). Directories are not made anew for each run, since that costs more than the run's clone.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Access, FlockOperation, Mode, OFlags};

use crate::os::clock::Clock;
use crate::os::contain::{DYING, LOOK_PAUSE, identity};
use crate::os::guardian::OnDeath;
use crate::os::spawn;
use crate::os::table::lock;
use crate::policy::setup::{Controllers, oom_kills};

/// The kill of many may take longer than that of one; so long it is waited for as long as they become fewer.
const DYING_AT_MOST: Duration = Duration::from_secs(2);
/// How the directory of a runtime is called, before its process and when that began.
const PREFIX: &str = "kimi-shell";
/// The same, if what is in it is to outlive the runtime: then nobody empties it but its processes.
const PREFIX_OF_LASTING: &str = "kimi-shell-lasting";

/// Why there is no control group to make others in.
#[derive(Debug, thiserror::Error)]
pub enum NoCgroup {
    /// The kernel or the container has none.
    #[error("no cgroup v2 hierarchy is mounted here")]
    NoHierarchy,
    /// This process is in no group of it.
    #[error("/proc/self/cgroup names no cgroup v2")]
    NoMembership,
    /// It is mounted so that our own group is not to be seen.
    #[error("our own control group, {path}, lies outside of what is mounted")]
    Outside {
        /// Our group.
        path: String,
    },
    /// It may not be written to.
    #[error("no cgroup v2 hierarchy is writable here: {} is mounted read-only", mount.display())]
    ReadOnly {
        /// Where it is mounted.
        mount: PathBuf,
    },
    /// Its controllers are given to threads, not to processes.
    #[error("control groups below {} take no processes: their type is `{kind}`", path.display())]
    NoDomain {
        /// Our group.
        path: PathBuf,
        /// What the kernel calls it.
        kind: String,
    },
    /// The kernel makes no process in one, or something keeps it from that.
    #[error("no process can be made in a control group here: {source}")]
    NoBirth {
        /// What the kernel says.
        source: io::Error,
    },
    /// A file or directory of it cannot be used.
    #[error("no cgroup v2 hierarchy is writable here: {}: {source}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The directory of our own control group.
fn own_directory() -> Result<PathBuf, NoCgroup> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| NoCgroup::Refused {
            path: path.into(),
            source,
        })
    };
    directory(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
}

/// The same, from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn directory(mountinfo: &str, membership: &str) -> Result<PathBuf, NoCgroup> {
    let ours = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or(NoCgroup::NoMembership)?;
    let mut lacking = NoCgroup::NoHierarchy;
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        // Seen from a namespace, what lies outside begins with `/..`.
        let rest = Path::new(ours).strip_prefix(&mount.root);
        match rest {
            Ok(rest) if !ours.starts_with("/..") && !mount.root.starts_with("/..") => {
                if !mount.is_read_only {
                    return Ok(mount.point.join(rest));
                }
                lacking = NoCgroup::ReadOnly { mount: mount.point };
            }
            Ok(_) | Err(_) if matches!(lacking, NoCgroup::NoHierarchy) => {
                lacking = NoCgroup::Outside {
                    path: ours.to_owned(),
                };
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(lacking)
}

/// A place where version 2 is mounted.
struct Mount {
    /// Which part of the hierarchy.
    root: PathBuf,
    point: PathBuf,
    is_read_only: bool,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (here, there) = line.split_once(" - ")?;
        let mut there = there.split(' ');
        if there.next()? != "cgroup2" {
            return None;
        }
        let mut here = here.split(' ').skip(3);
        let (root, point, options) = (here.next()?, here.next()?, here.next()?);
        let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
        Some(Self {
            root: unescaped(root),
            point: unescaped(point),
            is_read_only: is_read_only(options) || there.nth(1).is_some_and(is_read_only),
        })
    }
}

/// Spaces and the like stand there as octal numbers.
fn unescaped(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (escaped, character) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        plain = plain.replace(escaped, character);
    }
    plain.into()
}

/// The process of the runtime whose directory is called like this, and when that process began.
fn owner(name: &str) -> Option<(i32, u64)> {
    owner_of(PREFIX, name)
}

fn owner_of(prefix: &str, name: &str) -> Option<(i32, u64)> {
    let mut parts = name.strip_prefix(prefix)?.strip_prefix('.')?.split('.');
    let owner = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    // Further runtimes of one process are counted.
    let is_ours = parts
        .next()
        .is_none_or(|count| count.parse::<u32>().is_ok());
    (is_ours && parts.next().is_none()).then_some(owner)
}

/// The directory of a run; its run is in it, or it waits for one.
#[derive(Debug)]
pub(in crate::os) struct Leaf {
    number: u32,
    directory: OwnedFd,
    events: File,
    kill: File,
    /// One that was killed may kill whoever is born into it later, see `spawn.rs`.
    is_used_up: AtomicBool,
    /// Where it is counted whom the kernel has killed for lack of memory, if its memory is limited.
    memory_events: Option<File>,
    is_limited: bool,
}

impl Leaf {
    /// Whether the kernel has killed somebody in it for lack of the memory that it may have.
    pub(in crate::os) fn ran_out_of_memory(&self) -> bool {
        let mut text = [0; 256];
        let file = self.memory_events.as_ref();
        let length = file.and_then(|file| file.read_at(&mut text, 0).ok());
        let text = std::str::from_utf8(&text[..length.unwrap_or(0)]);
        text.is_ok_and(|text| oom_kills(text).is_some_and(|count| count > 0))
    }

    /// Whether nobody is in it or below it. One that cannot be asked is gone, as only empty ones can be.
    pub(super) fn is_empty(&self) -> bool {
        !self.says(&[b"populated 1"])
    }

    /// No other run will be in it.
    pub(super) fn use_up(&self) {
        self.is_used_up.store(true, Ordering::Relaxed);
    }

    /// Whether another run can be in it. A run can freeze its own group, and make others in it.
    fn is_clean(&self) -> bool {
        let has_none = || {
            let found = rustix::fs::fstat(&self.directory);
            // Its own two links; each directory in it would make one more.
            found.is_ok_and(|found| found.st_nlink == 2)
        };
        let is_used_up = self.is_used_up.load(Ordering::Relaxed);
        !is_used_up && self.says(&[b"populated 0", b"frozen 0"]) && has_none()
    }

    fn says(&self, lines: &[&[u8]]) -> bool {
        let mut text = [0; 64];
        let length = self.events.read_at(&mut text, 0).unwrap_or(0);
        lines.iter().all(|line| has_line(&text[..length], line))
    }

    /// Kills all in it and below it. It fails only if the directory is gone, and then nobody is there, or if something keeps us
    /// from writing.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.use_up();
        (&self.kill).write_all(b"1")
    }

    /// Waits a moment for whatever may have changed.
    fn wait(&self, at_most: Duration) {
        let mut polled = [PollFd::from_borrowed_fd(
            self.events.as_fd(),
            PollFlags::PRI,
        )];
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: at_most.min(LOOK_PAUSE).subsec_nanos().into(),
        };
        // An error means that it is asked again at once.
        rustix::event::poll(&mut polled, Some(&timeout)).ok();
    }
}

fn has_line(text: &[u8], wanted: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line == wanted)
}

/// A directory into which a child is to be born.
#[derive(Debug)]
pub(in crate::os) struct Place {
    leaf: Leaf,
    /// Nobody has been in it before.
    is_fresh: bool,
}

impl Place {
    /// What the clone is told.
    pub(in crate::os) fn number(&self) -> RawFd {
        self.leaf.directory.as_raw_fd()
    }

    pub(in crate::os) fn into_leaf(self) -> Leaf {
        self.leaf
    }

    pub(super) fn is_limited(&self) -> bool {
        self.leaf.is_limited
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh
    }
}

/// The directory of a runtime, and the pool of those below it.
#[derive(Debug)]
pub(super) struct Cgroups {
    path: PathBuf,
    pool: Mutex<Pool>,
    /// Of the directory of the runtime; under a lock of its own, which nobody holds for long.
    kill: Mutex<Option<File>>,
    /// All were killed, so those in the pool are used up.
    is_used_up: AtomicBool,
    /// The directories of runs have limits.
    has_controllers: AtomicBool,
}

#[derive(Debug, Default)]
struct Pool {
    /// The directory of the runtime, if it exists. As long as it is open it is locked: so others know that we live.
    home: Option<OwnedFd>,
    /// As many as there ever were runs at once, at most.
    free: Vec<Leaf>,
    next: u32,
}

/// What a runtime that is gone had left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) owner: i32,
    pub(super) killed: Vec<i32>,
    pub(super) survivors: Vec<i32>,
}

impl Cgroups {
    /// Makes the directory of this runtime and a first one in it, having removed what runtimes that are gone have left.
    pub(super) fn new(
        count: u32,
        on_death: OnDeath,
        clock: Clock,
    ) -> Result<(Self, Vec<Left>), NoCgroup> {
        Self::below(&own_directory()?, count, on_death, clock)
    }

    fn below(
        parent: &Path,
        count: u32,
        on_death: OnDeath,
        clock: Clock,
    ) -> Result<(Self, Vec<Left>), NoCgroup> {
        // To be born below takes what it takes to move there: the right to write to what both groups have in common.
        let procs = parent.join("cgroup.procs");
        if let Err(source) = rustix::fs::access(&procs, Access::WRITE_OK) {
            return Err(NoCgroup::Refused {
                path: procs,
                source: source.into(),
            });
        }
        let left = clean(parent, clock);
        let (pid, began) = (std::process::id(), identity::began(None).unwrap_or(0));
        let prefix = match on_death {
            OnDeath::Kill => PREFIX,
            OnDeath::Leave => PREFIX_OF_LASTING,
        };
        let name = match count {
            0 => format!("{prefix}.{pid}.{began}"),
            count => format!("{prefix}.{pid}.{began}.{count}"),
        };
        let ours = Self {
            path: parent.join(name),
            pool: Mutex::default(),
            kill: Mutex::default(),
            is_used_up: AtomicBool::new(false),
            has_controllers: AtomicBool::new(false),
        };
        let first = ours.take().map_err(|source| NoCgroup::Refused {
            path: ours.path.clone(),
            source,
        })?;
        let kind = fs::read_to_string(ours.path_of(&first.leaf).join("cgroup.type"));
        let kind = kind.unwrap_or_default();
        if kind.trim() != "domain" {
            ours.remove();
            return Err(NoCgroup::NoDomain {
                path: parent.into(),
                kind: kind.trim().into(),
            });
        }
        ours.give_back(first.into_leaf());
        Ok((ours, left))
    }

    /// Makes a process in one, which does nothing.
    pub(super) fn try_out(&self) -> Result<(), NoCgroup> {
        let tried = self.take().and_then(|place| {
            let tried = spawn::try_out(place.number());
            self.give_back(place.into_leaf());
            tried
        });
        tried.map_err(|source| {
            self.remove();
            NoCgroup::NoBirth { source }
        })
    }

    fn path_of(&self, leaf: &Leaf) -> PathBuf {
        self.path.join(leaf.number.to_string())
    }

    /// A directory in which nobody is.
    pub(super) fn take(&self) -> io::Result<Place> {
        if self.is_used_up.swap(false, Ordering::AcqRel) {
            let pooled = std::mem::take(&mut lock(&self.pool).free);
            for leaf in pooled {
                remove_tree(&self.path_of(&leaf));
            }
        }
        let pooled = lock(&self.pool).free.pop();
        // Should somebody else have removed it, nobody can be born there, and then a fresh one is made.
        match pooled {
            Some(leaf) => Ok(Place {
                leaf,
                is_fresh: false,
            }),
            None => self.make(),
        }
    }

    /// A directory in which nobody has been.
    pub(super) fn make(&self) -> io::Result<Place> {
        let mut pool = lock(&self.pool);
        if pool.home.is_none() || !self.path.exists() {
            pool.home = Some(self.make_home()?);
        }
        let number = pool.next;
        pool.next += 1;
        drop(pool);
        let path = self.path.join(number.to_string());
        fs::create_dir(&path)?;
        let open = || {
            Ok(Place {
                leaf: Leaf {
                    number,
                    directory: open_path(&path)?,
                    events: File::open(path.join("cgroup.events"))?,
                    kill: OpenOptions::new()
                        .write(true)
                        .open(path.join("cgroup.kill"))?,
                    is_used_up: AtomicBool::new(false),
                    memory_events: None,
                    is_limited: false,
                },
                is_fresh: true,
            })
        };
        open().inspect_err(|_| drop(fs::remove_dir(&path)))
    }

    /// One in which these files have these contents, for one run only.
    pub(super) fn make_limited(&self, files: &[(&str, String)]) -> io::Result<Place> {
        let mut place = self.make()?;
        let path = self.path_of(&place.leaf);
        place.leaf.use_up();
        let limited = self
            .enable(files)
            .and_then(|()| limit(&path, files))
            .and_then(|()| match File::open(path.join("memory.events")) {
                Ok(events) => Ok(Some(events)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            });
        match limited {
            Ok(events) => {
                place.leaf.memory_events = events;
                place.leaf.is_limited = true;
                Ok(place)
            }
            Err(error) => {
                self.give_back(place.into_leaf());
                Err(error)
            }
        }
    }

    /// Gives the directories of runs the controllers that these files belong to.
    fn enable(&self, files: &[(&str, String)]) -> io::Result<()> {
        self.has_controllers.store(true, Ordering::Relaxed);
        let parent = self.path.parent().unwrap_or(&self.path);
        for directory in [parent, self.path.as_path()] {
            let control = directory.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(&control)?;
            let missing = files
                .iter()
                .map(|(name, _)| controller_of(name))
                .filter(|controller| !names(&enabled, controller));
            for controller in missing {
                fs::write(&control, format!("+{controller}"))?;
            }
        }
        Ok(())
    }

    fn make_home(&self) -> io::Result<OwnedFd> {
        match fs::create_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let home = open_directory(&self.path)?;
        rustix::fs::flock(&home, FlockOperation::NonBlockingLockExclusive)?;
        let kill = OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"))?;
        *lock(&self.kill) = Some(kill);
        Ok(home)
    }

    /// Takes back a directory whose run is over. One that is not as it was is not used again.
    pub(super) fn give_back(&self, leaf: Leaf) {
        // A run may write to its own limits, as far as there are any.
        if leaf.is_clean() && !self.has_controllers.load(Ordering::Relaxed) {
            lock(&self.pool).free.push(leaf);
        } else {
            // What is not empty stays for the end.
            remove_tree(&self.path_of(&leaf));
        }
    }

    /// Who is in this directory or below it.
    pub(super) fn members(&self, leaf: &Leaf) -> io::Result<BTreeSet<i32>> {
        members(&self.path_of(leaf))
    }

    /// Waits until nobody is in any of these, which were killed. Returns who is left in each.
    pub(super) fn wait_until_empty(&self, leaves: &[&Leaf], clock: Clock) -> Vec<BTreeSet<i32>> {
        let waiting = Waiting::begin(clock);
        leaves
            .iter()
            .map(|leaf| {
                waiting.until_empty(
                    || leaf.is_empty(),
                    || self.members(leaf).unwrap_or_default(),
                    |pause| leaf.wait(pause),
                )
            })
            .collect()
    }

    /// Kills everybody in every directory. Waits for no lock: who holds it is making the directory, and nobody is in it.
    pub(super) fn kill_all(&self) {
        self.is_used_up.store(true, Ordering::Release);
        if let Ok(kill) = self.kill.try_lock()
            && let Some(mut kill) = kill.as_ref()
        {
            // It fails only if the directory is gone.
            kill.write_all(b"1").ok();
        }
    }

    /// Kills everybody, and removes every directory; the next run makes them anew. Returns who is left.
    pub(super) fn finish(&self, clock: Clock) -> BTreeSet<i32> {
        self.kill_all();
        let left = wait_until_empty(&self.path, clock);
        self.remove();
        left
    }

    /// Removes what is empty of its directories.
    pub(super) fn remove(&self) {
        let mut pool = lock(&self.pool);
        pool.free.clear();
        remove_tree(&self.path);
        pool.home = None;
    }
}

/// The controller that a file of a control group belongs to.
fn controller_of(file: &str) -> &str {
    file.split_once('.')
        .map_or(file, |(controller, _)| controller)
}

fn names(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|one| one == name)
}

fn limit(directory: &Path, files: &[(&str, String)]) -> io::Result<()> {
    files
        .iter()
        .try_for_each(|(name, content)| fs::write(directory.join(name), content))
}

/// The controllers that the directories of runs have, or can be given.
pub fn controllers() -> Controllers {
    let Ok(ours) = own_directory() else {
        return Controllers::default();
    };
    let read = |name| fs::read_to_string(ours.join(name)).unwrap_or_default();
    let may_write = rustix::fs::access(ours.join("cgroup.subtree_control"), Access::WRITE_OK);
    // Only the root of the hierarchy has no type, and only there groups may have both processes and controllers to give on
    // (the "no internal process constraint" of the kernel's cgroup-v2.rst).
    let can_give = may_write.is_ok() && !ours.join("cgroup.type").exists();
    attainable(
        &read("cgroup.subtree_control"),
        &read("cgroup.controllers"),
        can_give,
    )
}

fn attainable(given: &str, available: &str, can_give: bool) -> Controllers {
    let has = |name| names(given, name) || (can_give && names(available, name));
    Controllers {
        memory: has("memory"),
        pids: has("pids"),
        cpu: has("cpu"),
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The directory and all below it, each before those in it.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let below: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.extend(below);
        next += 1;
    }
    found
}

/// Zombies are not among them.
fn members(path: &Path) -> io::Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    for path in tree(path) {
        match fs::read_to_string(path.join("cgroup.procs")) {
            Ok(list) => pids.extend(list.split_ascii_whitespace().flat_map(str::parse::<i32>)),
            // Gone since it was listed, or a part that is given to threads: those processes stand in the whole.
            Err(error) if is_harmless(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}

fn is_harmless(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
    )
}

/// The deepest first. What is not empty stays.
fn remove_tree(path: &Path) {
    for path in tree(path).into_iter().rev() {
        fs::remove_dir(path).ok();
    }
}

fn wait_until_empty(path: &Path, clock: Clock) -> BTreeSet<i32> {
    Waiting::begin(clock).until_empty(
        || {
            let events = fs::read(path.join("cgroup.events"));
            events.map_or(true, |events| has_line(&events, b"populated 0"))
        },
        || members(path).unwrap_or_default(),
        std::thread::park_timeout,
    )
}

/// How long those who were killed may take.
struct Waiting {
    clock: Clock,
    begin: crate::policy::time::Moment,
}

impl Waiting {
    fn begin(clock: Clock) -> Self {
        Self {
            clock,
            begin: clock.now(),
        }
    }

    fn until_empty(
        &self,
        is_empty: impl Fn() -> bool,
        members: impl Fn() -> BTreeSet<i32>,
        pause: impl Fn(Duration),
    ) -> BTreeSet<i32> {
        let mut deadline = self.begin + DYING;
        let mut left = usize::MAX;
        while !is_empty() {
            let now = self.clock.now();
            if now >= deadline {
                let members = members();
                // Its leader is dead, and a group whose last one is about to go may still be said to be populated.
                if members.is_empty() || members.len() >= left || now >= self.begin + DYING_AT_MOST
                {
                    return members;
                }
                left = members.len();
                deadline = now + DYING;
            }
            pause(LOOK_PAUSE);
        }
        BTreeSet::new()
    }
}

/// Kills everybody in the directories of the runtimes in this process, which is gone, without waiting.
pub(in crate::os) fn kill_groups_of(runtime: (i32, u64)) {
    for directory in groups_of(runtime) {
        // It fails before Linux 5.14, and if the directory is gone.
        fs::write(directory.join("cgroup.kill"), "1").ok();
    }
}

/// Removes the directories of the runtimes in this process, which is gone, as far as they are empty.
pub(in crate::os) fn remove_groups_of(runtime: (i32, u64)) {
    for directory in groups_of(runtime) {
        remove_tree(&directory);
    }
}

fn groups_of(runtime: (i32, u64)) -> Vec<PathBuf> {
    let parent = own_directory();
    let entries = parent
        .into_iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten();
    entries
        .filter(|entry| entry.file_name().to_str().and_then(owner) == Some(runtime))
        .map(|entry| entry.path())
        .collect()
}

/// Kills and removes what runtimes that are gone have left below our own group, if there is one that we may use.
pub(super) fn clean_below_ours(clock: Clock) -> Vec<Left> {
    own_directory().map_or_else(|_| Vec::new(), |parent| clean(&parent, clock))
}

/// The same below this one.
fn clean(parent: &Path, clock: Clock) -> Vec<Left> {
    remove_lasting(parent);
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let stale = entries.filter_map(|entry| {
        let (pid, began) = owner(entry.file_name().to_str()?)?;
        if identity::lives(pid, began) {
            return None;
        }
        // In another namespace of processes it may live all the same, and then it has the lock.
        let locked = open_directory(&entry.path()).ok()?;
        rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some((pid, entry.path(), locked))
    });
    stale
        .filter_map(|(owner, path, _locked)| {
            let members = members(&path).unwrap_or_default();
            // Not ours to kill: then it stays.
            fs::write(path.join("cgroup.kill"), "1").ok()?;
            let survivors = wait_until_empty(&path, clock);
            remove_tree(&path);
            Some(Left {
                owner,
                killed: members.difference(&survivors).copied().collect(),
                survivors: survivors.into_iter().collect(),
            })
        })
        .collect()
}

/// Removes what is empty of the directories that outlived their runtimes.
fn remove_lasting(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let owner = entry.file_name().to_str().and_then(owner_of_lasting);
        if owner.is_some_and(|(pid, began)| !identity::lives(pid, began)) {
            remove_tree(&entry.path());
        }
    }
}

fn owner_of_lasting(name: &str) -> Option<(i32, u64)> {
    owner_of(PREFIX_OF_LASTING, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
29 23 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
30 29 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
31 29 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const UNIFIED: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const READ_ONLY: &str = "40 39 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
    const PART: &str = "41 39 0:26 /user.slice/a\\040b /mnt/cg\\040roup rw - cgroup2 none rw\n";

    #[test]
    fn our_own_directory_is_found_in_every_kind_of_mount() {
        let slice = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-7.scope";
        let below = |path: &str| format!("/sys/fs/cgroup{path}");
        for (mounts, membership, expected) in [
            (
                HYBRID,
                "9:name=systemd:/\n1:cpu:/\n0::/\n",
                "/sys/fs/cgroup/unified",
            ),
            (HYBRID, "1:cpu:/x\n0::/y\n", "/sys/fs/cgroup/unified/y"),
            (UNIFIED, &format!("0::{slice}\n"), &below(slice)),
            // In a namespace of its own it sees itself as the root.
            (UNIFIED, "0::/\n", "/sys/fs/cgroup"),
            (PART, "0::/user.slice/a b/c\n", "/mnt/cg roup/c"),
            (
                &format!("{READ_ONLY}{PART}"),
                "0::/user.slice/a b\n",
                "/mnt/cg roup",
            ),
        ] {
            let found = directory(mounts, membership).unwrap();
            assert_eq!(found, Path::new(expected), "{membership}");
        }
    }

    #[test]
    fn what_is_lacking_is_said() {
        let outside = "60 39 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let super_block = "40 39 0:26 / /cg rw - cgroup2 cgroup ro\n";
        for (mounts, membership, expected) in [
            ("", "0::/\n", "no cgroup v2 hierarchy is mounted here"),
            (HYBRID, "1:cpu:/\n", "/proc/self/cgroup names no cgroup v2"),
            (
                READ_ONLY,
                "0::/\n",
                "no cgroup v2 hierarchy is writable here: /sys/fs/cgroup is mounted read-only",
            ),
            (
                super_block,
                "0::/\n",
                "no cgroup v2 hierarchy is writable here: /cg is mounted read-only",
            ),
            (
                UNIFIED,
                "0::/../other\n",
                "our own control group, /../other, lies outside of what is mounted",
            ),
            (
                outside,
                "0::/\n",
                "our own control group, /, lies outside of what is mounted",
            ),
            (
                PART,
                "0::/system.slice\n",
                "our own control group, /system.slice, lies outside of what is mounted",
            ),
        ] {
            let error = directory(mounts, membership).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn only_our_own_directories_are_ever_taken_for_ours() {
        for (name, expected) in [
            ("kimi-shell.12.345", Some((12, 345))),
            ("kimi-shell.12.345.6", Some((12, 345))),
            ("kimi-shell.12", None),
            ("kimi-shell.12.345.6.7", None),
            ("kimi-shell.12.345.x", None),
            ("kimi-shell.x.345", None),
            ("kimi-shell", None),
            ("kimi-shell-12.345", None),
            ("kimi-shell-lasting.12.345", None),
            ("other.12.345", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn controllers_are_had_where_they_are_given_or_can_be() {
        let all = "cpuset cpu io memory pids\n";
        for (given, available, can_give, expected) in [
            ("", all, false, [false, false, false]),
            ("", all, true, [true, true, true]),
            ("memory pids\n", all, false, [true, true, false]),
            ("", "cpuset io\n", true, [false, false, false]),
            ("", "", true, [false, false, false]),
        ] {
            let found = attainable(given, available, can_give);
            let found = [found.memory, found.pids, found.cpu];
            assert_eq!(found, expected, "{given:?} {available:?} {can_give}");
        }
    }

    #[test]
    fn limits_are_written_into_the_files_of_their_controllers() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            ("memory.max", "4096".to_owned()),
            ("pids.max", "7".to_owned()),
        ];
        limit(directory.path(), &files).unwrap();
        for (name, content) in files {
            let found = fs::read_to_string(directory.path().join(name)).unwrap();
            assert_eq!(found, content);
        }
        assert_eq!(controller_of("memory.oom.group"), "memory");
        assert!(names("cpu memory", "memory") && !names("cpuset", "cpu"));
    }

    #[test]
    fn events_are_read_by_the_line() {
        assert!(has_line(b"populated 0\nfrozen 0\n", b"populated 0"));
        assert!(!has_line(b"populated 01\nfrozen 0\n", b"populated 0"));
        assert!(has_line(b"populated 0\nfrozen 1\n", b"frozen 1"));
    }
}
