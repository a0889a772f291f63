//! The life of a release through devices that run otad's own code, with a server that is killed at random moments.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otad::testing::medium::mix;
use otad_demo::Binaries;
use otad_fleet_sim::device::{Device, FACTORY};
use otad_fleet_sim::fleet::{Fleet, World};
use otad_fleet_sim::model::Model;
use otad_fleet_sim::nature::Nature;
use otad_fleet_sim::operator::Operator;
use otad_fleet_sim::server::{Server, Setup};
use serde_json::{Value, json};

const DEVICES: usize = 240;
const THREADS: usize = 8;
const KILLS: u32 = 20;
/// Longest time for one chapter of the story.
const LIMIT: Duration = Duration::from_secs(90);
/// Time in which every device has asked a few times.
const A_FEW_ROUNDS: Duration = Duration::from_secs(2);

const RELEASE: &str = "/api/v1/releases/spring";

struct Story<'a> {
    operator: Operator,
    world: &'a World,
    server: Server,
    seed: u64,
    kills: u32,
    looks: u64,
}

impl Story<'_> {
    fn get(&self, target: &str) -> Value {
        assert!(!self.world.is_over(), "something happened to a device that must not");
        self.operator.get(target).unwrap()
    }

    fn post(&self, target: &str, body: &Value) -> Value {
        self.operator.post(target, body).unwrap()
    }

    fn release(&self) -> Value {
        self.get(RELEASE)
    }

    /// Waits until something is so, and kills the server at random moments while waiting.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            assert!(begin.elapsed() < LIMIT, "seed {}: {what}: {}", self.seed, self.release());
            self.look_and_maybe_kill();
        }
    }

    fn look_and_maybe_kill(&mut self) {
        self.looks += 1;
        let random = mix(self.seed, self.looks);
        std::thread::sleep(Duration::from_millis(random % 128));
        if self.kills < KILLS && random.is_multiple_of(3) {
            self.kills += 1;
            self.server.kill_and_restart().unwrap();
        }
        self.nobody_is_confirmed_who_is_not();
    }

    /// The heart of it: at no moment does the server count a device that has not committed.
    fn nobody_is_confirmed_who_is_not(&self) {
        let confirmed = self.devices_at("confirmed");
        let committed = self.world.committed();
        let early: Vec<_> = confirmed.difference(&committed).collect();
        assert!(early.is_empty(), "seed {}: confirmed before they had committed: {early:?}", self.seed);
    }

    fn devices_at(&self, step: &str) -> BTreeSet<String> {
        let listed = self.get(&format!("{RELEASE}/devices?step={step}&limit=1000"));
        let members = listed["devices"].as_array().unwrap().iter();
        members.map(|member| member["device"].as_str().unwrap().to_owned()).collect()
    }

    fn what_is_under_way_ends(&mut self) {
        // "Updating" in the fleet's numbers leaves out who has installed and waits for its reboot.
        let under_way = ["offered", "downloading", "installing", "installed", "rebooting", "on-trial"];
        self.until("what is under way ends", |story| {
            let devices = &story.release()["devices"];
            under_way.iter().all(|step| devices[step] == 0)
        });
    }

    /// The operator has repaired what made the boots die: who was rolled back for that may try again at once.
    fn try_again(&self) {
        let listed = self.get(&format!("{RELEASE}/devices?step=rolled-back&limit=1000"));
        for member in listed["devices"].as_array().unwrap() {
            if member["class"] == "boot" {
                let device = member["device"].as_str().unwrap();
                self.post(&format!("{RELEASE}/devices/{device}/retry"), &Value::Null);
            }
        }
    }
}

/// W8, W9: 10 %, thresholds, a pause by itself at too many rollbacks, resume, 100 %, completed, with devices whose polling, fetching,
/// installing, committing and reporting is otad's own; and 20 kills on the way lose nothing and count nothing twice.
#[test]
fn w8_w9_the_life_of_a_release_with_otads_own_code() {
    let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    // An empty database of PostgreSQL, for example; without it the server has its own.
    let database = std::env::var("OTAD_FLEET_DATABASE").ok();
    let database: Vec<String> = database.into_iter().flat_map(|url| ["--database".to_owned(), url]).collect();
    the_life_of_a_release(data.path(), &database);
}

fn the_life_of_a_release(data: &Path, database: &[String]) {
    // The model wants the server's address, the server its trust root: the root of every model is the same.
    std::fs::write(data.join("root.toml"), Model::new("acme", "http://127.0.0.1:1").unwrap().root()).unwrap();
    let server = Server::start(setup(data, database)).unwrap();
    let operator = Operator::new(&server.url());
    let model = Arc::new(Model::new("acme", &server.url()).unwrap());
    let devices = (0..DEVICES)
        .map(|number| Device::new(&model, format!("gw-{number:04}"), Nature::of(number)).unwrap())
        .collect();

    let uploaded = operator.upload(&model.bundle("2.0.0", 2).unwrap()).unwrap();
    let policy = json!({
        "min_confirmed": 5, "min_errors": 3, "error_percent": 5, "promote": false, "backoff_seconds": 1,
        "timeouts": { "boot": 15 },
    });
    let declared = json!({ "name": "spring", "artifact": uploaded["sha256"], "policy": policy });
    operator.post("/api/v1/releases", &declared).unwrap();

    let fleet = Fleet::start(devices, THREADS);
    fleet.world().set_weak(true);
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut story = Story { operator, world: fleet.world(), server, seed, kills: 0, looks: 0 };
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| through_all_stages(&mut story)));
    let Story { operator, server: _server, kills, .. } = story;
    let devices = fleet.stop().unwrap_or_else(|error| panic!("{error}"));
    if let Err(panic) = told {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(kills, KILLS, "killed as often as it should be");
    nothing_lost_and_nothing_twice(&operator, &devices);
}

