//! The life of a release, from draft to completed, told to a fleet while the server is killed at random moments.
//!
//! A tenth of the fleet gets it first; on some of them it fails, so it stops itself; it goes on, is promoted, stops itself again, goes on,
//! and is completed. At no moment may the server count a device that has not committed, and at the end what it knows is what happened:
//! nothing lost, nothing twice.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use otad::testing::medium::mix;
use serde_json::{Value, json};

use crate::device::{Device, DeviceError, FACTORY};
use crate::fleet::{Fleet, World};
use crate::model::ModelError;
use crate::nature::Nature;
use crate::operator::{Operator, OperatorError};
use crate::server::{Server, ServerError};

/// Time in which every device has asked a few times.
const A_FEW_ROUNDS: Duration = Duration::from_secs(2);
/// Threads on which the fleet lives: most of the time they wait for the server.
const THREADS: usize = 8;

const RELEASE: &str = "/api/v1/releases/spring";

/// The story went another way.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum LifeError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("{what}: expected {expected}, found {found}")]
    Unexpected { what: String, expected: String, found: String },
    #[error("{what} did not come within {seconds} s: {release}")]
    Late { what: String, seconds: u64, release: String },
    #[error("something happened to a device that must not")]
    Harm,
}

type Result<T> = std::result::Result<T, LifeError>;

/// What must hold, or else the story ends here.
fn expect<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
    Err(LifeError::Unexpected { what: what.to_owned(), expected, found })
}

/// A device of the fleet that is not simulated.
#[derive(Clone, Copy)]
pub struct Guest<'a> {
    /// The name under which the server knows it.
    pub name: &'a str,
    /// Whether it runs the new release and has committed it.
    pub has_committed: &'a dyn Fn() -> bool,
}

/// Who takes part, and in what.
pub struct Cast<'a> {
    /// The simulated devices, fresh from the factory.
    pub devices: Vec<Device>,
    /// One more, if there is one; it asks, installs and reboots by itself.
    pub guest: Option<Guest<'a>>,
    /// The bundle of the new release: version 2.0.0, sequence 2.
    pub bundle: Vec<u8>,
    /// How often the server is killed on the way.
    pub kills: u32,
    /// Seconds after which a device that does not come back from its reboot counts as silent.
    pub boot_seconds: u32,
    /// Longest time for one chapter of the story.
    pub limit: Duration,
    /// Decides about the moments of the kills.
    pub seed: u64,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each says what it is")]
pub struct Ending {
    pub devices: usize,
    pub committed: usize,
    pub rollbacks: usize,
    pub power_cuts: usize,
    pub never_returned: usize,
    pub questions: u64,
    pub unanswered: u64,
    pub kills: u32,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ending {
            devices,
            committed,
            rollbacks,
            power_cuts,
            never_returned,
            questions,
            unanswered,
            kills,
        } = self;
        write!(
            f,
            "{devices} devices: {committed} committed, {rollbacks} rollbacks, {power_cuts} power cuts, {never_returned} never returned; \
             {questions} questions, {unanswered} without an answer, {kills} kills"
        )
    }
}

/// Tells the story; the server is killed with it.
///
/// # Errors
/// It goes another way than it should.
pub fn tell(server: Server, cast: Cast<'_>) -> Result<Ending> {
    let operator = Operator::new(&server.url());
    let uploaded = operator.upload(&cast.bundle)?;
    // Which devices are the tenth depends on the release's digest, and a third of them are weak. Of 16 no more than two are once in
    // sixteen times, which three errors would wait for in vain; none is once in six hundred.
    let policy = json!({
        "min_confirmed": 5, "min_errors": 1, "error_percent": 5, "promote": false, "backoff_seconds": 1,
        "timeouts": { "boot": cast.boot_seconds },
    });
    let sha256 = uploaded.get("sha256").cloned().unwrap_or_default();
    let declared = json!({ "name": "spring", "artifact": sha256, "policy": policy });
    operator.post("/api/v1/releases", &declared)?;

    let count = cast.devices.len() + usize::from(cast.guest.is_some());
    let fleet = Fleet::start(cast.devices, THREADS);
    fleet.world().set_weak(true);
    let Cast { guest, kills, limit, seed, .. } = cast;
    let world = fleet.world();
    let mut story =
        Story { operator, world, guest, server, seed, limit, kills_left: kills, looks: 0, devices: count };
    let told = through_all_stages(&mut story);
    let Story { operator, server: _server, .. } = story;
    // What happened to a device says more than what followed from it.
    let devices = fleet.stop()?;
    told?;
    nothing_lost_and_nothing_twice(&operator, &devices, guest, kills)
}

