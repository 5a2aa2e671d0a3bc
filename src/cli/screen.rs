//! What the foreground supervisor shows: the children's lines on stdout, our own on stderr, by a thread of their own.
//!
//! Nobody who hands something to the screen ever waits for it: a terminal that is stalled loses lines, and says how many
//! once it moves again; a stream that is closed is no longer written to, and the tree goes on.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kimi_actors::os::clock::Clock;
use kimi_actors::os::{Line, LineSink, Stream};
use kimi_actors::policy::event::TreeEvent;
use kimi_actors::policy::spec::{ChildName, Containment, RunId};

use crate::cli::out::Color;
use crate::cli::progress::{Progress, Shown};
use crate::critical_path::StartUp;

/// How much may wait to be shown; beyond that lines are dropped.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// How often a live display is drawn while something moves.
const FRAME: Duration = Duration::from_millis(100);
/// How often those that are waited for are named.
const REMINDER: Duration = Duration::from_secs(1);
/// How long the end waits for a stalled terminal.
const LAST_WAIT: Duration = Duration::from_millis(250);

/// In which form things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// On a terminal: a line for each child that is on its way, redrawn; the rest scrolls above.
    Live {
        /// Whether to use colours.
        color: Color,
    },
    /// One line for each change.
    Plain {
        /// Whether to use colours.
        color: Color,
    },
    /// One JSON object for each event and each line.
    Ndjson,
}

/// Hands things to the thread that shows them. Cloning is cheap.
#[derive(Clone)]
pub struct Screen {
    shared: Arc<Shared>,
    done: Arc<Mutex<Receiver<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    clock: Clock,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    dropped: u64,
    is_over: bool,
}

enum Item {
    Line(OwnedLine),
    Event(TreeEvent),
    Contained(Containment),
    Note(String),
}

/// A line of a child, on its way to the screen.
pub(super) struct OwnedLine {
    pub(super) child: ChildName,
    pub(super) run: RunId,
    pub(super) stream: Stream,
    pub(super) bytes: Vec<u8>,
    pub(super) complete: bool,
}

/// Takes the children's lines; never blocks.
pub struct Sink(Arc<Shared>);

impl LineSink for Sink {
    fn line(&self, line: Line<'_>) {
        self.0.push(Item::Line(OwnedLine {
            child: line.child.clone(),
            run: line.run,
            stream: line.stream,
            bytes: line.bytes.to_vec(),
            complete: line.complete,
        }));
    }
}

impl Screen {
    /// Starts the thread.
    pub fn start(style: Style, names: Vec<ChildName>, start_up: StartUp) -> io::Result<Self> {
        let clock = Clock::start();
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            clock,
        });
        let of_thread = Arc::clone(&shared);
        let (sender, done) = sync_channel(1);
        thread::Builder::new()
            .name("kimi-screen".into())
            .spawn(move || {
                kimi_actors::os::signals::block_all();
                Painter::new(Arc::clone(&of_thread), style, &names, start_up).run();
                let _nobody_waits = sender.send(());
            })?;
        Ok(Self {
            shared,
            done: Arc::new(Mutex::new(done)),
        })
    }

    /// Where the children's lines go.
    pub fn sink(&self) -> Sink {
        Sink(Arc::clone(&self.shared))
    }

    /// Shows an event.
    pub fn event(&self, event: TreeEvent) {
        self.shared.push(Item::Event(event));
    }

    /// Says what holds the processes of a run together, where programs read.
    pub fn contained(&self, containment: Containment) {
        self.shared.push(Item::Contained(containment));
    }

    /// Shows a sentence of ours.
    pub fn note(&self, text: &str) {
        self.shared.push(Item::Note(text.to_owned()));
    }

    /// Shows what waits, and ends the thread; a stalled terminal is given up.
    pub fn finish(&self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        // Either it is done, or it is stalled: the process ends all the same.
        let _stalled = done.recv_timeout(LAST_WAIT);
    }
}

/// A record of our log, a line each.
impl Write for Screen {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.note(String::from_utf8_lossy(record).trim_end());
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: Item) {
        let mut queue = self.lock();
        // Events are few and small, and the children's state hangs on them; they count but are not dropped.
        if let Item::Line(line) = &item
            && queue.bytes + line.bytes.len() > QUEUE_BYTES
        {
            queue.dropped += 1;
            return;
        }
        queue.bytes += item.size();
        queue.items.push_back(item);
        drop(queue);
        self.changed.notify_one();
    }
}

impl Item {
    fn size(&self) -> usize {
        const OVERHEAD: usize = 96;
        OVERHEAD
            + match self {
                Self::Line(line) => line.bytes.len(),
                Self::Note(text) => text.len(),
                Self::Event(_) | Self::Contained(_) => 0,
            }
    }
}

/// The thread's own.
struct Painter {
    shared: Arc<Shared>,
    style: Style,
    progress: Progress,
    start_up: StartUp,
    stdout: Outlet<io::Stdout>,
    stderr: Outlet<io::Stderr>,
    /// How many lines of the live display stand at the bottom of the terminal.
    drawn: usize,
}

