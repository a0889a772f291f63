//! One state: made, booted, settled.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use otad_demo::Status;

use super::Error;
use super::medium::Medium;
use super::plan::Recorded;
use super::recording::{Recording, Releases, copy};
use super::state::State;
use crate::build::{BOOT_LIMIT, Board, PARTITION_OFFSETS_BYTES, Slot};
use crate::emulator::boots::route;
use crate::emulator::{Drive, Machine, Power};
use crate::scenario::{Failure, holds};

/// A board that was cut off settles long before, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where systemd adds nothing but its time: the bus and otad alone, and the status on the console.
const INIT: &str = "/usr/lib/otad-board/small-init";
/// What comes before the status there.
const STATUS: &str = "otad-board: status ";

/// How a state settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The slot.
    pub slot: String,
    /// The slots of all boots on the way.
    pub route: String,
    /// How long it took.
    pub took: Duration,
}

/// Makes and boots states on copies of a recording's drives.
#[derive(Debug)]
pub struct Bootable<'a> {
    recorded: Recorded<'a>,
    disk: Medium<'a>,
    card: Medium<'a>,
    board: &'a Board,
    directory: PathBuf,
}

impl<'a> Bootable<'a> {
    /// Copies the drives of a recording into a directory.
    pub fn new(recording: &'a Recording, board: &'a Board, directory: &Path) -> Result<Bootable<'a>, Error> {
        fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let copies = ["disk.img", "card.img"].map(|name| directory.join(name));
        for (from, to) in recording.before().iter().zip(&copies) {
            copy(from, to)?;
        }
        let [disk, card] = copies;
        Ok(Bootable {
            recorded: Recorded { disk: &recording.disk, card: &recording.card, moments: &recording.moments },
            disk: Medium::new(&disk, &recording.disk)?,
            card: Medium::new(&card, &recording.card)?,
            board,
            directory: directory.to_owned(),
        })
    }

    /// Makes a state that is not before the last one, boots it and waits until it has settled on a slot that holds a whole
    /// release. The console goes to `console.log` in `logs`.
    pub fn settle(&mut self, state: &State, logs: &Path) -> Result<Settled, Failure> {
        let (disk, card) = self.recorded.stored(state);
        self.disk.become_state(&disk)?;
        self.card.become_state(&card)?;
        let releases = Releases::recorded();
        let holds = |slot: &str, release: &Slot| holds(self.disk.path(), slot, &self.board.image(release)?);
        let whole_a = holds("a", &releases.running)?;
        Failure::unless(whole_a, "slot a, which nobody wrote, as it was", "other bytes")?;
        let in_b = if holds("b", &releases.new)? {
            Some(releases.new.version)
        } else if holds("b", &releases.older)? {
            Some(releases.older.version)
        } else {
            None
        };
        fs::create_dir_all(logs).map_err(Error::io("create", logs))?;
        let machine = Machine {
            disk: Some(Drive::forgetting(self.disk.path())),
            card: Some(Drive::forgetting(self.card.path())),
            init: Some(INIT.to_owned()),
            ..Machine::of(self.board, logs)
        };
        let began = Instant::now();
        let mut power = machine.power_on()?;
        let status = rest(&mut power)?;
        let boots = power.cut();
        let (slot, route) = (status.booted_slot, route(&boots));
        let whole = if slot == "a" { Some(releases.running.version) } else { in_b };
        Failure::unless(
            whole.as_ref() == Some(&status.version),
            &format!("slot {slot} to hold a whole release and otad to know which"),
            (&status.version, whole, &route),
        )?;
        let most = usize::from(BOOT_LIMIT) + 1;
        Failure::unless(route.len() <= most, &format!("at most {most} boots"), &route)?;
        Ok(Settled { slot, route, took: began.elapsed() })
    }

    /// Changes the last byte of the release in slot b, on the copy.
    pub fn spoil(&self) -> Result<(), Failure> {
        let image = self.board.image(&Releases::recorded().new)?;
        let bytes = fs::metadata(&image).map_err(Error::io("look at", &image))?.len();
        let [_, slot_b, _] = PARTITION_OFFSETS_BYTES;
        let path = self.disk.path();
        let disk = File::options().read(true).write(true).open(path).map_err(Error::io("open", path))?;
        let place = slot_b + bytes - 1;
        let mut byte = [0];
        disk.read_exact_at(&mut byte, place).map_err(Error::io("read", path))?;
        byte[0] ^= 1;
        disk.write_all_at(&byte, place).map_err(Error::io("write", path))?;
        Ok(())
    }

    /// Where its copies are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Waits until otad says that a slot is confirmed and nothing is under way.
fn rest(power: &mut Power) -> Result<Status, Failure> {
    let began = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(began.elapsed());
        let seen = power.console.wait_for(&[STATUS], left)?;
        let (_, text) = seen.line.split_once(STATUS).unwrap_or_default();
        // A line that the kernel has written into is not the last one.
        let status: Option<Status> = serde_json::from_str(text).ok();
        if let Some(status) = status
            && ["a", "b"].iter().any(|slot| status.rests_in(slot))
        {
            return Ok(status);
        }
    }
}
