//! What is signed, and the file `manifest.sig`; roots and channel documents carry their signatures in the same form.
//!
//! The signed message is the DSSE pre-authentication encoding of the exact stored bytes of the manifest:
//!
//! ```text
//! "DSSEv1" SP len(type) SP type SP len(body) SP body      lengths in decimal ASCII, type = "otab-manifest-v1"
//! ```
//!
//! The type keeps a signature over one kind of document from being valid for another. `manifest.sig` is TOML of exactly
//! one spelling; entries are sorted by key id, one per key, separated by one empty line:
//!
//! ```text
//! [[signature]]
//! key = "<32 hex digits>"
//! algorithm = "ed25519"
//! value = "<88 characters of base64>"
//! ```
//!
//! It is read before anything is authenticated, so the reader here is a comparison of lines and not a TOML parser.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Error;
use crate::key::{KeyId, SIGNATURE_BYTES, Signer};

/// The DSSE payload type of a manifest.
pub const MANIFEST_TYPE: &str = "otab-manifest-v1";

/// Upper bound of `manifest.sig` in bytes: it is held in memory before anything is authenticated.
pub const SIGNATURE_FILE_LIMIT_BYTES: u64 = 16 * 1024;

/// The DSSE pre-authentication encoding (DSSE protocol 1.0).
///
/// ```
/// assert_eq!(otad_bundle::pae("http://example.com/HelloWorld", b"hello world"),
///            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
/// ```
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    message.extend_from_slice(body);
    message
}

/// One entry of `manifest.sig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Who says to have signed.
    pub key: KeyId,
    /// The Ed25519 signature over the pre-authentication encoding.
    pub value: [u8; SIGNATURE_BYTES],
}

/// The content of `manifest.sig`: at most one entry per key, sorted by key id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signatures(Vec<Signature>);

impl Signatures {
    /// The entries, sorted by key id.
    pub fn iter(&self) -> impl Iterator<Item = &Signature> {
        self.0.iter()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Signs `manifest` with `signer` and adds the entry.
    ///
    /// # Errors
    /// The key has signed already; the signer fails; or what it returned does not verify (a faulty token).
    pub fn add(&mut self, manifest: &[u8], signer: &dyn Signer) -> Result<(), Error> {
        self.sign(MANIFEST_TYPE, manifest, signer)
    }

    /// The same for a document of another DSSE type.
    pub fn sign(&mut self, payload_type: &str, body: &[u8], signer: &dyn Signer) -> Result<(), Error> {
        let key = signer.key_id();
        let place = match self.0.binary_search_by_key(&key, |entry| entry.key) {
            Ok(_) => return Err(Error::Order(format!("key {key} has signed this already"))),
            Err(place) => place,
        };
        let message = pae(payload_type, body);
        let value = signer.sign(&message)?;
        if !signer.public_key().verifies(&message, &value) {
            return Err(Error::Key(format!(
                "the signer returned a signature that key {key} does not verify"
            )));
        }
        self.0.insert(place, Signature { key, value });
        Ok(())
    }

    /// The one spelling of the file.
    pub fn to_toml(&self) -> String {
        let entries: Vec<String> = self
            .0
            .iter()
            .map(|entry| {
                format!(
                    "[[signature]]\nkey = \"{}\"\nalgorithm = \"ed25519\"\nvalue = \"{}\"\n",
                    entry.key,
                    STANDARD.encode(entry.value)
                )
            })
            .collect();
        entries.join("\n")
    }

    /// Reads the file and refuses every spelling but the canonical one.
    ///
    /// # Errors
    /// [`Error::SignatureFile`] with the line, or [`Error::SignatureAlgorithm`].
    pub fn parse(bytes: &[u8]) -> Result<Signatures, Error> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::SignatureFile { line: 1, problem: "the file is not UTF-8" })?;
        let mut lines = Lines { rest: text.split_inclusive('\n'), number: 0 };
        let mut entries: Vec<Signature> = Vec::new();
        while let Some(entry) = lines.entry(entries.len())? {
            if entries.last().is_some_and(|last| last.key >= entry.key) {
                return Err(lines.wrong("keys must be sorted and distinct"));
            }
            entries.push(entry);
        }
        let signatures = Signatures(entries);
        // The reader above accepts one spelling only; this says so independently of how it is written.
        if signatures.to_toml().as_bytes() != bytes {
            return Err(lines.wrong("the file differs from its own canonical form"));
        }
        Ok(signatures)
    }
}

