//! The trust root: which keys may vouch for what.
//!
//! Owns `root.toml` and the decision whether a set of signatures is enough for a [`Role`]; how one root follows another is in
//! [`crate::chain`]. It holds no clock: `expires` is carried for those that have a trustworthy one. The schema, documented
//! in `docs/keys.md`:
//!
//! ```
//! let root = otad_bundle::Root::parse(br#"
//! schema = 1
//! version = 1
//!
//! [[key]]
//! id = "21fe31dfa154a261626bf854046fd227"
//! algorithm = "ed25519"
//! public = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
//!
//! [role.release]
//! keys = ["21fe31dfa154a261626bf854046fd227"]
//! threshold = 1
//! "#).unwrap();
//! assert_eq!(root.version(), 1);
//! ```

mod edit;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::chain::Chain;
use crate::digest::Digest;
use crate::error::{Error, toml_problem};
use crate::key::{KeyId, PublicKey};
use crate::signature::{Signatures, pae};

/// Upper bound of `root.toml` in bytes.
pub const ROOT_LIMIT_BYTES: usize = 64 * 1024;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Signs the next root.
    Root,
    /// Signs bundles.
    Release,
    /// Signs freshness and assignments; can never introduce an image.
    Online,
    /// Signs what a recovery system installs.
    Recovery,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Root, Role::Release, Role::Online, Role::Recovery];

    /// The role of a name.
    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The role's name in `root.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Release => "release",
            Role::Online => "online",
            Role::Recovery => "recovery",
        }
    }
}

/// A role's keys and how many distinct ones must sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// The keys of the role.
    pub keys: BTreeSet<KeyId>,
    /// Distinct keys needed, at least 1.
    pub threshold: usize,
}

