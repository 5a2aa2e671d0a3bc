//! What becomes of the bytes that children write: lines, a bounded head and tail, and the rule when to stop reading.
//!
//! Pure buffers, fed by the threads that read the pipes; nothing in here reads, waits or locks. Bytes stay as they are,
//! whether or not they are text; only where something must be cut anyway, the cut spares UTF-8 sequences.

use std::io::BufRead;
use std::time::Duration;

use crate::os::{Drained, Kept};
use crate::policy::time::Moment;

/// The bound of a line in bytes; a longer one comes in parts.
pub const LINE_MAX: usize = 8 * 1024;
/// How long nothing must come, once the leader is gone, before reading ends.
pub const DRAIN_IDLE: Duration = Duration::from_millis(150);
/// How long after the leader's end reading ends although something still comes.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The longest UTF-8 sequence has four bytes, so one that a cut splits has at most three on either side.
const CONTEXT: usize = 3;

/// Splits a stream into lines.
///
/// What it holds between two chunks is at most one part of a line; nothing pending, nothing allocated.
#[derive(Debug, Default)]
pub struct LineSplitter {
    /// The beginning of a line whose end has not come; at most [`LINE_MAX`] bytes.
    pending: Vec<u8>,
}

impl LineSplitter {
    /// At the beginning of a line.
    pub const fn new() -> Self {
        Self {
            pending: Vec::new(),
        }
    }

    /// Takes what was read and emits the lines that it completes, without their newline.
    ///
    /// The flag tells whether the line ends there. The parts of a long line do not depend on how it is cut into chunks.
    pub fn feed(&mut self, chunk: &[u8], emit: &mut dyn FnMut(&[u8], bool)) {
        let mut rest = chunk;
        while let Some(end) = newline(rest) {
            let last = self.emit_parts(&rest[..end], emit);
            if self.pending.is_empty() {
                emit(last, true);
            } else {
                emit(&self.pending, true);
                self.pending = Vec::new();
            }
            rest = &rest[end + 1..];
        }
        let last = self.emit_parts(rest, emit);
        self.pending.extend_from_slice(last);
    }

    /// The beginning of a line whose end has not come.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Emits the last line, which no newline ended.
    pub fn finish(&mut self, emit: &mut dyn FnMut(&[u8], bool)) {
        if !self.pending.is_empty() {
            emit(&self.pending, true);
            self.pending = Vec::new();
        }
    }

    /// Adds `bytes` to the line and emits each part that is full while more follows.
    ///
    /// Returns what is left to add, at most one part; it is empty unless nothing is pending.
    fn emit_parts<'a>(&mut self, bytes: &'a [u8], emit: &mut dyn FnMut(&[u8], bool)) -> &'a [u8] {
        let mut rest = bytes;
        while !self.pending.is_empty() && !rest.is_empty() {
            if self.pending.len() == LINE_MAX {
                let cut = part_len(&self.pending, rest[0]);
                emit(&self.pending[..cut], false);
                self.pending.drain(..cut);
            } else {
                let room = LINE_MAX - self.pending.len();
                let (fits, more) = rest.split_at(room.min(rest.len()));
                self.pending.extend_from_slice(fits);
                rest = more;
            }
        }
        while rest.len() > LINE_MAX {
            let cut = part_len(&rest[..LINE_MAX], rest[LINE_MAX]);
            emit(&rest[..cut], false);
            rest = &rest[cut..];
        }
        rest
    }
}

/// Where the first newline is. `skip_until` leads to the C library's `memchr`, which an iterator over bytes does not.
fn newline(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let skipped = rest
        .skip_until(b'\n')
        .expect("reading from a slice cannot fail");
    let last = skipped.checked_sub(1)?;
    (bytes[last] == b'\n').then_some(last)
}

/// How much of a full part to emit, when `next` follows it.
fn part_len(part: &[u8], next: u8) -> usize {
    part.len() - split_sequence(part, &[next]).map_or(0, |split| split.before)
}

/// A UTF-8 sequence with bytes on both sides of a cut.
struct SplitSequence {
    before: usize,
    after: usize,
}

