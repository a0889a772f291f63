//! A deterministic mutator: the same seed gives the same inputs on every machine.

/// A small generator (PCG's multiplier).
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }

    /// A number below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() % limit.max(1) as u64).unwrap_or(0)
    }
}

/// What parsers stumble over.
const WORDS: [&[u8]; 20] = [
    b"0",
    b"-1",
    b"9223372036854775808",
    b"18446744073709551616",
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"=",
    b"[[",
    b"]]",
    b"../",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"99999999999",
    b"1e400",
    b"{",
    b"\xef\xbb\xbf",
    b"Content-Length: 1\r\n",
    b"'''",
];

/// Longest that a mutated input grows to, in bytes beyond what it was made of.
const GROWTH_BYTES: usize = 4096;

/// Changes bytes in one to four places; never returns what it was given.
pub fn mutate(rng: &mut Rng, original: &[u8], focus: usize) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=rng.below(4) {
        change(rng, &mut bytes, focus);
    }
    while bytes == original {
        change(rng, &mut bytes, focus);
    }
    bytes.truncate(original.len() + GROWTH_BYTES);
    bytes
}

/// One change; three in four of them in the first `focus` bytes.
fn change(rng: &mut Rng, bytes: &mut Vec<u8>, focus: usize) {
    let reach = if rng.below(4) > 0 { bytes.len().min(focus) } else { bytes.len() };
    let at = rng.below(reach);
    let end = (at + 1 + rng.below(64)).min(bytes.len());
    match (rng.below(9), bytes.get(at).copied()) {
        (0 | 1, Some(byte)) => bytes[at] = byte ^ (1 << rng.below(8)),
        (2, Some(_)) => bytes[at] = rng.number().to_le_bytes()[0],
        (3, Some(byte)) => bytes[at] = byte.wrapping_add(if rng.below(2) == 0 { 1 } else { 255 }),
        (4, Some(_)) => drop(bytes.drain(at..end)),
        (5, Some(_)) => {
            let again = bytes[at..end].to_vec();
            let to = rng.below(bytes.len());
            bytes.splice(to..to, again);
        }
        (6, Some(_)) => bytes.truncate(at),
        (7, Some(_)) => bytes[at..end].fill(rng.number().to_le_bytes()[0]),
        _ => {
            let word = WORDS[rng.below(WORDS.len())];
            let replaced = if rng.below(2) == 0 { 0 } else { word.len().min(bytes.len() - at) };
            bytes.splice(at..at + replaced, word.iter().copied());
        }
    }
}
