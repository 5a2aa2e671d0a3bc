//! Users and groups of this machine.
//!
//! They are looked up in the supervisor, before anything is started: what a name service does has no place in a process that
//! is about to become somebody else.

#![expect(
    unsafe_code,
    reason = "the databases of accounts are reached through libc only"
)]

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::policy::setup::Identity;

/// Larger entries are no entries.
const MOST_BYTES: usize = 1 << 20;
/// More groups than a kernel takes (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// Somebody as whom a process can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The numbers.
    pub identity: Identity,
    /// What its environment says of it: `HOME`, `USER`, `LOGNAME` and `SHELL`; nothing if it has no entry.
    pub variables: Vec<(OsString, OsString)>,
}

/// Why an account is not known.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No user has this name.
    #[error("there is no user `{0}` here")]
    NoUser(String),
    /// No group has this name.
    #[error("there is no group `{0}` here")]
    NoGroup(String),
    /// The number is no known user's, so that nobody can tell its group.
    #[error("nobody here has the number {0}, so that its group must be said as well")]
    NoPrimaryGroup(u32),
    /// The database cannot be read.
    #[error("cannot look up `{name}`")]
    Lookup {
        /// Who was looked up.
        name: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What stands in the database of users.
struct Entry {
    name: CString,
    uid: u32,
    gid: u32,
    home: CString,
    shell: CString,
}

/// Finds a user, a group, or both, each by name or number. A user has its own groups; a group without a user is that of the
/// supervisor's user, which then has no other.
pub fn account(user: Option<&str>, group: Option<&str>) -> Result<Account, AccountError> {
    let gid = group.map(group_number).transpose()?;
    let asked = |uid, gid, groups| Identity {
        user: user.map(str::to_owned),
        group: group.map(str::to_owned),
        uid,
        gid,
        groups,
    };
    let Some(name) = user else {
        let gid = gid.unwrap_or_else(|| rustix::process::getegid().as_raw());
        let uid = rustix::process::geteuid().as_raw();
        return Ok(Account {
            identity: asked(uid, gid, vec![gid]),
            variables: Vec::new(),
        });
    };
    match (user_entry(name)?, name.parse::<u32>(), gid) {
        (Some(entry), _, gid) => {
            let gid = gid.unwrap_or(entry.gid);
            let groups = groups_of(&entry.name, gid);
            Ok(Account {
                identity: asked(entry.uid, gid, groups),
                variables: entry.variables(),
            })
        }
        (None, Ok(uid), Some(gid)) => Ok(Account {
            identity: asked(uid, gid, vec![gid]),
            variables: Vec::new(),
        }),
        (None, Ok(uid), None) => Err(AccountError::NoPrimaryGroup(uid)),
        (None, Err(_), _) => Err(AccountError::NoUser(name.to_owned())),
    }
}

impl Entry {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        let text = |text: &CStr| OsStr::from_bytes(text.to_bytes()).to_owned();
        let shell = if self.shell.is_empty() {
            c"/bin/sh"
        } else {
            &self.shell
        };
        [
            ("HOME", text(&self.home)),
            ("USER", text(&self.name)),
            ("LOGNAME", text(&self.name)),
            ("SHELL", text(shell)),
        ]
        .map(|(name, value)| (name.into(), value))
        .into()
    }
}

fn user_entry(name: &str) -> Result<Option<Entry>, AccountError> {
    let number = name.parse::<u32>().ok();
    let text = CString::new(name).map_err(|_| AccountError::NoUser(name.to_owned()))?;
    // SAFETY: plain data, for which all zeroes is a value.
    let mut entry: libc::passwd = unsafe { mem::zeroed() };
    look_up(
        name,
        |buffer, found| {
            let (entry, bytes, room) = (&raw mut entry, buffer.as_mut_ptr(), buffer.len());
            match number {
                // SAFETY: writes an entry, whose texts go into the buffer; both outlive the use of what is found.
                Some(uid) => unsafe { libc::getpwuid_r(uid, entry, bytes, room, found) },
                // SAFETY: as above; the name ends with a NUL.
                None => unsafe { libc::getpwnam_r(text.as_ptr(), entry, bytes, room, found) },
            }
        },
        // SAFETY: what was found, and its texts, are there as long as the buffer is.
        |found| unsafe { Entry::of(found) },
    )
}

