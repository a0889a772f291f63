//! The parts of the benchmark: each measures one thing and returns its report.

pub(crate) mod adaptive;
pub(crate) mod apart;
pub(crate) mod delta;
pub(crate) mod footprint;
pub(crate) mod full;
pub(crate) mod large;
pub(crate) mod link;
pub(crate) mod resume;

use std::path::PathBuf;

use otad_demo::Binaries;

use crate::error::Error;
use crate::goods::Goods;
use crate::images::Images;
use crate::report::{Report, Setting};
use crate::slot::{Medium, Slot};
use crate::stage::Stage;

/// What every part works with.
pub(crate) struct Bench {
    /// The images.
    pub(crate) images: Images,
    /// What is made once.
    pub(crate) goods: Goods,
    /// Programs of this project.
    pub(crate) binaries: Binaries,
    /// Where it all happens.
    pub(crate) stage: Stage,
    /// How often each thing is measured.
    pub(crate) rounds: usize,
    /// Name of the images.
    pub(crate) kind: &'static str,
}

/// A part.
type Part = fn(&Bench) -> Result<Report, Error>;

/// All parts by name, in the order in which they run.
pub(crate) const PARTS: [(&str, Part); 8] = [
    ("full", full::measure),
    ("apart", apart::measure),
    ("adaptive", adaptive::measure),
    ("delta", delta::measure),
    ("resume", resume::measure),
    ("link", link::measure),
    ("large", large::measure),
    ("footprint", footprint::measure),
];

impl Bench {
    /// When and on what, now.
    pub(crate) fn setting(&self) -> Setting {
        Setting::here(self.kind, self.rounds)
    }

    /// Bytes of a slot: room for the largest image.
    pub(crate) fn slot_bytes(&self) -> Result<u64, Error> {
        let images = [self.images.old(), self.images.updated(), self.images.small()];
        let sizes = images.iter().map(|path| crate::goods::size(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(sizes.into_iter().max().unwrap_or(0))
    }

    /// A new empty slot.
    pub(crate) fn slot(&self, medium: Medium) -> Result<Slot, Error> {
        Slot::make(&self.stage.on(medium), medium, self.slot_bytes()?)
    }

    /// A file as large as a slot with content that no image has: what a slot holds before it is measured.
    pub(crate) fn noise(&self) -> Result<PathBuf, Error> {
        let path = self.stage.on(Medium::Disk).join("noise");
        if !path.is_file() {
            let bytes = self.slot_bytes()?.to_string();
            let file = std::fs::File::create(&path).map_err(Error::io("create", &path))?;
            let mut head = crate::process::command("head", &["-c", &bytes, "/dev/urandom"]);
            let mut child = crate::process::spawn(head.stdout(file))?;
            let status = child.wait().map_err(Error::io("wait for", "head"))?;
            if !status.success() {
                return Err(Error::Setup(format!("cannot fill {}: {status}", path.display())));
            }
        }
        Ok(path)
    }
}
