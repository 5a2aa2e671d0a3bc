//! Threads of this module's own: plain, named, deaf to signals.

use std::io;
use std::thread;

use crate::os::{kernel, linger};

/// Enough for what they do and for the observers that they call; untouched pages cost nothing.
const STACK_BYTES: usize = 512 * 1024;

/// Starts a thread with every signal blocked, so that handlers of the host run elsewhere and children begin undisturbed.
pub(super) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    kernel::with_signals_blocked(|| {
        thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(|| {
                linger::leave_the_seat_of_the_maker();
                run();
            })
    })
    .map(drop)
}
