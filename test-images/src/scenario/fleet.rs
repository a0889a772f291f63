//! The board among a fleet: one release for it and for simulated devices that run otad's own code over the same images.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bootenv::scheme::SchemeKind;
use otad_fleet_sim::device::Device;
use otad_fleet_sim::life::{self, Cast, Guest};
use otad_fleet_sim::model::Model;
use otad_fleet_sim::nature::Nature;
use otad_fleet_sim::operator::Operator;
use otad_fleet_sim::server::{Server, Setup};

use super::failure::Failure;
use super::releases::Release;
use super::stage::{BOOT, Stage};
use super::status::ended;
use super::{Group, Scenario};
use crate::build::{COMPATIBLE, Edit, Error, Slot};

/// Devices beside the board.
const DEVICES: usize = 200;
/// How often the server is killed.
const KILLS: u32 = 20;
/// A device that is not back from its reboot by then counts as silent. The board takes a minute at most, on a busy machine two.
const BOOT_SECONDS: u32 = 180;
/// One chapter: every device installs a whole image, and the one that never returns is waited for.
const CHAPTER: Duration = Duration::from_secs(900);
/// The status that the server knows of is there already.
const COMMITTED: Duration = Duration::from_secs(30);

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "fleet-release",
    scheme: SchemeKind::Bootcount,
    group: Group::All,
    story: "the life of a release: the board and 200 simulated devices, and the server killed 20 times",
    tell: fleet_release,
}];

fn fleet_release(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (alone(stage, "1.0.0", 1)?, alone(stage, "2.0.0", 2)?);
    stage.factory(&old, Some(&old))?;
    let server = start_server(stage)?;
    let url = server.url();
    stage.machine.server_port = url.rsplit(':').next().and_then(|port| port.parse().ok());
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    let board = first_device(&Operator::new(&url))?;
    stage.step(&format!("the server knows the board as {board}"));

    let bytes = |slot: &Slot| -> Result<Vec<u8>, Failure> {
        let path = stage.board()?.image(slot)?;
        Ok(fs::read(&path).map_err(Error::io("read", &path))?)
    };
    let images = [("1.0.0", 1, bytes(&old)?), ("2.0.0", 2, bytes(&new)?)];
    let path = &stage.board()?.trust_root;
    let root = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let model = Arc::new(Model::of_images(COMPATIBLE, &url, &root, &images)?);
    drop(images);
    let devices = (0..DEVICES).map(|at| Device::new(&model, format!("gw-{at:04}"), Nature::of(at)));
    let bundle = stage.board()?.bundle(&new)?;
    let guest = stage.guest()?;
    let has_committed =
        || guest.wait_for("the commit", COMMITTED, |status| ended(status, "b", "committed", "")).is_ok();
    let cast = Cast {
        devices: devices.collect::<Result<_, _>>()?,
        guest: Some(Guest { name: &board, has_committed: &has_committed }),
        bundle: fs::read(&bundle).map_err(Error::io("read", &bundle))?,
        kills: KILLS,
        boot_seconds: BOOT_SECONDS,
        limit: CHAPTER,
        seed: 1,
    };
    let ending = life::tell(server, cast)?;
    stage.note(ending.to_string());
    stage.went("b")?;
    stage.environment_agrees()?;
    stage.untouched("a", &old)?;
    stage.untouched("b", &new)
}

/// A release whose device asks often and reboots by itself.
fn alone(stage: &Stage<'_>, version: &str, sequence: u64) -> Result<Slot, Failure> {
    let path = stage.board()?.base_tree().join("etc/otad/otad.toml");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let seldom = "interval-seconds = 3600";
    Failure::unless(text.contains(seldom), seldom, &text)?;
    let text = text.replace(seldom, "interval-seconds = 2") + "\n[reboot]\npolicy = \"immediate\"\n";
    Ok(Release::Good.slot(version, sequence).edit(Edit::write("etc/otad/otad.toml", 0o644, text)))
}

fn start_server(stage: &Stage<'_>) -> Result<Server, Failure> {
    let board = stage.board()?;
    let data = stage.dir.join("fleet");
    fs::create_dir_all(&data).map_err(Error::io("create", &data))?;
    let fixed = ["--log-level", "error", "--heartbeat-seconds", "1"].map(str::to_owned);
    let paths = [("--data", &data), ("--root", &board.trust_root)];
    let paths = paths.into_iter().flat_map(|(name, path)| [name.to_owned(), path.display().to_string()]);
    let program = board.host_programs.join("otaserver");
    Ok(Server::start(Setup { program, arguments: fixed.into_iter().chain(paths).collect() })?)
}

/// The name of the only device that has asked so far.
fn first_device(operator: &Operator) -> Result<String, Failure> {
    let began = Instant::now();
    loop {
        let listed = operator.get("/api/v1/devices")?;
        if let Some(name) = listed.pointer("/devices/0/device").and_then(|name| name.as_str()) {
            return Ok(name.to_owned());
        }
        Failure::unless(began.elapsed() < BOOT, "the board to ask the server", &listed)?;
        std::thread::sleep(Duration::from_secs(1));
    }
}
