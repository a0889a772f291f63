//! The life of a release through a simulated fleet, with a server that is killed at random moments.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::http::{Answer, try_send};
use crate::process::{Process, directory};
use crate::rig::{Spec, noise};

const DEVICES: usize = 240;
const WORKERS: usize = 6;
const KILLS: usize = 20;
const LIMIT: Duration = Duration::from_secs(120);

/// What the threads of the test share.
struct World {
    /// Where the servers are. All of them serve the whole fleet.
    addresses: Mutex<Vec<SocketAddr>>,
    /// Most devices that may be at it.
    most: u64,
    /// Whether weak devices still fail their health checks.
    weak: AtomicBool,
    stop: AtomicBool,
    /// Devices whose new system has confirmed itself, whatever the server knows of it.
    committed: Mutex<HashSet<String>>,
    rollbacks: AtomicU32,
}

impl World {
    /// Asks until there is an answer, as a device does: a killed server comes back, or the next one answers.
    fn ask(&self, home: usize, method: &str, target: &str, body: Option<&Value>) -> Option<Answer> {
        let body = body.filter(|body| !body.is_null()).map(Value::to_string).unwrap_or_default();
        let begin = Instant::now();
        for turn in home.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            assert!(begin.elapsed() < LIMIT, "no answer to {method} {target}");
            let address = {
                let addresses = self.addresses.lock().unwrap();
                addresses[turn % addresses.len()]
            };
            if let Some(answer) = try_send(address, method, target, &[], body.as_bytes()) {
                return Some(answer);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn get(&self, target: &str) -> Value {
        self.ask(target.len(), "GET", target, None).expect("the test still runs").json()
    }

    fn post(&self, target: &str, body: &Value) -> Value {
        let answer = self.ask(target.len(), "POST", target, Some(body)).expect("the test still runs");
        assert!(answer.status < 300, "{target}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    fn release(&self) -> Value {
        let release = self.get("/api/v1/releases/spring");
        // Who waits for its reboot holds no place, and needs none to come back from it.
        let at_it = ["offered", "downloading", "installing"];
        let taken: u64 = at_it.iter().filter_map(|step| release["devices"][step].as_u64()).sum();
        assert!(taken <= self.most, "{taken} devices hold {} places: {release}", self.most);
        release
    }

    /// Waits until the release has a status, and kills the server at random moments while waiting.
    fn until(&self, status: &str, killer: &mut Killer<'_>) -> Value {
        let begin = Instant::now();
        loop {
            killer.maybe_kill();
            let release = self.release();
            self.nobody_is_confirmed_who_is_not();
            if release["status"] == status {
                return release;
            }
            assert!(begin.elapsed() < LIMIT, "the release does not become {status}: {release}");
        }
    }

    fn what_is_under_way_ends(&self, killer: &mut Killer<'_>) {
        let begin = Instant::now();
        while self.get("/api/v1/fleet")["updating"] != 0 {
            assert!(begin.elapsed() < LIMIT, "what is under way ends: {}", self.release());
            killer.maybe_kill();
        }
    }

    /// The heart of it: at no moment does the server count a device that has not confirmed itself.
    fn nobody_is_confirmed_who_is_not(&self) {
        let listed = self.get("/api/v1/releases/spring/devices?step=confirmed&limit=1000");
        let committed = self.committed.lock().unwrap();
        for member in listed["devices"].as_array().unwrap() {
            assert!(committed.contains(member["device"].as_str().unwrap()), "{member}");
        }
    }
}

/// Starts a server, the first time and after every kill.
pub(crate) type Launch<'a> = Box<dyn Fn() -> Process + 'a>;

/// Servers that are killed now and then.
struct Killer<'a> {
    world: &'a World,
    processes: Vec<Process>,
    launches: &'a [Launch<'a>],
    random: Vec<u8>,
    kills: usize,
}

impl Killer<'_> {
    fn maybe_kill(&mut self) {
        let random = self.random.pop().unwrap_or(0);
        std::thread::sleep(Duration::from_millis(u64::from(random)));
        if self.kills < KILLS && random.is_multiple_of(3) {
            self.kills += 1;
            let one = self.kills % self.processes.len();
            self.processes[one].signal(Signal::SIGKILL);
            self.processes[one] = self.launches[one]();
            self.world.addresses.lock().unwrap()[one] = self.processes[one].address;
        }
    }

    /// Kills all but the first for good.
    fn leave_one(&mut self) {
        for mut process in self.processes.drain(1..) {
            process.signal(Signal::SIGKILL);
        }
    }
}