/// The UTF-8 sequence that a cut between `before` and `after` splits; of its end no more need be known than `after` has.
fn split_sequence(before: &[u8], after: &[u8]) -> Option<SplitSequence> {
    (1..=CONTEXT.min(before.len())).find_map(|back| {
        let start = &before[before.len() - back..];
        let missing = sequence_len(start[0])?.checked_sub(back)?;
        let end = &after[..missing.min(after.len())];
        if end.is_empty() {
            return None;
        }
        let mut sequence = [0; 2 * CONTEXT];
        sequence[..back].copy_from_slice(start);
        sequence[back..back + end.len()].copy_from_slice(end);
        let valid = match std::str::from_utf8(&sequence[..back + end.len()]) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none(),
        };
        valid.then_some(SplitSequence {
            before: back,
            after: end.len(),
        })
    })
}

/// How long the sequence is that begins with this byte; none if it begins no sequence of several bytes.
fn sequence_len(lead: u8) -> Option<usize> {
    match lead {
        0xC2..=0xDF => Some(2),
        0xE0..=0xEF => Some(3),
        0xF0..=0xF4 => Some(4),
        _ => None,
    }
}

/// Keeps the first and the last bytes of a stream and counts all of them.
///
/// Its memory grows with the content, up to the bound and six bytes; the work for a byte does not depend on what came before.
#[derive(Debug)]
pub struct HeadTail {
    head_cap: usize,
    tail_cap: usize,
    head: Vec<u8>,
    /// The first bytes after the head: they tell whether the head ends inside a sequence.
    after_head: Vec<u8>,
    /// The last bytes, and [`CONTEXT`] before them, which tell whether the tail begins inside a sequence.
    ring: Vec<u8>,
    /// Where the oldest byte of a full ring is.
    oldest: usize,
    bytes_total: u64,
}

impl HeadTail {
    /// Keeps at most `cap_bytes`: half of it from the beginning, half from the end.
    pub const fn new(cap_bytes: usize) -> Self {
        let head_cap = cap_bytes / 2;
        Self {
            head_cap,
            tail_cap: cap_bytes - head_cap,
            head: Vec::new(),
            after_head: Vec::new(),
            ring: Vec::new(),
            oldest: 0,
            bytes_total: 0,
        }
    }

    /// How many bytes were fed.
    pub const fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Whether more was fed than is kept.
    pub const fn is_over(&self) -> bool {
        self.bytes_total > (self.head_cap + self.tail_cap) as u64
    }

    /// Takes what was read.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.bytes_total += chunk.len() as u64;
        let (first, rest) = chunk.split_at(chunk.len().min(self.head_cap - self.head.len()));
        grow(&mut self.head, first, self.head_cap);
        let missing = CONTEXT - self.after_head.len();
        self.after_head
            .extend_from_slice(&rest[..rest.len().min(missing)]);
        self.feed_ring(rest);
    }

    fn feed_ring(&mut self, bytes: &[u8]) {
        let cap = self.ring_cap();
        // What the same chunk would overwrite again need not be written.
        let bytes = &bytes[bytes.len().saturating_sub(cap)..];
        let (fits, mut rest) = bytes.split_at(bytes.len().min(cap - self.ring.len()));
        grow(&mut self.ring, fits, cap);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(cap - self.oldest));
            self.ring[self.oldest..self.oldest + now.len()].copy_from_slice(now);
            self.oldest = (self.oldest + now.len()) % cap;
            rest = later;
        }
    }

    const fn ring_cap(&self) -> usize {
        self.tail_cap.saturating_add(CONTEXT)
    }

    /// What was kept. Up to the bound that is everything, and then all of it is the head.
    pub fn finish(mut self) -> Kept {
        self.ring.rotate_left(self.oldest);
        let context = self.ring.len().saturating_sub(self.tail_cap);
        if context == 0 {
            self.head.append(&mut self.ring);
        } else {
            let split = split_sequence(&self.head, &self.after_head);
            self.head
                .truncate(self.head.len() - split.map_or(0, |split| split.before));
            let (before, tail) = self.ring.split_at(context);
            let split = split_sequence(before, tail);
            self.ring
                .drain(..context + split.map_or(0, |split| split.after));
        }
        Kept {
            head: self.head,
            tail: self.ring,
            bytes_total: self.bytes_total,
        }
    }
}

