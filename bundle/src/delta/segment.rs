//! The head of a segment: its block map and its pieces.
//!
//! One type serves both sides: the encoder fills a [`Segment`] and writes it, the decoder reads it. Whatever was read obeys
//! every rule of the format, so that users of a [`Segment`] need not ask again.

use super::wire::{Wire, put_varint, to_zigzag};
use super::{BLOCK_BYTES, PAGE_BYTES, PIECE_BLOCKS, PIECE_STORED_LIMIT_BYTES, PREFIX_PAGES, SHELF_BLOCKS};

/// Where blocks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nowhere: they are zeros.
    Zero,
    /// The old bytes; `at` is an old block.
    Copy,
    /// Literal blocks that were there before; `at` counts literal blocks of the segment.
    Repeat,
    /// The body; `at` counts literal blocks of the segment.
    Literal,
}

/// Blocks that follow each other at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First block, counted from the start of the segment.
    pub(super) first: u32,
    /// How many.
    pub(super) blocks: u32,
    pub(super) kind: Kind,
    /// First block at the source; 0 for zeros.
    pub(super) at: u32,
}

impl Run {
    /// The block behind the last one at the source.
    pub(super) fn end_at(&self) -> u32 {
        self.at.saturating_add(self.blocks)
    }
}

/// Pages of the old bytes that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRun {
    pub(super) first: u32,
    pub(super) pages: u32,
}

/// What the plain bytes of a piece's frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The blocks.
    Plain,
    /// A patch that makes them out of the prefix.
    Patch,
}

/// What is needed to decode a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Offset of its frame in the body, in bytes.
    pub(super) offset: u32,
    /// Length of its frame, in bytes.
    pub(super) stored: u32,
    pub(super) form: Form,
    /// Its prefix, ascending.
    pub(super) pages: Vec<PageRun>,
}

/// A segment's head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Segment {
    /// Ascending and without gaps.
    pub(super) runs: Vec<Run>,
    pub(super) pieces: Vec<Piece>,
    /// Literal blocks in all.
    pub(super) literals: u32,
    /// Literal blocks that are repeated, ascending and distinct.
    pub(super) repeated: Vec<u32>,
}

/// What a segment must fit to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Number of its first block in the new bytes.
    pub(super) first_block: u64,
    /// Blocks it makes.
    pub(super) blocks: usize,
    /// Length of the old bytes.
    pub(super) old_size: u64,
}

impl Segment {
    /// Appends blocks; those that go on where the last run ends make it longer.
    pub(super) fn push(&mut self, kind: Kind, at: u32, blocks: u32) {
        let first = self.runs.last().map_or(0, |run| run.first.saturating_add(run.blocks));
        if kind == Kind::Literal {
            self.literals = self.literals.saturating_add(blocks);
        }
        match self.runs.last_mut() {
            Some(run) if run.kind == kind && (kind == Kind::Zero || run.end_at() == at) => {
                run.blocks += blocks
            }
            _ => self.runs.push(Run { first, blocks, kind, at }),
        }
    }

    /// Literal blocks of a piece: all but the last one of a segment are full.
    pub(super) fn piece_blocks(&self, piece: usize) -> usize {
        (self.literals as usize).saturating_sub(piece * PIECE_BLOCKS).min(PIECE_BLOCKS)
    }

