//! Making a root out of another one, for tools. What comes out is judged by [`crate::SignedRoot::draft`], not here.

use super::{Quorum, Role, Root, wrong};
use crate::error::Error;
use crate::key::{KeyId, PublicKey};

impl Root {
    /// The draft of the root that follows: the same keys, roles and expiry, one version on.
    ///
    /// # Errors
    /// There is no higher version.
    pub fn successor(&self) -> Result<Root, Error> {
        let version =
            self.version.checked_add(1).ok_or_else(|| wrong("version", "there is no higher one"))?;
        Ok(Root { version, identity: None, least: 0, ..self.clone() })
    }

    /// The same root with one more key in a role.
    pub fn with_key(mut self, role: Role, key: PublicKey) -> Root {
        self.keys.insert(key.id(), key);
        let quorum = self.roles.entry(role).or_insert_with(|| Quorum { keys: [].into(), threshold: 1 });
        quorum.keys.insert(key.id());
        self
    }

    /// The same root without a key, in whatever roles it was; a role that loses its last key is gone.
    ///
    /// # Errors
    /// The key is not there.
    pub fn without_key(mut self, key: KeyId) -> Result<Root, Error> {
        if self.keys.remove(&key).is_none() {
            return Err(wrong("key", format!("key {key} is not in the root")));
        }
        for quorum in self.roles.values_mut() {
            quorum.keys.remove(&key);
        }
        self.roles.retain(|_, quorum| !quorum.keys.is_empty());
        Ok(self)
    }

    /// The same root with another threshold for a role.
    ///
    /// # Errors
    /// The role has no keys.
    pub fn with_threshold(mut self, role: Role, threshold: usize) -> Result<Root, Error> {
        let quorum = self.roles.get_mut(&role);
        let quorum = quorum.ok_or_else(|| wrong(&format!("role.{}", role.name()), "has no keys"))?;
        quorum.threshold = threshold;
        Ok(self)
    }

    /// The same root with another end: a date, or a date and time with offset (RFC 3339).
    ///
    /// # Errors
    /// The text is neither.
    pub fn with_expiry(mut self, text: &str) -> Result<Root, Error> {
        let whole =
            if text.contains(['T', 't', ' ']) { text.to_owned() } else { format!("{text}T00:00:00Z") };
        let parsed =
            whole.parse().map_err(|_| wrong("expires", format!("{text:?} is no date like 2030-01-01")))?;
        self.expires = Some(parsed);
        Ok(self)
    }
}
