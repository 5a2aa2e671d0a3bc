//! Changes inputs at random, from a seed.

/// `SplitMix64` (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

/// No input grows longer.
const LONGEST: usize = 4096;
/// What parsers look for, and where they go wrong.
const WORDS: [&[u8]; 64] = [
    b"version: 1\n",
    b"services:",
    b"services",
    b"supervisors",
    b"settings",
    b"defaults",
    b"command",
    b"shell",
    b"env",
    b"env_file",
    b"depends_on",
    b"restart",
    b"policy",
    b"stop",
    b"timeout",
    b"limits",
    b"memory",
    b"readiness",
    b"liveness",
    b"log",
    b"tcp",
    b"http",
    b"exec",
    b"interval",
    b"replicas",
    b"profiles",
    b"children",
    b"strategy",
    b"one_for_all",
    b"<<: *a",
    b"&a ",
    b"*a",
    b"!!str ",
    b"---\n",
    b"...\n",
    b"? ",
    b"- ",
    b"|\n",
    b">-\n",
    b"\"\"\"",
    b"'''",
    b"[[",
    b"]]",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\u0000",
    b"${A}",
    b"${A:-",
    b"${A:?",
    b"$$",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\t",
    b"\0",
    b"\xff",
    b"\xe2\x80\xa8",
    b"10s",
    b"512MiB",
    b"-1",
    b"9223372036854775808",
    b"1e999",
    b"READY=1\n",
];

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    /// Up to this many bytes from somewhere in it.
    fn range(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let end = (start + self.below(most + 1)).min(length);
        start..end
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Another input, made of one and sometimes of a second.
pub(crate) fn mutated(one: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = one.to_vec();
    for _ in 0..=random.below(6) {
        let length = bytes.len();
        match random.below(8) {
            0 if length > 0 => {
                let at = random.below(length);
                bytes[at] = random.byte();
            }
            1 if length > 0 => {
                let at = random.below(length);
                bytes[at] ^= 1 << random.below(8);
            }
            2 => drop(bytes.drain(random.range(length, 32))),
            3 => {
                let again = bytes[random.range(length, 64)].repeat(1 + random.below(4));
                insert(&mut bytes, &again, random);
            }
            4 => {
                let piece = &other[random.range(other.len(), 128)];
                insert(&mut bytes, piece, random);
            }
            5 => {
                let piece = vec![random.byte(); random.below(200)];
                insert(&mut bytes, &piece, random);
            }
            _ => insert(&mut bytes, WORDS[random.below(WORDS.len())], random),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn insert(bytes: &mut Vec<u8>, piece: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    drop(bytes.splice(at..at, piece.iter().copied()));
}