struct Device {
    home: usize,
    name: String,
    weak: bool,
    sequence: u64,
    release: String,
    boot: u32,
    attempt: u32,
    offers: u32,
}

impl Device {
    fn new(number: usize) -> Device {
        let name = format!("gw-{number:04}");
        Device {
            home: number,
            name,
            weak: number.is_multiple_of(2),
            sequence: 1,
            release: "11".repeat(32),
            boot: 1,
            attempt: 0,
            offers: 0,
        }
    }

    fn check(&self, world: &World, release: &str, sequence: u64, state: &str) -> Option<Answer> {
        let Device { name, boot, .. } = self;
        let target = format!(
            "/device/v1/update?device={name}&compatible=acme&version={sequence}.0.0&sequence={sequence}&release={release}\
             &boot_id=boot-{boot}&state={state}"
        );
        world.ask(self.home, "GET", &target, None)
    }

    fn report(&self, world: &World, outcome: &str, release: &str, code: &str) -> Option<()> {
        let Device { name, boot, attempt, .. } = self;
        let body = json!({
            "device": name, "compatible": "acme", "report_id": format!("{attempt}-{outcome}"), "outcome": outcome,
            "release": release, "version": "2.0.0", "slot": "b", "boot_id": format!("boot-{boot}"), "code": code,
            "duration_ms": 1000, "bytes_fetched": 5,
        });
        let answer = world.ask(self.home, "POST", "/device/v1/reports", Some(&body))?;
        assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
        Some(())
    }

    /// One round of the device's life; `None` when the test is over.
    fn live(&mut self, world: &World) -> Option<()> {
        let answer = self.check(world, &self.release, self.sequence, "idle")?;
        if answer.status == 204 {
            return Some(());
        }
        let offer = answer.json();
        self.offers += 1;
        let (release, sequence) =
            (offer["release"].as_str().unwrap().to_owned(), offer["sequence"].as_u64().unwrap());
        self.attempt += 1;
        self.check(world, &self.release, self.sequence, "upgrading")?;
        self.report(world, "installed", &release, "")?;
        self.boot += 1;
        self.check(world, &release, sequence, "post-upgrade")?;
        if self.weak && world.weak.load(Ordering::Relaxed) {
            self.boot += 1;
            world.rollbacks.fetch_add(1, Ordering::Relaxed);
            return self.report(world, "rolled-back", &release, "HEALTH_FAILED");
        }
        world.committed.lock().unwrap().insert(self.name.clone());
        self.report(world, "committed", &release, "")?;
        (self.release, self.sequence) = (release, sequence);
        Some(())
    }
}

/// W8, W9: 10 %, thresholds, a pause by itself at too many rollbacks, resume, 100 %, completed; and 20 kills on the way lose
/// nothing and count nothing twice.
#[test]
fn w8_w9_the_life_of_a_release_with_a_server_that_is_killed() {
    let data = directory();
    live_through(&[Box::new(|| Process::start(data.path()))], DEVICES as u64);
}

/// Lets a release live on servers that are killed, with at most so many devices at it at a time; the last stage is left to the first
/// server alone.
pub(crate) fn live_through(launches: &[Launch<'_>], most: u64) {
    let processes: Vec<_> = launches.iter().map(|launch| launch()).collect();
    let world = World {
        addresses: Mutex::new(processes.iter().map(|process| process.address).collect()),
        most,
        weak: AtomicBool::new(true),
        stop: AtomicBool::new(false),
        committed: Mutex::default(),
        rollbacks: AtomicU32::new(0),
    };
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let random = noise(10_000, seed).into_iter().map(|byte| byte / 2).collect();
    let mut killer = Killer { world: &world, processes, launches, random, kills: 0 };

    let bundle = Spec { random_bytes: 1000, ..Spec::default() }.bundle();
    let uploaded =
        try_send(killer.processes[0].address, "POST", "/api/v1/artifacts", &[], &bundle).unwrap().json();
    let policy = json!({ "min_confirmed": 5, "min_errors": 3, "error_percent": 5, "promote": false,
        "max_concurrent": most });
    world.post(
        "/api/v1/releases",
        &json!({ "name": "spring", "artifact": uploaded["sha256"], "policy": policy }),
    );

    let mut devices: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let world = &world;
                scope.spawn(move || {
                    let mut devices: Vec<_> =
                        (0..DEVICES).filter(|number| number % WORKERS == worker).map(Device::new).collect();
                    while devices.iter_mut().all(|device| device.live(world).is_some()) {}
                    devices
                })
            })
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            through_all_stages(&world, &mut killer)
        }));
        world.stop.store(true, Ordering::Relaxed);
        let devices = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        devices
    });
    world.stop.store(false, Ordering::Relaxed);
    assert_eq!(killer.kills, KILLS, "killed as often as it should be");
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    nothing_lost_and_nothing_twice(&world, &devices);
}

