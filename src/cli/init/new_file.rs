//! Writing a file whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

/// What becomes of a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays, and the writing fails with [`io::ErrorKind::AlreadyExists`].
    Kept,
    /// It is replaced.
    Replaced,
}

/// Writes a new file beside the target and gives it the target's name, so that nobody ever sees a part of it.
pub(super) fn write(target: &Path, text: &str, existing: Existing) -> io::Result<()> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new_name = std::ffi::OsString::from(".");
    new_name.push(name);
    new_name.push(format!(".{}.new", std::process::id()));
    let new = Removed(target.with_file_name(new_name));
    // One of this name was left by a process that is gone.
    let _absent = std::fs::remove_file(&new.0);
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&new.0)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match existing {
        Existing::Replaced => std::fs::rename(&new.0, target),
        Existing::Kept => rename_to_nothing(&new.0, target),
    }
}

fn rename_to_nothing(new: &Path, target: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, new, CWD, target, RenameFlags::NOREPLACE) {
        // Some file systems cannot; they can link, which does not replace either.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::hard_link(new, target),
        other => other.map_err(Into::into),
    }
}

/// A file that is removed at the end; it is gone already if it got its final name.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_if_that_is_wanted_and_nothing_else_is_left() {
        let here = tempfile::tempdir().unwrap();
        let target = here.path().join("a");
        write(&target, "one", Existing::Kept).unwrap();
        let error = write(&target, "two", Existing::Kept).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "one");
        write(&target, "two", Existing::Replaced).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "two");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_to_nothing_exists() {
        let here = tempfile::tempdir().unwrap();
        let target = here.path().join("a");
        std::os::unix::fs::symlink("nowhere", &target).unwrap();
        assert!(write(&target, "one", Existing::Kept).is_err());
        assert!(!here.path().join("nowhere").exists());
    }
}
