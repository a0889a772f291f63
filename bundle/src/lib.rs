//! The `.otab` bundle: signed manifest, chunk index, container, signatures and trust root.
//!
//! This library is pure: it reads and writes bundles, keys and roots, and knows no device, no daemon and no network.
//! What it promises: nothing but headers and signatures is interpreted before it is authenticated, every byte of a bundle
//! is covered by the signature or has only one allowed value, no input makes it panic or take unbounded memory.
//! `docs/bundle-format.md` specifies every byte; the modules below each hold one part of it.
//!
//! | module | owns |
//! |---|---|
//! | `header` | the one tar header a member may have |
//! | `container` | which bytes stand where |
//! | `signature`, `key`, `trust`, `chain` | what is signed, by whom, who is believed, and who comes after |
//! | `channel` | which release is the latest, and until when that holds |
//! | `manifest`, `index` | what a release and an image are made of |
//! | `seal` | who can read an encrypted bundle, and how |
//! | `reader`, `decode` | reading, in the safe order |
//! | `delta` | making one release's images out of another's |
//! | `build`, `walk`, `summary`, `resign` | making, checking, unpacking, showing and signing whole bundles |

mod build;
mod chain;
mod channel;
mod container;
mod decode;
pub mod delta;
mod digest;
mod error;
mod expand;
mod header;
mod index;
mod input;
mod instant;
mod key;
mod manifest;
mod reader;
mod resign;
mod seal;
mod signature;
mod summary;
mod trust;
mod walk;

pub use build::{Built, Compression, Cutter, Progress, Recipe, Source, build, build_for};
pub use chain::{CHAIN_LIMIT_BYTES, Chain, ROOT_TYPE, SignedRoot};
pub use channel::{ALSO_LIMIT, CHANNEL_LIMIT_BYTES, CHANNEL_TYPE, Channel, NamedRelease, SignedChannel};
pub use decode::{Decoder, Piece};
pub use digest::{Digest, DigestError, Hasher};
pub use error::Error;
pub use expand::{Expand, Expander, Job, Packing, SharedExpander};
pub use header::{BLOCK_BYTES, MEMBER_LIMIT_BYTES};
pub use index::{Chunk, ChunkKind, IndexReader, MAX_CHUNK_BYTES, RECORD_BYTES};
pub use input::{FileInput, Input, StreamInput};
pub use key::{KeyId, PublicKey, SIGNATURE_BYTES, Signer, SigningKey};
pub use manifest::{
    Chunking, Encryption, IMAGES_LIMIT, Image, ImageKind, IndexRef, MANIFEST_LIMIT_BYTES, Manifest, Recovery,
    Sealed, SealedHashes, Update,
};
pub use reader::{Bundle, Unverified};
pub use resign::{add_signature, add_signature_and_roots};
pub use seal::{
    Binding, CONTENT_KEY_BYTES, ContentKey, DeviceKey, ImageSeal, Recipient, RecipientKey, TAG_BYTES,
    WrapAlgorithm, Wrapped, X25519Key,
};
pub use signature::{
    MANIFEST_TYPE, SIGNATURE_FILE_LIMIT_BYTES, Signature, Signatures, pae, signature_from_base64,
};
pub use summary::{ImageSummary, KindCount, Summary};
pub use trust::{Quorum, ROOT_LIMIT_BYTES, Role, Root};
pub use walk::{extract, verify};