impl Painter {
    fn new(shared: Arc<Shared>, style: Style, names: &[ChildName], start_up: StartUp) -> Self {
        let color = match style {
            Style::Live { color } | Style::Plain { color } => color,
            Style::Ndjson => Color::Off,
        };
        Self {
            shared,
            style,
            progress: Progress::new(names, color),
            start_up,
            stdout: Outlet::new(io::stdout()),
            stderr: Outlet::new(io::stderr()),
            drawn: 0,
        }
    }

    fn run(&mut self) {
        loop {
            let (items, dropped, is_over) = self.wait();
            self.erase();
            for item in items {
                self.show(item);
            }
            if dropped > 0 {
                self.say(&format!(
                    "[{dropped} lines not shown: the terminal was too slow]"
                ));
            }
            let now = self.shared.clock.now();
            for line in self.progress.reminders(now, REMINDER) {
                if !matches!(self.style, Style::Ndjson) {
                    self.say(&line);
                }
            }
            if !is_over {
                self.draw();
            }
            self.stdout.flush();
            self.stderr.flush();
            if is_over {
                return;
            }
        }
    }

    /// Waits for something to show, or for the time to redraw what moves; for ever if nothing moves.
    fn wait(&self) -> (VecDeque<Item>, u64, bool) {
        let patience = match self.style {
            Style::Live { .. } if self.progress.is_moving() => Some(FRAME),
            Style::Live { .. } | Style::Plain { .. } if self.progress.is_stopping() => {
                Some(REMINDER)
            }
            Style::Live { .. } | Style::Plain { .. } | Style::Ndjson => None,
        };
        let mut queue = self.shared.lock();
        let is_idle =
            |queue: &mut Queue| queue.items.is_empty() && queue.dropped == 0 && !queue.is_over;
        queue = match patience {
            Some(patience) => {
                let waited = self
                    .shared
                    .changed
                    .wait_timeout_while(queue, patience, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self
                .shared
                .changed
                .wait_while(queue, is_idle)
                .unwrap_or_else(PoisonError::into_inner),
        };
        queue.bytes = 0;
        (
            std::mem::take(&mut queue.items),
            std::mem::take(&mut queue.dropped),
            queue.is_over,
        )
    }

    fn show(&mut self, item: Item) {
        let now = self.shared.clock.now();
        match (item, self.style) {
            (Item::Line(line), Style::Ndjson) => self.pass(&Progress::line_json(&line)),
            (Item::Line(line), style) => {
                let is_terminal = matches!(style, Style::Live { .. });
                let line = self.progress.line(&line, is_terminal);
                self.pass(&line);
            }
            (Item::Event(event), Style::Ndjson) => {
                let json = Progress::event_json(&event);
                // The state is kept all the same: who is waited for is asked for it.
                drop(self.progress.event(&event, now));
                self.pass(&json);
                if let Some(summary) = self.start_up.observe(&event) {
                    let json = self.progress.summary_json(&summary, event.at);
                    self.pass(&json);
                }
            }
            (Item::Event(event), style) => {
                for shown in self.progress.event(&event, now) {
                    match (shown, style) {
                        (Shown::Settled(line), _) | (Shown::Step(line), Style::Plain { .. }) => {
                            self.say(&line);
                        }
                        (Shown::Step(_), Style::Live { .. } | Style::Ndjson) => {}
                    }
                }
                if let Some(summary) = self.start_up.observe(&event) {
                    for line in self.progress.summary(&summary) {
                        self.say(&line);
                    }
                }
            }
            (Item::Contained(containment), Style::Ndjson) => {
                self.pass(&Progress::containment_json(containment));
            }
            // People are told when something got away.
            (Item::Contained(_), Style::Live { .. } | Style::Plain { .. }) => {}
            (Item::Note(text), _) => self.say(&text),
        }
    }

    fn say(&mut self, line: &str) {
        // Both streams may be one terminal or one file: what was said before must be seen before.
        self.stdout.flush();
        self.stderr.write(format!("{line}\n").as_bytes());
    }

    fn pass(&mut self, line: &[u8]) {
        self.stderr.flush();
        self.stdout.write(line);
    }

    fn draw(&mut self) {
        if let Style::Live { .. } = self.style {
            let size = kimi_actors::os::terminal::size().unwrap_or((24, 80));
            let lines = self.progress.live(self.shared.clock.now(), size);
            self.drawn = lines.len();
            self.stdout.flush();
            for line in lines {
                self.stderr.write(format!("{line}\x1b[K\n").as_bytes());
            }
        }
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            self.stderr
                .write(format!("\x1b[{}F\x1b[J", self.drawn).as_bytes());
            self.stderr.flush();
            self.drawn = 0;
        }
    }
}

/// A stream that is given up once it is closed.
struct Outlet<W: Write> {
    stream: io::BufWriter<W>,
    is_open: bool,
}

impl<W: Write> Outlet<W> {
    fn new(stream: W) -> Self {
        Self {
            stream: io::BufWriter::with_capacity(16 * 1024, stream),
            is_open: true,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.is_open {
            self.is_open = self.stream.write_all(bytes).is_ok();
        }
    }

    fn flush(&mut self) {
        if self.is_open {
            self.is_open = self.stream.flush().is_ok();
        }
    }
}
