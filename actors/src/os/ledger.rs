//! The ledger: which processes a runtime has, in a file that outlives both it and its guardian.
//!
//! A runtime maps its ledger into memory. To enter a process, and to strike it out when it is reaped, takes a few stores and
//! no system call. The file is locked for as long as the runtime lives. One that is not locked was left by a runtime that
//! died, with nobody there to clean up: the next start of the project kills what stands there and is still the same process,
//! with its sessions and descendants and whatever bears that runtime's mark.
//!
//! A process is the same if it has the recorded id and began within the recorded ticks. The id was that process's from the
//! first of these ticks to the last, so no stranger can have begun with it between them.
//!
//! The directory is our own user's and closed to others; a file in it is believed only if it is a plain one of our own, and
//! never reached through a link.

#![expect(
    unsafe_code,
    reason = "memory that is a file, so that it is there after the process"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::os::real::Shared;
use crate::os::strays::{Quarry, Recorded, RuntimeId, Stray, hunt};
use crate::os::table::Handle;

const MAGIC: [u8; 8] = *b"kimirun1";
const ENDING: &str = ".runs";
/// Slots that a ledger of ours never has; more are not read.
const MOST_SLOTS: u32 = 1 << 20;
/// How often to begin anew because somebody has cleaned up at the same time.
const TRIES: u32 = 8;
/// How often, and how far apart, it is tried to lock the ledger of a runtime that is dying.
const DYING_LOOKS: u32 = 200;
const DYING_PAUSE: Duration = Duration::from_millis(5);
/// How long the death of those that were killed is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Names a project on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Project(u64);

impl Project {
    /// The one that has this directory, by its path as the system knows it.
    pub fn of(directory: &Path) -> Self {
        let path = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        // FNV-1a: the same in every version of this program.
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Self(
            path.as_os_str()
                .as_bytes()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, hash),
        )
    }

    fn beginning(self) -> String {
        format!("{:016x}-", self.0)
    }
}

/// What the next start found, and did about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// A process that a runtime had left was killed, or could not be.
    Killed(Stray),
    /// A file that is no ledger of ours was left alone.
    Refused {
        /// Where it is.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
}

/// The ledger of a runtime. Dropped, its file is removed.
#[derive(Debug)]
pub struct Ledger {
    place: Place,
    name: String,
    /// Holds the lock.
    file: OwnedFd,
    map: NonNull<u8>,
    slots: u32,
}

// SAFETY: the memory is shared and used through atomic numbers only, but for the head, which is written before it is shared.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

/// What a ledger begins with.
#[repr(C)]
struct Head {
    magic: [u8; 8],
    /// Without the dashes.
    boot: [u8; 32],
    /// The PID namespace.
    namespace: u64,
    pid: i32,
    slots: u32,
    start: u64,
    /// From here on nothing was ever entered.
    used: AtomicU32,
    _rest: u32,
}

/// One process; a pid of 0 is none.
#[repr(C)]
struct Entry {
    from: AtomicU64,
    ticks: AtomicU32,
    pid: AtomicU32,
}

const HEAD_BYTES: usize = size_of::<Head>();
const ENTRY_BYTES: usize = size_of::<Entry>();
const _: () = assert!(HEAD_BYTES.is_multiple_of(align_of::<Entry>()));

impl Ledger {
    /// An empty one for this process, with room for so many.
    pub fn create(project: Project, slots: usize) -> io::Result<Self> {
        let slots = u32::try_from(slots).unwrap_or(MOST_SLOTS).min(MOST_SLOTS);
        let own = RuntimeId::own().ok_or_else(no_proc)?;
        let head = Head {
            magic: MAGIC,
            boot: boot()?,
            namespace: namespace()?,
            pid: own.pid,
            slots,
            start: own.start,
            used: AtomicU32::new(0),
            _rest: 0,
        };
        let name = format!("{}{}", project.beginning(), name_of(own));
        let (place, file) = make(&name)?;
        let made = map(&file, slots, head).map(|map| (map, slots));
        match made {
            Ok((map, slots)) => Ok(Self {
                place,
                name,
                file,
                map,
                slots,
            }),
            Err(error) => {
                place.remove(&name);
                Err(error)
            }
        }
    }

