//! Limits of our own process. Nothing here is called unless the program wants it.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open descriptors to the hard one, for a program that is going to hold three a child.
///
/// Returns the soft limit that was, which children should get back: programs that use `select(2)` rely on a small one.
pub fn raise_descriptors() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )?;
    }
    Ok(current)
}
