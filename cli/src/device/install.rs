//! `otactl install`: starts the job, shows it, and on request waits until the release is confirmed or lost.

use std::time::{Duration, Instant};

use otad_dbus::value::{slot_state, state};

use super::link::{Event, Events, InstallOptions, Link, unless_interrupted};
use super::meter::Meter;
use super::model::{Device, Job, Outcome};
use super::source::{Lifeline, Source};
use super::trial::{Awaited, Daemon, JobKnown, Verdict};
use super::trouble::Trouble;
use super::voice::{Report, Voice};
use super::watch::{Watched, settle, watch};
use crate::args::InstallArgs;
use crate::show::or_dash;

/// How long the outcome of a job may come after its end.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the whole command.
pub(super) async fn run(bus: &str, arguments: &InstallArgs, voice: Voice) -> Result<(), Trouble> {
    // A wrong argument is told before anything is asked of the device.
    let (source, lifeline) = Source::open(&arguments.source)?;
    let link = Link::open(bus).await?;
    let events = link.listen().await?;
    // What happened before must not be taken for the outcome of this install.
    let seen = unless_interrupted(link.device()).await?.last_result;
    let wanted = InstallOptions { reboot: arguments.reboot, delta: arguments.delta.clone() };
    let path = unless_interrupted(link.install(source, wanted)).await?;
    voice.report(&Report::Started { job: &path })?;
    let job = unless_interrupted(link.job(&path)).await?.unwrap_or_else(|| Job::new(&path));
    let awaited = Awaited { seen, ..Awaited::default() };
    let mut install = Install { link, events, meter: Meter::new(voice), voice, lifeline, job, awaited };
    match install.watch_job().await? {
        JobKnown::Done => {}
        JobKnown::Open if arguments.wait_commit => {}
        JobKnown::Open => return Err(install.went_away()),
    }
    if arguments.wait_commit {
        install.wait_for_commit().await
    } else {
        install.tell_installed(arguments.reboot).await
    }
}

struct Install {
    link: Link,
    events: Events,
    meter: Meter,
    voice: Voice,
    lifeline: Lifeline,
    job: Job,
    awaited: Awaited,
}

impl Install {
    /// Shows the job to its end. `Open` means that otad went away first.
    async fn watch_job(&mut self) -> Result<JobKnown, Trouble> {
        match watch(&mut self.events, &mut self.job, &mut self.meter).await? {
            Watched::Ended(end) => {
                settle(end).map_err(|trouble| self.explain(trouble))?;
                self.awaited.version.clone_from(&self.job.version);
                self.awaited.job = JobKnown::Done;
                Ok(JobKnown::Done)
            }
            Watched::Vanished => {
                self.awaited.version.clone_from(&self.job.version);
                Ok(JobKnown::Open)
            }
            Watched::Interrupted => Err(self.detached()),
        }
    }

    /// Says what is installed and what comes next.
    async fn tell_installed(&mut self, rebooting: bool) -> Result<(), Trouble> {
        let device = match self.settled_device().await {
            Ok(device) => device,
            // The device may already be on its way down, by --reboot or by its policy: the job is done all the same.
            Err(trouble) if trouble.is_absence() => {
                self.voice.report(&Report::Done { act: "install", result: None })?;
                return self.voice.say("installed; otad is away now, as it is while the device reboots");
            }
            Err(trouble) => return Err(trouble),
        };
        let result = device.last_result.as_ref().filter(|result| self.awaited.seen.as_ref() != Some(*result));
        self.voice.report(&Report::Done { act: "install", result })?;
        let next = if rebooting {
            "the device reboots into it now"
        } else {
            "the trial starts with the next boot (otactl reboot)"
        };
        let version = or_dash(&self.job.version);
        let slot = or_dash(result.map_or(&device.primary_slot, |result| &result.slot));
        self.voice.say(&format!("installed {version} into slot {slot}; {next}"))
    }

    /// The device with the outcome of this job. The end of a job and its outcome are two messages, in either order.
    async fn settled_device(&mut self) -> Result<Device, Trouble> {
        let give_up = Instant::now() + OUTCOME_PATIENCE;
        loop {
            let device = unless_interrupted(self.link.device()).await?;
            let left = give_up.saturating_duration_since(Instant::now());
            if device.last_result != self.awaited.seen || left.is_zero() {
                return Ok(device);
            }
            match self.events.next_within(left).await {
                Some(Event::BusLost) => return Err(Trouble::BusLost),
                Some(Event::Interrupt) => return Err(self.detached()),
                Some(Event::Changed { .. } | Event::JobRemoved(_) | Event::Appeared | Event::Vanished)
                | None => {}
            }
        }
    }

    /// Waits through the reboot and the trial. Succeeds only if the release is committed.
    async fn wait_for_commit(&mut self) -> Result<(), Trouble> {
        let mut told = None;
        loop {
            if let Some(device) = self.look().await? {
                if self.awaited.job == JobKnown::Done {
                    self.awaited.learn(&device);
                }
                match self.awaited.judge(&device) {
                    Verdict::Committed(result) => return self.tell_committed(&result),
                    Verdict::Lost(result) => return Err(lost(result)),
                    Verdict::Superseded(result) => return Err(superseded(&result)),
                    Verdict::NoTrace => return Err(self.no_trace()),
                    Verdict::Pending => self.reattach(&device).await?,
                }
                self.tell_waiting(Wait::of(&device), &mut told)?;
            } else {
                self.tell_waiting(Wait::Daemon, &mut told)?;
            }
            self.next_change().await?;
        }
    }

