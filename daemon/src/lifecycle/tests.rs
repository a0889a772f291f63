//! The lifecycle as a table: every state with every event, and every record with every boot.
#![allow(clippy::wildcard_enum_match_arm, reason = "what is shown needs no opinion about each variant")]

use super::event::*;
use super::machine::step;
use super::recover::*;
use crate::failure::Code;
use otad_bundle::Digest;

fn release() -> Release {
    Release {
        digest: Digest([2; 32]),
        version: "2.0.0".into(),
        sequence: 2,
        images: Vec::new(),
        lowers_floor: false,
    }
}

fn attempt() -> Attempt {
    Attempt {
        job: 1,
        origin: Origin::Descriptor,
        from: "a".into(),
        target: "b".into(),
        boot_id: "boot-1".into(),
        started: 0,
        reboot: false,
        release: None,
        counts: Counts::default(),
        supersedes: None,
    }
}

fn reason() -> Reason {
    Reason::new(Code::HealthFailed, "no sensor")
}

fn states() -> Vec<State> {
    let stages = [Stage::Arming, Stage::Armed, Stage::Trial, Stage::RollingBack(reason())];
    let mut states = vec![State::Idle, State::PreUpgrade(attempt()), State::Upgrading(attempt())];
    states.extend(stages.into_iter().map(|stage| State::PostUpgrade(attempt(), stage)));
    states.push(State::Failed(attempt(), reason()));
    states
}

fn events() -> Vec<Event> {
    vec![
        Event::Requested(attempt()),
        Event::Prepared(release()),
        Event::AlreadyHeld(Some(release())),
        Event::AlreadyInstalled,
        Event::Synced(Counts { fetched: 7, written: 8, unchanged: 9 }),
        Event::Armed,
        Event::Failed(reason()),
        Event::Cancelled,
        Event::Confirmed,
        Event::Committed,
        Event::Rejected(reason()),
    ]
}

