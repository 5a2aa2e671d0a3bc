//! Who is whose: other processes as `/proc` tells of them.
//!
//! Nothing in here pins an id. Who acts upon what it was told opens a pidfd and looks again.

use std::fs;
use std::io;

use rustix::fs::{CWD, readlinkat};

/// What `/proc/PID/stat` says of a process (`proc_pid_stat(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kin {
    /// The name of its program, at most 15 bytes of it.
    pub(super) command: String,
    pub(super) state: char,
    pub(super) parent: i32,
    pub(super) session: i32,
    /// When it began, in ticks since the machine did.
    pub(super) start: u64,
}

impl Kin {
    /// `None`: it does not exist, or may not be looked at.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        // The name may hold anything, parentheses among it.
        let (head, fields) = stat.rsplit_once(") ")?;
        let (_, command) = head.split_once(" (")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        Some(Self {
            command: command.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Whether `/proc` is that of our own PID namespace. In one that is not, every number names somebody else.
pub(super) fn is_ours() -> bool {
    let own = rustix::process::getpid().as_raw_pid().to_string();
    readlinkat(CWD, "/proc/self", Vec::new()).is_ok_and(|name| name.as_bytes() == own.as_bytes())
}

/// Every process that can be seen.
pub(super) fn everyone() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The children of this process, which has one thread, zombies among them.
pub(super) fn children() -> io::Result<Vec<i32>> {
    let own = rustix::process::getpid().as_raw_pid();
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => Ok(text
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()),
        // Not every kernel has that file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(everyone()
            .into_iter()
            .filter(|pid| Kin::of(*pid).is_some_and(|kin| kin.parent == own))
            .collect()),
        Err(error) => Err(error),
    }
}

/// This process, its parent, and so on.
pub(super) fn ancestry() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_pid();
    let parent = |pid: &i32| Kin::of(*pid).map(|kin| kin.parent).filter(|pid| *pid > 0);
    std::iter::successors(Some(own), parent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = b"42 (a) b (c\xff) S 7 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2\n";
        let kin = Kin::parse(stat).unwrap();
        assert_eq!((kin.parent, kin.session, kin.start), (7, 41, 987_654));
        assert_eq!(kin.command, "a) b (c\u{fffd}");
        for short in ["", "42 (sh)", "42 (sh) S 7", "42 sh S 7 1 2"] {
            assert_eq!(Kin::parse(short.as_bytes()), None, "{short}");
        }
    }

    #[test]
    fn this_process_finds_itself() {
        let own = rustix::process::getpid().as_raw_pid();
        assert!(is_ours());
        assert!(everyone().contains(&own));
        assert!(!Kin::of(own).unwrap().is_dead());
        assert_eq!(ancestry()[0], own);
    }
}
