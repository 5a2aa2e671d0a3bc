//! A file system whose server never answers.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::skip;

/// Mounted until it is dropped.
pub struct Hanging {
    directory: tempfile::TempDir,
    _server: fs::File,
}

impl Hanging {
    /// `None`, and a word about it, where that is not permitted.
    pub fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let made = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .and_then(|server| mount(directory.path(), &server).map(|()| server));
        match made {
            Ok(server) => Some(Self {
                directory,
                _server: server,
            }),
            Err(error) => {
                skip(&format!("no file system that hangs: {error}"));
                None
            }
        }
    }

    /// Whoever looks below this waits for ever.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        unmount(self.directory.path());
    }
}

fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL byte")
}

#[expect(unsafe_code, reason = "mount(2)")]
fn mount(target: &Path, server: &fs::File) -> std::io::Result<()> {
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        server.as_raw_fd()
    );
    let options = std::ffi::CString::new(options)?;
    // SAFETY: all texts end with NUL and outlive the call.
    let result = unsafe {
        libc::mount(
            c"kimi-test".as_ptr(),
            c_path(target).as_ptr(),
            c"fuse".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[expect(unsafe_code, reason = "umount2(2)")]
fn unmount(target: &Path) {
    // SAFETY: the text ends with NUL and outlives the call.
    unsafe { libc::umount2(c_path(target).as_ptr(), libc::MNT_DETACH) };
}
