//! Which file a command executes, and why it cannot.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use crate::os::{NotExecutable, SpawnError};
use crate::policy::spec::{BaseEnv, CommandSpec};

/// What a shell searches when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// How much of a file the kernel looks at to find the interpreter.
const HEAD_BYTES: usize = 256;

/// Finds the file that the command executes, and checks that it can be; for use before anything starts.
pub fn resolve(command: &CommandSpec) -> Result<PathBuf, SpawnError> {
    check_nul(command)?;
    let path = locate(command)?;
    check(command, &path)?;
    Ok(path)
}

/// Finds the file without a look at one that was given as a path: the kernel looks, where a hanging file system hangs only
/// the child.
pub(super) fn locate(command: &CommandSpec) -> Result<PathBuf, SpawnError> {
    let program = command.program.as_os_str();
    if program.is_empty() {
        return Err(SpawnError::Empty);
    }
    if program.as_bytes().contains(&0) {
        return Err(SpawnError::Nul {
            what: "the program",
        });
    }
    if program.as_bytes().contains(&b'/') {
        return absolute(command, Path::new(program));
    }
    let search = search_path(command);
    let mut refused = None;
    for directory in search.as_bytes().split(|byte| *byte == b':') {
        let candidate = absolute(
            command,
            &Path::new(OsStr::from_bytes(directory)).join(program),
        )?;
        let Ok(found) = candidate.metadata() else {
            continue;
        };
        match executable(&candidate, &found) {
            Ok(()) => return Ok(candidate),
            Err(reason) => {
                refused.get_or_insert(SpawnError::NotExecutable {
                    path: candidate,
                    reason,
                });
            }
        }
    }
    Err(refused.unwrap_or_else(|| not_found(command)))
}

/// Turns what the kernel said when it refused to execute the file into the reason.
pub(super) fn explain(command: &CommandSpec, path: &Path, source: io::Error) -> SpawnError {
    let format = || SpawnError::NotExecutable {
        path: path.to_owned(),
        reason: NotExecutable::Format,
    };
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ELOOP) => {
            match check(command, path) {
                Err(error) => error,
                // A binary whose loader is missing.
                Ok(()) if source.raw_os_error() == Some(libc::ENOENT) => format(),
                Ok(()) => SpawnError::NotExecutable {
                    path: path.to_owned(),
                    reason: NotExecutable::Permission,
                },
            }
        }
        Some(libc::ENOEXEC | libc::ELIBBAD) => format(),
        _ => SpawnError::System {
            step: "execute the program",
            source,
        },
    }
}

fn not_found(command: &CommandSpec) -> SpawnError {
    SpawnError::NotFound {
        program: command.program.to_string_lossy().into_owned(),
    }
}

fn check(command: &CommandSpec, path: &Path) -> Result<(), SpawnError> {
    let found = match path.metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(SpawnError::NotExecutable {
                path: path.to_owned(),
                reason: NotExecutable::Permission,
            });
        }
        Err(_) => return Err(missing(command)),
    };
    executable(path, &found).map_err(|reason| SpawnError::NotExecutable {
        path: path.to_owned(),
        reason,
    })?;
    check_interpreter(command, path)
}

/// A path within a working directory that cannot be entered is the directory's fault.
fn missing(command: &CommandSpec) -> SpawnError {
    match command.cwd.as_ref().map(|cwd| (cwd, cwd.metadata())) {
        Some((cwd, Err(source))) => SpawnError::Cwd {
            path: cwd.clone(),
            source,
        },
        _ => not_found(command),
    }
}

fn executable(path: &Path, found: &Metadata) -> Result<(), NotExecutable> {
    if found.is_dir() {
        return Err(NotExecutable::Directory);
    }
    if !found.is_file() {
        return Err(NotExecutable::NotRegular);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|_| NotExecutable::Permission)
}

fn check_interpreter(command: &CommandSpec, path: &Path) -> Result<(), SpawnError> {
    // One that may be executed and not read is left to the kernel.
    let Ok(head) = read_head(path) else {
        return Ok(());
    };
    if head.is_empty() {
        return Err(SpawnError::NotExecutable {
            path: path.to_owned(),
            reason: NotExecutable::Format,
        });
    }
    let Some(interpreter) = interpreter(&head) else {
        return Ok(());
    };
    let file = absolute(command, Path::new(OsStr::from_bytes(interpreter)))?;
    let usable = file
        .metadata()
        .is_ok_and(|found| executable(&file, &found).is_ok());
    if usable {
        return Ok(());
    }
    Err(SpawnError::NoInterpreter {
        path: path.to_owned(),
        interpreter: String::from_utf8_lossy(interpreter).replace('\r', "\\r"),
    })
}

fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Replaced by a pipe or a device since it was looked at: reading could wait for ever.
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() || kind.is_char_device() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The interpreter by the kernel's rules: after `#!` and blanks, up to a blank or the end of the line.
fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    line.split(|byte| matches!(byte, b' ' | b'\t' | 0))
        .find(|word| !word.is_empty())
}

fn search_path(command: &CommandSpec) -> OsString {
    let set = command.env.iter().rev().find(|(name, _)| name == "PATH");
    match (set, command.base_env) {
        (Some((_, value)), _) => value.clone(),
        (None, BaseEnv::Inherited | BaseEnv::Minimal) => {
            std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into())
        }
        (None, BaseEnv::Empty) => DEFAULT_PATH.into(),
    }
}

/// The path as seen from the child's working directory, from the root on.
fn absolute(command: &CommandSpec, path: &Path) -> Result<PathBuf, SpawnError> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let here = std::env::current_dir().map_err(|source| SpawnError::System {
        step: "find the working directory",
        source,
    })?;
    Ok(match &command.cwd {
        Some(cwd) => here.join(cwd).join(path),
        None => here.join(path),
    })
}

fn check_nul(command: &CommandSpec) -> Result<(), SpawnError> {
    let has = |text: &OsStr| text.as_bytes().contains(&0);
    let what = if has(&command.program) {
        "the program"
    } else if command.args.iter().any(|arg| has(arg)) {
        "an argument"
    } else if command
        .env
        .iter()
        .any(|(name, value)| has(name) || has(value))
    {
        "the environment"
    } else if command.cwd.as_ref().is_some_and(|cwd| has(cwd.as_os_str())) {
        "the working directory"
    } else {
        return Ok(());
    };
    Err(SpawnError::Nul { what })
}

/// A path for the kernel.
pub(super) fn terminated(
    path: PathBuf,
    what: &'static str,
) -> Result<std::ffi::CString, SpawnError> {
    std::ffi::CString::new(path.into_os_string().into_vec()).map_err(|_| SpawnError::Nul { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_what_the_kernel_takes_for_it() {
        for (head, expected) in [
            (&b"#!/bin/sh\n"[..], Some(&b"/bin/sh"[..])),
            (b"#! /usr/bin/env python3\nx", Some(b"/usr/bin/env")),
            (b"#!/bin/sh\r\n", Some(b"/bin/sh\r")),
            (b"#!\n/bin/sh", None),
            (b"\x7fELF", None),
            (b"echo hi", None),
        ] {
            assert_eq!(interpreter(head), expected);
        }
    }
}
