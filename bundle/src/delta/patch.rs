//! Pieces as differences: the bsdiff idea within a prefix.
//!
//! A match that differs in a few bytes (an inode whose block moved, code whose addresses moved) costs zstd a sequence for
//! every difference. Stored as *differences* it is one long run that is zero nearly everywhere. The parent module
//! specifies the bytes.
//!
//! The algorithm follows C. Percival, "Naive Differences of Executable Code" (2003), with a table of 16-byte seeds in the
//! place of its suffix array.

use super::wire::{Wire, put_varint, to_zigzag};

/// Makes `length` bytes out of a plain patch; `prefix` fills a buffer with bytes of the prefix from a place on, and is false when there are not
/// so many.
pub(super) fn apply(
    patch: &[u8],
    prefix: &dyn Fn(usize, &mut [u8]) -> bool,
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut steps = Wire(patch);
    let count = steps.varint()?;
    // The differences start behind the steps: read those once for their sums, and again to do them.
    let (mut wire, mut added) = (Wire(steps.0), 0usize);
    for _ in 0..count {
        let (_, add, _) = step(&mut wire)?;
        added = added.saturating_add(add);
    }
    let (mut differences, mut extras) = wire.0.split_at_checked(added).ok_or("it ends early")?;
    out.clear();
    out.reserve_exact(length);
    let mut position = 0i64;
    for _ in 0..count {
        let (seek, add, extra) = step(&mut steps)?;
        position += seek;
        let start = usize::try_from(position).map_err(|_| "a step before the prefix")?;
        let (now, later) = differences.split_at_checked(add).ok_or("it ends early")?;
        let (kept, rest) = extras.split_at_checked(extra).ok_or("it ends early")?;
        // Before memory is used: a patch must not make more than was announced.
        if out.len() + add + extra > length {
            return Err(format!("it makes more than {length} bytes"));
        }
        let at = out.len();
        out.resize(at + add, 0);
        let made = out.get_mut(at..).unwrap_or_default();
        if !prefix(start, made) {
            return Err("a step behind the prefix".into());
        }
        made.iter_mut().zip(now).for_each(|(made, difference)| *made = made.wrapping_add(*difference));
        out.extend_from_slice(kept);
        (differences, extras) = (later, rest);
        position += i64::try_from(add).map_err(|_| "a step too long")?;
    }
    Wire(extras).end()?;
    if out.len() == length { Ok(()) } else { Err(format!("it makes {} of {length} bytes", out.len())) }
}

