//! Where the slots lie on their disks: learnt once, and held against what is there before a slot is written (S17).
//!
//! A slot's name leads wherever the partition table says. When a release's script or a person changes the table, the name may lead
//! to bytes that are somebody else's: the data partition's, the running slot's. What is not where it was is not written, and neither
//! is what shares sectors with another partition, which Linux lets a damaged table do. What counts is the kernel's table: one that was
//! changed on the disk and not read yet changes nothing.
//!
//! # Format
//! `layout` in the data directory, UTF-8, one line for each image: first sector, number of sectors (decimal, of 512 bytes, as in
//! sysfs), the device as `otad.toml` names it; a space between them. Who changes a table on purpose removes the file, and otad
//! learns anew. Slots that are no partitions (files, whole disks, device mapper) have no line.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::{Config, Slot, SlotName};
use crate::failure::{self, Code, Failure};
use crate::ports::{Partition, SlotDevices, StateFs, replace};

const FILE: &str = "layout";
const NEW: &str = "layout.new";

/// What was learnt.
pub struct Layout {
    lines: String,
    /// Whether there is more than the file has.
    grown: bool,
}

impl Layout {
    /// Reads what was learnt; nothing yet is an empty layout. What is not of the format is left out, with a word in the log: a device
    /// that took no update any more for a damaged file would be worse off.
    ///
    /// # Errors
    /// The data directory cannot be read.
    pub fn load(fs: &dyn StateFs) -> Result<Layout, Failure> {
        let bytes = fs.read(FILE).map_err(|error| failure::from_state("read", FILE.as_ref(), &error))?;
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        let (whole, damaged): (Vec<_>, Vec<_>) =
            text.split_inclusive('\n').partition(|line| line.ends_with('\n') && entry(line).is_some());
        for line in damaged {
            log::warn!(
                "the file {FILE} is damaged ({}); where that slot lies is learnt anew",
                line.escape_debug()
            );
        }
        Ok(Layout { lines: whole.concat(), grown: false })
    }

    /// Holds the device of an image against what was learnt of it, or learns it.
    ///
    /// # Errors
    /// [`Code::LayoutChanged`] with the numbers.
    pub fn meet(
        &mut self,
        slot: &Slot,
        role: &str,
        path: &Path,
        partition: Option<Partition>,
    ) -> Result<(), Failure> {
        let changed = |what: String, next: &str| {
            let place = format!("{role} of slot {} ({})", slot.name, path.display());
            Err(Failure::new(Code::LayoutChanged, format!("{place} {what}; {next}")))
        };
        if let Some(Partition { start, sectors, overlaps: Some(other) }) = &partition {
            let what = format!("is {sectors} sectors from {start}, of which {other} has some, too");
            return changed(
                what,
                "no partition is written over another: mend the partition table and restart otad",
            );
        }
        let is = partition.map(|Partition { start, sectors, .. }| (start, sectors));
        let (was, is) = match (self.of(path), is) {
            (None, None) => return Ok(()),
            (None, Some((start, sectors))) => {
                let _ = writeln!(self.lines, "{start} {sectors} {}", path.display());
                self.grown = true;
                return Ok(());
            }
            (Some(was), is) if Some(was) == is => return Ok(()),
            (Some(was), is) => (was, is),
        };
        let place = |(start, sectors)| format!("{sectors} sectors from {start}");
        let what = format!("was {} and is {}", place(was), is.map_or("no partition".to_owned(), place));
        let next =
            "if that was done on purpose, remove the file layout from the data directory and restart otad";
        changed(what, next)
    }

    /// Keeps what was learnt.
    ///
    /// # Errors
    /// The data directory cannot be written.
    pub fn save(&self, fs: &dyn StateFs) -> Result<(), Failure> {
        if self.grown { replace(fs, (FILE, NEW), self.lines.as_bytes()) } else { Ok(()) }
    }

    /// First sector and number of sectors of a device.
    fn of(&self, path: &Path) -> Option<(u64, u64)> {
        let mut entries = self.lines.lines().filter_map(entry);
        entries.find_map(|(start, sectors, device)| (Path::new(device) == path).then_some((start, sectors)))
    }
}

/// Holds both slots against what was learnt, or learns where they lie, and tells of the slots that are not where they were.
///
/// # Errors
/// The data directory cannot be read or written.
pub fn survey(
    config: &Config,
    devices: &dyn SlotDevices,
    fs: &dyn StateFs,
) -> Result<Vec<(SlotName, Failure)>, Failure> {
    let mut layout = Layout::load(fs)?;
    let mut moved = Vec::new();
    for slot in &config.slots {
        for (role, path) in &slot.images {
            // What is not there yet is learnt when it is to be written.
            let Ok(id) = devices.identify(path) else { continue };
            let met = layout.meet(slot, role, path, devices.partition(id));
            moved.extend(met.err().map(|failure| (slot.name.clone(), failure)));
        }
    }
    layout.save(fs)?;
    Ok(moved)
}

/// A line's first sector, number of sectors and device.
fn entry(line: &str) -> Option<(u64, u64, &str)> {
    let (start, rest) = line.trim_end_matches('\n').split_once(' ')?;
    let (sectors, device) = rest.split_once(' ')?;
    Some((start.parse().ok()?, sectors.parse().ok()?, device))
}
