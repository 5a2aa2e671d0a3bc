//! What becomes of the bytes that a run writes: lines, or a head and a tail; and when to stop waiting for more.

use std::collections::VecDeque;
use std::time::Duration;

use crate::os::{Drained, Kept};
use crate::policy::time::Moment;

/// The longest line that a sink is given; a longer one comes in parts.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Allocates nothing until a line is incomplete at the end of a chunk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, chunk: &[u8], emit: &mut dyn FnMut(&[u8], bool)) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.feed_piece(text, complete, emit);
        }
    }

    fn feed_piece(&mut self, mut text: &[u8], complete: bool, emit: &mut dyn FnMut(&[u8], bool)) {
        while self.partial.len() + text.len() > MAX_LINE_BYTES {
            let (now, later) = text.split_at(MAX_LINE_BYTES - self.partial.len());
            self.partial.extend_from_slice(now);
            emit(&self.partial, false);
            self.partial.clear();
            text = later;
        }
        if !complete {
            self.partial.extend_from_slice(text);
        } else if self.partial.is_empty() {
            emit(text, true);
        } else {
            self.partial.extend_from_slice(text);
            emit(&self.partial, true);
            self.partial = Vec::new();
        }
    }

    /// The last line, if no newline ended it.
    pub fn finish(&mut self, emit: &mut dyn FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            emit(&self.partial, true);
            self.partial = Vec::new();
        }
    }
}

/// Keeps the head and the tail of a stream within a bound.
#[derive(Debug)]
pub struct HeadTail {
    head_cap: usize,
    tail_cap: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl HeadTail {
    /// Allocates nothing until something comes.
    pub fn new(cap_bytes: usize) -> Self {
        let head_cap = cap_bytes.div_ceil(2);
        Self {
            head_cap,
            tail_cap: cap_bytes - head_cap,
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.total += chunk.len() as u64;
        let (first, rest) = chunk.split_at(chunk.len().min(self.head_cap - self.head.len()));
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.tail_cap)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.tail_cap);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// What was kept.
    pub fn finish(self) -> Kept {
        let mut head = self.head;
        let mut tail: Vec<u8> = self.tail.into();
        if (head.len() + tail.len()) as u64 == self.total {
            head.append(&mut tail);
        }
        Kept {
            head,
            tail,
            bytes_total: self.total,
        }
    }
}

/// How long to go on reading after the leader is gone: 150 ms without a byte, 2 s in all.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    begin: Moment,
    last: Moment,
}

impl Drain {
    /// How long nothing may come.
    pub const IDLE: Duration = Duration::from_millis(150);
    /// How long it may take in all.
    pub const LIMIT: Duration = Duration::from_secs(2);

    /// The leader is gone.
    pub fn begin(now: Moment) -> Self {
        Self {
            begin: now,
            last: now,
        }
    }

    /// Something came.
    pub fn chunk(&mut self, now: Moment) {
        self.last = now;
    }

    /// When to ask again.
    pub fn deadline(&self) -> Moment {
        (self.last + Self::IDLE).min(self.begin + Self::LIMIT)
    }

    /// Whether to stop, and why.
    pub fn verdict(&self, now: Moment) -> Option<Drained> {
        if now >= self.begin + Self::LIMIT {
            Some(Drained::Deadline)
        } else if now >= self.last + Self::IDLE {
            Some(Drained::Idle)
        } else {
            None
        }
    }
}