fn step(wire: &mut Wire<'_>) -> Result<(i64, usize, usize), &'static str> {
    Ok((wire.zigzag()?, wire.varint()? as usize, wire.varint()? as usize))
}

/// A run of new bytes that resembles a run of the prefix.
#[derive(Debug, Clone, Copy, Default)]
struct Match {
    new: usize,
    old: usize,
    length: usize,
}

/// The plain patch that makes `new` out of `prefix`.
pub(super) fn make(new: &[u8], prefix: &[u8]) -> Vec<u8> {
    let (mut head, mut differences, mut extras) = (Vec::new(), Vec::new(), Vec::new());
    let matches = matches(new, prefix);
    put_varint(&mut head, u32::try_from(matches.len()).unwrap_or(u32::MAX));
    let mut position = 0;
    for (number, found) in matches.iter().enumerate() {
        let end = found.new + found.length;
        let next = matches.get(number + 1).map_or(new.len(), |next| next.new);
        let seek = i64::try_from(found.old).unwrap_or(0) - position;
        put_varint(&mut head, to_zigzag(seek));
        put_varint(&mut head, u32::try_from(found.length).unwrap_or(0));
        put_varint(&mut head, u32::try_from(next - end).unwrap_or(0));
        position = i64::try_from(found.old + found.length).unwrap_or(0);
        let base = prefix.get(found.old..).unwrap_or_default();
        let part = new.get(found.new..end).unwrap_or_default();
        differences.extend(part.iter().zip(base).map(|(new, old)| new.wrapping_sub(*old)));
        extras.extend_from_slice(new.get(end..next).unwrap_or_default());
    }
    [head, differences, extras].concat()
}

/// Approximate matches, ascending and without overlap; the first starts at 0 and may be empty.
fn matches(new: &[u8], prefix: &[u8]) -> Vec<Match> {
    let seeds = Seeds::of(prefix);
    let mut matches = vec![Match::default()];
    let mut scan = 0;
    while let Some(exact) = seeds.next(new, prefix, &mut scan, matches.last().copied().unwrap_or_default()) {
        let last = matches.last_mut();
        let Some(last) = last else { break };
        // The last match reaches forward as far as it pays, the next one back as far as it pays.
        let gap_end = exact.new;
        last.length += forward(new, prefix, last.new + last.length, last.old + last.length, gap_end);
        let mut back = backward(new, prefix, exact, last.new + last.length);
        back = back.min(exact.new - (last.new + last.length));
        let found = Match { new: exact.new - back, old: exact.old - back, length: exact.length + back };
        scan = exact.new + exact.length;
        matches.push(found);
    }
    if let Some(last) = matches.last_mut() {
        last.length += forward(new, prefix, last.new + last.length, last.old + last.length, new.len());
    }
    matches
}

/// How far equal bytes outweigh different ones from here on, at most up to `end` of the new bytes.
fn forward(new: &[u8], prefix: &[u8], new_at: usize, old_at: usize, end: usize) -> usize {
    let pairs = new.get(new_at..end).unwrap_or_default().iter().zip(prefix.get(old_at..).unwrap_or_default());
    best(pairs)
}

/// The same backwards from a match, not before `start` of the new bytes.
fn backward(new: &[u8], prefix: &[u8], exact: Match, start: usize) -> usize {
    let before = new.get(start..exact.new).unwrap_or_default().iter().rev();
    best(before.zip(prefix.get(..exact.old).unwrap_or_default().iter().rev()))
}

fn best<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    let (mut score, mut highest, mut length) = (0i64, 0, 0);
    for (count, (one, other)) in (1..).zip(pairs) {
        score += if one == other { 1 } else { -1 };
        if score > highest {
            (highest, length) = (score, count);
        }
        if score < highest - GIVE_UP {
            break;
        }
    }
    length
}

/// A match that lost so many bytes is not followed any further.
const GIVE_UP: i64 = 64;
/// Bytes that must be equal for a match to be found; 12 or 8 find more and make no less.
const SEED_BYTES: usize = 16;
/// Positions that are tried for one seed.
const TRIES: usize = 64;
/// Equal bytes that a new match must have more than the one that goes on, to be worth a step. bsdiff has 8, which makes 1 % more
/// here, where steps cost less.
const BETTER_BYTES: usize = 4;
/// log2 of the number of chains.
const CHAIN_BITS: u32 = 18;
/// Ends a chain.
const NONE: u32 = u32::MAX;

/// Where each seed is in the prefix.
struct Seeds {
    heads: Vec<u32>,
    previous: Vec<u32>,
}

impl Seeds {
    fn of(prefix: &[u8]) -> Seeds {
        let mut seeds = Seeds { heads: vec![NONE; 1 << CHAIN_BITS], previous: vec![NONE; prefix.len()] };
        for (at, seed) in (0..).zip(prefix.windows(SEED_BYTES)) {
            if let Some(chain) = chain(seed)
                && let (Some(head), Some(previous)) =
                    (seeds.heads.get_mut(chain), seeds.previous.get_mut(at as usize))
            {
                *previous = std::mem::replace(head, at);
            }
        }
        seeds
    }

    /// The next place from `scan` on where another alignment is clearly better than that of the last match.
    fn next(&self, new: &[u8], prefix: &[u8], scan: &mut usize, last: Match) -> Option<Match> {
        // Equal bytes along the last alignment are counted over the length of the match that is compared with them.
        while *scan + SEED_BYTES <= new.len() {
            let along = last.old + *scan - last.new;
            let kept = same(new, *scan, prefix, along);
            // As long as the last match goes on, nothing else needs to be looked for.
            if kept >= SEED_BYTES {
                *scan += kept;
                continue;
            }
            let found = self.longest(new, prefix, *scan);
            if found.length >= SEED_BYTES && found.old != along {
                let pairs = new.iter().skip(found.new).zip(prefix.iter().skip(along)).take(found.length);
                let score = pairs.filter(|(new, old)| new == old).count();
                if found.length > score + BETTER_BYTES {
                    return Some(found);
                }
            }
            *scan += 1;
        }
        None
    }

