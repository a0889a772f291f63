//! Signed roots, and the chain that leads from one to the next.
//!
//! Owns the file form of a signed root and the rules of a rotation (TUF 1.0.33, section 5.3): root N+1 follows root N when the
//! thresholds of **both** signed it, and a version is never left out. What must hold is checked here; which root a device
//! starts from, and where it keeps the others, is the device's business.
//!
//! A signed root is `root.toml` in its one canonical spelling ([`Root::to_toml`]), an empty line, and its signatures in the
//! spelling of `manifest.sig`. What is signed is the pre-authentication encoding of the part before the empty line, with
//! the type `otab-root-v1`. A chain is any number of these, one behind the other, versions rising by one:
//!
//! ```text
//! schema = 1
//! version = 2
//! …
//!
//! [[signature]]
//! key = "<32 hex digits>"
//! algorithm = "ed25519"
//! value = "<88 characters of base64>"
//! schema = 1
//! version = 3
//! …
//! ```
//!
//! A root without signatures, in any spelling, may only come first: nobody but the place where it lies vouches for it.

use std::path::Path;

use crate::error::Error;
use crate::key::{Signer, read_text};
use crate::signature::Signatures;
use crate::trust::Root;

/// The DSSE payload type of a root.
pub const ROOT_TYPE: &str = "otab-root-v1";

/// Upper bound of a chain in bytes: about a hundred roots of four keys, read before anything in a bundle is authenticated.
pub const CHAIN_LIMIT_BYTES: usize = 256 * 1024;

/// The first line of every canonical root, by which a chain is cut.
const FIRST_LINE: &str = "schema = 1\n";
/// The first line of every signature.
const SIGNATURE_LINE: &str = "[[signature]]\n";

/// A root and whoever signed it; nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRoot {
    root: Root,
    body: String,
    signatures: Signatures,
}

impl SignedRoot {
    /// A root that nobody has signed yet, in its canonical spelling.
    pub fn draft(root: &Root) -> Result<SignedRoot, Error> {
        let body = root.to_toml();
        Ok(SignedRoot { root: Root::parse_body(&body)?, body, signatures: Signatures::default() })
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Who says to have signed it.
    pub fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    /// Adds the signature of `signer`.
    ///
    /// # Errors
    /// The root is not in its canonical spelling, the key has signed already, or the signer fails.
    pub fn sign(&mut self, signer: &dyn Signer) -> Result<(), Error> {
        if self.body != self.root.to_toml() {
            // What a person wrote may be respelled as long as nobody has signed it.
            self.body = self.root.to_toml();
            self.root = Root::parse_body(&self.body)?;
        }
        self.signatures.sign(ROOT_TYPE, self.body.as_bytes(), signer)
    }

    /// The file.
    pub fn to_text(&self) -> String {
        if self.signatures.is_empty() {
            return self.body.clone();
        }
        format!("{}\n{}", self.body, self.signatures.to_toml())
    }

    /// Whether this root's own threshold signed it.
    pub fn check_own(&self) -> Result<(), Error> {
        self.check_by(&self.root)
    }

    /// Whether this root may follow `before`: the next version, signed by the thresholds of both.
    ///
    /// # Errors
    /// [`Error::RootGap`], or [`Error::RootStep`] with what is wrong with the signatures.
    pub fn check_after(&self, before: &Root) -> Result<(), Error> {
        let (have, found) = (before.version(), self.root.version());
        if have.checked_add(1) != Some(found) {
            return Err(Error::RootGap { have, found });
        }
        self.check_by(before)?;
        self.check_own()
    }

    fn check_by(&self, judge: &Root) -> Result<(), Error> {
        let (role, body) = (judge.rotation_role(), self.body.as_bytes());
        let verified = judge.verify_at_any_age(role, ROOT_TYPE, body, &self.signatures);
        verified.map(drop).map_err(|source| Error::RootStep {
            version: self.root.version(),
            judge: judge.version(),
            source: Box::new(source),
        })
    }
}

/// Roots one behind the other, at least one. Parsing judges the form, [`Chain::check`] the links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Vec<SignedRoot>);

impl Chain {
    /// Parses a file of one or more roots.
    ///
    /// # Errors
    /// [`Error::Trust`] or [`Error::SignatureFile`] for everything that is not in the documented form.
    pub fn parse(bytes: &[u8]) -> Result<Chain, Error> {
        if bytes.len() > CHAIN_LIMIT_BYTES {
            let problem = format!("{} bytes, the limit is {CHAIN_LIMIT_BYTES}", bytes.len());
            return Err(Error::Trust { at: "document".into(), problem });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::Trust { at: "document".into(), problem: "not UTF-8".into() })?;
        let roots = cut(text).into_iter().enumerate().map(|(at, part)| parse_one(part, at == 0));
        Ok(Chain(roots.collect::<Result<_, _>>()?))
    }