    /// The plain head.
    pub(super) fn encode(&self, frame: Frame) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, u32::try_from(self.runs.len()).unwrap_or(u32::MAX));
        for run in &self.runs {
            let number = match run.kind {
                Kind::Zero => 0,
                Kind::Copy => 1,
                Kind::Repeat => 2,
                Kind::Literal => 3,
            };
            put_varint(&mut out, run.blocks * 4 + number);
        }
        let mut expected = i64::try_from(frame.first_block).unwrap_or(i64::MAX);
        for run in self.runs.iter().filter(|run| run.kind == Kind::Copy) {
            put_varint(&mut out, to_zigzag(i64::from(run.at) - expected));
            expected = i64::from(run.end_at());
        }
        let mut literals = 0;
        for run in &self.runs {
            match run.kind {
                Kind::Literal => literals = run.end_at(),
                Kind::Repeat => put_varint(&mut out, literals - run.at),
                Kind::Zero | Kind::Copy => {}
            }
        }
        for piece in &self.pieces {
            put_varint(&mut out, piece.stored * 2 + u32::from(piece.form == Form::Patch));
            put_varint(&mut out, u32::try_from(piece.pages.len()).unwrap_or(u32::MAX));
            let mut end = 0;
            for run in &piece.pages {
                put_varint(&mut out, run.first - end);
                put_varint(&mut out, run.pages - 1);
                end = run.first + run.pages;
            }
        }
        out
    }

    /// Reads a plain head whose body has `body` bytes.
    pub(super) fn parse(plain: &[u8], frame: Frame, body: u32) -> Result<Segment, String> {
        let mut wire = Wire(plain);
        let mut segment = Segment::default();
        segment.read_runs(&mut wire, frame)?;
        segment.read_sources(&mut wire, frame)?;
        segment.read_pieces(&mut wire, frame, body)?;
        wire.end()?;
        Ok(segment)
    }

    fn read_runs(&mut self, wire: &mut Wire<'_>, frame: Frame) -> Result<(), String> {
        let count = wire.varint()? as usize;
        if count > frame.blocks {
            return Err(format!("{count} runs for {} blocks", frame.blocks));
        }
        let mut first = 0u32;
        for _ in 0..count {
            let word = wire.varint()?;
            let (kind, blocks) = match (word % 4, word / 4) {
                (0, blocks) => (Kind::Zero, blocks),
                (1, blocks) => (Kind::Copy, blocks),
                (2, blocks) => (Kind::Repeat, blocks),
                (_, blocks) => (Kind::Literal, blocks),
            };
            let at = if kind == Kind::Literal { self.literals } else { 0 };
            self.runs.push(Run { first, blocks, kind, at });
            // Neither sum can wrap: at most 2^14 times 2^30, checked against the blocks at once.
            first = first.saturating_add(blocks);
            if blocks == 0 || first as usize > frame.blocks {
                return Err(format!("a run of {blocks} blocks up to block {first} of {}", frame.blocks));
            }
            if kind == Kind::Literal {
                self.literals += blocks;
            }
        }
        if first as usize != frame.blocks {
            return Err(format!("the runs make {first} of {} blocks", frame.blocks));
        }
        Ok(())
    }

    /// Fills in where copies and repeats come from.
    fn read_sources(&mut self, wire: &mut Wire<'_>, frame: Frame) -> Result<(), String> {
        let old_blocks = frame.old_size / BLOCK_BYTES as u64;
        let mut expected = i64::try_from(frame.first_block).map_err(|_| "too many blocks")?;
        for run in self.runs.iter_mut().filter(|run| run.kind == Kind::Copy) {
            let at = expected + wire.zigzag()?;
            expected = at + i64::from(run.blocks);
            if at < 0 || u64::try_from(expected).map_or(true, |end| end > old_blocks) {
                return Err(format!("{} blocks from old block {at} of {old_blocks}", run.blocks));
            }
            run.at = u32::try_from(at).map_err(|_| "too many old blocks")?;
        }
        let mut literals = 0u32;
        for run in &mut self.runs {
            match run.kind {
                Kind::Literal => literals = run.end_at(),
                Kind::Repeat => {
                    let back = wire.varint()?;
                    let at =
                        literals.checked_sub(back).filter(|at| at.saturating_add(run.blocks) <= literals);
                    run.at =
                        at.ok_or_else(|| format!("{} blocks {back} back from {literals}", run.blocks))?;
                    self.repeated.extend(run.at..run.end_at());
                    if self.repeated.len() > 2 * SHELF_BLOCKS {
                        squeeze(&mut self.repeated);
                    }
                }
                Kind::Zero | Kind::Copy => {}
            }
            // Also before the next run makes the list longer: it never has more than a segment's blocks.
            if self.repeated.len() > 2 * SHELF_BLOCKS {
                return Err(format!("more than {SHELF_BLOCKS} distinct blocks are repeated"));
            }
        }
        squeeze(&mut self.repeated);
        if self.repeated.len() > SHELF_BLOCKS {
            return Err(format!("more than {SHELF_BLOCKS} distinct blocks are repeated"));
        }
        Ok(())
    }

    fn read_pieces(&mut self, wire: &mut Wire<'_>, frame: Frame, body: u32) -> Result<(), String> {
        let old_pages = frame.old_size.div_ceil(PAGE_BYTES as u64);
        let mut offset = 0u32;
        for number in 0..(self.literals as usize).div_ceil(PIECE_BLOCKS) {
            let (word, count) = (wire.varint()?, wire.varint()?);
            let stored = word / 2;
            let form = if word % 2 == 0 { Form::Plain } else { Form::Patch };
            if stored == 0 || stored as usize > PIECE_STORED_LIMIT_BYTES || count as usize > PREFIX_PAGES {
                return Err(format!("piece {number} has {stored} bytes and {count} runs of pages"));
            }
            let mut pages = Vec::with_capacity(count as usize);
            let (mut end, mut sum) = (0u32, 0u32);
            for _ in 0..count {
                let (gap, more) = (wire.varint()?, wire.varint()?);
                let run = PageRun { first: end.saturating_add(gap), pages: more.saturating_add(1) };
                (end, sum) = (run.first.saturating_add(run.pages), sum.saturating_add(run.pages));
                if u64::from(end) > old_pages || sum as usize > PREFIX_PAGES {
                    return Err(format!("piece {number} has {sum} pages, up to page {end} of {old_pages}"));
                }
                pages.push(run);
            }
            self.pieces.push(Piece { offset, stored, form, pages });
            offset = offset.saturating_add(stored);
        }
        if offset != body {
            return Err(format!("its pieces have {offset} bytes, its body {body}"));
        }
        Ok(())
    }
}

