//! The one error type of this crate.
//!
//! A variant says which act failed and carries the member, the offset and the numbers; [`Error::code`] says what the
//! caller does next, in the spelling of the project's table of stable codes.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;

/// Why a bundle, a key or a trust root was refused, or could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input starts with something else than an `.otab` file does.
    #[error(
        "this is not an .otab bundle: it starts with {start} (over HTTP this is often a captive portal's page)"
    )]
    NotABundle {
        /// The first bytes, printable.
        start: String,
    },
    /// The bundle has a format version that this program does not know.
    #[error("the bundle says {found:?}, this version reads \"otab 1\": update otad or rebuild the bundle")]
    FormatVersion {
        /// The content of the member `otab`.
        found: String,
    },
    /// A tar header differs from the only one allowed at its place.
    #[error(
        "the header of {member} at offset {offset} is not the canonical one: byte {at} is {found:#04x}, must be {wanted:#04x}"
    )]
    Header {
        /// The member that must stand here.
        member: String,
        /// Offset of the header in the file, in bytes.
        offset: u64,
        /// First differing byte within the header.
        at: usize,
        /// The byte found.
        found: u8,
        /// The byte required.
        wanted: u8,
    },
    /// A member is larger than the format allows.
    #[error("{member} is {size} bytes, the format allows {limit}")]
    MemberSize {
        /// The member.
        member: String,
        /// Its size by its header or by the builder, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Padding or the end blocks hold something else than zeros.
    #[error("the byte at offset {offset} is padding and must be zero")]
    Padding {
        /// Offset of the first non-zero byte.
        offset: u64,
    },
    /// Data follows the end of the bundle.
    #[error("data follows the end of the bundle at offset {offset}")]
    Trailing {
        /// Where the bundle ends, in bytes.
        offset: u64,
    },
    /// The input ends inside the bundle.
    #[error("the bundle ends at offset {offset}, inside {member}: fetch or copy it again")]
    Truncated {
        /// What was being read.
        member: String,
        /// Length of the input, in bytes.
        offset: u64,
    },
    /// The input cannot be read.
    #[error("cannot read the bundle at offset {offset}: {source}")]
    Read {
        /// Where, in bytes.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// What is taken out of the bundle cannot be written.
    #[error("cannot write {what}: {source}")]
    Sink {
        /// What was being written.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A file beside the bundle (image, key, output) cannot be used.
    #[error("cannot {act} {}: {source}", path.display())]
    File {
        /// The verb: read, create, write, rename.
        act: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller of this library asks a pipe to go back, or for an image that does not exist.
    #[error("defect in the caller: {0}")]
    Caller(String),

    /// No signature at all.
    #[error(
        "there is no signature: sign a bundle with `otactl bundle sign`, a root with `otactl trust sign`"
    )]
    Unsigned,
    /// A signature says it was made with something else than Ed25519.
    #[error("signature {number} has algorithm {algorithm:?}; only ed25519 counts")]
    SignatureAlgorithm {
        /// Position in the file, from 1.
        number: usize,
        /// The algorithm it names.
        algorithm: String,
    },
    /// Fewer distinct trusted keys than the threshold.
    #[error("{valid} of {threshold} required keys signed")]
    Threshold {
        /// Distinct trusted keys whose signature verified.
        valid: usize,
        /// Keys required.
        threshold: usize,
    },
    /// The signature file is not canonical.
    #[error("the signatures are not canonical at line {line}: {problem}")]
    SignatureFile {
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A trusted key's signature does not verify.
    #[error("the signature by key {key} does not fit: what it signed was changed afterwards")]
    SignatureInvalid {
        /// The key's id.
        key: String,
    },
    /// All signatures are by keys that the root does not list for the role.
    #[error("signed by {signers}, which the trust root does not list for role {role}")]
    SignatureUntrusted {
        /// Key ids, separated by commas.
        signers: String,
        /// The role that was asked for.
        role: &'static str,
    },

    /// The manifest breaks a rule.
    #[error("manifest: {at}: {problem}")]
    Manifest {
        /// Key or line.
        at: String,
        /// The rule.
        problem: String,
    },
    /// The manifest needs something this version does not know.
    #[error(
        "manifest: the bundle needs the feature {feature:?}, which this version does not know: update otad first"
    )]
    CriticalFeature {
        /// The unknown feature.
        feature: String,
    },
    /// An index record, or the sum of all, breaks a rule.
    #[error("index: record {record}: {problem}")]
    Index {
        /// Record number, from 0.
        record: u64,
        /// The rule.
        problem: String,
    },
    /// Bytes do not have the hash that the signature vouches for.
    #[error("{what} has SHA-256 {found}, the signature vouches for {wanted}")]
    HashMismatch {
        /// Which bytes.
        what: String,
        /// The hash found.
        found: Digest,
        /// The hash required.
        wanted: Digest,
    },
    /// Stored bytes of a chunk do not have the hash of the index.
    #[error(
        "the stored bytes of the chunk differ from the index (first 16 bytes of SHA-256: {found}, must be {wanted})"
    )]
    StoredMismatch {
        /// Hexadecimal digits found.
        found: String,
        /// Hexadecimal digits required.
        wanted: String,
    },
    /// The stored bytes of a chunk are authentic but no valid stream of their kind.
    #[error("the chunk is no valid {kind} stream: {problem}")]
    Decode {
        /// gzip or zstd.
        kind: &'static str,
        /// What the decoder says.
        problem: String,
    },
    /// A chunk would decode to more than the index says.
    #[error("the chunk decodes to more than its {limit} bytes")]
    SizeExceeded {
        /// Plain length by the index, in bytes.
        limit: u32,
    },
    /// Whoever decompresses for this process does so no longer.
    #[error("what decompresses is gone: {source}")]
    Expander {
        /// What became of it.
        source: io::Error,
    },
    /// An error of one chunk, with its place.
    #[error("chunk {number} of {role} (payload offset {offset}): {source}")]
    Chunk {
        /// The image.
        role: String,
        /// Chunk number, from 0.
        number: u64,
        /// Offset of its stored bytes in the payload, in bytes.
        offset: u64,
        /// What is wrong.
        source: Box<Error>,
    },

    /// A trust root breaks a rule.
    #[error("trust root: {at}: {problem}")]
    Trust {
        /// Key or line.
        at: String,
        /// The rule.
        problem: String,
    },
    /// A channel document breaks a rule.
    #[error("channel document: {at}: {problem}")]
    Channel {
        /// Key or line.
        at: String,
        /// The rule.
        problem: String,
    },
    /// A root of a chain is not signed as it must be.
    #[error("root {version} by the rules of root {judge}: {source}")]
    RootStep {
        /// Version of the root that is signed.
        version: u64,
        /// Version of the root whose threshold is asked for.
        judge: u64,
        /// What is wrong with the signatures.
        source: Box<Error>,
    },
    /// A chain leaves out a version.
    #[error("root {found} cannot follow root {have}: put every root from {} on into the bundle (`--with-root`)", have.saturating_add(1))]
    RootGap {
        /// The version there is.
        have: u64,
        /// The version that was to follow it.
        found: u64,
    },
    /// A root was left behind by a rotation, or is another one than the root of its version.
    #[error(
        "root {found} is not one that this device follows any more: it has seen root {needed} (a replayed or forked root)"
    )]
    RootReplay {
        /// The version offered.
        found: u64,
        /// The version that counts.
        needed: u64,
    },
    /// The bundle is encrypted, and nothing was given to decrypt it with.
    #[error(
        "the bundle is encrypted (recipients: {count}), and no key was given: [decrypt] in otad.toml, --device-key"
    )]
    Locked {
        /// How many recipients it has.
        count: usize,
    },
    /// The bundle is encrypted for other keys.
    #[error(
        "the bundle is encrypted (recipients: {count}), and key {key} is none of them: build it with `--recipient`"
    )]
    NotRecipient {
        /// Id of the key that was given.
        key: String,
        /// How many recipients it has.
        count: usize,
    },
    /// Something encrypted does not open with its key.
    #[error("{what} does not open with its key")]
    Decrypt {
        /// What was to be decrypted.
        what: String,
    },
    /// A command that stands for a private key failed.
    #[error("cannot unwrap the content key: {0}")]
    Unwrap(String),
    /// A key cannot be used.
    #[error("key: {0}")]
    Key(String),
    /// A delta cannot be read.
    #[error(transparent)]
    Delta(#[from] crate::delta::DeltaError),
    /// The order to build a bundle contradicts itself.
    #[error("{0}")]
    Order(String),
}