fn through_all_stages(world: &World, killer: &mut Killer<'_>) {
    // A draft is offered to nobody, although the fleet asks for it all the time.
    let begin = Instant::now();
    while world.get("/api/v1/fleet")["devices"] != DEVICES {
        assert!(begin.elapsed() < LIMIT, "the fleet does not come together");
        killer.maybe_kill();
    }
    assert_eq!(world.release()["devices"]["offered"], 0);
    world.post("/api/v1/releases/spring/start", &Value::Null);

    // Staging: a tenth, of which half is weak: it stops itself.
    let paused = world.until("paused", killer);
    assert_eq!(paused["stage"], "staging");
    assert!(paused["paused"].as_str().unwrap().contains(" failed, allowed are 5 %"), "{paused}");
    let staged = world.release()["reach"]["in_stage"].as_u64().unwrap();
    assert!((10..50).contains(&staged), "{staged} of {DEVICES} are about a tenth");
    world.what_is_under_way_ends(killer);
    world.weak.store(false, Ordering::Relaxed);
    world.post("/api/v1/releases/spring/resume", &Value::Null);
    let begin = Instant::now();
    while world.release()["reach"]["pending"] != 0 {
        assert!(begin.elapsed() < LIMIT, "the stage does not end: {}", world.release());
        killer.maybe_kill();
    }
    let staging = world.release();
    assert_eq!(
        (&staging["status"], &staging["results"]["good"]),
        (&json!("staging"), &json!(world.committed.lock().unwrap().len()))
    );
    let tried = staging["results"]["good"].as_u64().unwrap() + staging["results"]["bad"].as_u64().unwrap();
    assert_eq!(tried, staged, "nobody outside of the tenth was offered it: {staging}");

    // Production, weak again: it stops itself again.
    world.weak.store(true, Ordering::Relaxed);
    world.post("/api/v1/releases/spring/promote", &Value::Null);
    world.until("paused", killer);
    // Paused means paused: who is at it ends, and nobody begins.
    world.what_is_under_way_ends(killer);
    let before = world.release()["devices"].clone();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.release()["devices"], before);
    world.weak.store(false, Ordering::Relaxed);

    // The operator has repaired what was wrong: those that were rolled back may try again.
    for member in world.get("/api/v1/releases/spring/devices?step=rolled-back&limit=1000")["devices"]
        .as_array()
        .unwrap()
    {
        let device = member["device"].as_str().unwrap();
        world.post(&format!("/api/v1/releases/spring/devices/{device}/retry"), &Value::Null);
    }
    world.post("/api/v1/releases/spring/resume", &Value::Null);
    while killer.kills < KILLS {
        killer.maybe_kill();
    }
    killer.leave_one();
    world.until("completed", killer);
}

fn nothing_lost_and_nothing_twice(world: &World, devices: &[Device]) {
    let release = world.release();
    assert_eq!(release["devices"]["confirmed"], DEVICES, "{release}");
    assert_eq!(world.committed.lock().unwrap().len(), DEVICES);
    let statistics = world.get("/api/v1/statistics?release=spring");
    let rollbacks = world.rollbacks.load(Ordering::Relaxed);
    assert!(rollbacks >= 6, "{rollbacks}");
    assert_eq!(statistics["by_status"], json!({ "confirmed": DEVICES, "rolled-back": rollbacks }));
    assert_eq!(statistics["by_class"], json!({ "health": rollbacks }));
    for device in devices {
        let name = &device.name;
        let shown = world.get(&format!("/api/v1/devices/{name}"));
        let after: Vec<_> = (shown["history"].as_array().unwrap().iter().rev())
            .map(|step| step["after"].as_str().unwrap())
            .filter(|step| *step != "allowed")
            .collect();
        let once = ["offered", "installing", "installed", "on-trial"];
        let mut expected: Vec<&str> = Vec::new();
        for attempt in 1..=device.attempt {
            expected.extend(once);
            expected.push(if attempt < device.attempt { "rolled-back" } else { "confirmed" });
        }
        assert_eq!(after, expected, "{name}");
        assert_eq!(shown["releases"][0]["standing"]["attempts"], device.attempt, "{name}");
        assert_eq!((shown["sequence"].as_u64(), device.offers), (Some(2), device.attempt), "{name}");
    }
}