impl Entry {
    /// Copies an entry.
    ///
    /// # Safety
    ///
    /// It must be there, and its texts must be there or null.
    unsafe fn of(found: *const libc::passwd) -> Self {
        let copy = |text: *const c_char| {
            if text.is_null() {
                return CString::default();
            }
            // SAFETY: the caller vouches for the texts, which end with a NUL.
            unsafe { CStr::from_ptr(text) }.to_owned()
        };
        // SAFETY: the caller vouches for the entry.
        let found = unsafe { &*found };
        Self {
            name: copy(found.pw_name),
            uid: found.pw_uid,
            gid: found.pw_gid,
            home: copy(found.pw_dir),
            shell: copy(found.pw_shell),
        }
    }
}

fn group_number(name: &str) -> Result<u32, AccountError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let text = CString::new(name).map_err(|_| AccountError::NoGroup(name.to_owned()))?;
    // SAFETY: plain data, for which all zeroes is a value.
    let mut entry: libc::group = unsafe { mem::zeroed() };
    let found = look_up(
        name,
        |buffer, found| {
            let (entry, bytes, room) = (&raw mut entry, buffer.as_mut_ptr(), buffer.len());
            // SAFETY: writes an entry, whose texts go into the buffer; both outlive the use of what is found.
            unsafe { libc::getgrnam_r(text.as_ptr(), entry, bytes, room, found) }
        },
        // SAFETY: what was found is there.
        |found: *mut libc::group| unsafe { (*found).gr_gid },
    )?;
    found.ok_or_else(|| AccountError::NoGroup(name.to_owned()))
}

/// Asks with more and more room; `None`: there is no such entry.
fn look_up<E, T>(
    name: &str,
    mut ask: impl FnMut(&mut [c_char], &mut *mut E) -> c_int,
    take: impl FnOnce(*mut E) -> T,
) -> Result<Option<T>, AccountError> {
    let mut buffer: Vec<c_char> = vec![0; 1024];
    loop {
        let mut found = ptr::null_mut();
        match ask(&mut buffer, &mut found) {
            0 if found.is_null() => return Ok(None),
            0 => return Ok(Some(take(found))),
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < MOST_BYTES => buffer.resize(buffer.len() * 4, 0),
            // How some systems say that there is none (getpwnam(3)).
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            errno => {
                return Err(AccountError::Lookup {
                    name: name.to_owned(),
                    source: io::Error::from_raw_os_error(errno),
                });
            }
        }
    }
}

/// The groups of a user, this one first.
fn groups_of(user: &CStr, gid: u32) -> Vec<u32> {
    let mut room = 64;
    loop {
        let mut groups = vec![0; room];
        let mut count = c_int::try_from(room).unwrap_or(c_int::MAX);
        // SAFETY: writes as many groups as there is room for, and how many there are.
        let result =
            unsafe { libc::getgrouplist(user.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if result >= 0 || room >= MOST_GROUPS {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return groups;
        }
        room *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        let root = account(Some("root"), None).unwrap();
        assert_eq!((root.identity.uid, root.identity.gid), (0, 0));
        assert!(root.identity.groups.contains(&0), "{root:?}");
        let names: Vec<_> = root.variables.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["HOME", "USER", "LOGNAME", "SHELL"]);
        let by_number = account(Some("0"), Some("0")).unwrap();
        assert_eq!(by_number.variables, root.variables);
        assert_eq!(by_number.identity.uid, 0);

        let nobody_known = account(Some("4000000001"), Some("4000000002")).unwrap();
        assert_eq!(
            (nobody_known.identity.uid, nobody_known.identity.gid),
            (4_000_000_001, 4_000_000_002)
        );
        assert_eq!(nobody_known.identity.groups, [4_000_000_002]);
        assert!(nobody_known.variables.is_empty());

        let group_alone = account(None, Some("root")).unwrap();
        assert_eq!(group_alone.identity.gid, 0);
        assert_eq!(group_alone.identity.groups, [0]);
    }

    #[test]
    fn accounts_that_are_not_here_are_named() {
        for (user, group, text) in [
            (
                Some("nobody-of-this-name"),
                None,
                "there is no user `nobody-of-this-name` here",
            ),
            (
                Some("root"),
                Some("no-such-group"),
                "there is no group `no-such-group` here",
            ),
            (
                Some("4000000001"),
                None,
                "nobody here has the number 4000000001, so that its group must be said as well",
            ),
        ] {
            assert_eq!(account(user, group).unwrap_err().to_string(), text);
        }
    }
}
