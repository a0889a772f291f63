//! Watches a job until it ends, otad goes away, or the person does.

use std::time::Duration;

use otad_dbus::{Code, JOB_INTERFACE};

use super::link::{Event, Events, JobEnd};
use super::meter::Meter;
use super::model::Job;
use super::trouble::Trouble;

/// How often the meter is shown when nothing changes: time goes on, and a stall must show.
const TICK: Duration = Duration::from_secs(1);

/// The word of `JobRemoved` for a job that did what it was for.
const DONE: &str = "done";
/// The word for a job that somebody stopped.
const CANCELLED: &str = "cancelled";

/// Why the watch ended.
#[derive(Debug)]
pub(super) enum Watched {
    /// The job ended.
    Ended(JobEnd),
    /// Otad left the bus while the job ran.
    Vanished,
    /// Ctrl-C.
    Interrupted,
}

/// Watches `job`, which keeps what is known of it when the watch ends.
///
/// `events` must have been subscribed to before the job was started or seen: then its end cannot be missed.
pub(super) async fn watch(events: &mut Events, job: &mut Job, meter: &mut Meter) -> Result<Watched, Trouble> {
    let watched = loop {
        meter.show(job)?;
        match events.next_within(TICK).await {
            Some(Event::Changed { path, interface, properties, position }) => {
                if path == job.path && interface == JOB_INTERFACE && position > job.as_of {
                    job.absorb(&properties)?;
                }
            }
            Some(Event::JobRemoved(end)) if end.job == job.path => break Watched::Ended(end),
            Some(Event::Vanished) => break Watched::Vanished,
            Some(Event::Interrupt) => break Watched::Interrupted,
            Some(Event::BusLost) => {
                meter.clear();
                return Err(Trouble::BusLost);
            }
            // The end of another job; otad being started by our own call; a tick.
            Some(Event::JobRemoved(_) | Event::Appeared) | None => {}
        }
    };
    meter.clear();
    Ok(watched)
}

/// Whether the job did what it was for, in the terms of exit statuses.
pub(super) fn settle(end: JobEnd) -> Result<(), Trouble> {
    match end.result.as_str() {
        DONE => Ok(()),
        CANCELLED if end.error.is_empty() => Err(Trouble::Refused {
            code: Code::Cancelled,
            message: or(end.message, "the install was cancelled"),
        }),
        _ => {
            let message = or(end.message, "the install failed");
            Err(Trouble::from_name(&end.error, message))
        }
    }
}

fn or(message: String, fallback: &str) -> String {
    if message.is_empty() { fallback.to_owned() } else { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_job_has_an_exit_status() {
        for (result, error, status) in [
            ("done", "", None),
            ("cancelled", "", Some(1)),
            ("cancelled", "org.otad1.Error.Cancelled", Some(1)),
            ("failed", "org.otad1.Error.SigInvalid", Some(3)),
            ("failed", "SIG_INVALID", Some(3)),
            ("failed", "org.otad1.Error.IoWrite", Some(1)),
            ("failed", "", Some(1)),
            ("from-the-future", "", Some(1)),
        ] {
            let end = JobEnd {
                job: "/org/otad1/job/1".to_owned(),
                result: result.to_owned(),
                error: error.to_owned(),
                message: String::new(),
            };
            assert_eq!(settle(end).err().map(|trouble| trouble.status()), status, "{result} {error}");
        }
    }
}