/// A parsed trust root; every key in it is sound and every id fits its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    version: u64,
    expires: Option<toml::value::Datetime>,
    keys: BTreeMap<KeyId, PublicKey>,
    roles: BTreeMap<Role, Quorum>,
    /// SHA-256 of the text it was parsed from; none for a root made of bare keys, which no other root can follow.
    identity: Option<Digest>,
    /// Nothing is verified by a root of a lower version than this.
    least: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoot {
    schema: u64,
    version: u64,
    expires: Option<toml::value::Datetime>,
    #[serde(default)]
    key: Vec<RawKey>,
    role: BTreeMap<String, RawRole>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: String,
    algorithm: String,
    public: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRole {
    keys: Vec<String>,
    threshold: usize,
}

impl Root {
    /// Parses `root.toml`; when it holds a chain, the links are checked and the newest root is what counts.
    ///
    /// # Errors
    /// [`Error::Trust`] with the key or line for everything that is not exactly as documented, and what [`Chain::check`]
    /// returns.
    pub fn parse(bytes: &[u8]) -> Result<Root, Error> {
        let chain = Chain::parse(bytes)?;
        chain.check()?;
        chain.tip().cloned().ok_or_else(|| wrong("document", "empty"))
    }

    /// Parses one root without its signatures.
    pub(crate) fn parse_body(text: &str) -> Result<Root, Error> {
        if text.len() > ROOT_LIMIT_BYTES {
            return Err(wrong("document", format!("{} bytes, the limit is {ROOT_LIMIT_BYTES}", text.len())));
        }
        let raw: RawRoot = toml::from_str(text).map_err(|error| {
            let (at, problem) = toml_problem(text, &error);
            Error::Trust { at, problem }
        })?;
        if raw.schema != 1 {
            return Err(wrong("schema", format!("{} is not known, this version reads 1", raw.schema)));
        }
        if raw.version == 0 {
            return Err(wrong("version", "must be at least 1"));
        }
        if let Some(expires) = &raw.expires
            && (expires.date.is_none() || expires.time.is_none() || expires.offset.is_none())
        {
            return Err(wrong("expires", "must be a date and time with offset, like 2030-01-01T00:00:00Z"));
        }
        let mut keys = BTreeMap::new();
        for (number, key) in raw.key.iter().enumerate() {
            let (id, public) = key.check().map_err(|problem| wrong(&format!("key[{number}]"), problem))?;
            if keys.insert(id, public).is_some() {
                return Err(wrong(&format!("key[{number}]"), format!("key {id} is listed twice")));
            }
        }
        let mut roles = BTreeMap::new();
        for (name, role) in &raw.role {
            let at = format!("role.{name}");
            let known = Role::from_name(name);
            let known = known.ok_or_else(|| wrong(&at, "roles are root, release, online and recovery"))?;
            roles.insert(known, role.check(&keys).map_err(|problem| wrong(&at, problem))?);
        }
        if !roles.contains_key(&Role::Release) {
            return Err(wrong("role.release", "missing: nobody could sign a bundle"));
        }
        let identity = Some(Digest::of(text.as_bytes()));
        Ok(Root { version: raw.version, expires: raw.expires, keys, roles, identity, least: 0 })
    }

    /// Reads and parses a root file, as [`Root::parse`] does.
    pub fn read(path: &Path) -> Result<Root, Error> {
        let chain = Chain::read(path)?;
        chain.check()?;
        chain.tip().cloned().ok_or_else(|| wrong(&path.display().to_string(), "empty"))
    }

    /// Makes a root whose release role has `keys`, any one of which is enough.
    pub fn with_release_keys(keys: &[PublicKey]) -> Root {
        let keys: BTreeMap<_, _> = keys.iter().map(|key| (key.id(), *key)).collect();
        let quorum = Quorum { keys: keys.keys().copied().collect(), threshold: 1 };
        let roles = BTreeMap::from([(Role::Release, quorum)]);
        Root { version: 1, expires: None, keys, roles, identity: None, least: 0 }
    }

    /// The same root with another threshold for the release role.
    ///
    /// # Errors
    /// The threshold is zero or larger than the number of keys.
    pub fn release_threshold(mut self, threshold: usize) -> Result<Root, Error> {
        if let Some(quorum) = self.roles.get_mut(&Role::Release) {
            if threshold == 0 || threshold > quorum.keys.len() {
                let problem = format!("threshold {threshold} with {} keys", quorum.keys.len());
                return Err(wrong("role.release", problem));
            }
            quorum.threshold = threshold;
        }
        Ok(self)
    }

    /// The number that a rotation raises by one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The same root, with which nothing is verified unless its version, or that of a root that follows it, is at least this.
    pub fn at_least(mut self, version: u64) -> Root {
        self.least = version;
        self
    }

    /// The lowest version with which something is verified.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// SHA-256 of its text; `None` for a root made of bare keys.
    pub fn identity(&self) -> Option<Digest> {
        self.identity
    }

    /// The keys and threshold of a role.
    pub fn quorum(&self, role: Role) -> Option<&Quorum> {
        self.roles.get(&role)
    }

    /// The role that signs the next root: `root`, or in a root that has none `release`, which could replace the root by an
    /// image anyway.
    pub fn rotation_role(&self) -> Role {
        if self.roles.contains_key(&Role::Root) { Role::Root } else { Role::Release }
    }

    /// When the root should no longer be relied on, in RFC 3339 form; judged only where time can be trusted.
    pub fn expires(&self) -> Option<String> {
        self.expires.as_ref().map(ToString::to_string)
    }

    /// The same in seconds since 1970.
    pub fn expires_seconds(&self) -> Option<u64> {
        self.expires.as_ref().and_then(crate::instant::seconds)
    }

    /// All keys, by id.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.values()
    }

    /// All roles that have keys.
    pub fn roles(&self) -> impl Iterator<Item = (Role, &Quorum)> {
        self.roles.iter().map(|(role, quorum)| (*role, quorum))
    }

    /// The `root.toml` of this root.
    pub fn to_toml(&self) -> String {
        let mut text = format!("schema = 1\nversion = {}\n", self.version);
        // Writing to a String cannot fail.
        if let Some(expires) = &self.expires {
            let _ = writeln!(text, "expires = {expires}");
        }
        for (id, key) in &self.keys {
            let public = STANDARD.encode(key.as_bytes());
            let _ =
                write!(text, "\n[[key]]\nid = \"{id}\"\nalgorithm = \"ed25519\"\npublic = \"{public}\"\n");
        }
        for (role, quorum) in &self.roles {
            let keys: Vec<_> = quorum.keys.iter().map(|id| format!("\"{id}\"")).collect();
            let (name, keys, threshold) = (role.name(), keys.join(", "), quorum.threshold);
            let _ = write!(text, "\n[role.{name}]\nkeys = [{keys}]\nthreshold = {threshold}\n");
        }
        text
    }

    /// Decides whether `signatures` over `body` of the given DSSE type satisfy `role`; returns the distinct keys that did.
    ///
    /// Signatures by keys that the role does not list are skipped, so that a release can be signed by an old and a new
    /// key during a rotation. A listed key whose signature does not verify refuses the whole: nobody honest writes that.
    ///
    /// # Errors
    /// [`Error::Unsigned`], [`Error::SignatureUntrusted`], [`Error::SignatureInvalid`], [`Error::Threshold`], or
    /// [`Error::RootReplay`] when this root counts no more ([`Root::at_least`]).
    pub fn verify(
        &self,
        role: Role,
        payload_type: &str,
        body: &[u8],
        signatures: &Signatures,
    ) -> Result<Vec<KeyId>, Error> {
        if self.version < self.least {
            return Err(Error::RootReplay { found: self.version, needed: self.least });
        }
        self.verify_at_any_age(role, payload_type, body, signatures)
    }

    /// The same for the next root, which a root may lead to that counts no more for anything else.
    pub(crate) fn verify_at_any_age(
        &self,
        role: Role,
        payload_type: &str,
        body: &[u8],
        signatures: &Signatures,
    ) -> Result<Vec<KeyId>, Error> {
        if signatures.is_empty() {
            return Err(Error::Unsigned);
        }
        let untrusted = || Error::SignatureUntrusted {
            signers: signatures.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>().join(", "),
            role: role.name(),
        };
        let quorum = self.roles.get(&role).ok_or_else(untrusted)?;
        let message = pae(payload_type, body);
        let mut valid = BTreeSet::new();
        for entry in signatures.iter().filter(|entry| quorum.keys.contains(&entry.key)) {
            let verified = self.keys.get(&entry.key).is_some_and(|key| key.verifies(&message, &entry.value));
            if !verified {
                return Err(Error::SignatureInvalid { key: entry.key.to_string() });
            }
            valid.insert(entry.key);
        }
        if valid.is_empty() {
            return Err(untrusted());
        }
        if valid.len() < quorum.threshold {
            return Err(Error::Threshold { valid: valid.len(), threshold: quorum.threshold });
        }
        Ok(valid.into_iter().collect())
    }
}

