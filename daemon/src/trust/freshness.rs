//! Whether what the online role says is fresh, and whether the server keeps to it.
//!
//! Pure: the document, what was seen before, and the time go in. The time is the device's clock or the lower bound, whichever is
//! later; a clock that is behind hides a freeze for as long as it is behind the last signed time, a clock that is ahead cries
//! freeze and harms nothing else. Only signed times move the bound, never the clock.

use otad_bundle::{Channel, Digest, NamedRelease};

use crate::failure::{Code, Failure};

/// Farthest that one document may lead ahead: one a second for a month. More is somebody who uses up the numbers.
pub const COUNTER_STEP_LIMIT: u64 = 3_000_000;

/// Judges a document that is signed by the online role.
///
/// # Errors
/// [`Code::MetadataMismatch`] for another model's, [`Code::MetadataReplay`] for one that is older than what was seen or another one
/// of its number, [`Code::MetadataJump`] for one that leads too far ahead, [`Code::MetadataStale`] for one that has ended.
pub fn judge(channel: &Channel, seen: Option<&Channel>, compatible: &str, now: u64) -> Result<(), Failure> {
    let fail =
        |code, what: String| Err(Failure::new(code, format!("channel document {}: {what}", channel.counter)));
    if channel.compatible != compatible {
        let what = format!("it is for {}, this device is {compatible}", channel.compatible);
        return fail(Code::MetadataMismatch, what);
    }
    if let Some(seen) = seen {
        if channel.counter < seen.counter {
            return fail(
                Code::MetadataReplay,
                format!("{} was seen before: an old one is shown again", seen.counter),
            );
        }
        if channel.counter == seen.counter && channel != seen {
            return fail(Code::MetadataReplay, "another document of this number was seen before".to_owned());
        }
    }
    let before = seen.map_or(0, |seen| seen.counter);
    let step = channel.counter.saturating_sub(before);
    if step > COUNTER_STEP_LIMIT {
        let what = format!("it leads {step} ahead; {COUNTER_STEP_LIMIT} are believed");
        return fail(Code::MetadataJump, format!("{what}; rotate the online key if it was stolen"));
    }
    if channel.expires <= now {
        let age = now.saturating_sub(channel.issued);
        let what = format!("it ended {} s ago and is {age} s old", now.saturating_sub(channel.expires));
        return fail(Code::MetadataStale, format!("{what}: the server is cut off, or withholds what is new"));
    }
    Ok(())
}

