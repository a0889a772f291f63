//! The last channel document that was believed, kept in the file `channel` of the data directory.
//!
//! It is what a replay is measured by, and its signed time is the lower bound of the clock. It is kept whole and verified again at
//! every start, so who can write the directory can make a device forget it, and cannot make it believe another one. A root that
//! changes the online role forgets it: that is how a stolen online key, and a counter or a time that it led too far ahead, are got rid of.

use std::path::Path;

use otad_bundle::{Channel, Role, Root, SignedChannel};

use super::{Keeper, Known, built_at, freshness};
use crate::failure::{self, Failure, from_bundle};
use crate::ports::{StateFs, replace};

const FILE: &str = "channel";
const NEW: &str = "channel.new";

impl Keeper {
    /// Whether the root has an online role, without whose word nothing is taken from a server unasked.
    pub fn expects_channel(&self) -> bool {
        self.root().quorum(Role::Online).is_some()
    }

    /// The earliest that it can be now, in seconds since 1970: when otad was built, or the last signed time.
    pub fn earliest(&self) -> u64 {
        let issued = self.lock().seen.as_ref().map_or(0, |seen| seen.issued);
        issued.max(built_at())
    }

    /// Verifies and judges a channel document by a clock, and keeps it when it is the newest.
    ///
    /// # Errors
    /// It is not signed as it must be, or [`freshness::judge`] refuses it; or the data directory cannot be written.
    pub fn see(&self, document: &[u8], compatible: &str, clock: u64) -> Result<Channel, Failure> {
        let refused = |error: &otad_bundle::Error| {
            let failure = from_bundle(error);
            Failure::new(failure.code, format!("channel document: {failure}"))
        };
        let now = clock.max(self.earliest());
        let mut known = self.lock();
        let signed = SignedChannel::parse(document).map_err(|error| refused(&error))?;
        let channel = signed.verify(&known.root).map_err(|error| refused(&error))?.clone();
        freshness::judge(&channel, known.seen.as_ref(), compatible, now)?;
        if known.seen.as_ref() != Some(&channel) {
            replace(&*self.fs, (FILE, NEW), signed.to_text().as_bytes())?;
            known.seen = Some(channel.clone());
        }
        Ok(channel)
    }

    /// Forgets what was seen when another root names other online keys.
    pub(super) fn forget_channel(&self, known: &mut Known, before: &Root) {
        if known.root.quorum(Role::Online) == before.quorum(Role::Online) {
            return;
        }
        known.seen = None;
        // What stays behind does not verify by the new keys and is not used at the next start.
        if let Err(error) = self.fs.remove(FILE) {
            log::warn!("cannot remove {FILE}: {error}");
        }
    }
}

/// What was seen last, if the online role of this root signed it.
pub(super) fn stored(fs: &dyn StateFs, root: &Root) -> Result<Option<Channel>, Failure> {
    let bytes = fs.read(FILE).map_err(|error| failure::from_state("read", Path::new(FILE), &error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let seen = SignedChannel::parse(&bytes).and_then(|signed| signed.verify(root).cloned());
    Ok(seen.inspect_err(|error| log::warn!("the stored channel document is not used: {error}")).ok())
}
