//! Signals: what changed since the last look.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use zbus::fdo::Properties;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Variant};

use super::Desk;
use super::job::Job;
use super::manager::{Manager, current_job, job_path, last_result, problems};
use crate::engine::{JobEnd, JobView, Notice, SlotView, Status};
use crate::install::progress::Snapshot;

/// Progress changes at most four times a second.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

/// Keeps the bus in step with the engine until the engine is gone; returns early when the machine reboots.
pub async fn publish(
    connection: &Connection,
    desk: &Desk,
    mut status: watch::Receiver<Arc<Status>>,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    rebooting: impl Fn(),
) {
    let mut publisher = Publisher { connection, desk, shown: status.borrow_and_update().clone(), job: None };
    let mut tick = tokio::time::interval(PROGRESS_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    publisher.show_job().await;
    loop {
        // Lost signals are lost: a bus that is gone comes back with fresh properties.
        let outcome = tokio::select! {
            biased;
            changed = status.changed() => match changed {
                Ok(()) => {
                    let now = status.borrow_and_update().clone();
                    publisher.status(now).await
                }
                Err(_) => return,
            },
            Some(notice) = notices.recv() => match notice {
                Notice::JobRemoved(end) => publisher.job_removed(end).await,
                Notice::Rebooting => { rebooting(); Ok(()) }
            },
            _ = tick.tick(), if publisher.job.is_some() => publisher.progress().await,
        };
        if let Err(error) = outcome {
            log::debug!("a signal was not sent: {error}");
        }
    }
}

struct Publisher<'a> {
    connection: &'a Connection,
    desk: &'a Desk,
    shown: Arc<Status>,
    job: Option<(JobView, Snapshot)>,
}

impl Publisher<'_> {
    async fn status(&mut self, now: Arc<Status>) -> zbus::Result<()> {
        let before = std::mem::replace(&mut self.shown, now.clone());
        self.show_job().await;
        let changed = manager_changes(&before, &now);
        self.changed(otad_dbus::MANAGER_PATH, otad_dbus::MANAGER_INTERFACE, changed).await?;
        for (old, new) in before.slots.iter().zip(&now.slots) {
            let path = format!("{}/{}", otad_dbus::SLOT_ROOT, new.name);
            self.changed(&path, otad_dbus::SLOT_INTERFACE, slot_changes(old, new)).await?;
        }
        Ok(())
    }

    /// Puts the object of a new job on the bus.
    async fn show_job(&mut self) {
        let Some(view) = self.shown.job.clone() else { return };
        if self.job.as_ref().is_some_and(|(shown, _)| shown.id == view.id) {
            return;
        }
        let Ok(path) = job_path(view.id) else { return };
        let snapshot = view.progress.snapshot();
        let object = Job::new(self.desk.clone(), view.clone());
        if let Err(error) = self.connection.object_server().at(path, object).await {
            log::warn!("job {} is not on the bus: {error}", view.id);
        }
        self.job = Some((view, snapshot));
    }

    async fn job_removed(&mut self, end: JobEnd) -> zbus::Result<()> {
        let path = job_path(end.id).map_err(|failure| zbus::Error::Failure(failure.message))?;
        if self.job.as_ref().is_some_and(|(view, _)| view.id == end.id) {
            self.progress().await?;
            self.job = None;
        }
        let emitter = SignalEmitter::new(self.connection, otad_dbus::MANAGER_PATH)?;
        Manager::job_removed(&emitter, path.clone(), end.result, &end.error, &end.message).await?;
        self.connection.object_server().remove::<Job, _>(path).await?;
        Ok(())
    }

    async fn progress(&mut self) -> zbus::Result<()> {
        let Some((view, shown)) = &mut self.job else { return Ok(()) };
        let now = view.progress.snapshot();
        let before = std::mem::replace(shown, now.clone());
        let path = format!("{}/{}", otad_dbus::JOB_ROOT, view.id);
        let mut changes = Changes::default();
        changes.note("Phase", before.phase.word(), now.phase.word());
        changes.note("BytesDone", before.done, now.done);
        changes.note("BytesTotal", before.total, now.total);
        changes.note("BytesFetched", before.counts.fetched, now.counts.fetched);
        changes.note("BytesWritten", before.counts.written, now.counts.written);
        changes.note("BytesUnchanged", before.counts.unchanged, now.counts.unchanged);
        changes.note("Progress", before.percent(), now.percent());
        changes.note("Version", before.version, now.version);
        self.changed(&path, otad_dbus::JOB_INTERFACE, changes).await
    }

    async fn changed(&self, path: &str, interface: &'static str, changes: Changes) -> zbus::Result<()> {
        if changes.0.is_empty() {
            return Ok(());
        }
        let emitter = SignalEmitter::new(self.connection, path)?;
        let interface = InterfaceName::from_static_str_unchecked(interface);
        Properties::properties_changed(&emitter, interface, changes.0, Cow::Borrowed(&[])).await
    }
}

/// Properties whose values differ.
#[derive(Default)]
struct Changes(HashMap<&'static str, Variant<'static>>);

impl Changes {
    fn note<T: PartialEq + Into<Variant<'static>>>(&mut self, name: &'static str, before: T, now: T) {
        if before != now {
            self.0.insert(name, now.into());
        }
    }
}

fn manager_changes(before: &Status, now: &Status) -> Changes {
    let mut changes = Changes::default();
    changes.note("State", before.state.word(), now.state.word());
    changes.note(
        "BootedSlot",
        before.booted.clone().unwrap_or_default(),
        now.booted.clone().unwrap_or_default(),
    );
    changes.note(
        "PrimarySlot",
        before.primary.clone().unwrap_or_default(),
        now.primary.clone().unwrap_or_default(),
    );
    changes.note("CurrentJob", current_job(before), current_job(now));
    changes.note("Version", before.current.version.clone(), now.current.version.clone());
    changes.note("Problems", problems(before), problems(now));
    changes.note("RootVersion", before.root_version, now.root_version);
    changes.note("SequenceFloor", before.record.floor, now.record.floor);
    if before.record.history.last() != now.record.history.last() {
        changes.0.insert("LastResult", Variant::from(last_result(now)));
    }
    changes
}

fn slot_changes(before: &SlotView, now: &SlotView) -> Changes {
    let mut changes = Changes::default();
    changes.note("Booted", before.booted, now.booted);
    changes.note("Primary", before.primary, now.primary);
    changes.note("State", before.state, now.state);
    changes.note("Version", before.version.clone(), now.version.clone());
    changes.note("Sequence", before.sequence, now.sequence);
    changes.note("Release", before.release.clone(), now.release.clone());
    changes.note("InstalledAt", before.installed_at, now.installed_at);
    changes
}