fn squeeze(list: &mut Vec<u32>) {
    list.sort_unstable();
    list.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { first_block: 10, blocks: 200, old_size: 1_000_000 };

    fn sample() -> Segment {
        let mut segment = Segment::default();
        segment.push(Kind::Literal, 0, 70);
        segment.push(Kind::Copy, 5, 20);
        segment.push(Kind::Copy, 25, 10);
        segment.push(Kind::Zero, 0, 40);
        segment.push(Kind::Repeat, 60, 5);
        segment.push(Kind::Copy, 240, 4);
        segment.push(Kind::Literal, 70, 51);
        let pages = vec![PageRun { first: 0, pages: 3 }, PageRun { first: 61, pages: 1 }];
        let last = Piece { offset: 300, stored: 77, form: Form::Patch, pages: vec![] };
        segment.pieces = vec![Piece { offset: 0, stored: 300, form: Form::Plain, pages }, last];
        segment.repeated = (60..65).collect();
        segment
    }

    #[test]
    fn reads_what_it_writes() {
        let segment = sample();
        assert_eq!((segment.runs.len(), segment.literals), (6, 121));
        let plain = segment.encode(FRAME);
        assert_eq!(Segment::parse(&plain, FRAME, 377), Ok(segment));
        assert!(Segment::parse(&plain, FRAME, 378).is_err(), "another body");
        assert!(Segment::parse(&plain, Frame { blocks: 201, ..FRAME }, 377).is_err(), "another length");
        assert!(
            Segment::parse(&plain, Frame { old_size: 243 * 4096, ..FRAME }, 377).is_err(),
            "a shorter old"
        );
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let break_rule = |change: fn(&mut Segment)| {
            let mut segment = sample();
            change(&mut segment);
            Segment::parse(&segment.encode(FRAME), FRAME, 377).unwrap_err()
        };
        assert!(break_rule(|segment| segment.runs[2].blocks = 0).contains("run of 0"));
        assert!(break_rule(|segment| segment.runs[1].at = 1 << 20).contains("old block"));
        assert!(break_rule(|segment| segment.runs[3].at = 66).contains("back from 70"));
        assert!(break_rule(|segment| segment.pieces[1].stored = 0).contains("piece 1"));
        assert!(break_rule(|segment| segment.pieces[0].pages[1].pages = 2).contains("page 63 of 62"));
        assert!(break_rule(|segment| segment.pieces[0].pages[1].pages = 126).contains("129 pages"));
        assert!(break_rule(|segment| segment.pieces.push(segment.pieces[0].clone())).contains("end"));
        let many = Frame { first_block: 0, blocks: 2000, old_size: 0 };
        for (blocks, fine) in [(SHELF_BLOCKS, true), (SHELF_BLOCKS + 1, false)] {
            let blocks = u32::try_from(blocks).unwrap();
            let mut segment = Segment::default();
            segment.push(Kind::Literal, 0, blocks);
            segment.push(Kind::Repeat, 0, blocks);
            segment.push(Kind::Zero, 0, 2000 - 2 * blocks);
            let pieces = (0..blocks.div_ceil(64)).map(|n| Piece {
                offset: n,
                stored: 1,
                form: Form::Plain,
                pages: vec![],
            });
            segment.pieces = pieces.collect();
            let body = blocks.div_ceil(64);
            assert_eq!(Segment::parse(&segment.encode(many), many, body).is_ok(), fine);
        }
    }

    #[test]
    fn survives_every_byte_string() {
        let plain = sample().encode(FRAME);
        for length in 0..plain.len() {
            assert!(Segment::parse(&plain[..length], FRAME, 377).is_err(), "length {length}");
        }
        let mut state = 7u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut bytes = plain.clone();
            let at = usize::try_from(state >> 40).unwrap() % bytes.len();
            bytes[at] = (state >> 32).to_le_bytes()[0];
            // Whatever is accepted must be exactly what it would be written as.
            if let Ok(segment) = Segment::parse(&bytes, FRAME, 377) {
                assert!(segment.runs.iter().map(|run| run.blocks).sum::<u32>() == 200);
            }
        }
    }
}
