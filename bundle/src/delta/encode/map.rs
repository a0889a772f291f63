//! The block map: which new blocks the device has already.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use super::super::segment::{Kind, Segment};
use super::super::{BLOCK_BYTES, SHELF_BLOCKS};
use crate::build::is_zero;

type Block = [u8; BLOCK_BYTES];

/// The blocks of the old bytes by their content.
pub(super) struct OldBlocks<'a> {
    blocks: &'a [Block],
    /// First block for each hash. A block of the same hash and other content is found only as part of a run.
    first: HashMap<u64, u32>,
}

impl<'a> OldBlocks<'a> {
    pub(super) fn of(old: &'a [u8]) -> OldBlocks<'a> {
        let blocks = old.as_chunks().0;
        let mut first = HashMap::with_capacity(blocks.len());
        for (number, block) in (0..).zip(blocks) {
            first.entry(hash(block)).or_insert(number);
        }
        OldBlocks { blocks, first }
    }

    fn is(&self, number: u32, block: &Block) -> bool {
        self.blocks.get(number as usize).is_some_and(|old| old == block)
    }

    /// An old block with this content: one of `preferred` if it can be.
    fn find(&self, block: &Block, preferred: [u32; 2]) -> Option<u32> {
        let known = || self.first.get(&hash(block)).copied();
        preferred
            .into_iter()
            .find(|&number| self.is(number, block))
            .or_else(known)
            .filter(|&at| self.is(at, block))
    }
}

/// Makes the map of a segment that starts with block `first_block`, and the literal blocks it needs.
pub(super) fn map(old: &OldBlocks<'_>, new: &[u8], first_block: u64) -> (Segment, Vec<u8>) {
    let mut segment = Segment::default();
    let mut literals = Vec::new();
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let (whole, rest) = new.as_chunks::<BLOCK_BYTES>();
    // What stands behind the end of the new bytes is cut off by the reader.
    let mut last = [0; BLOCK_BYTES];
    last.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
    let last = (!rest.is_empty()).then_some(&last);
    for (number, block) in (first_block..).zip(whole.iter().chain(last)) {
        if is_zero(block) {
            segment.push(Kind::Zero, 0, 1);
            continue;
        }
        // Going on with the last copy keeps the map short; a block that did not move is the next best guess.
        let copied =
            segment.runs.iter().rev().find(|run| run.kind == Kind::Copy).map_or(0, |run| run.end_at());
        let same = u32::try_from(number).unwrap_or(u32::MAX);
        if let Some(at) = old.find(block, [copied, same]) {
            segment.push(Kind::Copy, at, 1);
            continue;
        }
        let hash = hash(block);
        let known = seen.get(&hash).copied().filter(|&at| {
            let start = at as usize * BLOCK_BYTES;
            literals.get(start..start + BLOCK_BYTES) == Some(block.as_slice())
        });
        if let Some(at) = known
            && segment.shelve(at)
        {
            segment.push(Kind::Repeat, at, 1);
            continue;
        }
        seen.insert(hash, segment.literals);
        segment.push(Kind::Literal, segment.literals, 1);
        literals.extend_from_slice(block);
    }
    (segment, literals)
}

impl Segment {
    /// Notes that a literal block is repeated; false when the reader's shelf is full.
    fn shelve(&mut self, literal: u32) -> bool {
        match self.repeated.binary_search(&literal) {
            Ok(_) => true,
            Err(_) if self.repeated.len() == SHELF_BLOCKS => false,
            Err(place) => {
                self.repeated.insert(place, literal);
                true
            }
        }
    }
}

fn hash(block: &Block) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(block);
    hasher.finish()
}