    /// Enters the process of a slot, which was made since this tick.
    fn enter(&self, handle: Handle, pid: i32, from: u64) {
        let Some(entry) = self.entry(handle) else {
            return;
        };
        let ticks = tick().saturating_sub(from);
        entry.from.store(from, Ordering::Relaxed);
        entry
            .ticks
            .store(u32::try_from(ticks).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.head()
            .used
            .fetch_max(handle.index + 1, Ordering::Relaxed);
        // Last: whoever finds an id finds the rest.
        entry.pid.store(pid.cast_unsigned(), Ordering::Release);
    }

    /// Strikes out the process of a slot.
    fn strike(&self, handle: Handle) {
        if let Some(entry) = self.entry(handle) {
            entry.pid.store(0, Ordering::Release);
        }
    }

    /// Removes the file; what is entered from then on is for nobody.
    pub(crate) fn remove(&self) {
        // While it is locked, so that nobody looks at it any more.
        self.place.remove(&self.name);
    }

    fn head(&self) -> &Head {
        // SAFETY: the memory begins with a head, which `map` has written, and lives as long as this.
        unsafe { self.map.cast().as_ref() }
    }

    fn entry(&self, handle: Handle) -> Option<&Entry> {
        let index = handle.index as usize;
        if handle.index >= self.slots {
            return None;
        }
        // SAFETY: within the memory, which has room for so many entries after the head.
        let entry = unsafe { self.map.add(HEAD_BYTES + index * ENTRY_BYTES) };
        // SAFETY: aligned, since the head's size is a multiple of the alignment and the memory begins at a page; of plain
        // numbers, for which all bytes are valid.
        Some(unsafe { entry.cast().as_ref() })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.remove();
        // SAFETY: mapped by `map` with this length; nobody refers to it any more.
        unsafe { libc::munmap(self.map.as_ptr().cast(), bytes(self.slots)) };
        rustix::fs::flock(&self.file, FlockOperation::Unlock).ok();
    }
}

/// When a process began to be made, if that is of interest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(Option<u64>);

impl Since {
    pub(super) fn now(shared: &Shared) -> Self {
        Self(shared.ledger.is_some().then(tick))
    }
}

/// Enters the process that was just made for a slot, if one was.
pub(super) fn enter(shared: &Shared, handle: Handle, since: Since) {
    let pid = shared.table.slot(handle).pid.load(Ordering::Acquire);
    if let (Some(ledger), Since(Some(from)), 1..) = (&shared.ledger, since, pid) {
        ledger.enter(handle, pid, from);
    }
}

/// Strikes out the process of a slot.
pub(super) fn strike(shared: &Shared, handle: Handle) {
    if let Some(ledger) = &shared.ledger {
        ledger.strike(handle);
    }
}

/// The time since the start of the machine as `/proc` tells it of processes. No system call.
fn tick() -> u64 {
    // SAFETY: takes a number only.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    let per_second = per_second.unsigned_abs();
    seconds * per_second + nanoseconds * per_second / 1_000_000_000
}

/// Makes the file and locks it.
fn make(name: &str) -> io::Result<(Place, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        let place = Place::make()?;
        let file = match rustix::fs::openat(&place.directory, name, flags, Mode::RUSR | Mode::WUSR)
        {
            // The directory was removed since, as nothing was in it.
            Err(rustix::io::Errno::NOENT) => continue,
            file => file?,
        };
        // Somebody else who looks for what was left may have been faster: then the file is gone.
        let is_locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_locked && rustix::fs::fstat(&file)?.st_nlink == 1 {
            return Ok((place, file));
        }
        place.remove(name);
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Maps it into memory, with its head.
fn map(file: &OwnedFd, slots: u32, head: Head) -> io::Result<NonNull<u8>> {
    let length = bytes(slots);
    // Room is made now: written to where there is none left, the memory would kill the process (SIGBUS).
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length as u64)?;
    // SAFETY: asks for new memory at no particular place.
    let map = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            std::os::fd::AsRawFd::as_raw_fd(file),
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let map: NonNull<u8> = NonNull::new(map.cast()).expect("memory is never mapped at zero");
    // SAFETY: the memory is large enough, begins at a page and is nobody else's yet.
    unsafe { map.cast().write(head) };
    Ok(map)
}

fn bytes(slots: u32) -> usize {
    HEAD_BYTES + slots as usize * ENTRY_BYTES
}

/// Kills what runtimes of this project have left that died, and removes their ledgers. A living one's is not touched.
pub fn clean(project: Project) -> Vec<Cleaned> {
    let Ok(place) = Place::find() else {
        return Vec::new();
    };
    let mut cleaned = Vec::new();
    for name in place.names(|name| name.starts_with(&project.beginning())) {
        match place.open(&name) {
            Ok(Some(file)) => match read(&file) {
                Ok(left) => {
                    if let Some(left) = left {
                        cleaned.extend(hunt(&left, PATIENCE).into_iter().map(Cleaned::Killed));
                    }
                    place.remove(&name);
                }
                Err(reason) => cleaned.push(place.refused(&name, reason)),
            },
            Ok(None) => {}
            Err(reason) => cleaned.push(place.refused(&name, reason)),
        }
    }
    place.remove_if_empty();
    cleaned
}

/// Removes the ledger of a runtime that is dead, and whose processes are.
pub(super) fn remove_of(id: RuntimeId) {
    let Ok(place) = Place::find() else {
        return;
    };
    for name in place.names(|name| name.ends_with(&name_of(id))) {
        if let Ok(Some(_locked)) = place.open(&name) {
            place.remove(&name);
        }
    }
    place.remove_if_empty();
}

/// Locks it, unless its runtime lives. One that was killed may take a moment until the last of its threads lets go.
fn is_locked(file: &File) -> bool {
    for _ in 0..DYING_LOOKS {
        let lock = FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(file.as_fd(), lock).is_ok() {
            return true;
        }
        if !is_of_a_dead_one(file) {
            return false;
        }
        std::thread::park_timeout(DYING_PAUSE);
    }
    false
}

/// Whether it says so itself; a runtime of another namespace cannot be looked at.
fn is_of_a_dead_one(file: &File) -> bool {
    let mut head = [0; HEAD_BYTES];
    let is_read = file.read_exact_at(&mut head, 0).is_ok();
    let (namespace_then, rest) = head[40..].split_at(8);
    let (pid, rest) = rest.split_at(4);
    let (Ok(pid), Ok(start)) = (pid.try_into(), rest[4..12].try_into()) else {
        return false;
    };
    let runtime = RuntimeId {
        pid: i32::from_ne_bytes(pid),
        start: u64::from_ne_bytes(start),
    };
    let is_here = namespace().is_ok_and(|now| now.to_ne_bytes() == namespace_then);
    is_read && is_here && !runtime.is_alive()
}

/// What a ledger says is left; `None`: nothing that could be, since the machine was started anew.
fn read(file: &File) -> Result<Option<Quarry>, &'static str> {
    let mut text = Vec::new();
    file.take(bytes(MOST_SLOTS) as u64)
        .read_to_end(&mut text)
        .map_err(|_| "it cannot be read")?;
    // Its runtime died before it had written anything.
    if text.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let quarry = parse(&text).ok_or("it is no ledger")?;
    let is_here = boot().is_ok_and(|boot| boot == quarry.boot);
    if !is_here {
        return Ok(None);
    }
    if !namespace().is_ok_and(|namespace| namespace == quarry.namespace) {
        return Err("it is of another PID namespace");
    }
    if quarry.runtime.is_alive() {
        return Err("its runtime lives and has not locked it");
    }
    Ok(Some(Quarry {
        runtime: Some(quarry.runtime),
        parent: None,
        runs: quarry.runs,
    }))
}