/// A signature from its base64, as `manifest.sig` spells it.
pub fn signature_from_base64(text: &str) -> Option<[u8; SIGNATURE_BYTES]> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok())
}

struct Lines<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    number: usize,
}

impl<'a> Lines<'a> {
    fn wrong(&self, problem: &'static str) -> Error {
        Error::SignatureFile { line: self.number.max(1), problem }
    }

    fn next(&mut self) -> Option<&'a str> {
        self.number += 1;
        self.rest.next()
    }

    fn value(&mut self, name: &str, problem: &'static str) -> Result<&'a str, Error> {
        self.next()
            .and_then(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix("\"\n"))
            .ok_or_else(|| self.wrong(problem))
    }

    fn entry(&mut self, before: usize) -> Result<Option<Signature>, Error> {
        let mut head = self.next();
        if before > 0 && head == Some("\n") {
            head = Some(self.next().ok_or_else(|| self.wrong("the file ends with an empty line"))?);
        } else if before > 0 && head.is_some() {
            return Err(self.wrong("entries are separated by one empty line"));
        }
        match head {
            None => return Ok(None),
            Some("[[signature]]\n") => {}
            Some(_) => return Err(self.wrong("expected `[[signature]]`")),
        }
        let key = self.value("key", "expected `key = \"<key id>\"`")?;
        let key = key.parse().map_err(|_| self.wrong("a key id is 32 lower-case hexadecimal digits"))?;
        let algorithm = self.value("algorithm", "expected `algorithm = \"ed25519\"`")?;
        if algorithm != "ed25519" {
            let algorithm = algorithm.chars().take(40).collect();
            return Err(Error::SignatureAlgorithm { number: before + 1, algorithm });
        }
        let value = self.value("value", "expected `value = \"<base64>\"`")?;
        let value = signature_from_base64(value)
            .ok_or_else(|| self.wrong("the value is not 64 bytes in canonical base64"))?;
        Ok(Some(Signature { key, value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;

    fn two() -> Signatures {
        let mut signatures = Signatures::default();
        signatures.add(b"m", &SigningKey::from_seed([1; 32]).unwrap()).unwrap();
        signatures.add(b"m", &SigningKey::from_seed([2; 32]).unwrap()).unwrap();
        signatures
    }

    #[test]
    fn canonical_form_round_trips() {
        let text = two().to_toml();
        assert_eq!(Signatures::parse(text.as_bytes()).unwrap(), two());
        assert!(Signatures::parse(b"").unwrap().is_empty());
        assert!(toml::from_str::<toml::Table>(&text).unwrap()["signature"].as_array().unwrap().len() == 2);
    }

    /// B2: `manifest.sig` reformatted, although it means the same to a TOML parser.
    #[test]
    fn refuses_every_other_spelling() {
        let text = two().to_toml();
        let (first, second) = text.split_once("\n\n").unwrap();
        let entry = format!("{first}\n");
        for (what, wrong) in [
            ("indent", text.replacen("key", " key", 1)),
            ("single quotes", text.replacen('"', "'", 2)),
            ("comment", format!("# hello\n{text}")),
            ("comment at the end", format!("{text}# hello\n")),
            ("CRLF", text.replace('\n', "\r\n")),
            ("no last newline", text.trim_end().to_owned()),
            ("empty line at the end", format!("{text}\n")),
            ("two empty lines", text.replace("\n\n", "\n\n\n")),
            ("no empty line", text.replace("\n\n", "\n")),
            ("unsorted", format!("{second}\n{first}\n")),
            ("twice", format!("{entry}\n{entry}")),
            ("inline", "signature = []\n".to_owned()),
            ("upper case", text.replace('b', "B")),
            ("unknown key", text.replacen("algorithm", "x = 1\nalgorithm", 1)),
            ("spaces", text.replacen(" = ", "=", 1)),
            ("base64 without padding", text.replacen("==", "", 1)),
            ("newline only", "\n".to_owned()),
        ] {
            assert_eq!(Signatures::parse(wrong.as_bytes()).unwrap_err().code(), "SIG_INVALID", "{what}");
        }
    }

    /// B10: `alg = "none"`.
    #[test]
    fn refuses_other_algorithms() {
        for algorithm in ["none", "Ed25519", "rsa", ""] {
            let text = two().to_toml().replacen("ed25519", algorithm, 1);
            assert_eq!(Signatures::parse(text.as_bytes()).unwrap_err().code(), "SIG_MISSING", "{algorithm}");
        }
    }
}
