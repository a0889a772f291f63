//! What somebody wants of the device, and how they go about it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bootenv::{SchemeKind, Store};
use otad::engine::{Ports, Status};
use otad::lifecycle::event::{Stage, State as Lifecycle};
use otad::testing::rig::Rig;
use otad::testing::storage::{Names, Storage};

use crate::board::{BAD, BAD_ROTATED, BRINGING, Board, FACTORY, GOOD, NEXT, OLD, ROTATED, WAY_BACK};
use crate::world::{self, State};

/// Requests after which the operator takes the device for broken.
const REQUESTS: u8 = 8;

/// A change of the wiring, to see whether the simulator notices.
pub(crate) trait Mutation: Send + Sync {
    fn wire(&self, board: &Board, rig: &Rig, ports: Ports, store: Box<dyn Store>) -> (Ports, Box<dyn Store>);
}

/// What is wanted in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// This release, running and confirmed; or the way back when it is a bad one.
    Install(usize),
    /// A server offers this release again and again; the poll loop decides.
    Offered(usize),
    /// First the one, armed; then, before any reboot, the other.
    Supersede(usize, usize),
    /// The release in the other slot again.
    GoBack(usize),
    /// Nothing; this runs, or what the boot loader may start instead.
    Stay(usize),
    /// Armed and taken back before the reboot.
    Cancel(usize),
}

/// A device, and what is wanted of it.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) board: Arc<Board>,
    pub(crate) start: Storage,
    pub(crate) plan: Plan,
    /// After a failure: look again after a reboot before trying once more.
    pub(crate) reboot_first: bool,
    /// Both copies of the environment are erased whenever the power goes.
    pub(crate) erase: bool,
    /// A kernel that panics is no violation: the disk lies.
    pub(crate) lying: bool,
    /// The power goes as often as a trial has attempts: a slot that nobody installed may be given up for good.
    pub(crate) wearing: bool,
    pub(crate) mutation: Option<Arc<dyn Mutation>>,
}

/// What the operator does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Install(usize),
    Rollback,
    Cancel,
    Reboot,
    Settled,
}

/// What the operator remembers across power cuts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Operator {
    /// Requests so far.
    asked: u8,
    /// Number of this boot, as far as a request can have told it to anybody.
    pub(crate) epoch: u8,
    asked_here: bool,
    /// How far the plan is.
    stage: u8,
    /// The last request was refused.
    pub(crate) refused: bool,
    /// Looked again after a reboot.
    looked: bool,
    /// The anti-rollback floor that was seen.
    pub(crate) floor: u64,
    /// The newest root of trust that was seen in the data directory.
    pub(crate) root: u64,
    /// What the device was like when it was settled.
    pub(crate) rest: u64,
}

impl Operator {
    /// Somebody who comes later and knows nothing of what was tried.
    pub(crate) fn after(other: &Operator) -> Operator {
        Operator { epoch: other.epoch + 1, floor: other.floor, root: other.root, ..Operator::default() }
    }

    pub(crate) fn power_on(&mut self) {
        self.epoch += u8::from(std::mem::take(&mut self.asked_here));
    }

    pub(crate) fn asks(&mut self) {
        self.asked += 1;
        self.asked_here = true;
        self.looked = false;
        self.rest = 0;
    }