/// What stands in a ledger.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    boot: [u8; 32],
    namespace: u64,
    runtime: RuntimeId,
    runs: Vec<Recorded>,
}

fn parse(text: &[u8]) -> Option<Parsed> {
    let (magic, rest) = text.split_first_chunk::<8>()?;
    let (boot, rest) = rest.split_first_chunk::<32>()?;
    let (namespace, rest) = rest.split_first_chunk::<8>()?;
    let (pid, rest) = rest.split_first_chunk::<4>()?;
    let (slots, rest) = rest.split_first_chunk::<4>()?;
    let (start, rest) = rest.split_first_chunk::<8>()?;
    let (used, rest) = rest.split_first_chunk::<4>()?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let slots = u32::from_ne_bytes(*slots);
    let used = u32::from_ne_bytes(*used) as usize;
    let is_whole = slots <= MOST_SLOTS && text.len() == bytes(slots) && used <= slots as usize;
    let pid = i32::from_ne_bytes(*pid);
    if *magic != MAGIC || !is_whole || pid <= 0 {
        return None;
    }
    let (entries, _) = rest.as_chunks::<ENTRY_BYTES>();
    Some(Parsed {
        boot: *boot,
        namespace: u64::from_ne_bytes(*namespace),
        runtime: RuntimeId {
            pid,
            start: u64::from_ne_bytes(*start),
        },
        runs: entries[..used].iter().filter_map(recorded).collect(),
    })
}

fn recorded(entry: &[u8; ENTRY_BYTES]) -> Option<Recorded> {
    let (from, rest) = entry.split_first_chunk::<8>()?;
    let (ticks, rest) = rest.split_first_chunk::<4>()?;
    let (pid, _) = rest.split_first_chunk::<4>()?;
    let from = u64::from_ne_bytes(*from);
    let pid = i32::from_ne_bytes(*pid);
    (pid > 1).then_some(Recorded {
        pid,
        from,
        to: from.saturating_add(u32::from_ne_bytes(*ticks).into()),
    })
}

