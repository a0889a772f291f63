//! Who is to be told of as lost: each device once, until it was back.

use std::collections::{HashMap, HashSet};

use crate::http::App;
use crate::presence::Presence;
use crate::store::StoreError;
use crate::webhooks::Event;

/// Devices that are told of, or found again, at a time: others want to write, too.
const BATCH: usize = 2000;

/// Compares who is lost with who was told of, and tells of the others.
pub async fn look(app: &App, now: i64) -> Result<(), StoreError> {
    let wanted =
        app.store.webhooks().await?.iter().any(|webhook| webhook.events.contains(&Event::DevicesLost));
    if !wanted {
        return Ok(());
    }
    let told = app.store.told_lost().await?;
    let rebooting = app.store.rebooting().await?;
    let (lost, back) = compare(&app.presence, &told, &rebooting, now);
    if !back.is_empty() {
        app.store.found(&back).await?;
    }
    if !lost.is_empty() {
        app.store.lose(&lost, app.presence.count(now).1, now).await?;
    }
    Ok(())
}

/// Who is newly lost, and who is back.
fn compare(
    presence: &Presence,
    told: &HashMap<String, i64>,
    rebooting: &HashSet<String>,
    now: i64,
) -> (Vec<String>, Vec<String>) {
    // That the server was away and forgives everybody brings nobody back; only a contact does.
    let returned = |(device, at): (&String, &i64)| {
        presence.last_seen(device).is_some_and(|seen| seen > *at).then(|| device.clone())
    };
    let back = told.iter().filter_map(returned).take(BATCH).collect();
    let mut lost = presence.lost(now);
    lost.retain(|device| !told.contains_key(device) && !rebooting.contains(device));
    lost.sort_unstable();
    lost.truncate(BATCH);
    (lost, back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Sighting;

    /// Told once; a restart forgives and tells nobody twice; a reboot into a release is no loss; whoever was back can be lost again.
    #[test]
    fn each_loss_is_told_once() {
        let presence = Presence::new(60, 10, 1000);
        for device in ["a", "b", "c"] {
            presence.remember(Sighting::of(device, "acme"), 1000);
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let nobody = HashSet::new();
        assert_eq!(compare(&presence, &HashMap::new(), &nobody, 1100), (vec![], vec![]));
        let rebooting = HashSet::from(["b".to_owned()]);
        assert_eq!(compare(&presence, &HashMap::new(), &rebooting, 2000).0, names(&["a", "c"]));
        let told = HashMap::from([("a".to_owned(), 2000), ("c".to_owned(), 2000)]);
        assert_eq!(compare(&presence, &told, &nobody, 2000), (names(&["b"]), vec![]));
        presence.touch("c", 2050);
        assert_eq!(compare(&presence, &told, &nobody, 2060), (names(&["b"]), names(&["c"])));

        let restarted = Presence::new(60, 10, 3000);
        restarted.remember(Sighting::of("a", "acme"), 1000);
        assert_eq!(compare(&restarted, &told, &nobody, 3010), (vec![], vec![]));
        assert_eq!(compare(&restarted, &told, &nobody, 4000), (vec![], vec![]), "it is known to be lost");
    }
}
