//! Literal blocks become pieces, on every core.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::super::segment::{Form, PageRun, Piece};
use super::super::{BLOCK_BYTES, PAGE_BYTES, PATCH_LIMIT_BYTES, PIECE_BYTES, frame, patch};
use super::anchors::Anchors;
use crate::error::Error;

/// What pieces are made from.
pub(super) struct Pieces<'a> {
    pub(super) old: &'a [u8],
    pub(super) anchors: &'a Anchors,
    pub(super) threads: NonZeroUsize,
}

/// A piece, whose offset is not known yet, and its frame.
type Stored = (Piece, Vec<u8>);

impl Pieces<'_> {
    /// Encodes the literal blocks of a segment; `progress` hears how many are done.
    pub(super) fn encode(
        &self,
        literals: &[u8],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<Stored>, Error> {
        let parts: Vec<&[u8]> = literals.chunks(PIECE_BYTES).collect();
        let mut results: Vec<Option<Stored>> = vec![None; parts.len()];
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (send, receive) = channel();
            for _ in 0..self.threads.get().min(parts.len()) {
                let (send, next, parts) = (send.clone(), &next, &parts);
                scope.spawn(move || {
                    let turn = || next.fetch_add(1, Ordering::Relaxed);
                    while let Some((number, part)) = Some(turn()).and_then(|n| Some((n, parts.get(n)?))) {
                        if send.send((number, self.piece(part))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            let mut done = 0;
            for (number, result) in receive {
                let result = result.map_err(Error::Caller)?;
                done += parts.get(number).map_or(0, |part| part.len() / BLOCK_BYTES);
                progress(done as u64);
                if let Some(place) = results.get_mut(number) {
                    *place = Some(result);
                }
            }
            Ok::<(), Error>(())
        })?;
        results
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Caller("a piece was not encoded".into()))
    }

    /// The shorter one of both forms.
    fn piece(&self, plain: &[u8]) -> Result<Stored, String> {
        let pages = self.anchors.choose(plain);
        let prefix = self.prefix(&pages);
        let mut best = (Form::Plain, frame::encode(plain, &prefix)?);
        if !prefix.is_empty() {
            let patch = patch::make(plain, &prefix);
            if patch.len() <= PATCH_LIMIT_BYTES {
                let stored = frame::encode(&patch, &prefix)?;
                if stored.len() < best.1.len() {
                    best = (Form::Patch, stored);
                }
            }
        }
        let (form, stored) = best;
        let length = u32::try_from(stored.len()).map_err(|_| "a piece above 4 GiB".to_owned())?;
        Ok((Piece { offset: 0, stored: length, form, pages }, stored))
    }

    fn prefix(&self, pages: &[PageRun]) -> Vec<u8> {
        let mut prefix = Vec::new();
        for run in pages {
            let start = run.first as usize * PAGE_BYTES;
            let end = (start + run.pages as usize * PAGE_BYTES).min(self.old.len());
            prefix.extend_from_slice(self.old.get(start..end).unwrap_or_default());
        }
        prefix
    }
}
