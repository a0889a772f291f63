//! otad itself: a signed bundle from a file, through `otactl install`.

use std::path::PathBuf;

use super::{Peer, Scene};
use crate::board::Board;
use crate::error::Error;
use crate::goods::Release;

/// A device with a bundle.
pub(crate) struct Otad {
    board: Board,
    bundle: PathBuf,
}

impl Otad {
    pub(crate) fn new(scene: &Scene<'_>) -> Result<Otad, Error> {
        let slots = [scene.running.device(), scene.target.device()];
        let board = Board::new(&scene.room, slots, &scene.goods.root(), scene.binaries)?;
        Ok(Otad { board, bundle: scene.goods.bundle(Release::New)? })
    }
}

impl Peer for Otad {
    fn name(&self) -> &'static str {
        "otad, signed, zstd, read back"
    }

    fn prepare(&mut self) -> Result<(), Error> {
        self.board.reset()?;
        self.board.start()
    }

    fn daemons(&self) -> Vec<u32> {
        self.board.daemons()
    }

    fn install(&mut self) -> Result<(), Error> {
        self.board.install(&self.bundle.to_string_lossy())
    }

    fn finish(&mut self) {
        self.board.kill();
    }
}
