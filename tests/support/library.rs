//! A runtime of the library at work in this process, steered from the test's own thread.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kimi_actors::policy::event::TreeEvent;
use kimi_actors::policy::tree::ShutdownMode;
use kimi_actors::{RuntimeBuilder, RuntimeHandle, ShutdownReport};

use super::fact::{eventually, settles};
use super::process::Footprint;

/// Tests that look at the whole process run alone.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails if this process does not come to hold what it held before.
pub fn assert_nothing_left(before: &Footprint) {
    // The threads of a runtime end after it has told its end.
    let what = format!("only {before:?} is left");
    settles(&what, Footprint::here, |now| now == before);
}

/// A running tree. Killed if it is dropped.
pub struct Library {
    handle: RuntimeHandle,
    thread: Option<JoinHandle<ShutdownReport>>,
    story: Arc<Mutex<Vec<TreeEvent>>>,
}

impl Library {
    /// Starts everything, on a thread of its own.
    pub fn start(builder: RuntimeBuilder) -> Self {
        let story: Arc<Mutex<Vec<TreeEvent>>> = Arc::default();
        let told = Arc::clone(&story);
        let builder = builder.watch(move |event| told.lock().unwrap().push(event.clone()));
        let (sender, started) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                let handle = builder.start().await.unwrap();
                sender.send(handle.clone()).unwrap();
                handle.wait().await
            })
        });
        Self {
            handle: started.recv().unwrap(),
            thread: Some(thread),
            story,
        }
    }

    /// What it is steered by.
    pub fn handle(&self) -> &RuntimeHandle {
        &self.handle
    }

    /// Every event from so many on.
    pub fn story_from(&self, skipped: usize) -> Vec<TreeEvent> {
        self.story.lock().unwrap()[skipped..].to_vec()
    }

    /// Waits for its end, and returns how it ended and every event.
    pub fn wait(mut self) -> (ShutdownReport, Vec<TreeEvent>) {
        let thread = self.thread.take().unwrap();
        eventually("the runtime ends", || thread.is_finished().then_some(()));
        (thread.join().unwrap(), self.story_from(0))
    }

    /// Asks it to shut down and waits for its end.
    pub fn shut_down(self) -> (ShutdownReport, Vec<TreeEvent>) {
        self.handle.ask_shutdown(ShutdownMode::Graceful);
        self.wait()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.ask_shutdown(ShutdownMode::Forced);
            drop(thread.join());
        }
    }
}