struct Story<'a> {
    operator: Operator,
    world: &'a World,
    guest: Option<Guest<'a>>,
    server: Server,
    seed: u64,
    limit: Duration,
    kills_left: u32,
    looks: u64,
    devices: usize,
}

impl Story<'_> {
    fn get(&self, target: &str) -> Result<Value> {
        if self.world.is_over() {
            return Err(LifeError::Harm);
        }
        Ok(self.operator.get(target)?)
    }

    fn post(&self, target: &str) -> Result<Value> {
        Ok(self.operator.post(target, &Value::Null)?)
    }

    fn release(&self) -> Result<Value> {
        self.get(RELEASE)
    }

    /// Waits until something is so, and kills the server at random moments while waiting.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !holds(self)? {
            if begin.elapsed() > self.limit {
                let what = format!("seed {}: {what}", self.seed);
                let (seconds, release) = (self.limit.as_secs(), self.release()?.to_string());
                return Err(LifeError::Late { what, seconds, release });
            }
            self.look_and_maybe_kill()?;
        }
        Ok(())
    }

    fn look_and_maybe_kill(&mut self) -> Result<()> {
        self.looks += 1;
        let random = mix(self.seed, self.looks);
        std::thread::sleep(Duration::from_millis(random % 128));
        if self.kills_left > 0 && random.is_multiple_of(3) {
            self.kills_left -= 1;
            self.server.kill_and_restart()?;
        }
        self.nobody_is_confirmed_who_is_not()
    }

    /// The heart of it: at no moment does the server count a device that has not committed.
    fn nobody_is_confirmed_who_is_not(&self) -> Result<()> {
        let confirmed = devices_at(&self.get(&members("confirmed"))?);
        let committed = self.world.committed();
        let mut early = confirmed.difference(&committed).cloned().collect::<Vec<_>>();
        early.retain(|device| {
            !self.guest.is_some_and(|guest| guest.name == device && (guest.has_committed)())
        });
        expect("confirmed before they had committed", &early, &Vec::new())
    }

    fn what_is_under_way_ends(&mut self) -> Result<()> {
        // "Updating" in the fleet's numbers leaves out who has installed and waits for its reboot.
        let under_way = ["offered", "downloading", "installing", "installed", "rebooting", "on-trial"];
        self.until("the end of what is under way", |story| {
            let release = story.release()?;
            Ok(under_way.iter().all(|step| number(&release, &format!("/devices/{step}")) == 0))
        })
    }

    fn until_paused(&mut self) -> Result<Value> {
        self.until("a pause by itself", |story| Ok(text(&story.release()?, "/status") == "paused"))?;
        let paused = self.release()?;
        let why = text(&paused, "/paused").to_owned();
        expect(&why, &why.contains(" failed, allowed are 5 %"), &true)?;
        Ok(paused)
    }

    /// The operator has repaired what made the boots die: who was rolled back for that may try again at once.
    fn repair_and_resume(&self) -> Result<()> {
        self.world.set_weak(false);
        let listed = self.get(&members("rolled-back"))?;
        for member in list(&listed, "/devices").iter().filter(|member| text(member, "/class") == "boot") {
            self.post(&format!("{RELEASE}/devices/{}/retry", text(member, "/device")))?;
        }
        self.post(&format!("{RELEASE}/resume")).map(drop)
    }
}