    /// Reads and parses a file of roots.
    pub fn read(path: &Path) -> Result<Chain, Error> {
        Chain::parse(read_text(path, CHAIN_LIMIT_BYTES)?.as_bytes()).map_err(|error| match error {
            Error::Trust { at, problem } => Error::Trust { at: format!("{}: {at}", path.display()), problem },
            other => other,
        })
    }

    /// Makes a chain of roots that stand in the right order.
    ///
    /// # Errors
    /// There is none, or they are too long together.
    pub fn of(roots: Vec<SignedRoot>) -> Result<Chain, Error> {
        let chain = Chain(roots);
        let length = chain.to_text().len();
        if chain.0.is_empty() || length > CHAIN_LIMIT_BYTES {
            let what = format!("{} roots of {length} bytes; a chain has 1 or more", chain.0.len());
            return Err(Error::Order(format!("{what}, and at most {CHAIN_LIMIT_BYTES} bytes")));
        }
        Ok(chain)
    }

    /// The roots, oldest first.
    pub fn roots(&self) -> &[SignedRoot] {
        &self.0
    }

    /// The newest root.
    pub fn tip(&self) -> Option<&Root> {
        self.0.last().map(SignedRoot::root)
    }

    /// The file.
    pub fn to_text(&self) -> String {
        self.0.iter().map(SignedRoot::to_text).collect()
    }

    /// Checks that every root is signed as its own rules demand and follows the one before it. An unsigned root may come first.
    pub fn check(&self) -> Result<(), Error> {
        if let Some(first) = self.0.first().filter(|first| !first.signatures.is_empty()) {
            first.check_own()?;
        }
        self.check_links()
    }

    /// The same for a chain that came from outside: every byte of it must be covered by a signature.
    pub(crate) fn check_foreign(&self) -> Result<(), Error> {
        if let Some(first) = self.0.first() {
            first.check_own()?;
        }
        self.check_links()
    }

    fn check_links(&self) -> Result<(), Error> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        pairs.into_iter().try_for_each(|(before, next)| next.check_after(&before.root))
    }
}

/// Cuts a text before every root but the first.
fn cut(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut headed) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        if line == FIRST_LINE && std::mem::replace(&mut headed, true) {
            parts.extend(text.get(start..at));
            start = at;
        }
        at += line.len();
    }
    parts.extend(text.get(start..));
    parts
}

fn parse_one(text: &str, first: bool) -> Result<SignedRoot, Error> {
    let separator = format!("\n{SIGNATURE_LINE}");
    let Some(end) = text.find(&separator) else {
        if first {
            let root = Root::parse_body(text)?;
            return Ok(SignedRoot { root, body: text.to_owned(), signatures: Signatures::default() });
        }
        return Err(Error::Unsigned);
    };
    let (body, rest) = text.split_at(end);
    let root = Root::parse_body(body)?;
    let version = root.version();
    let signatures = Signatures::parse(rest.strip_prefix('\n').unwrap_or(rest).as_bytes());
    let signatures = signatures.map_err(|source| {
        let source = Box::new(source);
        Error::RootStep { version, judge: version, source }
    })?;
    if root.to_toml() != body {
        let problem = format!("root {version} is signed and not in its canonical spelling");
        return Err(Error::Trust { at: "document".into(), problem });
    }
    Ok(SignedRoot { root, body: body.to_owned(), signatures })
}

impl Root {
    /// Walks from this root along a chain that came from outside; returns the roots beyond this one, oldest first.
    ///
    /// Every root of the chain must be signed as its own rules demand and follow the one before it, and where the chain has a root
    /// of this one's version, it must be this one. So no byte of a chain that is accepted could be another, whether this root needed
    /// it or not. A root made of bare keys ([`Root::with_release_keys`]) stays where it is.
    ///
    /// # Errors
    /// [`Error::RootGap`] when the chain begins too late, [`Error::RootReplay`] when it is of another family, and what
    /// [`SignedRoot::check_after`] returns.
    pub fn follow<'a>(&self, chain: &'a Chain) -> Result<&'a [SignedRoot], Error> {
        chain.check_foreign()?;
        let have = self.version();
        let (Some(identity), Some(first)) = (self.identity(), chain.0.first()) else { return Ok(&[]) };
        if first.root.version() > have {
            first.check_after(self)?;
            return Ok(&chain.0);
        }
        let beyond = usize::try_from(have - first.root.version()).unwrap_or(usize::MAX);
        let Some(same) = chain.0.get(beyond) else { return Ok(&[]) };
        if same.root.identity() != Some(identity) {
            return Err(Error::RootReplay { found: have, needed: have });
        }
        Ok(chain.0.get(beyond.saturating_add(1)..).unwrap_or_default())
    }
}