    /// The device as it is, `None` while otad is away.
    async fn look(&mut self) -> Result<Option<Device>, Trouble> {
        match unless_interrupted(self.link.device()).await {
            Ok(device) => Ok(Some(device)),
            Err(trouble) if trouble.is_absence() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Shows the job again when otad came back and goes on with it.
    async fn reattach(&mut self, device: &Device) -> Result<(), Trouble> {
        match &device.job {
            Some(job) if self.awaited.job == JobKnown::Open && self.awaited.daemon == Daemon::Returned => {
                self.meter.note("otad is back and goes on");
                self.job = job.clone();
                self.watch_job().await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Waits for something that can change the verdict.
    async fn next_change(&mut self) -> Result<(), Trouble> {
        loop {
            match self.events.next().await {
                Event::Changed { interface, .. } if interface == otad_dbus::MANAGER_INTERFACE => {
                    return Ok(());
                }
                Event::Appeared => {
                    self.awaited.daemon = Daemon::Returned;
                    return Ok(());
                }
                Event::Vanished => return Ok(()),
                Event::BusLost => return Err(Trouble::BusLost),
                Event::Interrupt => return Err(self.detached()),
                Event::Changed { .. } | Event::JobRemoved(_) => {}
            }
        }
    }

    /// Says once what is waited for.
    fn tell_waiting(&self, wait: Wait, told: &mut Option<Wait>) -> Result<(), Trouble> {
        if *told == Some(wait) {
            return Ok(());
        }
        *told = Some(wait);
        self.meter.note(wait.sentence());
        self.voice.report(&Report::Waiting { on: wait.word() })
    }

    fn tell_committed(&self, result: &Outcome) -> Result<(), Trouble> {
        self.voice.report(&Report::Done { act: "install", result: Some(result) })?;
        self.voice.say(&format!(
            "committed: {} runs from slot {}",
            or_dash(&result.version),
            or_dash(&result.slot)
        ))
    }

    fn went_away(&self) -> Trouble {
        let phase = if self.job.phase.is_empty() { "starting" } else { &self.job.phase };
        Trouble::WentAway {
            during: format!("during the install, in phase {phase} at {} %", self.job.progress),
        }
    }

    fn no_trace(&self) -> Trouble {
        let message = "otad came back and knows nothing of this install; nothing was armed, start it again";
        Trouble::Refused { code: otad_dbus::Code::Interrupted, message: message.to_owned() }
    }

    /// What Ctrl-C means for the install.
    fn detached(&mut self) -> Trouble {
        self.meter.clear();
        let after = "stop it with `otactl cancel`, see it again with `otactl status --follow`";
        Trouble::Detached(match (&self.lifeline, self.awaited.job) {
            (_, JobKnown::Done) => format!("not waiting any longer; the update goes on: {after}"),
            (Lifeline::None, JobKnown::Open) => format!("detached; the install goes on: {after}"),
            (Lifeline::Sender, JobKnown::Open) => {
                format!("detached; the install goes on for as long as the sender feeds the pipe: {after}")
            }
            (Lifeline::Relay(_), JobKnown::Open) => {
                "the bundle came through otactl, so the install ends with it; the running system is not touched"
                    .to_owned()
            }
        })
    }

    /// Adds what otad cannot know: why its input ended.
    fn explain(&self, trouble: Trouble) -> Trouble {
        match (trouble, &self.lifeline) {
            (Trouble::Refused { code, message }, Lifeline::Relay(relay)) => match relay.failure() {
                Some(failure) => Trouble::Refused {
                    code,
                    message: format!("{message}; reading standard input failed: {failure}"),
                },
                None => Trouble::Refused { code, message },
            },
            (trouble, _) => trouble,
        }
    }
}

/// Who has to move next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Daemon,
    Reboot,
    Trial,
}

impl Wait {
    fn of(device: &Device) -> Wait {
        let on_trial = device.slots.iter().any(|slot| slot.booted && slot.state == slot_state::TRIAL);
        if on_trial || device.state != state::POST_UPGRADE { Wait::Trial } else { Wait::Reboot }
    }

    fn word(self) -> &'static str {
        match self {
            Wait::Daemon => "daemon",
            Wait::Reboot => "reboot",
            Wait::Trial => "trial",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Wait::Daemon => "otad is away (a restart or the reboot); waiting for it to come back",
            Wait::Reboot => "installed; waiting for the reboot (otactl reboot)",
            Wait::Trial => "on trial; waiting for the health checks",
        }
    }
}

fn lost(result: Outcome) -> Trouble {
    let message = if result.message.is_empty() {
        format!("{} ended as {}", or_dash(&result.version), result.outcome)
    } else {
        result.message
    };
    let name = if result.code.is_empty() { result.outcome } else { result.code };
    Trouble::from_name(&name, message)
}

fn superseded(result: &Outcome) -> Trouble {
    let message =
        format!("another update took its place: {} ({})", or_dash(&result.version), or_dash(&result.outcome));
    Trouble::Refused { code: otad_dbus::Code::Cancelled, message }
}