impl RawKey {
    fn check(&self) -> Result<(KeyId, PublicKey), String> {
        if self.algorithm != "ed25519" {
            return Err(format!("algorithm {:?}; only ed25519 is known", self.algorithm));
        }
        let bytes = STANDARD.decode(&self.public).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or("public must be 32 bytes in canonical base64")?;
        let public = PublicKey::from_bytes(bytes).map_err(|error| error.to_string())?;
        if self.id != public.id().to_string() {
            return Err(format!("id is {:?}, but this key's id is {}", self.id, public.id()));
        }
        Ok((public.id(), public))
    }
}

impl RawRole {
    fn check(&self, keys: &BTreeMap<KeyId, PublicKey>) -> Result<Quorum, String> {
        let mut listed = BTreeSet::new();
        for text in &self.keys {
            let id = text.parse::<KeyId>().map_err(|error| error.to_string())?;
            if !keys.contains_key(&id) {
                return Err(format!("key {id} has no [[key]] entry"));
            }
            if !listed.insert(id) {
                return Err(format!("key {id} is listed twice"));
            }
        }
        if self.threshold == 0 || self.threshold > listed.len() {
            return Err(format!("threshold {} with {} keys", self.threshold, listed.len()));
        }
        Ok(Quorum { keys: listed, threshold: self.threshold })
    }
}

fn wrong(at: &str, problem: impl Into<String>) -> Error {
    Error::Trust { at: at.to_owned(), problem: problem.into() }
}
