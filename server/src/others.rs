//! What the other processes on the same database saw: the steps of their devices, for live progress, and who was with them.
//!
//! It is read from the tables that they write anyway. `LISTEN` would be sooner by half a round, and one mechanism more.

use std::collections::HashMap;

use crate::http::App;
use crate::presence::SYNC_SECONDS;
use crate::store::{Sighting, StoreError};

/// Steps that are read in one round; more come with the next.
const MAX_STEPS: u32 = 5000;

/// How much of it is known.
#[derive(Debug)]
pub(crate) struct Others {
    /// The last happening that was read.
    heard: Option<i64>,
    /// When last contacts were read.
    looked: i64,
}

impl Others {
    /// Begins when the server does, which has read all of the devices by then.
    pub(crate) fn new(started: i64) -> Others {
        Others { heard: None, looked: started }
    }

    /// Reads what is new. Nothing where nobody else can be.
    pub(crate) async fn listen(&mut self, app: &App, now: i64) -> Result<(), StoreError> {
        if !app.store.is_shared() {
            return Ok(());
        }
        let heard = match self.heard {
            Some(heard) => heard,
            None => app.store.newest_happening().await?,
        };
        self.heard = Some(heard);
        // Only the last step of each device is still true.
        let mut last = HashMap::new();
        for (id, at, taken) in app.store.steps_after(heard, MAX_STEPS).await? {
            self.heard = Some(id);
            last.extend(taken.map(|taken| (taken.device.clone(), (at, taken))));
        }
        for (at, taken) in last.into_values() {
            // What happened here was told when it did, and the device may have said more since.
            let known = app.live.of(&taken.device).is_some_and(|word| {
                word.release.as_ref() == Some(&taken.release) && word.step == Some(taken.step.as_str())
            });
            if !known {
                app.live.step(&taken, at);
            }
        }
        if now - self.looked >= SYNC_SECONDS {
            // One round more than the others take to write, and a second for clocks that differ.
            let since = self.looked.min(now) - 2 * SYNC_SECONDS;
            for device in app.store.devices_since(since).await? {
                app.presence.remember(Sighting::from(&device), device.last_seen);
            }
            self.looked = now;
        }
        Ok(())
    }
}
