//! What the shim is to do, as bytes. Both sides are the same program, so there is one version of it.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::RawFd;

use crate::policy::setup::{Action, Resource};

/// So begins what is meant for the shim.
const MAGIC: &[u8] = b"kimi-exec\0";
/// The numbers of limited resources.
const RESOURCES: [Resource; 5] = [
    Resource::Nofile,
    Resource::Core,
    Resource::Memory,
    Resource::Cpu,
    Resource::Pids,
];

/// What the shim is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Instructions {
    pub(super) path: CString,
    pub(super) directory: Option<CString>,
    pub(super) argv: Texts,
    pub(super) envp: Texts,
    pub(super) actions: Vec<Action>,
    pub(super) groups: Vec<u32>,
    pub(super) parent: i32,
    /// Where the program looks for what it is to notify by.
    pub(super) notify: Option<RawFd>,
}

/// Texts that each end with a NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts(Vec<u8>);

impl Texts {
    /// The list as the kernel takes it.
    pub(super) fn pointers(&self) -> Vec<*const c_char> {
        let starts = self.0.split_inclusive(|byte| *byte == 0);
        let pointers = starts.map(|text| text.as_ptr().cast());
        pointers.chain([std::ptr::null()]).collect()
    }
}

/// The same, for whoever tells the shim what to do.
#[derive(Clone, Copy, Debug)]
pub(in crate::os) struct Telling<'a> {
    pub(in crate::os) path: &'a CStr,
    pub(in crate::os) directory: Option<&'a CStr>,
    /// Texts that each end with a NUL, as the next.
    pub(in crate::os) argv: &'a [u8],
    pub(in crate::os) envp: &'a [u8],
    pub(in crate::os) actions: &'a [Action],
    pub(in crate::os) groups: &'a [u32],
    pub(in crate::os) parent: i32,
}

impl Telling<'_> {
    pub(super) fn to_bytes(self, notify: Option<u32>) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut number = |number: u64| bytes.extend(number.to_le_bytes());
        number(u64::from(self.parent.cast_unsigned()));
        number(notify.map_or(0, u64::from));
        number(self.actions.len() as u64);
        for action in self.actions {
            numbers_of(*action).into_iter().for_each(&mut number);
        }
        number(self.groups.len() as u64);
        for gid in self.groups {
            number(u64::from(*gid));
        }
        let directory = self.directory.map_or(&[][..], CStr::to_bytes_with_nul);
        for text in [
            self.path.to_bytes_with_nul(),
            directory,
            self.argv,
            self.envp,
        ] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text);
        }
        bytes
    }
}

