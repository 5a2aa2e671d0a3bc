//! The sign of `sd_notify(3)`: datagrams of lines `NAME=VALUE` to a socket of the run's own.
//!
//! The socket lies in a directory that only our own user may enter, so whoever can reach it could end the run as well.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::os::clock;
use crate::os::sign::{Notice, STATUS_MAX};
use crate::os::table::lock;
use crate::policy::spec::RunId;

/// A longer datagram is ignored as a whole, as systemd does.
const DATAGRAM_MAX: usize = 4 * 1024;
/// A path that is longer fits into no address of a socket (108 bytes, `unix(7)`), together with what we add.
const BASE_MAX: usize = 48;
const TRIES: u64 = 16;

/// The private directory of the sockets; it is made with the first of them.
#[derive(Default)]
pub(in crate::os) struct Directory(Mutex<Option<PathBuf>>);

impl Directory {
    /// A socket for this run.
    pub(in crate::os) fn socket(&self, run: RunId) -> io::Result<NotifySocket> {
        let mut directory = lock(&self.0);
        if let Some(made) = directory.as_deref() {
            match NotifySocket::bind(made, run) {
                // Somebody has cleaned up.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => return result,
            }
        }
        let made = directory.insert(make()?);
        NotifySocket::bind(made, run)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let directory = lock(&self.0).take();
        // Every socket in it is gone, since all runs are. What somebody else has put there stays.
        drop(directory.map(fs::remove_dir));
    }
}

fn bases() -> impl Iterator<Item = PathBuf> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let bases = [base, Some(std::env::temp_dir()), Some("/tmp".into())];
    bases.into_iter().flatten()
}

/// Removes what a process has left that died.
pub(in crate::os) fn remove_sockets_of(pid: i32) {
    let beginning = format!("kimi-{pid}-");
    let own = rustix::process::geteuid().as_raw();
    for entry in bases().flat_map(fs::read_dir).flatten().flatten() {
        let is_named_so = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(beginning.as_bytes());
        // That of the entry itself: a symbolic link is none of ours.
        let is_ours = |found: fs::Metadata| found.is_dir() && found.uid() == own;
        if is_named_so && entry.metadata().is_ok_and(is_ours) {
            for socket in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                if is_deserted(&socket.path()) {
                    fs::remove_file(socket.path()).ok();
                }
            }
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// Whether nobody listens there: a process of the same id in another PID namespace may.
fn is_deserted(socket: &Path) -> bool {
    UnixDatagram::unbound()
        .and_then(|ours| ours.connect(socket))
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn make() -> io::Result<PathBuf> {
    let mut failure = io::Error::from(ErrorKind::NotFound);
    for base in bases() {
        if !base.is_absolute() || base.as_os_str().len() > BASE_MAX {
            continue;
        }
        match make_in(&base) {
            Ok(made) => return Ok(made),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Fails where something of that name is already, so nobody can have prepared it.
fn make_in(base: &Path) -> io::Result<PathBuf> {
    let seed = clock::seed();
    for number in 0..TRIES {
        let name = format!(
            "kimi-{}-{:x}",
            std::process::id(),
            seed.wrapping_add(number)
        );
        let path = base.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => return result.map(|()| path),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// The socket of one run. Dropped, its file is removed.
pub(in crate::os) struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    fn bind(directory: &Path, run: RunId) -> io::Result<Self> {
        let path = directory.join(run.to_string());
        let socket = UnixDatagram::bind(&path)?;
        let bound = Self { socket, path };
        bound.socket.set_nonblocking(true)?;
        Ok(bound)
    }

    pub(in crate::os) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::os) fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Takes one datagram; `false`: there was none.
    ///
    /// Descriptors that come along are closed by the kernel, since no place is offered for them (`unix(7)`). The barrier of
    /// `sd_notify_barrier(3)` waits for exactly that.
    pub(in crate::os) fn receive(&self, scratch: &mut [u8], mut tell: impl FnMut(Notice)) -> bool {
        match self.socket.recv(&mut scratch[..=DATAGRAM_MAX]) {
            Ok(length) if length <= DATAGRAM_MAX => {
                notices(&scratch[..length]).for_each(&mut tell);
                true
            }
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // It may have been removed by somebody else.
        fs::remove_file(&self.path).ok();
    }
}

/// What a datagram says; what is not understood is ignored.
pub(super) fn notices(datagram: &[u8]) -> impl Iterator<Item = Notice> {
    datagram.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&line[..at], &line[at + 1..]);
        match (name, value) {
            (b"READY", b"1") => Some(Notice::Ready),
            (b"STOPPING", b"1") => Some(Notice::Stopping),
            (b"STATUS", text) => Some(Notice::Status(status(text))),
            (b"EXTEND_TIMEOUT_USEC", number) => {
                let number = std::str::from_utf8(number).ok()?.parse().ok()?;
                Some(Notice::Extend(Duration::from_micros(number)))
            }
            _ => None,
        }
    })
}

fn status(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut status = String::new();
    for c in text.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if status.len() + c.len_utf8() > STATUS_MAX {
            break;
        }
        status.push(c);
    }
    status
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn heard(datagram: &[u8]) -> Vec<Notice> {
        notices(datagram).collect()
    }

    #[test]
    fn a_datagram_says_what_its_lines_say() {
        let long = "ä".repeat(STATUS_MAX);
        assert_eq!(heard(b"READY=1"), [Notice::Ready]);
        assert_eq!(
            heard(b"READY=1\nSTATUS=Up \x1b[31m\n\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\n"),
            [
                Notice::Ready,
                Notice::Status("Up  [31m".to_owned()),
                Notice::Stopping,
                Notice::Extend(Duration::from_millis(1500)),
            ]
        );
        assert_eq!(
            heard(format!("STATUS={long}").as_bytes()),
            [Notice::Status("ä".repeat(STATUS_MAX / 2))]
        );
        for ignored in [
            &b""[..],
            b"\n\n=\n",
            b"READY=0",
            b"READY",
            b"ready=1",
            b" READY=1",
            b"MAINPID=1\nBARRIER=1\nFDSTORE=1",
            b"EXTEND_TIMEOUT_USEC=-1\nEXTEND_TIMEOUT_USEC=99999999999999999999",
            b"\xff\xfe\x00",
        ] {
            assert_eq!(heard(ignored), [], "{ignored:?}");
        }
    }

    #[test]
    fn sockets_lie_in_a_private_directory_and_leave_nothing() {
        let directory = Directory::default();
        let socket = directory.socket(RunId(7)).unwrap();
        let inside = socket.path().parent().unwrap().to_owned();
        let mode = fs::metadata(&inside).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let mut scratch = vec![0; 64 * 1024];
        let sender = UnixDatagram::unbound().unwrap();
        let huge = vec![b'x'; 60_000];
        for datagram in [&b""[..], &huge, b"READY=1"] {
            sender.send_to(datagram, socket.path()).unwrap();
        }
        let mut heard = Vec::new();
        while socket.receive(&mut scratch, |notice| heard.push(notice)) {}
        assert_eq!(heard, [Notice::Ready]);
        drop(socket);
        fs::remove_dir(&inside).unwrap();
        let again = directory.socket(RunId(8)).unwrap();
        let inside = again.path().parent().unwrap().to_owned();
        drop(again);
        drop(directory);
        assert!(!inside.exists());
    }
}