    fn longest(&self, new: &[u8], prefix: &[u8], at: usize) -> Match {
        let mut best = Match { new: at, ..Match::default() };
        let seed = new.get(at..at + SEED_BYTES).unwrap_or_default();
        let mut place = chain(seed).and_then(|chain| self.heads.get(chain)).copied().unwrap_or(NONE);
        for _ in 0..TRIES {
            if place == NONE {
                break;
            }
            let length = same(new, at, prefix, place as usize);
            if length > best.length {
                (best.old, best.length) = (place as usize, length);
            }
            place = self.previous.get(place as usize).copied().unwrap_or(NONE);
        }
        best
    }
}

/// How many bytes are equal from here on.
fn same(new: &[u8], new_at: usize, old: &[u8], old_at: usize) -> usize {
    let (new, old) = (new.get(new_at..).unwrap_or_default(), old.get(old_at..).unwrap_or_default());
    new.iter().zip(old).take_while(|(new, old)| new == old).count()
}

/// The chain of a seed; seeds of one repeated byte have none, they are everywhere.
fn chain(seed: &[u8]) -> Option<usize> {
    let [one, two] = seed.as_chunks::<8>().0 else { return None };
    let (one, two) = (u64::from_le_bytes(*one), u64::from_le_bytes(*two));
    if one == two && one == one.rotate_left(8) {
        return None;
    }
    let hash = (one.wrapping_mul(0x9e37_79b1_85eb_ca87) ^ two).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    Some((hash >> (64 - CHAIN_BITS)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(step).take(length).collect()
    }

    /// A prefix in memory.
    fn of(prefix: &[u8]) -> impl Fn(usize, &mut [u8]) -> bool {
        |at, into| {
            let found = prefix.get(at..at + into.len());
            found.map(|found| into.copy_from_slice(found)).is_some()
        }
    }

    #[test]
    fn applies_what_it_makes() {
        let old = noise(100_000, 1);
        let mut close = old.clone();
        close.iter_mut().step_by(97).for_each(|byte| *byte = byte.wrapping_add(1));
        let moved = [&old[50_000..], &noise(500, 2), &close[..50_000]].concat();
        for (new, differ) in [
            (vec![], 0),
            (old.clone(), 0),
            (close, 1031),
            (moved, 516),
            (noise(9000, 3), 0),
            (vec![0; 5000], 0),
        ] {
            let patch = make(&new, &old);
            let mut out = Vec::new();
            apply(&patch, &of(&old), new.len(), &mut out).unwrap();
            assert!(out == new);
            if differ > 0 {
                // Differences, not extras: nearly all of a patch is zeros.
                let set = patch.iter().filter(|&&byte| byte != 0).count();
                assert!(set < differ + 700, "{set} bytes are not zero");
            }
            for prefix in [&old[..], &[], &old[..77]] {
                for wrong in [new.len() + 1, new.len().saturating_sub(1)] {
                    let accepted = apply(&patch, &of(prefix), wrong, &mut out).is_ok();
                    assert!(!accepted || wrong == new.len(), "a patch for {} made {wrong}", new.len());
                }
            }
        }
    }

    #[test]
    fn survives_every_byte_string() {
        let old = noise(4000, 5);
        let new = [&old[1000..], &old[..3000]].concat();
        let patch = make(&new, &old);
        let mut out = Vec::new();
        for length in 0..patch.len() {
            assert!(apply(&patch[..length], &of(&old), new.len(), &mut out).is_err());
        }
        for at in 0..patch.len().min(40) {
            for value in 0..=255 {
                let mut bytes = patch.clone();
                bytes[at] = value;
                if apply(&bytes, &of(&old), new.len(), &mut out).is_ok() {
                    assert_eq!(out.len(), new.len());
                }
                assert!(out.capacity() < 64 * 1024, "memory is bounded by the length");
            }
        }
    }
}
