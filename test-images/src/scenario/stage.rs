//! A board from the factory, its power switch, and an update server beside it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bootenv::scheme::SchemeKind;
use otad_demo::server::Artifact;
use otad_demo::{Binaries, Server, Status};

use super::failure::Failure;
use super::status::{ended, is_armed};
use crate::build::{Board, PARTITION_OFFSETS_BYTES, Slot};
use crate::emulator::boots::{BANNER, READY, route};
use crate::emulator::machine::SERVER_URL;
use crate::emulator::{Boot, Card, Drive, Error, Guest, Machine, Power};

/// One boot under emulation on a busy machine.
pub(crate) const BOOT: Duration = Duration::from_secs(240);
/// One install.
pub(crate) const INSTALL: Duration = Duration::from_secs(1200);
/// A trial with all its attempts.
pub(crate) const TRIAL: Duration = Duration::from_secs(1200);

/// What systemd says when it stops on the way.
const NEVER_READY: &str = "You are in emergency mode";

/// What all scenarios share: the boards, built when they are first wanted.
#[derive(Debug)]
pub struct Bench {
    workspace: PathBuf,
    bootcount: OnceLock<Board>,
    boot_order: OnceLock<Board>,
}

/// The place of one scenario.
#[derive(Debug)]
pub struct Stage<'bench> {
    bench: &'bench Bench,
    /// Where its media and logs are.
    pub dir: PathBuf,
    /// The machine, to be changed before the power comes on.
    pub machine: Machine,
    /// The card, for looking at it while the power is off.
    pub card: Card,
    scheme: SchemeKind,
    server: Server,
    power: Option<Power>,
    past: Vec<Boot>,
    began: Instant,
    /// What was seen, for the table.
    pub evidence: Vec<String>,
    boots: usize,
}

impl Bench {
    /// A bench in a work tree.
    pub fn new(workspace: &Path) -> Bench {
        Bench { workspace: workspace.to_owned(), bootcount: OnceLock::new(), boot_order: OnceLock::new() }
    }

    /// Builds boards, and from then on ends whatever runs when this program is told to end. Not before: what builds boards
    /// would inherit that signals are for one thread only.
    pub fn prepare(&self, schemes: &[SchemeKind]) -> Result<(), Failure> {
        schemes.iter().try_for_each(|scheme| self.board(*scheme).map(drop))?;
        otad_demo::cleanup::on_signals_and_panics()
            .map_err(Error::io("watch for signals in", &self.workspace))?;
        Ok(())
    }

    /// Where everything of the board is.
    pub fn directory(&self) -> PathBuf {
        self.workspace.join("target/board")
    }

    /// The board of a scheme.
    pub fn board(&self, scheme: SchemeKind) -> Result<&Board, Failure> {
        let cell = match scheme {
            SchemeKind::Bootcount => &self.bootcount,
            SchemeKind::BootOrder => &self.boot_order,
        };
        if let Some(board) = cell.get() {
            return Ok(board);
        }
        let board = Board::build(&self.workspace, scheme)?;
        Ok(cell.get_or_init(|| board))
    }
}

impl<'bench> Stage<'bench> {
    /// Sets the stage in a directory: a server without releases, and no board yet.
    pub fn set(bench: &'bench Bench, scheme: SchemeKind, dir: &Path) -> Result<Stage<'bench>, Failure> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let board = bench.board(scheme)?;
        let programs = Binaries::in_directory(&board.host_programs);
        let server = Server::start(&dir.join("otaserver"), &board.trust_root, &programs)?;
        let port = server.url().rsplit(':').next().and_then(|port| port.parse().ok());
        let machine = Machine { server_port: port, ..Machine::of(board, dir) };
        Ok(Stage {
            bench,
            dir: dir.to_owned(),
            machine,
            card: Card::at(dir.join("card.img")),
            scheme,
            server,
            power: None,
            past: Vec::new(),
            began: Instant::now(),
            evidence: Vec::new(),
            boots: 0,
        })
    }

