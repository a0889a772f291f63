//! The thread that asks the server, and the check that somebody asks for by hand.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use otad_bundle::Digest;
use otad_dbus::value::outcome;
use serde_json::json;

use crate::bus::Desk;
use crate::config::Config;
use crate::engine::{Answer, Install, Message, Ports, Request};
use crate::failure::{Code, Failure};
use crate::install::prepare::Source;
use crate::lifecycle::event::Origin;
use crate::lifecycle::record::report_id;
use crate::poll::{self, Refusal, Schedule};
use crate::ports::{Offer, Question, Receipt, Stop};
use crate::threads::spawn;
use crate::trust::Keeper;
use crate::trust::sequence::Permit;

/// Time between two words to the server about an install: often enough to watch it, cheap enough to forget about.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Starts the poll thread, if a server is configured, and returns what a check by hand runs.
pub fn start(
    config: &Arc<Config>,
    ports: &Ports,
    desk: &Desk,
    trust: Result<Arc<Keeper>, Failure>,
    messages: Sender<Message>,
    wakes: Receiver<()>,
) -> Result<crate::bus::Check, Failure> {
    let Some(server) = config.server.clone() else {
        return Ok(Arc::new(|| {
            let what = "no [server] is configured in otad.toml; install a bundle by file or URL instead";
            Err(Failure::new(Code::WrongState, what))
        }));
    };
    let round = Arc::new(Round {
        config: config.clone(),
        ports: ports.clone(),
        desk: desk.clone(),
        trust,
        messages,
        one_at_a_time: Mutex::new(()),
        declined: Mutex::new(None),
    });
    let by_hand = round.clone();
    spawn("poll", move || keep_asking(&round, Schedule::new(&server), &wakes))?;
    Ok(Arc::new(move || by_hand.run()))
}

/// Asks on schedule, and hands in reports as soon as there are some; ends with the engine.
fn keep_asking(round: &Round, mut schedule: Schedule, wakes: &Receiver<()>) {
    let mut next = Instant::now() + schedule.wait(random());
    let mut teller = Teller::default();
    let mut begun = false;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        // What was just begun may not be in the status yet.
        let wait = if begun || round.is_installing() { wait.min(TELL_EVERY) } else { wait };
        begun = false;
        let result = match wakes.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) if Instant::now() < next => {
                round.tell_progress(&mut teller);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            // After a failure the schedule decides when to try again, not the next report.
            Ok(()) if schedule.is_failing() => continue,
            Ok(()) => round.hand_in(),
            Err(RecvTimeoutError::Timeout) => {
                let result = round.run();
                next = Instant::now() + schedule.wait(random());
                begun = matches!(result, Ok(true));
                result.map(drop)
            }
        };
        match result {
            Ok(()) => schedule.answered(round.ports.fetch.interval()),
            Err(failure) if failure.code == Code::ReleaseFailedBefore => {
                log::info!("{failure}");
                schedule.answered(round.ports.fetch.interval());
            }
            Err(failure) => {
                log::warn!("{}: {failure}", failure.code);
                schedule.failed();
                next = Instant::now() + schedule.wait(random());
            }
        }
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(Instant::now())
}

/// What the server was told of an install.
#[derive(Debug, Default)]
struct Teller {
    /// The last words, so that the same is not said twice.
    said: Option<(&'static str, u32)>,
    /// The server does not want to know.
    hushed: bool,
}

/// One question to the server.
struct Round {
    config: Arc<Config>,
    ports: Ports,
    desk: Desk,
    trust: Result<Arc<Keeper>, Failure>,
    messages: Sender<Message>,
    /// A check by hand and the schedule must not hand in the same reports twice.
    one_at_a_time: Mutex<()>,
    /// The release that the server was told this device does not take, until it offers something else or nothing.
    declined: Mutex<Option<Digest>>,
}

impl Round {
    /// Hands in reports, asks, and starts the install of what is offered; true when one was started.
    fn run(&self) -> Result<bool, Failure> {
        let handed_in = self.hand_in();
        let started = self.ask()?;
        // A server that cannot digest a report must not keep the device from its updates.
        handed_in.map(|()| started)
    }

    fn is_installing(&self) -> bool {
        self.desk.status().job.is_some()
    }

