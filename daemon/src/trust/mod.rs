//! Whom this device believes: the root of trust, and the roots that followed it.
//!
//! The image's root (`[trust] root`) is where the chain starts. Every root that a bundle brought and that may follow is added to
//! the file `roots` in the data directory, one at a time: temporary file, flush, rename, flush of the directory, so that a
//! power cut leaves root N or root N+1 (P11). At every start the whole of it is verified again from the image's root on: who can write
//! the data directory alone can make a device forget roots, which the record's floor notices, and cannot make it believe one.
//!
//! The newer of the image's and the stored root counts. A root that this device has committed is never left for an older one.

mod channel;
pub mod freshness;
pub mod sequence;
mod time;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otad_bundle::{CHAIN_LIMIT_BYTES, Chain, Channel, Root, SignedRoot};

pub use time::built_at;

use crate::failure::{self, Code, Failure, from_bundle};
use crate::ports::{StateFs, replace};

const FILE: &str = "roots";
const NEW: &str = "roots.new";

/// The root of trust of this device.
pub struct Keeper {
    fs: Arc<dyn StateFs>,
    /// The roots of the image, at least one.
    image: Chain,
    known: Mutex<Known>,
}

struct Known {
    /// What the data directory holds.
    stored: Vec<SignedRoot>,
    /// What counts.
    root: Arc<Root>,
    /// The channel document that was believed last.
    seen: Option<Channel>,
}

impl Keeper {
    /// Takes the image's roots and walks from there along what is stored.
    ///
    /// # Errors
    /// The image's roots do not hold, or the data directory cannot be read. What is stored and does not hold is not used, and
    /// the log says so.
    pub fn open(image: Chain, fs: Arc<dyn StateFs>) -> Result<Keeper, Failure> {
        image.check().map_err(|error| from_bundle(&error))?;
        let tip = image.tip().cloned();
        let tip = tip.ok_or_else(|| Failure::new(Code::TrustInvalid, "the image has no root of trust"))?;
        let (stored, root) = stored(&*fs, &tip)?;
        let seen = channel::stored(&*fs, &root)?;
        Ok(Keeper { fs, image, known: Mutex::new(Known { stored, root: Arc::new(root), seen }) })
    }

    /// The same for a root made of bare keys or of one file; for tests and tools.
    pub fn of(root: &Root, fs: Arc<dyn StateFs>) -> Result<Keeper, Failure> {
        let chain = SignedRoot::draft(root).and_then(|root| Chain::of(vec![root]));
        Keeper::open(chain.map_err(|error| from_bundle(&error))?, fs)
    }

    /// The root that counts.
    pub fn root(&self) -> Arc<Root> {
        self.lock().root.clone()
    }

    /// Version of the newest root that is stored; 0 when there is none.
    pub fn stored_version(&self) -> u64 {
        self.lock().stored.last().map_or(0, |stored| stored.root().version())
    }

    /// From now on nothing is believed by a root of a lower version.
    pub fn require(&self, version: u64) {
        let mut known = self.lock();
        if known.root.least() < version {
            known.root = Arc::new(Root::clone(&known.root).at_least(version));
        }
    }

    /// Takes roots that follow the one that counts, oldest first, and stores each before the next.
    ///
    /// # Errors
    /// One of them may not follow, or the data directory cannot be written; the roots before it are kept.
    pub fn accept(&self, steps: &[SignedRoot]) -> Result<(), Failure> {
        let mut known = self.lock();
        for step in steps {
            if step.root().version() <= known.root.version() {
                continue;
            }
            step.check_after(&known.root).map_err(|error| from_bundle(&error))?;
            let mut roots = joined(&known.stored, self.image.roots());
            roots.push(step.clone());
            let roots = newest_run(roots);
            save(&*self.fs, &roots)?;
            let root = step.root();
            log::info!("root of trust {} follows {}", root.version(), known.root.version());
            let before = known.root.clone();
            known.root = Arc::new(root.clone().at_least(before.least()));
            known.stored = roots;
            self.forget_channel(&mut known, &before);
        }
        Ok(())
    }

    /// Stores the image's roots where they are newer: the image is committed, so an older one must not bring back older roots.
    ///
    /// # Errors
    /// The data directory cannot be written.
    pub fn adopt_image(&self) -> Result<(), Failure> {
        let mut known = self.lock();
        let roots = newest_run(joined(&known.stored, self.image.roots()));
        let version = |roots: &[SignedRoot]| roots.last().map_or(0, |root| root.root().version());
        if version(&roots) <= version(&known.stored) {
            return Ok(());
        }
        save(&*self.fs, &roots)?;
        known.stored = roots;
        Ok(())
    }

    /// Refuses a root that has expired by `now`, the earliest that it can be.
    pub fn refuse_expired(&self, now: u64) -> Result<(), Failure> {
        let root = self.root();
        match (root.expires_seconds(), root.expires()) {
            (Some(end), Some(text)) if end <= now => {
                let what =
                    format!("root of trust {} expired on {text}, and it is later than that", root.version());
                Err(Failure::new(
                    Code::KeysExpired,
                    format!("{what}; put a newer root into the bundle (`--with-root`)"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A thread that panicked while it held it has changed nothing but whole values.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is stored and holds, and the root that counts with it.
fn stored(fs: &dyn StateFs, image: &Root) -> Result<(Vec<SignedRoot>, Root), Failure> {
    let bytes = fs.read(FILE).map_err(|error| failure::from_state("read", Path::new(FILE), &error))?;
    let Some(bytes) = bytes else { return Ok((Vec::new(), image.clone())) };
    let chain = Chain::parse(&bytes);
    let walked = chain.as_ref().map_err(ToString::to_string).and_then(|chain| {
        let beyond = image.follow(chain).map_err(|error| error.to_string())?;
        Ok((chain.roots().to_vec(), beyond.last().map_or(image, SignedRoot::root).clone()))
    });
    walked.or_else(|why| {
        log::warn!("the stored roots are not used: {why}; the image's root {} counts", image.version());
        Ok((Vec::new(), image.clone()))
    })
}

/// Roots of both lists, each version once, oldest first; an unsigned one is known by its place alone and is left out.
fn joined(stored: &[SignedRoot], image: &[SignedRoot]) -> Vec<SignedRoot> {
    let signed = stored.iter().chain(image).filter(|root| !root.signatures().is_empty());
    let mut roots: Vec<SignedRoot> = signed.cloned().collect();
    // Stable: what is stored stays before what the image says of the same version.
    roots.sort_by_key(|root| root.root().version());
    roots.dedup_by_key(|root| root.root().version());
    roots
}

/// The roots up to the newest one, each of which follows the one before it, the oldest left out where they would become too long together.
fn newest_run(mut roots: Vec<SignedRoot>) -> Vec<SignedRoot> {
    let mut bytes = 0;
    let mut next: Option<&SignedRoot> = None;
    let kept = roots.iter().rev().take_while(|root| {
        let joins = next.is_none_or(|next| next.check_after(root.root()).is_ok());
        next = Some(root);
        bytes += root.to_text().len();
        joins && bytes <= CHAIN_LIMIT_BYTES
    });
    let kept = kept.count();
    roots.drain(..roots.len().saturating_sub(kept));
    roots
}

/// Makes the roots durable.
fn save(fs: &dyn StateFs, roots: &[SignedRoot]) -> Result<(), Failure> {
    let text: String = roots.iter().map(SignedRoot::to_text).collect();
    replace(fs, (FILE, NEW), text.as_bytes())
}

#[cfg(test)]
mod tests;