fn through_all_stages(story: &mut Story<'_>) -> Result<()> {
    // A draft is offered to nobody, although the fleet asks for it all the time.
    story.until("the fleet", |story| {
        Ok(number(&story.get("/api/v1/fleet")?, "/devices") == story.devices as u64)
    })?;
    expect("offers of a draft", &number(&story.release()?, "/devices/offered"), &0)?;
    story.post(&format!("{RELEASE}/start"))?;

    // Staging: a tenth, of which some are weak: it stops itself.
    let paused = story.until_paused()?;
    expect("the stage", &text(&paused, "/stage"), &"staging")?;
    let staged = number(&paused, "/reach/in_stage");
    let tenth = story.devices as u64 / 24..story.devices as u64 / 24 * 5;
    expect(&format!("{staged} of {} are about a tenth", story.devices), &tenth.contains(&staged), &true)?;
    story.what_is_under_way_ends()?;
    story.repair_and_resume()?;
    story.until("the end of the stage", |story| Ok(number(&story.release()?, "/reach/pending") == 0))?;
    let release = story.release()?;
    let tried = number(&release, "/results/good") + number(&release, "/results/bad");
    expect("who was offered it: the tenth and nobody else", &tried, &staged)?;
    let confirmed = devices_at(&story.get(&members("confirmed"))?);
    let unknown: Vec<_> = story.world.committed().difference(&confirmed).cloned().collect();
    expect("committed and not known to be", &unknown, &Vec::new())?;

    // Production, weak again: it stops itself again.
    story.world.set_weak(true);
    story.post(&format!("{RELEASE}/promote"))?;
    story.until_paused()?;
    // Paused means paused: who is at it ends, and nobody begins.
    story.what_is_under_way_ends()?;
    let before = story.release()?.pointer("/devices").cloned();
    std::thread::sleep(A_FEW_ROUNDS);
    expect("who is where while it is paused", &story.release()?.pointer("/devices").cloned(), &before)?;
    story.repair_and_resume()?;
    while story.kills_left > 0 {
        story.look_and_maybe_kill()?;
    }
    story.until("the release's end", |story| Ok(text(&story.release()?, "/status") == "completed"))?;
    // The last reports are handed in.
    std::thread::sleep(A_FEW_ROUNDS);
    Ok(())
}

fn nothing_lost_and_nothing_twice(
    operator: &Operator,
    devices: &[Device],
    guest: Option<Guest<'_>>,
    kills: u32,
) -> Result<Ending> {
    let release = operator.get(RELEASE)?;
    let truths = || devices.iter().map(Device::truth);
    let guests = usize::from(guest.is_some());
    let ending = Ending {
        devices: devices.len() + guests,
        committed: truths().filter(|truth| truth.committed).count() + guests,
        rollbacks: truths().map(|truth| truth.count("rolled-back")).sum(),
        power_cuts: truths().filter(|truth| truth.cut).count(),
        never_returned: truths().filter(|truth| truth.gone).count(),
        questions: truths().map(|truth| truth.asked).sum(),
        unanswered: truths().map(|truth| truth.unanswered).sum(),
        kills,
    };
    if let Some(guest) = guest {
        expect(&format!("{} has committed", guest.name), &(guest.has_committed)(), &true)?;
    }
    let committed = ending.committed as u64;
    expect("confirmed", &number(&release, "/devices/confirmed"), &committed)?;
    let meant = ending.rollbacks >= 6 && ending.power_cuts >= 5 && ending.never_returned == 1;
    expect(&format!("the story is the one meant: {ending}"), &(meant && ending.unanswered > 0), &true)?;
    let statistics = operator.get("/api/v1/statistics?release=spring")?;
    expect("confirmed, by the records", &number(&statistics, "/by_status/confirmed"), &committed)?;
    let rolled_back = number(&statistics, "/by_status/rolled-back");
    expect("rolled back, by the records", &rolled_back, &(ending.rollbacks as u64))?;
    devices.iter().try_for_each(|device| what_is_known_is_what_happened(operator, device))?;
    Ok(ending)
}

fn what_is_known_is_what_happened(operator: &Operator, device: &Device) -> Result<()> {
    let (name, truth) = (device.name(), device.truth());
    let reports = operator.get(&format!("/api/v1/reports?device={name}"))?;
    // That an offer is not taken is no outcome of an update.
    let outcomes = list(&reports, "/reports").iter();
    let outcomes = outcomes.filter(|report| text(report, "/code") != "RELEASE_FAILED_BEFORE");
    let mut ids: Vec<_> = outcomes.map(|report| text(report, "/report_id")).collect();
    ids.sort_unstable();
    let expected: Vec<_> = truth.reports.keys().map(String::as_str).collect();
    if !truth.gone {
        expect(&format!("the reports of {name}, each once"), &ids, &expected)?;
    }
    let shown = operator.get(&format!("/api/v1/devices/{name}"))?;
    let runs = if truth.committed { 2 } else { FACTORY.1 };
    expect(&format!("what {name} runs"), &number(&shown, "/sequence"), &runs)?;
    let declines = device.nature() == Nature::Unhealthy && truth.count("rolled-back") > 0;
    expect(&format!("{name} has committed: {truth:?}"), &truth.committed, &(!truth.gone && !declines))
}

fn members(step: &str) -> String {
    format!("{RELEASE}/devices?step={step}&limit=1000")
}

fn devices_at(listed: &Value) -> BTreeSet<String> {
    list(listed, "/devices").iter().map(|member| text(member, "/device").to_owned()).collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number that is not there is 0, as a step in which nobody is.
fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}
