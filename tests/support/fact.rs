//! Waiting for facts.

use std::fmt::Debug;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use kimi_actors::os::clock::Clock;

/// Long enough for any machine; a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(3);

/// Asks until the answer is there.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::start();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        let waited = clock.now().since_begin();
        assert!(waited < PATIENCE, "waited in vain until {what}");
        pause();
    }
}

/// Looks until what it sees is as wanted; says what it saw last if that was in vain.
pub fn settles<T: Debug>(what: &str, mut look: impl FnMut() -> T, is_wanted: impl Fn(&T) -> bool) {
    let clock = Clock::start();
    loop {
        let seen = look();
        if is_wanted(&seen) {
            return;
        }
        let waited = clock.now().since_begin();
        assert!(waited < PATIENCE, "waited in vain until {what}: {seen:?}");
        pause();
    }
}

/// Waits until so much time has passed. For rules that are about time, and for nothing else.
pub fn passes(span: Duration) {
    let clock = Clock::start();
    eventually("time passes", || {
        (clock.now().since_begin() >= span).then_some(())
    });
}

/// A short rest between two looks.
pub fn pause() {
    let parked = Mutex::new(());
    let guard = parked.lock().expect("nobody else knows it");
    drop(Condvar::new().wait_timeout(guard, PAUSE));
}