    /// Says how far the install is, if that changed; nothing depends on it, so nothing is tried twice.
    fn tell_progress(&self, teller: &mut Teller) {
        let status = self.desk.status();
        let (Some(job), Ok(device), false) = (&status.job, self.ports.machine.device_id(), teller.hushed)
        else {
            return;
        };
        let snapshot = job.progress.snapshot();
        let words = (snapshot.phase.word(), snapshot.percent());
        if teller.said == Some(words) {
            return;
        }
        teller.said = Some(words);
        let boot_id = self.ports.machine.boot_id().unwrap_or_default();
        let (phase, percent) = words;
        let body = json!({ "device": device, "phase": phase, "percent": percent, "boot_id": boot_id });
        match self.ports.fetch.progress(&body.to_string()) {
            Ok(Receipt::Taken) => {}
            Ok(Receipt::Refused(why)) => {
                log::debug!("the server does not want to know about progress ({why})");
                teller.hushed = true;
            }
            Err(failure) => log::debug!("{}: {failure}", failure.code),
        }
    }

    fn ask(&self) -> Result<bool, Failure> {
        let status = self.desk.status();
        let device = self.ports.machine.device_id().map_err(|error| {
            Failure::new(Code::Internal, format!("the device's id cannot be read: {error}"))
        })?;
        let current = &status.current;
        let boot_id = self.ports.machine.boot_id().unwrap_or_default();
        let question = poll::question(device, &self.config.compatible, current, boot_id, &status.state);
        let answer = self.ports.fetch.check(&question)?;
        let (compatible, fetch) = (&self.config.compatible, &*self.ports.fetch);
        let now = self.ports.clock.wall_seconds();
        poll::refuse_stale(&*self.trust.clone()?, fetch, now, compatible, &answer, current)?;
        let offer = match poll::decide(answer, &status.record, current.release) {
            Ok(offer) => offer,
            Err(refusal) => {
                self.decline(&question, &refusal);
                return Err(refusal.failure);
            }
        };
        *self.declined() = None;
        let Some(offer) = offer else { return Ok(false) };
        if !poll::may_install(&status.state) {
            log::info!("version {} is offered; state {}, so it waits", offer.version, status.state.word());
            return Ok(false);
        }
        log::info!("version {} is offered; installing it", offer.version);
        self.install(offer).map(|()| true)
    }

    /// Says once that an offer is not taken; otherwise the server would wait for it to begin. Lost, it is said at the next offer.
    fn decline(&self, question: &Question, refusal: &Refusal) {
        let Refusal { release, version, failure } = refusal;
        if *self.declined() == Some(*release) {
            return;
        }
        let now = self.ports.clock.wall_seconds();
        let report = json!({
            "device": question.device,
            "compatible": question.compatible,
            // No job and so no number of one: the time tells it from the same answer to a later offer.
            "report_id": format!("{}-{now}-declined", question.boot_id),
            "release": release.to_string(),
            "version": version,
            "from_version": question.version,
            "outcome": outcome::FAILED,
            "phase": "offer",
            "code": failure.code.as_str(),
            "message": failure.message,
            "boot_id": question.boot_id,
            "started_at": now,
            "duration_ms": 0,
        });
        match self.ports.fetch.report(&report.to_string()) {
            Ok(Receipt::Taken) => *self.declined() = Some(*release),
            Ok(Receipt::Refused(why)) => {
                log::warn!("the server does not want to know why its offer is not taken ({why})");
                *self.declined() = Some(*release);
            }
            Err(failure) => log::debug!("{}: {failure}", failure.code),
        }
    }

    fn declined(&self) -> MutexGuard<'_, Option<Digest>> {
        self.declined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_in(&self) -> Result<(), Failure> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let reports = self.desk.status().record.reports.clone();
        for report in reports {
            if let Receipt::Refused(why) = self.ports.fetch.report(&report.to_string())? {
                log::warn!("the server refused a report ({why}); it is dropped");
            }
            self.tell(Message::Reported(report_id(&report).to_owned()))?;
        }
        Ok(())
    }

    fn install(&self, offer: Offer) -> Result<(), Failure> {
        let origin = Origin::Server { url: offer.url.clone(), release: offer.release };
        let source = Source::Url { url: offer.url, delta: offer.delta };
        let install =
            Install { source, origin, stop: Stop::default(), reboot: false, permit: Permit::Granted };
        let (answered, answer) = channel::<Result<Answer, Failure>>();
        self.tell(Message::Ask(
            Request::Install(install),
            Box::new(move |result| drop(answered.send(result))),
        ))?;
        answer.recv().map_err(|_| gone())?.map(drop)
    }

    fn tell(&self, message: Message) -> Result<(), Failure> {
        self.messages.send(message).map_err(|_| gone())
    }
}

fn gone() -> Failure {
    Failure::new(Code::Internal, "the engine has stopped")
}