impl Instructions {
    /// Reads them; `None`: these are none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes.strip_prefix(MAGIC)?);
        let parent = i32::try_from(reader.number()?).ok()?;
        let notify = reader.number()?;
        let notify = match notify {
            0 => None,
            place => Some(RawFd::try_from(place).ok()?),
        };
        let actions = reader.list(|reader| {
            let numbers = [reader.number()?, reader.number()?, reader.number()?];
            action_of(numbers)
        })?;
        let groups = reader.list(|reader| u32::try_from(reader.number()?).ok())?;
        let path = CString::from_vec_with_nul(reader.bytes()?.to_vec()).ok()?;
        let directory = match reader.bytes()? {
            [] => None,
            text => Some(CString::from_vec_with_nul(text.to_vec()).ok()?),
        };
        let argv = reader.texts()?;
        let envp = reader.texts()?;
        reader.0.is_empty().then_some(Self {
            path,
            directory,
            argv,
            envp,
            actions,
            groups,
            parent,
            notify,
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let bytes = self.take(size_of::<u64>())?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn texts(&mut self) -> Option<Texts> {
        let bytes = self.bytes()?;
        let is_whole = bytes.last().is_none_or(|last| *last == 0);
        is_whole.then(|| Texts(bytes.to_vec()))
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        (0..count).map(|_| one(self)).collect()
    }
}

fn numbers_of(action: Action) -> [u64; 3] {
    let signed = |value: i16| i64::from(value).cast_unsigned();
    match action {
        Action::OomScoreAdj(value) => [0, signed(value), 0],
        Action::Limit(resource, most) => {
            let place = RESOURCES.iter().position(|known| *known == resource);
            [1, place.map_or(u64::MAX, |place| place as u64), most]
        }
        Action::Umask(mask) => [2, mask.into(), 0],
        Action::Nice(value) => [3, signed(value.into()), 0],
        Action::Groups => [4, 0, 0],
        Action::Group(gid) => [5, gid.into(), 0],
        Action::User(uid) => [6, uid.into(), 0],
        Action::Verify { uid, gid } => [7, uid.into(), gid.into()],
        Action::NoNewPrivs => [8, 0, 0],
        Action::DieWithParent => [9, 0, 0],
    }
}

fn action_of([kind, first, second]: [u64; 3]) -> Option<Action> {
    let signed = |value: u64| i16::try_from(value.cast_signed()).ok();
    let plain = |value: u64| u32::try_from(value).ok();
    Some(match kind {
        0 => Action::OomScoreAdj(signed(first)?),
        1 => Action::Limit(*RESOURCES.get(usize::try_from(first).ok()?)?, second),
        2 => Action::Umask(plain(first)?),
        3 => Action::Nice(signed(first)?.try_into().ok()?),
        4 => Action::Groups,
        5 => Action::Group(plain(first)?),
        6 => Action::User(plain(first)?),
        7 => Action::Verify {
            uid: plain(first)?,
            gid: plain(second)?,
        },
        8 => Action::NoNewPrivs,
        9 => Action::DieWithParent,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling() -> Telling<'static> {
        Telling {
            path: c"/bin/sh",
            directory: Some(c"/srv"),
            argv: b"sh\0-c\0\0",
            envp: b"A=1\0",
            actions: &[
                Action::OomScoreAdj(-1000),
                Action::Limit(Resource::Nofile, 64),
                Action::Limit(Resource::Pids, u64::MAX),
                Action::Umask(0o27),
                Action::Nice(-20),
                Action::Groups,
                Action::Group(u32::MAX - 1),
                Action::User(33),
                Action::Verify { uid: 33, gid: 34 },
                Action::NoNewPrivs,
                Action::DieWithParent,
            ],
            groups: &[34, 50],
            parent: 4711,
        }
    }

    #[test]
    fn what_is_told_is_understood() {
        for (directory, notify) in [(Some(c"/srv"), Some(5)), (None, None)] {
            let telling = Telling {
                directory,
                ..telling()
            };
            let read = Instructions::read(&telling.to_bytes(notify)).unwrap();
            assert_eq!(read.path.as_c_str(), telling.path);
            assert_eq!(read.directory.as_deref(), directory);
            assert_eq!(read.argv, Texts(telling.argv.to_vec()));
            assert_eq!(read.envp, Texts(telling.envp.to_vec()));
            assert_eq!(read.actions, telling.actions);
            assert_eq!(read.groups, telling.groups);
            assert_eq!(read.parent, 4711);
            assert_eq!(read.notify, notify.map(u32::cast_signed));
            // Three arguments, the last one empty, and the end.
            assert_eq!(read.argv.pointers().len(), 4);
            assert!(read.argv.pointers().last().unwrap().is_null());
        }
    }

    #[test]
    fn what_is_not_whole_is_not_understood() {
        let bytes = telling().to_bytes(None);
        for length in 0..bytes.len() {
            assert_eq!(Instructions::read(&bytes[..length]), None, "{length}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert_eq!(Instructions::read(&longer), None);
        let mut wild = bytes;
        // So many actions that nobody has memory for them.
        wild[26..34].fill(0xff);
        assert_eq!(Instructions::read(&wild), None);
    }
}