impl Error {
    /// The stable code, spelled as in the table of `otad_dbus::Code`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotABundle { .. } => "NOT_A_BUNDLE",
            Error::FormatVersion { .. }
            | Error::Header { .. }
            | Error::MemberSize { .. }
            | Error::Padding { .. }
            | Error::Trailing { .. } => "BUNDLE_FORMAT",
            Error::Truncated { .. } => "BUNDLE_TRUNCATED",
            Error::Read { .. } => "BUNDLE_READ",
            Error::Sink { source, .. } | Error::File { source, .. } if is_full(source) => "NO_SPACE",
            Error::Sink { .. } | Error::File { .. } => "FILE_IO",
            Error::Caller(_) | Error::Expander { .. } => "INTERNAL",
            Error::Unsigned | Error::SignatureAlgorithm { .. } | Error::Threshold { .. } => "SIG_MISSING",
            Error::SignatureFile { .. } | Error::SignatureInvalid { .. } => "SIG_INVALID",
            Error::SignatureUntrusted { .. } => "SIG_UNTRUSTED",
            Error::Manifest { .. } | Error::CriticalFeature { .. } => "MANIFEST_INVALID",
            Error::Index { .. } => "INDEX_INVALID",
            Error::HashMismatch { .. } | Error::StoredMismatch { .. } | Error::Decode { .. } => {
                "HASH_MISMATCH"
            }
            Error::SizeExceeded { .. } => "SIZE_EXCEEDED",
            Error::Chunk { source, .. } => source.code(),
            Error::Trust { .. } => "TRUST_INVALID",
            Error::Channel { .. } => "METADATA_INVALID",
            Error::RootStep { source, .. } => source.code(),
            Error::RootGap { .. } => "KEYS_GAP",
            Error::RootReplay { .. } => "KEYS_REPLAY",
            Error::Locked { .. } | Error::NotRecipient { .. } => "DECRYPT_NO_KEY",
            Error::Decrypt { .. } | Error::Unwrap(_) => "DECRYPT_FAILED",
            Error::Key(_) => "KEY_INVALID",
            Error::Delta(error) => error.code(),
            Error::Order(_) => "INVALID_OPTION",
        }
    }

    /// Makes a [`Error::File`] from what was done to which file.
    pub(crate) fn file(act: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { act, path, source }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What the TOML parser complains about, in one line, and where.
pub(crate) fn toml_problem(text: &str, error: &toml::de::Error) -> (String, String) {
    let at = match error.span() {
        Some(span) => {
            let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
            format!("line {}", before.split(|&byte| byte == b'\n').count())
        }
        None => "document".to_owned(),
    };
    // A hostile document must not decide how long an error message gets.
    let message: String = error.message().chars().take(200).collect();
    (at, message.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    /// Every code that this crate spells stands in the project's table.
    #[test]
    fn codes_are_in_the_table() {
        let sources = [include_str!("error.rs"), include_str!("delta/error.rs")];
        let functions = sources.map(|source| source.split("pub fn code").nth(1).unwrap());
        let bodies = functions.map(|function| function.split("\n    }\n").next().unwrap());
        let codes: Vec<_> = bodies.iter().flat_map(|body| body.split('"').skip(1).step_by(2)).collect();
        assert!(codes.len() > 15, "{codes:?}");
        for code in codes {
            assert!(otad_dbus::Code::from_text(code).is_some(), "{code}");
        }
    }
}
