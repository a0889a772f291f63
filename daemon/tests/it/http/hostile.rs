//! The hostile network: named misbehaviours of servers, each against a whole install on a device made of files.
//!
//! The engine, the adapters, the bundle and the boot environment are the real ones. Each case ends as its table says:
//! resumed (the target holds the image and is armed), refused (nothing but the network was touched: the environment and
//! the target are byte for byte as before, so a valid target stays bootable), or broken off (the target was being written;
//! it is disarmed, the running system stays first, and the next try installs). None outlives its deadline.

mod answers;
mod device;
mod lines;
mod places;
mod secure;
mod stage;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use otad::adapters::http::{HttpFetch, Limits};
use otad::lifecycle::recover::Standing;
use otad::ports::Stop;

use self::device::{Device, Picture, shelf};
use self::stage::{Case, End, served};
use super::script::Server;
use super::{AGENT, quick};

/// What a single case may take. The longest ones take 5 seconds: three tries of a second each, and the next try after it.
const DEADLINE: Duration = Duration::from_secs(30);
/// What all of them may take together; 7 seconds on two idle cores.
const BUDGET: Duration = Duration::from_secs(150);
/// Cases at a time: nearly all of them wait for time to pass.
const AT_ONCE: usize = 24;
/// Cases at a time when they are tried once more.
const FEW_AT_ONCE: usize = 2;
/// More that end otherwise are no accident of a busy machine.
const UNSURE_AT_MOST: usize = 20;
/// Fewer would be a table that somebody cut short.
const FEWEST: usize = 60;

/// Limits that make a hostile minute a matter of seconds.
fn hasty() -> Limits {
    Limits {
        resolve: Duration::from_secs(1),
        connect: Duration::from_secs(1),
        answer: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        window: Duration::from_secs(1),
        ..quick()
    }
}

fn hasty_fetch() -> HttpFetch {
    HttpFetch::with_limits(None, AGENT, hasty()).unwrap()
}