    pub(crate) fn key(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl Scenario {
    pub(crate) fn new(name: &str, board: &Arc<Board>, start: Storage, plan: Plan) -> Scenario {
        Scenario {
            name: name.to_owned(),
            board: board.clone(),
            start,
            plan,
            reboot_first: true,
            erase: false,
            lying: false,
            wearing: false,
            mutation: None,
        }
    }

    pub(crate) fn initial(&self) -> State {
        State { storage: self.start.clone(), operator: Operator::default() }
    }

    /// What the operator does next, seeing this.
    pub(crate) fn next(&self, operator: &mut Operator, status: &Status) -> Result<Action, String> {
        if operator.asked >= REQUESTS {
            return Err(format!(
                "{REQUESTS} requests did not lead anywhere; the state is {:?}",
                status.state
            ));
        }
        match &status.state {
            Lifecycle::Idle | Lifecycle::Failed(..) => self.at_rest(operator, status),
            Lifecycle::PostUpgrade(_, Stage::Armed) => Ok(self.when_armed(operator)),
            other => Err(format!("I8: nothing is under way and the state is {other:?}")),
        }
    }

    /// The same on a device on which something fails: one request, and nothing is repeated.
    pub(crate) fn next_once(
        &self,
        operator: &Operator,
        status: &Status,
        codes: &[String],
    ) -> Result<Action, String> {
        match &status.state {
            Lifecycle::Idle | Lifecycle::Failed(..) if operator.asked == 0 => Ok(match self.plan {
                Plan::Install(release)
                | Plan::Offered(release)
                | Plan::Cancel(release)
                | Plan::Supersede(release, _) => Action::Install(release),
                Plan::GoBack(_) => Action::Rollback,
                Plan::Stay(_) => Action::Settled,
            }),
            Lifecycle::PostUpgrade(_, Stage::Armed) => Ok(Action::Reboot),
            Lifecycle::Idle if operator.refused && codes.is_empty() => {
                Err("I8: refused without a code".to_owned())
            }
            Lifecycle::Idle | Lifecycle::Failed(..) => Ok(Action::Settled),
            // The reboot that it asked for is what fails.
            Lifecycle::PostUpgrade(_, Stage::RollingBack(_)) => Ok(Action::Reboot),
            other => Err(format!("I8: nothing is under way and the state is {other:?}")),
        }
    }

    fn when_armed(&self, operator: &mut Operator) -> Action {
        match self.plan {
            Plan::Supersede(_, second) if operator.stage == 0 => {
                operator.stage = 1;
                Action::Install(second)
            }
            Plan::Cancel(_) if operator.stage == 0 => {
                operator.stage = 1;
                Action::Cancel
            }
            Plan::Install(_)
            | Plan::Offered(_)
            | Plan::Supersede(..)
            | Plan::GoBack(_)
            | Plan::Stay(_)
            | Plan::Cancel(_) => Action::Reboot,
        }
    }

    fn at_rest(&self, operator: &mut Operator, status: &Status) -> Result<Action, String> {
        let running = self.running(status);
        let failed = match &status.state {
            Lifecycle::Failed(_, reason) => Some(reason),
            _ => None,
        };
        if failed.is_some_and(|reason| {
            otad::failure::Code::from_text(&reason.code).is_none() || reason.message.is_empty()
        }) {
            return Err(format!("I8: a failure without a code or a reason: {failed:?}"));
        }
        if let Plan::Supersede(first, _) = self.plan
            && running == Some(first)
        {
            // The power went before it could be superseded.
            operator.stage = 1;
        }
        let last = status.record.history.last();
        let rolled_back = last.is_some_and(|last| last.outcome == "rolled-back");
        let done = match self.plan {
            Plan::Install(release) if self.board.releases[release].healthy => running == Some(release),
            Plan::Install(release) => {
                if running == Some(release) && status.primary.is_none() {
                    // The environment is lost and this is what the boot loader found. It does not reach
                    // boot-complete.target, and the deadline of the unit for that reboots it.
                    return Ok(Action::Reboot);
                }
                if running == Some(release) {
                    return Err("an unhealthy release runs and is taken for good".to_owned());
                }
                rolled_back
            }
            Plan::Offered(release) => !self.would_take(release, status),
            Plan::Supersede(_, second) => running == Some(second),
            Plan::GoBack(release) => running == Some(release) || self.wearing && rolled_back,
            Plan::Stay(_) => true,
            // The power went before it could be cancelled, and the new slot is what runs.
            Plan::Cancel(release) => operator.stage == 1 || running == Some(release),
        };
        if done {
            return self.done(operator, status);
        }
        if (failed.is_some() || operator.refused) && self.reboot_first && !operator.looked {
            operator.looked = true;
            operator.refused = false;
            return Ok(Action::Reboot);
        }
        Ok(match self.plan {
            Plan::Install(release) | Plan::Offered(release) | Plan::Cancel(release) => {
                Action::Install(release)
            }
            Plan::Supersede(first, second) => {
                Action::Install(if operator.stage == 0 { first } else { second })
            }
            Plan::GoBack(_) => Action::Rollback,
            Plan::Stay(_) => Action::Settled,
        })
    }

    /// The plan is carried out: the environment must agree.
    fn done(&self, _operator: &mut Operator, status: &Status) -> Result<Action, String> {
        let booted = status.slots.iter().find(|slot| slot.booted).ok_or("no slot is booted")?;
        if booted.state != "confirmed" || !booted.primary {
            return Err(format!("settled, and the environment says of the running slot: {booted:?}"));
        }
        Ok(Action::Settled)
    }

    /// Whether the poll loop takes the release when the server offers it.
    fn would_take(&self, release: usize, status: &Status) -> bool {
        let release = &self.board.releases[release];
        let (version, url) = (release.version.clone(), "https://updates.example.com/x.otab".to_owned());
        let offer = otad::ports::Offer { release: release.digest, version, url, delta: None };
        let answer = otad::ports::Answer::Offer(offer);
        matches!(otad::poll::decide(answer, &status.record, status.current.release), Ok(Some(_)))
    }

    fn running(&self, status: &Status) -> Option<usize> {
        self.board.releases.iter().position(|release| release.version == status.current.version)
    }
}

/// A device that installed `release` and confirmed it.
pub(crate) fn updated(board: &Arc<Board>, start: Storage, release: usize) -> Storage {
    let scenario = Scenario::new("setting up", board, start, Plan::Install(release));
    let run = world::run(&scenario, scenario.initial(), &mut world::Options::default()).unwrap();
    run.end.unwrap().storage
}

/// All scenarios of one kind of device.
pub(crate) fn all(kind: SchemeKind, roles: &[&'static str], names: Names) -> Vec<Scenario> {
    let board = Board::new(kind, roles);
    let word = match kind {
        SchemeKind::Bootcount => "bootcount",
        SchemeKind::BootOrder => "boot-order",
    };
    let mut list = Vec::new();
    let mut add = |name: &str, start: &Storage, plan| {
        let name = format!("{word}, {} role(s), {names:?}: {name}", roles.len());
        list.push(Scenario::new(&name, &board, start.clone(), plan));
    };
    let factory = board.factory("a", FACTORY, Some(OLD), names);
    let blank = board.factory("a", FACTORY, None, names);
    let mirrored = board.factory("b", FACTORY, Some(OLD), names);
    let updated = updated(&board, factory.clone(), GOOD);
    add("good update", &factory, Plan::Install(GOOD));
    add("good update of a blank slot", &blank, Plan::Install(GOOD));
    add("good update of slot a", &mirrored, Plan::Install(GOOD));
    add("second update", &updated, Plan::Install(NEXT));
    add("bad health", &factory, Plan::Install(BAD));
    add("bad health in slot a", &mirrored, Plan::Install(BAD));
    add("going back to the factory's slot", &updated, Plan::GoBack(FACTORY));
    add("a bad release that is offered again and again", &factory, Plan::Offered(BAD));
    add("superseding an armed slot", &factory, Plan::Supersede(GOOD, NEXT));
    add("the target holds it already", &board.factory("a", FACTORY, Some(GOOD), names), Plan::Install(GOOD));
    add("cancelling an armed slot", &factory, Plan::Cancel(GOOD));
    // Trust does not depend on how many images a slot has.
    if roles.len() == 1 {
        add("a bundle that brings two roots", &factory, Plan::Install(ROTATED));
        add("a bad release that brings two roots", &factory, Plan::Install(BAD_ROTATED));
        add("an image that brings a root", &factory, Plan::Install(BRINGING));
        add("a way back that the recovery role signed", &updated, Plan::Install(WAY_BACK));
    }
    list
}