fn setup(data: &Path, database: &[String]) -> Setup {
    let program = Binaries::find().unwrap().path("otaserver");
    let fixed = ["--log-level", "error", "--heartbeat-seconds", "1", "--data"].map(str::to_owned);
    let arguments = fixed.into_iter().chain([data.display().to_string()]).chain(database.iter().cloned());
    Setup { program, arguments: arguments.collect() }
}

fn through_all_stages(story: &mut Story<'_>) {
    // A draft is offered to nobody, although the fleet asks for it all the time.
    story.until("the fleet comes together", |story| story.get("/api/v1/fleet")["devices"] == DEVICES);
    assert_eq!(story.release()["devices"]["offered"], 0);
    story.post(&format!("{RELEASE}/start"), &Value::Null);

    // Staging: a tenth, of which some are weak: it stops itself.
    story.until("staging pauses itself", |story| story.release()["status"] == "paused");
    let paused = story.release();
    assert_eq!(paused["stage"], "staging");
    assert!(paused["paused"].as_str().unwrap().contains(" failed, allowed are 5 %"), "{paused}");
    let staged = paused["reach"]["in_stage"].as_u64().unwrap();
    assert!((10..50).contains(&staged), "{staged} of {DEVICES} are about a tenth");
    story.what_is_under_way_ends();
    story.world.set_weak(false);
    story.try_again();
    story.post(&format!("{RELEASE}/resume"), &Value::Null);
    story.until("the stage ends", |story| story.release()["reach"]["pending"] == 0);
    assert_eq!(story.devices_at("confirmed"), story.world.committed());
    let results = story.release()["results"].clone();
    let tried = results["good"].as_u64().unwrap() + results["bad"].as_u64().unwrap();
    assert_eq!(tried, staged, "nobody outside of the tenth was offered it: {results}");

    // Production, weak again: it stops itself again.
    story.world.set_weak(true);
    story.post(&format!("{RELEASE}/promote"), &Value::Null);
    story.until("production pauses itself", |story| story.release()["status"] == "paused");
    // Paused means paused: who is at it ends, and nobody begins.
    story.what_is_under_way_ends();
    let before = story.release()["devices"].clone();
    std::thread::sleep(A_FEW_ROUNDS);
    assert_eq!(story.release()["devices"], before);
    story.world.set_weak(false);
    story.try_again();
    story.post(&format!("{RELEASE}/resume"), &Value::Null);
    while story.kills < KILLS {
        story.look_and_maybe_kill();
    }
    story.until("the release is completed", |story| story.release()["status"] == "completed");
    // The last reports are handed in.
    std::thread::sleep(A_FEW_ROUNDS);
}

fn nothing_lost_and_nothing_twice(operator: &Operator, devices: &[Device]) {
    let release = operator.get(RELEASE).unwrap();
    let count = |word| devices.iter().map(|device| device.truth().count(word)).sum::<usize>();
    let committed = devices.iter().filter(|device| device.truth().committed).count();
    let (rolled_back, gone) =
        (count("rolled-back"), devices.iter().filter(|device| device.truth().gone).count());
    let cut = devices.iter().filter(|device| device.truth().cut).count();
    let (asked, unanswered) = devices.iter().fold((0, 0), |(asked, unanswered), device| {
        (asked + device.truth().asked, unanswered + device.truth().unanswered)
    });
    println!(
        "{DEVICES} devices: {committed} committed, {rolled_back} rollbacks, {cut} power cuts, {gone} never returned; \
         {asked} questions, {unanswered} without an answer, {KILLS} kills"
    );
    assert_eq!(release["devices"]["confirmed"], committed, "{release}");
    assert!(rolled_back >= 6 && cut >= 5 && gone == 1 && unanswered > 0, "the story was not the one meant");
    let statistics = operator.get("/api/v1/statistics?release=spring").unwrap();
    assert_eq!(statistics["by_status"]["confirmed"], committed, "{statistics}");
    assert_eq!(statistics["by_status"]["rolled-back"], rolled_back, "{statistics}");
    for device in devices {
        let (name, truth) = (device.name(), device.truth());
        let reports = operator.get(&format!("/api/v1/reports?device={name}")).unwrap();
        let reports = reports["reports"].as_array().unwrap();
        let mut ids: Vec<_> = reports.iter().map(|report| report["report_id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        let expected: Vec<_> = truth.reports.keys().map(String::as_str).collect();
        if !truth.gone {
            assert_eq!(ids, expected, "{name}: what otad reported is what the server has, each once");
        }
        let shown = operator.get(&format!("/api/v1/devices/{name}")).unwrap();
        let runs = if truth.committed { 2 } else { FACTORY.1 };
        assert_eq!(shown["sequence"], runs, "{name}");
        let declines = device.nature() == Nature::Unhealthy && truth.count("rolled-back") > 0;
        assert_eq!(truth.committed, !truth.gone && !declines, "{name}: {truth:?}");
    }
}