/// N1 to N14: every misbehaviour of the catalogue.
#[test]
fn n_every_misbehaviour_ends_resumed_or_with_a_clear_code() {
    let cases = catalogue();
    let names: HashSet<_> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    assert!(cases.len() >= FEWEST, "only {} cases", cases.len());

    let started = Instant::now();
    let mut results = run(cases, AT_ONCE);
    // Their clocks are fast: on a machine that stood still for a second, a good line looks dead. What ended otherwise in
    // the crowd is tried once more with little beside it, where it must end as told.
    let unsure: HashMap<_, _> = results
        .iter()
        .filter_map(|result| result.verdict.as_ref().err().map(|why| (result.name.clone(), why.clone())))
        .collect();
    if (1..=UNSURE_AT_MOST).contains(&unsure.len()) {
        println!("once more: {unsure:#?}");
        results.retain(|result| result.verdict.is_ok());
        let again = catalogue().into_iter().filter(|case| unsure.contains_key(&case.name)).collect();
        results.extend(run(again, FEW_AT_ONCE));
    }
    results.sort_by(|one, other| (row_number(one.row), &one.name).cmp(&(row_number(other.row), &other.name)));
    for Finished { row, name, end, took, verdict } in &results {
        let (mark, message) = match verdict {
            Ok(message) => ("ok", message),
            Err(why) => ("WRONG", why),
        };
        println!("{row:4} {name:66} {end:26} {:5.1} s  {mark:5}  {message}", took.as_secs_f32());
    }
    let mut per_row = BTreeMap::new();
    results.iter().for_each(|result| *per_row.entry(row_number(result.row)).or_insert(0) += 1);
    println!(
        "{} misbehaviours in {:.1} s; per row {per_row:?}",
        results.len(),
        started.elapsed().as_secs_f32()
    );

    let wrong: Vec<_> = results
        .iter()
        .filter_map(|result| {
            result.verdict.as_ref().err().map(|why| format!("{} {}: {why}", result.row, result.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} ended otherwise:\n{}", wrong.len(), results.len(), wrong.join("\n"));
    assert!(started.elapsed() < BUDGET, "all together took {:?}", started.elapsed());
}

fn catalogue() -> Vec<Case> {
    [lines::cases(), answers::cases(), places::cases(), secure::cases()].into_iter().flatten().collect()
}

fn row_number(row: &str) -> u32 {
    row.trim_start_matches('N').parse().unwrap()
}

struct Finished {
    row: &'static str,
    name: String,
    end: String,
    took: Duration,
    /// What the failure said, or what is wrong with the end.
    verdict: Result<String, String>,
}

/// Runs cases side by side; one that hangs is left behind and told as such.
fn run(cases: Vec<Case>, at_once: usize) -> Vec<Finished> {
    let queue = Mutex::new(VecDeque::from(cases));
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(case) = next else { return };
                    let finished = run_bounded(case);
                    results.lock().unwrap().push(finished);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn run_bounded(case: Case) -> Finished {
    let (row, name, end) = (case.row, case.name.clone(), case.end.to_string());
    let started = Instant::now();
    let (done, wait) = channel();
    let thread = thread::spawn(move || {
        let verdict = play(case);
        let _ = done.send(verdict);
    });
    let verdict = match wait.recv_timeout(DEADLINE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => {
            Err(format!("still not ended after {} s: it hangs", DEADLINE.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => Err(panic_text(thread)),
    };
    Finished { row, name, end, took: started.elapsed(), verdict }
}

fn panic_text(thread: thread::JoinHandle<()>) -> String {
    let Err(payload) = thread.join() else { return "gone without a verdict".to_owned() };
    let text = payload.downcast_ref::<String>().map(String::as_str);
    format!("panicked: {}", text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no text"))
}

/// Plays one case and judges its end; returns the message of the job.
fn play(case: Case) -> Result<String, String> {
    let (end, words, opponent) = (case.end, case.words, case.begin());
    let mut device = Device::new(opponent.fetch);
    let before = device.picture();
    let stop = Stop::default();
    if let Some(time) = opponent.cancel {
        let stop = stop.clone();
        thread::spawn(move || {
            thread::sleep(time);
            stop.request();
        });
    }
    let job = device.install(&opponent.url, stop);
    let after = device.picture();
    let judged = match end {
        _ if !after.same_running(&before) => Err("the running slot was written".to_owned()),
        _ if !job.message.contains(words) => Err(format!("it does not say {words:?}")),
        End::Resumed if job.result != "done" => Err("did not get through".to_owned()),
        End::Resumed => arrived(&device, &after),
        End::Refused(code) | End::Broken(code) if job.error != code.as_str() => {
            Err("not that code".to_owned())
        }
        End::Refused(_) if after != before => {
            Err("the target or the environment was touched without need".to_owned())
        }
        End::Broken(_) if device.boot_view() != (Standing::Disarmed, "a".to_owned()) => {
            Err("the target that was being written is not disarmed".to_owned())
        }
        End::Refused(_) | End::Broken(_) => {
            drop(opponent.server);
            next_try(&mut device)
        }
    };
    match judged {
        Ok(()) => Ok(job.message),
        Err(what) => Err(format!("{what}: {} {} {}", job.result, job.error, job.message)),
    }
}

/// The image is there, whole, and its trial comes next.
fn arrived(device: &Device, after: &Picture) -> Result<(), String> {
    let image = &shelf().image;
    if after.target.get(..image.len()) != Some(image.as_slice()) {
        return Err("armed, but the target does not hold the image".to_owned());
    }
    match device.boot_view() {
        (Standing::Armed, primary) if primary == "b" => Ok(()),
        other => Err(format!("not armed: {other:?}")),
    }
}

/// Whatever happened, a server that behaves gets the update through.
fn next_try(device: &mut Device) -> Result<(), String> {
    let file = served(&shelf().bundle);
    let server = Server::start(move |_, request, wire| wire.send(&file.answer(request)));
    device.fetch_with(hasty_fetch());
    let job = device.install(&server.url("/good.otab"), Stop::default());
    if job.result != "done" {
        return Err(format!("and the next try failed: {} {}", job.error, job.message));
    }
    arrived(device, &device.picture()).map_err(|what| format!("and the next try: {what}"))
}
