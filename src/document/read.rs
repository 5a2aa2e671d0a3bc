//! Reading a file that somebody else may have made.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::document::budget::{Cost, Resource};

/// No file of ours is larger.
pub const MOST_BYTES: u64 = Cost::BUDGET.of(Resource::Bytes) as u64;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read {path}")]
    Refused {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("cannot read {path}: it is not a regular file")]
    NotAFile {
        /// The file.
        path: String,
    },
    /// More than [`MOST_BYTES`].
    #[error("cannot read {path}: it is larger than {} KiB", MOST_BYTES / 1024)]
    TooLarge {
        /// The file.
        path: String,
    },
    /// Not UTF-8.
    #[error("cannot read {path}: line {line} is not UTF-8 text from column {column} on")]
    NotText {
        /// The file.
        path: String,
        /// The line with the first wrong byte.
        line: usize,
        /// How many characters of it are good, and one more.
        column: usize,
    },
}

/// The text of a regular file; a byte-order mark is left out.
///
/// Whether it is one is asked of the open descriptor, so that nobody can exchange it in between; it is opened without
/// blocking, so that a FIFO without a writer does not hold us up.
pub fn file(path: &Path) -> Result<String, ReadError> {
    let name = path.display().to_string();
    let refused = |source: io::Error| ReadError::Refused {
        path: name.clone(),
        source,
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| refused(error.into()))?
        .into();
    let metadata = file.metadata().map_err(refused)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile { path: name });
    }
    if metadata.len() > MOST_BYTES {
        return Err(ReadError::TooLarge { path: name });
    }
    text(file, &name)
}

/// The text of standard input.
pub fn stdin() -> Result<String, ReadError> {
    text(io::stdin().lock(), "standard input")
}

fn text(reader: impl Read, name: &str) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    reader
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Refused {
            path: name.to_owned(),
            source,
        })?;
    // A file can grow between the look at its size and the reading.
    if bytes.len() as u64 > MOST_BYTES {
        return Err(ReadError::TooLarge {
            path: name.to_owned(),
        });
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let good = String::from_utf8_lossy(good);
        ReadError::NotText {
            path: name.to_owned(),
            line: good.matches('\n').count() + 1,
            column: good.chars().rev().take_while(|c| *c != '\n').count() + 1,
        }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}