fn name(state: &State) -> String {
    match state {
        State::PostUpgrade(_, stage) => match stage {
            Stage::Arming => "arming".into(),
            Stage::Armed => "armed".into(),
            Stage::Trial => "trial".into(),
            Stage::RollingBack(_) => "rolling-back".into(),
        },
        State::Idle | State::PreUpgrade(_) | State::Upgrading(_) | State::Failed(..) => state.word().into(),
    }
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::Conclude(conclusion) => {
            format!("{conclusion:?}").split('(').next().unwrap_or_default().to_lowercase()
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The transitions as text; docs/lifecycle.md shows the same lines.
fn table() -> String {
    let mut lines = String::new();
    for state in states() {
        for event in events() {
            let event_name = event.name();
            if let Ok((next, effects)) = step(&state, event) {
                let effects: Vec<_> = effects.iter().map(short).collect();
                lines += &format!(
                    "{:<12} {event_name:<17} -> {:<12} {}\n",
                    name(&state),
                    name(&next),
                    effects.join(", ")
                );
            }
        }
    }
    lines
}

#[test]
fn the_documented_table_is_the_real_one() {
    let document = include_str!("../../../docs/lifecycle.md");
    let shown =
        document.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    assert_eq!(shown, table(), "put this into docs/lifecycle.md:\n{}", table());
}

/// What must never happen is not in the table.
#[test]
fn the_order_that_keeps_devices_alive() {
    for state in states() {
        for event in events() {
            let Ok((next, effects)) = step(&state, event.clone()) else { continue };
            let at = |wanted: &Effect| effects.iter().position(|effect| effect == wanted);
            let context = format!("{} + {}", name(&state), event.name());
            // Armed only after the record knows, and only what was synced.
            if let Some(arm) = at(&Effect::Arm) {
                assert!(at(&Effect::Persist).is_some_and(|persist| persist < arm), "{context}");
                assert!(matches!(event, Event::Synced(_) | Event::AlreadyHeld(_)), "{context}");
            }
            // Written only after the record no longer claims the old content.
            if let Some(write) = at(&Effect::Write) {
                assert!(
                    at(&Effect::Forget) < at(&Effect::Persist) && at(&Effect::Persist) < Some(write),
                    "{context}"
                );
            }
            // Whoever leaves a state leaves a checkpoint.
            if next != state && !effects.contains(&Effect::Commit) {
                assert!(effects.contains(&Effect::Persist), "{context}");
            }
        }
    }
}

fn facts(booted: &str, booted_standing: Standing, other_standing: Standing, boot: &str) -> BootFacts {
    let other = if booted == "a" { "b" } else { "a" };
    BootFacts {
        booted: booted.into(),
        other: other.into(),
        boot_id: boot.into(),
        standing: Some(Standings { booted: booted_standing, other: other_standing }),
    }
}

fn post(stage: Stage) -> State {
    State::PostUpgrade(attempt(), stage)
}

/// P1 to P10: what each interrupted stage becomes after the next boot.
#[test]
fn every_interruption_settles() {
    use Standing::{Armed, Bootable, Confirmed, Disarmed, GivenUp};
    let cases: Vec<(&str, State, BootFacts, &str, &str)> = vec![
        (
            "P2",
            State::PreUpgrade(attempt()),
            facts("a", Confirmed, Confirmed, "boot-2"),
            "failed",
            "INTERRUPTED",
        ),
        (
            "P2",
            State::Upgrading(attempt()),
            facts("a", Confirmed, Disarmed, "boot-2"),
            "failed",
            "INTERRUPTED",
        ),
        ("P5", post(Stage::Arming), facts("a", Confirmed, Disarmed, "boot-2"), "failed", "INTERRUPTED"),
        ("P5", post(Stage::Arming), facts("a", Confirmed, GivenUp, "boot-1"), "failed", "INTERRUPTED"),
        // Going back: what was to be armed stays confirmed, and nobody ignored anything.
        ("P10", post(Stage::Arming), facts("a", Confirmed, Confirmed, "boot-2"), "failed", "INTERRUPTED"),
        ("P10", post(Stage::Arming), facts("a", Bootable, Bootable, "boot-2"), "failed", "INTERRUPTED"),
        // The environment was lost in the same cut, or holds an act that reported an error.
        ("E2", State::Upgrading(attempt()), facts("b", Disarmed, Confirmed, "boot-2"), "trial", ""),
        ("S6", State::Failed(attempt(), reason()), facts("b", Bootable, Bootable, "boot-2"), "trial", ""),
        ("P6", post(Stage::Arming), facts("b", Armed, Confirmed, "boot-2"), "trial", ""),
        ("P6", post(Stage::Arming), facts("a", Confirmed, Armed, "boot-1"), "armed", ""),
        ("D2", post(Stage::Armed), facts("a", Confirmed, Armed, "boot-1"), "armed", ""),
        ("P7", post(Stage::Armed), facts("b", Armed, Confirmed, "boot-2"), "trial", ""),
        ("P7", post(Stage::Armed), facts("b", Bootable, Bootable, "boot-2"), "trial", ""),
        ("P8", post(Stage::Trial), facts("a", Confirmed, GivenUp, "boot-5"), "failed", "ROLLED_BACK"),
        ("P8", post(Stage::Armed), facts("a", Confirmed, GivenUp, "boot-5"), "failed", "ROLLED_BACK"),
        ("P9", post(Stage::Trial), facts("b", Confirmed, Confirmed, "boot-2"), "idle", ""),
        ("P9", post(Stage::Trial), facts("b", Armed, Confirmed, "boot-3"), "trial", ""),
        (
            "P10",
            post(Stage::RollingBack(reason())),
            facts("b", Armed, Confirmed, "boot-2"),
            "rolling-back",
            "",
        ),
        (
            "P10",
            post(Stage::RollingBack(reason())),
            facts("a", Confirmed, GivenUp, "boot-3"),
            "failed",
            "HEALTH_FAILED",
        ),
        ("P12", State::Idle, facts("b", Armed, Confirmed, "boot-2"), "trial", ""),
        ("P12", State::Idle, facts("a", Confirmed, Armed, "boot-2"), "idle", ""),
        (
            "X3",
            post(Stage::Armed),
            facts("a", Confirmed, Armed, "boot-2"),
            "failed",
            "BOOTLOADER_IGNORED_SWITCH",
        ),
    ];
    for (row, state, facts, expected, code) in cases {
        let recovery = recover(Some(state.clone()), &facts);
        assert_eq!(name(&recovery.state), expected, "{row}: {} with {facts:?}", name(&state));
        if let State::Failed(_, reason) = &recovery.state {
            assert_eq!(reason.code, code, "{row}");
        }
        // P14: recovering from what recovery decided changes nothing more.
        let again = recover(Some(recovery.state.clone()), &facts);
        assert_eq!(name(&again.state), expected, "{row}, again");
    }
}

/// X3: after one mismatch the device stops asking for reboots.
#[test]
fn a_boot_loader_that_ignores_the_switch_does_not_loop_the_device() {
    let recovery =
        recover(Some(post(Stage::Armed)), &facts("a", Standing::Confirmed, Standing::Armed, "boot-2"));
    assert!(!recovery.effects.contains(&Effect::Reboot));
    assert_eq!(recovery.effects.first(), Some(&Effect::Disarm));
}

/// A record by a newer otad, and a lost environment, still settle.
#[test]
fn the_unknown_settles_too() {
    let trial = recover(None, &facts("b", Standing::Armed, Standing::Confirmed, "boot-2"));
    assert_eq!(name(&trial.state), "trial");
    let rest = recover(None, &facts("a", Standing::Confirmed, Standing::Disarmed, "boot-2"));
    assert_eq!(name(&rest.state), "idle");
    for state in states() {
        for booted in ["a", "b"] {
            let lost = BootFacts {
                standing: None,
                ..facts(booted, Standing::Confirmed, Standing::Confirmed, "boot-2")
            };
            let recovery = recover(Some(state.clone()), &lost);
            assert!(!recovery.effects.contains(&Effect::Reboot) && !recovery.effects.contains(&Effect::Arm));
        }
    }
}

/// P10: an interrupted way back does not cost the slot that it leads to.
#[test]
fn an_interrupted_way_back_stays_open() {
    for standing in [Standing::Confirmed, Standing::Bootable] {
        let recovery = recover(Some(post(Stage::Arming)), &facts("a", standing, standing, "boot-2"));
        assert!(!recovery.effects.contains(&Effect::Disarm), "{standing:?}");
    }
}

/// P15, E2: whatever was under way, a counter is refilled and a lost environment is rebuilt once the system is healthy.
#[test]
fn every_rest_that_is_not_confirmed_watches_health() {
    for state in states() {
        for booted in [Standing::Bootable, Standing::Disarmed, Standing::GivenUp] {
            let recovery = recover(Some(state.clone()), &facts("a", booted, Standing::Disarmed, "boot-9"));
            let rests = matches!(recovery.state, State::Idle | State::Failed(..));
            assert!(!rests || recovery.effects.contains(&Effect::WatchHealth), "{} {booted:?}", name(&state));
        }
    }
}