    /// The bench that other stages stand on too.
    pub fn bench(&self) -> &'bench Bench {
        self.bench
    }

    /// The board that is on the stage.
    pub fn board(&self) -> Result<&'bench Board, Failure> {
        self.bench.board(self.scheme)
    }

    /// A new device: this release in slot a, that one in slot b or nothing.
    pub fn factory(&mut self, a: &Slot, b: Option<&Slot>) -> Result<(), Failure> {
        let board = self.board()?;
        let a = board.image(a)?;
        let b = b.map(|b| board.image(b)).transpose()?;
        let disk = board.new_disk(&self.dir, &a, b.as_deref())?;
        let card = board.new_card(&self.dir)?;
        self.card = Card::at(&card);
        self.machine.disk = Some(Drive::keeping(disk));
        self.machine.card = Some(Drive::keeping(card));
        Ok(())
    }

    /// A new device that was made by the commands of the porting guide; returns where its bundles are.
    pub fn factory_of_guide(&mut self) -> Result<PathBuf, Failure> {
        let made = self.board()?.follow_guide(&self.bench.workspace, &self.dir.join("guide"))?;
        self.machine.firmware = made.uboot;
        self.machine.disk = Some(Drive::keeping(made.disk));
        self.card = Card::at(&made.card);
        self.machine.card = Some(Drive::keeping(made.card));
        Ok(made.work)
    }

    /// A boot loader that takes nothing but the variables of the scheme from the stored environment.
    pub fn close_environment(&mut self) -> Result<(), Failure> {
        self.machine.firmware = self.board()?.closed_uboot(&self.bench.workspace)?;
        Ok(())
    }

    /// Switches the power on.
    pub fn power_on(&mut self) -> Result<(), Failure> {
        self.step("power on");
        self.power = Some(self.machine.power_on()?);
        Ok(())
    }

    /// Cuts the power.
    pub fn power_off(&mut self) {
        if let Some(power) = self.power.take() {
            let boots = power.cut();
            self.boots += boots.len();
            self.step(&format!("power off after the boots {}", route(&boots)));
            self.past.extend(boots);
        }
    }

    /// The machine, which must be on.
    pub fn power(&mut self) -> Result<&mut Power, Failure> {
        self.power.as_mut().ok_or_else(|| Failure::Unexpected {
            expected: "a machine whose power is on".to_owned(),
            found: "none".to_owned(),
        })
    }

    /// Its shell.
    pub fn guest(&mut self) -> Result<Guest, Failure> {
        self.power().map(|power| power.guest.clone())
    }

    /// Waits until userland is up, in this slot with this version, and returns the boot.
    pub fn wait_ready(&mut self, slot: &str, version: &str) -> Result<Boot, Failure> {
        self.wait_ready_within(slot, version, BOOT)
    }

    /// The same, for boots that come after others.
    pub fn wait_ready_within(
        &mut self,
        slot: &str,
        version: &str,
        within: Duration,
    ) -> Result<Boot, Failure> {
        let wanted = format!("{READY}slot={slot} version={version} ");
        let seen = self.power()?.console.wait_for(&[&wanted, NEVER_READY], within)?;
        Failure::unless(seen.which == 0, &format!("`{wanted}`"), &seen.line)?;
        let boots = self.power()?.boots();
        let boot = boots.last().cloned().unwrap_or_default();
        let seconds = boot.ready_after.unwrap_or_default().as_secs();
        self.step(&format!("up in slot {slot}, version {version}, {seconds} s after its U-Boot"));
        Ok(boot)
    }

    /// Waits until another boot begins.
    pub fn wait_boot(&mut self) -> Result<(), Failure> {
        self.power()?.console.wait_for(&[BANNER], TRIAL).map(drop).map_err(Failure::from)
    }

    /// Uploads a release to the server.
    pub fn publish(&mut self, release: &Slot) -> Result<Artifact, Failure> {
        let bundle = self.board()?.bundle(release)?;
        let artifact = self.server.upload(&bundle)?;
        self.step(&format!("{} is on the server", release.version));
        Ok(artifact)
    }

    /// The URL under which the board finds an artifact.
    pub fn url(&self, artifact: &Artifact) -> String {
        format!("{SERVER_URL}{}", artifact.url)
    }

    /// The server beside the board.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Installs a release over HTTP, as a person on the board's shell would, and waits until it is armed in that slot.
    pub fn install(&mut self, release: &Slot, slot: &str) -> Result<(), Failure> {
        let artifact = self.publish(release)?;
        let line = format!("otactl install {}", self.url(&artifact));
        let guest = self.guest()?;
        let started = Instant::now();
        let answer = guest.answer(guest.command(&line, INSTALL))?;
        let said = format!("{}{}", answer.output, answer.error);
        Failure::unless(answer.status.success(), &format!("`{line}` to succeed"), &said)?;
        let status = guest.status()?;
        Failure::unless(is_armed(&status, slot), &format!("slot {slot} armed"), &status)?;
        self.step(&format!("{} installed into {slot} in {} s", release.version, started.elapsed().as_secs()));
        Ok(())
    }

    /// Asks the board to reboot and waits until it does.
    pub fn reboot(&mut self) -> Result<(), Failure> {
        // The connection may go before the answer comes: the console tells.
        let _ = self.guest()?.try_run("otactl reboot")?;
        self.wait_boot()
    }

    /// Waits until otad's status is as expected.
    pub fn wait_status(
        &mut self,
        what: &str,
        within: Duration,
        expected: impl FnMut(&Status) -> bool,
    ) -> Result<Status, Failure> {
        let status = self.guest()?.wait_for(what, within, expected)?;
        self.step(what);
        Ok(status)
    }

    /// Waits until the running trial is committed in this slot.
    pub fn wait_committed(&mut self, slot: &str) -> Result<(), Failure> {
        let what = format!("slot {slot} is committed");
        self.wait_status(&what, TRIAL, |status| ended(status, slot, "committed", "")).map(drop)
    }

    /// The boots since the power came on.
    pub fn boots_now(&mut self) -> Result<Vec<Boot>, Failure> {
        self.power().map(|power| power.boots())
    }

    /// The boots of the power cycles that are over.
    pub fn past(&self) -> &[Boot] {
        &self.past
    }

    /// The name under which the server knows the board; `None` before it first asked.
    pub fn device_name(&self) -> Result<Option<String>, Failure> {
        let url = format!("{}/api/v1/devices", self.server.url());
        let answer = Command::new("curl").args(["--silent", "--show-error", "--fail", &url]).output();
        let answer = answer.map_err(|source| Error::Start { program: "curl", source })?;
        let list: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        Ok(list.pointer("/devices/0/device").and_then(|name| name.as_str()).map(str::to_owned))
    }

    /// How often the board has booted in this scenario, power cycles included.
    pub fn boots_ever(&self) -> usize {
        self.boots + self.power.as_ref().map_or(0, |power| power.boots().len())
    }

    /// The first bytes of a slot's partition equal the image of a release; with the power off.
    pub fn slot_holds(&self, slot: &str, release: &Slot) -> Result<bool, Failure> {
        let image = self.board()?.image(release)?;
        holds(&self.dir.join("disk.img"), slot, &image)
    }

    /// Keeps otad's own log beside the others, if the board still answers: a scenario has failed.
    pub fn last_words(&mut self) {
        const LINE: &str = "otactl status; otactl log; bootenv check; bootenv print; journalctl -b --no-pager -o short-monotonic";
        let Some(power) = &self.power else { return };
        if let Ok(answer) = power.guest.try_run(LINE) {
            let text = format!("{}\n{}", answer.output, answer.error);
            // What cannot be kept cannot be helped either.
            let _ = fs::write(self.dir.join("last-words.log"), text);
        }
    }

    /// Notes what happened, with the time.
    pub fn step(&mut self, what: &str) {
        let line = format!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64());
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        println!("{name:17} {line}");
        let path = self.dir.join("steps.log");
        let written = fs::File::options().create(true).append(true).open(&path);
        // The log is for people; what counts is the result.
        let _ = written.and_then(|mut file| writeln!(file, "{line}"));
    }

    /// Notes something for the table.
    pub fn note(&mut self, evidence: impl Into<String>) {
        let evidence = evidence.into();
        self.step(&evidence);
        self.evidence.push(evidence);
    }
}

/// Whether a slot's partition on a disk begins with exactly this image.
pub fn holds(disk: &Path, slot: &str, image: &Path) -> Result<bool, Failure> {
    use std::os::unix::fs::FileExt as _;
    const PIECE_BYTES: usize = 1 << 20;
    let [a, b, _] = PARTITION_OFFSETS_BYTES;
    let start = if slot == "a" { a } else { b };
    let open = |path: &Path| fs::File::open(path).map_err(Error::io("open", path));
    let (disk_file, image_file) = (open(disk)?, open(image)?);
    let size = image_file.metadata().map_err(Error::io("look at", image))?.len();
    let (mut here, mut there) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from(size - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let (here, there) =
            (here.get_mut(..length).unwrap_or_default(), there.get_mut(..length).unwrap_or_default());
        disk_file.read_exact_at(here, start + offset).map_err(Error::io("read", disk))?;
        image_file.read_exact_at(there, offset).map_err(Error::io("read", image))?;
        if here != there {
            return Ok(false);
        }
        offset += length as u64;
    }
    Ok(true)
}
