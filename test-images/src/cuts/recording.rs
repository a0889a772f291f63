//! One complete update with everything the two drives were told, kept until the board or the releases change.
//!
//! | file | is |
//! |---|---|
//! | `disk.before.img`, `card.before.img` | the drives before the power came on |
//! | `disk.log`, `card.log` | what they were told from then on |
//! | `sightings.json` | which entries of both were there at the same moments |
//! | `about.json` | what it was made from; written last |

use std::fs;
use std::path::{Path, PathBuf};

use bootenv::Changes;
use serde::{Deserialize, Serialize};

use super::Error;
use super::log::Log;
use super::order::{Moment, Onlooker, Sighting, certain};
use crate::build::Slot;
use crate::emulator::{Drive, Keeping};
use crate::scenario::{Failure, Release, Stage};

/// A recording and its logs.
#[derive(Debug)]
pub struct Recording {
    directory: PathBuf,
    /// What the disk was told.
    pub disk: Log,
    /// What the card was told.
    pub card: Log,
    /// Moments that certainly were, in order.
    pub moments: Vec<Moment>,
    /// Moments of the logs that nobody saw and nothing fixes.
    pub unseen: u64,
    /// What names it; states of another recording have nothing to do with it.
    pub id: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    firmware: PathBuf,
    running: PathBuf,
    older: PathBuf,
    new: PathBuf,
    id: String,
}

/// The releases of the update.
#[derive(Debug)]
pub struct Releases {
    /// Runs in slot a.
    pub running: Slot,
    /// Was in slot b before, confirmed. Its image is larger, so that hardly anything in it is where the new one has it.
    pub older: Slot,
    /// Comes into slot b.
    pub new: Slot,
}

impl Releases {
    /// Those of every recording.
    pub fn recorded() -> Releases {
        let mut older = Release::Good.slot("0.9.0", 1);
        older.image_bytes += OLDER_IS_LARGER_BYTES;
        Releases { running: Release::Good.slot("1.0.0", 2), older, new: Release::Good.slot("2.0.0", 3) }
    }
}

const OLDER_IS_LARGER_BYTES: u64 = 16 * 1024 * 1024;

impl Recording {
    /// Takes the recording that is there, if it is of the same board and releases, or makes one on a stage.
    pub fn obtain(directory: &Path, stage: &mut Stage<'_>) -> Result<Recording, Failure> {
        let releases = Releases::recorded();
        let board = stage.board()?;
        let mut about = About {
            firmware: board.uboot.clone(),
            running: board.image(&releases.running)?,
            older: board.image(&releases.older)?,
            new: board.image(&releases.new)?,
            id: String::new(),
        };
        let path = directory.join("about.json");
        let found: Option<About> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(found) = found {
            about.id.clone_from(&found.id);
            if found == about {
                stage.step(&format!("the update was recorded before, as {}", found.id));
                return Ok(Recording::open(directory, found.id)?);
            }
        }
        // Half a recording must not look like a whole one.
        let _ = fs::remove_file(&path);
        fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        make(directory, stage, &releases)?;
        let made = Recording::open(directory, String::new())?;
        about.id =
            format!("{:x}-{:x}-{:x}", made.disk.entries.len(), made.card.entries.len(), made.moments.len());
        let text = serde_json::to_vec(&about).map_err(|error| Error::io("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(Error::io("write", &path))?;
        stage.step(&format!("recorded {}", about.id));
        Ok(Recording { id: about.id, ..made })
    }

    fn open(directory: &Path, id: String) -> Result<Recording, Error> {
        let path = directory.join("sightings.json");
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let sightings: Vec<Sighting> =
            serde_json::from_slice(&text).map_err(|error| Error::io("read", &path)(error.into()))?;
        let moments: Vec<Moment> = certain(&sightings).into_iter().map(|sighting| sighting.moment).collect();
        let (disk, card) = (Log::open(&directory.join("disk.log"))?, Log::open(&directory.join("card.log"))?);
        // A staircase from the first entry to the last one has a moment for each of them and one more.
        let all = (disk.entries.len() + card.entries.len() + 1) as u64;
        let unseen = all.saturating_sub(moments.len() as u64);
        Ok(Recording { directory: directory.to_owned(), disk, card, moments, unseen, id })
    }

    /// The drives before the power came on.
    pub fn before(&self) -> [PathBuf; 2] {
        ["disk.before.img", "card.before.img"].map(|name| self.directory.join(name))
    }
}

/// Copies an image with its holes.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let status = std::process::Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from, to])
        .status()
        .map_err(Error::io("copy", from))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::io("copy", from)(std::io::Error::other(format!("cp: {status}"))))
}

fn make(directory: &Path, stage: &mut Stage<'_>, releases: &Releases) -> Result<(), Failure> {
    stage.factory(&releases.running, Some(&releases.older))?;
    // As after an update long ago: so this one begins with disarming slot b.
    stage.card.change(&Changes::new().set("otad_b_ok", "1"))?;
    let [disk, card] = ["disk", "card"].map(|name| stage.dir.join(format!("{name}.img")));
    let [disk_log, card_log] = ["disk.log", "card.log"].map(|name| directory.join(name));
    for (image, name) in [(&disk, "disk.before.img"), (&card, "card.before.img")] {
        copy(image, &directory.join(name))?;
    }
    for log in [&disk_log, &card_log] {
        fs::write(log, []).map_err(Error::io("create", log))?;
    }
    stage.machine.disk = Some(Drive { image: disk, keeping: Keeping::Log(disk_log.clone()) });
    stage.machine.card = Some(Drive { image: card, keeping: Keeping::Log(card_log.clone()) });
    let onlooker = Onlooker::watch(&disk_log, &card_log).map_err(Error::io("watch", &disk_log))?;
    let told = update(stage, &releases.new);
    stage.power_off();
    let sightings = onlooker.stop().map_err(Error::io("watch", &disk_log))?;
    told?;
    let path = directory.join("sightings.json");
    let text = serde_json::to_vec(&sightings).map_err(|error| Error::io("write", &path)(error.into()))?;
    fs::write(&path, text).map_err(Error::io("write", &path))?;
    Ok(())
}

fn update(stage: &mut Stage<'_>, new: &Slot) -> Result<(), Failure> {
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.install(new, "b")?;
    stage.reboot()?;
    stage.wait_ready("b", &new.version)?;
    stage.wait_committed("b")
}