/// Whether the server's answer is what the online role says: a release that it names, or nothing when one of those runs, or none is
/// newer. A device outside the first stage of a release may so be left where it is, as long as that is named.
///
/// # Errors
/// [`Code::MetadataMismatch`] for another release, [`Code::MetadataStale`] when nothing is offered to a device that runs something else.
pub fn agrees(
    channel: &Channel,
    offered: Option<Digest>,
    running: Option<Digest>,
    sequence: u64,
) -> Result<(), Failure> {
    // A factory system does not know its release, and no two of a model have one sequence.
    let is_running = |named: NamedRelease| match running {
        Some(running) => named.release == running,
        None => named.sequence == sequence,
    };
    match offered {
        Some(offered)
            if Some(offered) == running || channel.named().any(|named| named.release == offered) =>
        {
            Ok(())
        }
        Some(offered) => {
            let what = format!(
                "the server offers release {}, the channel document says {}",
                offered.short(),
                channel.release.short()
            );
            Err(Failure::new(Code::MetadataMismatch, what))
        }
        None if channel.sequence > sequence && !channel.named().any(is_running) => {
            let what =
                format!("the server offers nothing, the channel document says sequence {}", channel.sequence);
            Err(Failure::new(Code::MetadataStale, format!("{what}, {sequence} runs: it is withheld")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn channel(counter: u64) -> Channel {
        Channel {
            compatible: "acme".into(),
            counter,
            issued: NOW - 100,
            expires: NOW + 100,
            release: Digest([7; 32]),
            sequence: 42,
            also: Vec::new(),
        }
    }

    fn code(channel: &Channel, seen: Option<u64>, now: u64) -> Result<(), Code> {
        let seen = seen.map(self::channel);
        judge(channel, seen.as_ref(), "acme", now).map_err(|failure| failure.code)
    }

    /// V3 and the rows of the trust model: each attack has a code of its own.
    #[test]
    fn every_attack_has_its_code() {
        assert_eq!(code(&channel(5), None, NOW), Ok(()));
        assert_eq!(code(&channel(5), Some(5), NOW), Ok(()), "the same one again is no replay");
        assert_eq!(code(&channel(6), Some(5), NOW), Ok(()));
        assert_eq!(code(&channel(5), Some(5), NOW + 100), Err(Code::MetadataStale), "freeze");
        assert_eq!(code(&channel(4), Some(5), NOW), Err(Code::MetadataReplay), "replay");
        let other = Channel { release: Digest([8; 32]), ..channel(5) };
        assert_eq!(code(&other, Some(5), NOW), Err(Code::MetadataReplay), "two of one number");
        let other = Channel { compatible: "other".into(), ..channel(5) };
        assert_eq!(code(&other, None, NOW), Err(Code::MetadataMismatch), "another model's");
        assert_eq!(code(&channel(5 + COUNTER_STEP_LIMIT), Some(5), NOW), Ok(()));
        assert_eq!(
            code(&channel(6 + COUNTER_STEP_LIMIT), Some(5), NOW),
            Err(Code::MetadataJump),
            "fast-forward"
        );
        assert_eq!(
            code(&channel(u64::MAX), None, NOW),
            Err(Code::MetadataJump),
            "fast-forward at first sight"
        );
        assert_eq!(
            code(&channel(4), Some(5), NOW + 100),
            Err(Code::MetadataReplay),
            "an old one that also ended"
        );
    }

    #[test]
    fn the_server_keeps_to_what_is_assigned() {
        let (assigned, other) = (Some(Digest([7; 32])), Some(Digest([8; 32])));
        let code = |offered, running, sequence| {
            agrees(&channel(5), offered, running, sequence).map_err(|failure| failure.code)
        };
        assert_eq!(code(assigned, other, 41), Ok(()));
        assert_eq!(code(None, assigned, 42), Ok(()));
        assert_eq!(code(None, None, 42), Ok(()), "a factory system of this sequence");
        assert_eq!(code(None, other, 43), Ok(()), "a device that is ahead");
        assert_eq!(code(other, None, 41), Err(Code::MetadataMismatch), "mix and match");
        assert_eq!(code(None, other, 41), Err(Code::MetadataStale), "withheld");
    }

    /// A stage of a release is no freeze for those outside of it, and no cover for one.
    #[test]
    fn a_release_in_stages_leaves_others_where_they_are() {
        let digest = |byte| Some(Digest([byte; 32]));
        let also =
            [(6, 41), (5, 39)].map(|(byte, sequence)| NamedRelease { release: Digest([byte; 32]), sequence });
        let channel = Channel { also: also.to_vec(), ..channel(5) };
        let code = |offered, running, sequence| {
            agrees(&channel, offered, running, sequence).map_err(|failure| failure.code)
        };
        assert_eq!(code(None, digest(6), 41), Ok(()), "outside the stage");
        assert_eq!(code(None, None, 39), Ok(()), "a factory system outside the stage");
        assert_eq!(code(digest(7), digest(6), 41), Ok(()), "in the stage");
        assert_eq!(code(digest(6), digest(5), 39), Ok(()), "not the latest, and named");
        assert_eq!(
            code(None, digest(4), 40),
            Err(Code::MetadataStale),
            "one that is not named, between two that are"
        );
        assert_eq!(code(None, None, 40), Err(Code::MetadataStale), "a factory system that is not named");
        assert_eq!(
            code(None, digest(4), 41),
            Err(Code::MetadataStale),
            "another release of a named sequence"
        );
        assert_eq!(code(digest(4), digest(5), 39), Err(Code::MetadataMismatch), "mix and match");
        let other = Channel { also: Vec::new(), ..channel.clone() };
        assert_eq!(
            judge(&other, Some(&channel), "acme", NOW).unwrap_err().code,
            Code::MetadataReplay,
            "two of one number"
        );
    }
}