/// Appends, and allocates by doubling as `Vec` does, but never more than `cap` bytes.
fn grow(buffer: &mut Vec<u8>, bytes: &[u8], cap: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let doubled = (buffer.capacity() * 2).clamp(needed, cap.max(needed));
        buffer.reserve_exact(doubled - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

/// When reading a run's output ends, once its leader is gone and unless every writer closes it before.
///
/// Each chunk gives [`DRAIN_IDLE`] more; there is no more after [`DRAIN_LIMIT`]. Read what is there before you ask for the
/// verdict: a thread that was held up must not take its own delay for silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    idle: Moment,
    limit: Moment,
}

impl Drain {
    /// The leader is gone.
    pub fn begin(now: Moment) -> Self {
        Self {
            idle: now + DRAIN_IDLE,
            limit: now + DRAIN_LIMIT,
        }
    }

    /// Something came.
    pub fn chunk(&mut self, now: Moment) {
        self.idle = now + DRAIN_IDLE;
    }

    /// When to ask for the verdict again.
    pub fn deadline(&self) -> Moment {
        self.idle.min(self.limit)
    }

    /// Whether reading ends, and why.
    pub fn verdict(&self, now: Moment) -> Option<Drained> {
        if now < self.deadline() {
            None
        } else if self.idle < self.limit {
            Some(Drained::Idle)
        } else {
            Some(Drained::Deadline)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Slices<'a> = &'a [&'a [u8]];
    type Emitted = Vec<(Vec<u8>, bool)>;

    fn lines(chunks: &[&[u8]]) -> Emitted {
        let mut emitted = Vec::new();
        let mut emit = |bytes: &[u8], complete| emitted.push((bytes.to_vec(), complete));
        let mut splitter = LineSplitter::new();
        for chunk in chunks {
            splitter.feed(chunk, &mut emit);
            assert!(splitter.pending.len() <= LINE_MAX);
        }
        splitter.finish(&mut emit);
        splitter.finish(&mut emit);
        emitted
    }

    fn kept(cap_bytes: usize, chunks: &[&[u8]]) -> Kept {
        let mut buffer = HeadTail::new(cap_bytes);
        for chunk in chunks {
            buffer.feed(chunk);
        }
        buffer.finish()
    }

    /// Cuts `bytes` after every length of `lens`, over and over.
    fn chunked<'a>(bytes: &'a [u8], lens: &[usize]) -> Vec<&'a [u8]> {
        let mut rest = bytes;
        let mut chunks = Vec::new();
        for len in lens.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, more) = rest.split_at(rest.len().min((*len).max(1)));
            chunks.push(chunk);
            rest = more;
        }
        chunks
    }

    #[test]
    fn lines_come_without_their_newline_and_otherwise_as_they_are() {
        let table: [(Slices<'_>, Slices<'_>); 8] = [
            (&[], &[]),
            (&[b""], &[]),
            (&[b"\n"], &[b""]),
            (&[b"a\nb\n"], &[b"a", b"b"]),
            (&[b"a\r\n\n"], &[b"a\r", b""]),
            (&[b"a", b"b\nc"], &[b"ab", b"c"]),
            (&[b"a", b"\n", b"\n"], &[b"a", b""]),
            (&[b"\xFF\0\n\xFE"], &[b"\xFF\0", b"\xFE"]),
        ];
        for (chunks, expected) in table {
            let expected: Emitted = expected.iter().map(|line| (line.to_vec(), true)).collect();
            assert_eq!(lines(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_line_of_the_bound_is_whole_and_a_longer_one_comes_in_parts() {
        let long = vec![b'x'; 2 * LINE_MAX + 1];
        let table: [(usize, &[usize]); 4] = [
            (LINE_MAX, &[LINE_MAX]),
            (LINE_MAX + 1, &[LINE_MAX, 1]),
            (2 * LINE_MAX, &[LINE_MAX, LINE_MAX]),
            (2 * LINE_MAX + 1, &[LINE_MAX, LINE_MAX, 1]),
        ];
        for (len, parts) in table {
            for end in ["", "\n"] {
                let bytes = [&long[..len], end.as_bytes()].concat();
                let emitted = lines(&[&bytes]);
                let lens: Vec<_> = emitted.iter().map(|(part, _)| part.len()).collect();
                assert_eq!(lens, parts);
                let complete: Vec<_> = emitted.iter().filter(|(_, complete)| *complete).collect();
                assert_eq!(complete.len(), 1);
                assert!(emitted.last().is_some_and(|(_, complete)| *complete));
            }
        }
    }

    #[test]
    fn a_part_does_not_end_inside_a_sequence() {
        for character in ["ä", "€", "😀"] {
            for shift in 0..character.len() {
                let text = "x".repeat(shift) + &character.repeat(LINE_MAX);
                for chunk in [1, 7, LINE_MAX, text.len()] {
                    for (part, complete) in lines(&chunked(text.as_bytes(), &[chunk])) {
                        assert!(std::str::from_utf8(&part).is_ok());
                        assert!(complete || part.len() > LINE_MAX - character.len());
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_at_the_bound() {
        for byte in [0x80, 0xBF, 0xFF, 0xE2] {
            let emitted = lines(&[&vec![byte; LINE_MAX + 1]]);
            assert_eq!(emitted[0].0.len(), LINE_MAX, "{byte:x}");
        }
    }

    #[test]
    fn nothing_pending_costs_nothing() {
        let mut splitter = LineSplitter::new();
        for chunk in [b"some".as_slice(), b" line\nand", b" another\n"] {
            splitter.feed(chunk, &mut |_, _| ());
        }
        assert_eq!(splitter.pending.capacity(), 0);
        splitter.feed(b"the last", &mut |_, _| ());
        splitter.finish(&mut |_, _| ());
        assert_eq!(splitter.pending.capacity(), 0);
    }

    #[test]
    fn up_to_the_bound_everything_is_the_head() {
        for cap in 0..12 {
            let bytes = &b"0123456789ab"[..cap];
            assert_eq!(
                kept(cap, &chunked(bytes, &[1, 3])),
                Kept {
                    head: bytes.to_vec(),
                    tail: Vec::new(),
                    bytes_total: bytes.len() as u64
                }
            );
        }
    }

    #[test]
    fn beyond_the_bound_the_first_and_the_last_bytes_stay() {
        for chunk in 1..11 {
            let kept = kept(4, &chunked(b"0123456789", &[chunk]));
            assert_eq!(kept.head, b"01");
            assert_eq!(kept.tail, b"89");
            assert_eq!(kept.bytes_total, 10);
            assert!(kept.truncated());
            assert_eq!(kept.bytes_kept(), 4);
            assert_eq!(kept.to_bytes_marked(), b"01\n[... 6 bytes dropped ...]\n89");
        }
    }

    #[test]
    fn what_was_not_cut_is_not_marked() {
        let kept = kept(4, &[b"0123"]);
        assert!(!kept.truncated());
        assert_eq!(kept.to_bytes_marked(), b"0123");
    }

    #[test]
    fn a_bound_of_nothing_only_counts() {
        let kept = kept(0, &[b"abc"]);
        assert_eq!((kept.bytes_kept(), kept.bytes_total), (0, 3));
    }

    #[test]
    fn memory_stays_below_the_bound() {
        let mut buffer = HeadTail::new(100_000);
        assert_eq!(buffer.head.capacity() + buffer.ring.capacity(), 0);
        let chunk = [b'y'; 700];
        for _ in 0..1_000 {
            buffer.feed(&chunk);
            let held = buffer.head.capacity() + buffer.ring.capacity();
            assert!(held <= 100_000 + CONTEXT);
        }
        assert_eq!(buffer.bytes_total(), 700_000);
    }

    #[test]
    fn the_cut_spares_sequences() {
        for character in ["ä", "€", "😀"] {
            let text = character.repeat(50);
            for cap in 1..text.len() {
                let kept = kept(cap, &chunked(text.as_bytes(), &[5, 1]));
                assert!(std::str::from_utf8(&kept.head).is_ok(), "{cap}");
                assert!(std::str::from_utf8(&kept.tail).is_ok(), "{cap}");
                let trimmed = cap - usize::try_from(kept.bytes_kept()).unwrap();
                assert!(trimmed <= 2 * (character.len() - 1), "{cap}");
                assert_eq!(kept.bytes_total, text.len() as u64);
            }
        }
    }

    #[test]
    fn the_cut_leaves_what_is_no_text_alone() {
        for byte in [0x80, 0xBF, 0xFF, 0xE2, 0xF0] {
            assert_eq!(kept(10, &[&[byte; 40]]).bytes_kept(), 10, "{byte:x}");
        }
    }

    fn at(millis: u64) -> Moment {
        Moment::after_begin(Duration::from_millis(millis))
    }

    #[test]
    fn silence_ends_the_drain_after_150_ms() {
        let drain = Drain::begin(at(1_000));
        assert_eq!(drain.deadline(), at(1_150));
        assert_eq!(drain.verdict(at(1_149)), None);
        assert_eq!(drain.verdict(at(1_150)), Some(Drained::Idle));
        assert_eq!(drain.verdict(at(9_000)), Some(Drained::Idle));
    }

    #[test]
    fn each_chunk_gives_150_ms_more_but_two_seconds_are_the_end() {
        let mut drain = Drain::begin(at(0));
        for now in (100..=1_900).step_by(100) {
            drain.chunk(at(now));
            assert_eq!(drain.verdict(at(now + 99)), None);
        }
        assert_eq!(drain.deadline(), at(2_000));
        assert_eq!(drain.verdict(at(2_000)), Some(Drained::Deadline));
        let mut drain = Drain::begin(at(0));
        drain.chunk(at(1_849));
        assert_eq!(drain.verdict(at(1_999)), Some(Drained::Idle));
    }

    /// Bytes with many newlines, and texts with many long sequences.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[äß€😀x]{0,30}".prop_map(String::into_bytes),
            Just(b"\n".to_vec()),
            (1_usize..3 * LINE_MAX).prop_map(|len| vec![b'x'; len]),
            (1_usize..LINE_MAX).prop_map(|len| "€".repeat(len).into_bytes()),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference_to_lines(
            bytes in stream(),
            lens in prop::collection::vec(1_usize..10_000, 1..8),
        ) {
            let whole = lines(&[&bytes]);
            prop_assert_eq!(&whole, &lines(&chunked(&bytes, &lens)));
            let mut again = Vec::new();
            for (part, complete) in &whole {
                prop_assert!(part.len() <= LINE_MAX);
                again.extend_from_slice(part);
                if *complete {
                    again.push(b'\n');
                }
            }
            if !bytes.is_empty() && bytes.last() != Some(&b'\n') {
                again.pop();
            }
            prop_assert_eq!(again, bytes);
        }

        #[test]
        fn chunks_make_no_difference_to_head_and_tail(
            bytes in stream(),
            lens in prop::collection::vec(1_usize..10_000, 1..8),
            cap in 0_usize..40_000,
        ) {
            let whole = kept(cap, &[&bytes]);
            prop_assert_eq!(&whole, &kept(cap, &chunked(&bytes, &lens)));
            prop_assert_eq!(whole.bytes_total, bytes.len() as u64);
            prop_assert!(bytes.starts_with(&whole.head));
            prop_assert!(bytes.ends_with(&whole.tail));
            prop_assert_eq!(whole.truncated(), bytes.len() > cap);
            if whole.truncated() {
                let spared = cap as u64 - whole.bytes_kept();
                prop_assert!(spared <= 2 * CONTEXT as u64);
            }
        }
    }
}