/// The directory of the ledgers.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    directory: OwnedFd,
}

impl Place {
    fn path() -> PathBuf {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        match base.filter(|base| base.is_absolute()) {
            Some(base) => base.join("kimi-shell"),
            None => format!("/tmp/kimi-shell-{}", rustix::process::geteuid().as_raw()).into(),
        }
    }

    fn make() -> io::Result<Self> {
        match rustix::fs::mkdir(Self::path(), Mode::RWXU) {
            Err(error) if error != rustix::io::Errno::EXIST => Err(error.into()),
            _ => Self::find(),
        }
    }

    /// Only if it is our own, and nobody else may write there.
    fn find() -> io::Result<Self> {
        let path = Self::path();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        let found = rustix::fs::fstat(&directory)?;
        if found.st_uid == rustix::process::geteuid().as_raw() && found.st_mode & 0o022 == 0 {
            Ok(Self { path, directory })
        } else {
            let text = format!(
                "`{}` belongs to somebody else, or others may write there",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
    }

    fn names(&self, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let entries = Dir::read_from(&self.directory).into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| name.ends_with(ENDING) && is_meant(name))
            .collect()
    }

    /// Opens and locks one; `None`: its runtime lives, or somebody else is about it.
    fn open(&self, name: &str) -> Result<Option<File>, &'static str> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err("it is a symbolic link"),
            Err(_) => return Err("it cannot be opened"),
        };
        let found = file.metadata().map_err(|_| "it cannot be looked at")?;
        if !found.is_file() {
            return Err("it is not a regular file");
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err("it belongs to somebody else");
        }
        if found.mode() & 0o022 != 0 || found.nlink() > 1 {
            return Err("others may have written there");
        }
        Ok(is_locked(&file).then_some(file))
    }

    fn remove(&self, name: &str) {
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()).ok();
        self.remove_if_empty();
    }

    /// Nothing of ours stays where nothing runs.
    fn remove_if_empty(&self) {
        rustix::fs::rmdir(&self.path).ok();
    }

    fn refused(&self, name: &str, reason: &'static str) -> Cleaned {
        Cleaned::Refused {
            path: self.path.join(OsStr::new(name)),
            reason,
        }
    }
}

fn name_of(id: RuntimeId) -> String {
    format!("{}-{}{ENDING}", id.pid, id.start)
}

/// What names this start of the machine.
fn boot() -> io::Result<[u8; 32]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.try_into().map_err(|_| no_proc())
}

/// What names our PID namespace.
fn namespace() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}

fn no_proc() -> io::Error {
    io::Error::other("`/proc` does not say who we are")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(used: u32, entries: &[(u64, u32, u32)]) -> Vec<u8> {
        let slots = u32::try_from(entries.len()).unwrap();
        let mut text = MAGIC.to_vec();
        text.extend([b'a'; 32]);
        text.extend(5_u64.to_ne_bytes());
        text.extend(42_i32.to_ne_bytes());
        text.extend(slots.to_ne_bytes());
        text.extend(1000_u64.to_ne_bytes());
        text.extend(used.to_ne_bytes());
        text.extend([0; 4]);
        for (from, ticks, pid) in entries {
            text.extend(from.to_ne_bytes());
            text.extend(ticks.to_ne_bytes());
            text.extend(pid.to_ne_bytes());
        }
        text
    }

    #[test]
    fn what_stands_in_a_ledger_is_read_again() {
        let entries = [
            (2000, 3, 77),
            (0, 0, 0),
            (u64::MAX, 1, 78),
            (1, 1, 1),
            (7, 7, 79),
        ];
        let parsed = parse(&text(4, &entries)).unwrap();
        let recorded = |pid, from, to| Recorded { pid, from, to };
        assert_eq!(
            parsed.runs,
            [recorded(77, 2000, 2003), recorded(78, u64::MAX, u64::MAX)]
        );
        assert_eq!(
            parsed.runtime,
            RuntimeId {
                pid: 42,
                start: 1000
            }
        );
        assert_eq!(parsed.namespace, 5);
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        let whole = text(1, &[(2000, 3, 77)]);
        assert!(parse(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
        for (at, byte) in [(0, b'x'), (51, 0xff), (55, 0xff), (64, 2)] {
            let mut wrong = whole.clone();
            wrong[at] = byte;
            assert_eq!(parse(&wrong), None, "{byte} at {at}");
        }
    }

    #[test]
    fn projects_are_told_apart_by_where_they_are() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(Project::of(one.path()), Project::of(two.path()));
        assert_eq!(
            Project::of(one.path()),
            Project::of(&one.path().join("..").join(one.path().file_name().unwrap()))
        );
    }
}
