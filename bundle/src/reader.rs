//! Reading bundles: first the signature, then everything else.
//!
//! [`Unverified`] has read the front of a file and judged nothing. [`Bundle`] exists only when the trust root, or a root that
//! follows it along the roots that the bundle brings, accepted the signature over the exact manifest bytes; only then is the
//! manifest parsed. The stored bytes that a [`Bundle`] hands out
//! are not verified yet: [`crate::Decoder::decode`] checks them against the index before it decodes them.
//!
//! A pipe is read strictly front to back: per image in order [`Bundle::read_index`], then [`Bundle::read_stored`] with
//! rising offsets (gaps are skipped), at the end [`Bundle::finish`].

use std::io::Write;
use std::ops::Range;

use crate::chain::{Chain, SignedRoot};
use crate::container::{Body, Cursor, Front};
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::index::{MAX_CHUNK_BYTES, RECORD_BYTES, Tally};
use crate::input::Input;
use crate::key::KeyId;
use crate::manifest::{Image, Manifest};
use crate::seal::{DeviceKey, ImageSeal, Part, TAG_BYTES, Unlocked, index};
use crate::signature::{MANIFEST_TYPE, Signatures};
use crate::trust::{Role, Root};

/// Index bytes handled at a time; a multiple of the record length.
const INDEX_WINDOW_BYTES: usize = 1024 * RECORD_BYTES;

/// The front of a bundle, of which nothing has been judged.
pub struct Unverified<I: Input> {
    cursor: Cursor<I>,
    front: Front,
}

impl<I: Input> Unverified<I> {
    /// Reads up to the end of `manifest.sig`.
    ///
    /// # Errors
    /// The input is no bundle, is truncated, or a header or padding is not the canonical one.
    pub fn open(input: I) -> Result<Self, Error> {
        let mut cursor = Cursor::new(input);
        let front = Front::read(&mut cursor)?;
        Ok(Unverified { cursor, front })
    }

    /// The stored bytes of the manifest; nobody has vouched for them.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.front.manifest
    }

    /// The signatures as they stand in the file; none has been checked.
    pub fn signatures(&self) -> Result<Signatures, Error> {
        Signatures::parse(&self.front.signatures)
    }

    /// Offset of the first byte behind `manifest.sig`.
    pub(crate) fn body_offset(&self) -> u64 {
        self.cursor.position()
    }

    /// The roots that the bundle brings; nobody has vouched for them.
    pub fn roots(&self) -> Result<Option<Chain>, Error> {
        self.front.roots.as_deref().map(Chain::parse).transpose()
    }

    /// The roots beyond `root` that the bundle brings, each of which may follow the one before it.
    pub fn roots_beyond(&self, root: &Root) -> Result<Vec<SignedRoot>, Error> {
        let chain = self.roots()?;
        chain.map_or(Ok(Vec::new()), |chain| Ok(root.follow(&chain)?.to_vec()))
    }

    /// Walks to the newest root, checks the signatures by it, and then parses the manifest.
    pub fn verify(self, root: &Root) -> Result<Bundle<I>, Error> {
        let new_roots = self.roots_beyond(root)?;
        let newest = new_roots.last().map(|tip| tip.root().clone().at_least(root.least()));
        let root = newest.as_ref().unwrap_or(root);
        let signatures = self.signatures()?;
        let signed_by = root.verify(Role::Release, MANIFEST_TYPE, &self.front.manifest, &signatures)?;
        // Nobody honest writes a signature by a recovery key that does not verify, so only its absence is let pass.
        let recoverers = match root.verify(Role::Recovery, MANIFEST_TYPE, &self.front.manifest, &signatures) {
            Ok(keys) => keys,
            Err(error @ Error::SignatureInvalid { .. }) => return Err(error),
            Err(_) => Vec::new(),
        };
        Ok(Bundle { contents: self.contents()?, signed_by, recoverers, new_roots })
    }

    /// Parses the manifest although nobody vouches for it: for looking only, never for installing.
    pub(crate) fn contents(self) -> Result<Contents<I>, Error> {
        let manifest = Manifest::parse(&self.front.manifest)?;
        let body = Body::new(&manifest, self.cursor.position())?;
        let (cursor, manifest_bytes) = (self.cursor, self.front.manifest);
        Ok(Contents { cursor, manifest_bytes, manifest, body, unlocked: None })
    }
}

/// A bundle whose manifest is signed as the trust root demands.
pub struct Bundle<I: Input> {
    pub(crate) contents: Contents<I>,
    signed_by: Vec<KeyId>,
    recoverers: Vec<KeyId>,
    new_roots: Vec<SignedRoot>,
}

impl<I: Input> Bundle<I> {
    /// Reads the front of a bundle, verifies the signature and parses the manifest, in this order.
    pub fn open(input: I, root: &Root) -> Result<Self, Error> {
        Unverified::open(input)?.verify(root)
    }

    /// What the release is.
    pub fn manifest(&self) -> &Manifest {
        &self.contents.manifest
    }

    /// The exact bytes that are signed.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.contents.manifest_bytes
    }

    /// SHA-256 of the manifest bytes: the identity of the release in records, reports and on the server.
    pub fn release(&self) -> Digest {
        Digest::of(&self.contents.manifest_bytes)
    }

    /// The distinct keys of the release role that signed, sorted.
    pub fn signed_by(&self) -> &[KeyId] {
        &self.signed_by
    }

    /// The distinct keys of the recovery role that signed as well, sorted; none unless they reach its threshold.
    pub fn recoverers(&self) -> &[KeyId] {
        &self.recoverers
    }

    /// The roots beyond the one it was opened with, oldest first, each of which may follow the one before it.
    pub fn new_roots(&self) -> &[SignedRoot] {
        &self.new_roots
    }

    /// Unwraps the content key of an encrypted bundle, and completes the manifest by what it opens; does nothing to others.
    ///
    /// # Errors
    /// The bundle is encrypted for other keys, or the key cannot be unwrapped.
    pub fn unlock(&mut self, device: &dyn DeviceKey) -> Result<(), Error> {
        self.contents.unlock(device)
    }

    /// Whether it is encrypted and was not unlocked: then only [`crate::verify`] and [`Bundle::finish`] are of use.
    pub fn is_locked(&self) -> bool {
        self.contents.is_locked()
    }

    /// What decrypts the chunks of an image, if they are encrypted and it was unlocked.
    pub fn seal(&self, image: usize) -> Option<ImageSeal> {
        self.contents.seal(image).cloned()
    }

    /// Exact length of the whole file in bytes.
    pub fn total_size(&self) -> u64 {
        self.contents.body.total_size()
    }

    /// Length of the input in bytes, where it is known; a whole bundle has [`Bundle::total_size`].
    pub fn input_length(&self) -> Option<u64> {
        self.contents.cursor.length()
    }

    /// Whether the input can go back.
    pub fn random_access(&self) -> bool {
        self.contents.cursor.random_access()
    }

    /// Bytes that the input delivered so far, or moved to do so where it knows that they were more.
    pub fn bytes_read(&self) -> u64 {
        self.contents.cursor.bytes_read()
    }

    /// Copies the index of an image to `sink` and checks its header, length, SHA-256, every record and their sums.
    ///
    /// What `sink` received must not be used unless this returns `Ok`: the hash is known only at the end.
    pub fn read_index(&mut self, image: usize, sink: &mut dyn Write) -> Result<(), Error> {
        self.contents.read_index(image, sink)
    }

    /// Reads `len` stored bytes at `offset` of the payload of an image into `buf`, which afterwards holds exactly them.
    ///
    /// Checks the header of the payload, and every header and padding before it, the first time. The bytes themselves are
    /// unverified until [`crate::Decoder::decode`] has accepted them.
    pub fn read_stored(
        &mut self,
        image: usize,
        offset: u64,
        len: u32,
        buf: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.contents.read_stored(image, offset, len, buf)
    }

    /// The same into a place of exactly the wanted length.
    pub fn read_stored_into(&mut self, image: usize, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.contents.read_stored_into(image, offset, buf)
    }

    /// Tells the input which extents of the payload of an image will be read, in rising order; see [`Input::expect`].
    ///
    /// # Errors
    /// There is no such image.
    pub fn expect_stored(&mut self, image: usize, extents: Vec<Range<u64>>) -> Result<(), Error> {
        self.contents.expect_stored(image, extents)
    }

    /// Checks the headers and paddings not seen yet, the end blocks, and that nothing follows.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.contents.finish()
    }
}

/// The members behind the front; whoever makes one decides whether the manifest is to be believed.
pub(crate) struct Contents<I: Input> {
    cursor: Cursor<I>,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
    body: Body,
    pub(crate) unlocked: Option<Unlocked>,
}

impl<I: Input> Contents<I> {
    pub(crate) fn unlock(&mut self, device: &dyn DeviceKey) -> Result<(), Error> {
        self.unlocked = Unlocked::open(&mut self.manifest, device)?;
        Ok(())
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.manifest.encryption.is_some() && self.unlocked.is_none()
    }

    pub(crate) fn seal(&self, image: usize) -> Option<&ImageSeal> {
        self.unlocked.as_ref()?.seals.get(image)
    }

    /// Refuses to look into what is encrypted.
    pub(crate) fn require_unlocked(&self) -> Result<(), Error> {
        match &self.manifest.encryption {
            Some(encryption) if self.unlocked.is_none() => {
                Err(Error::Locked { count: encryption.recipients.len() })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn image(&self, number: usize) -> Result<&Image, Error> {
        self.manifest.images.get(number).ok_or_else(|| Error::Caller(format!("no image {number}")))
    }

    pub(crate) fn total_size(&self) -> u64 {
        self.body.total_size()
    }

    pub(crate) fn read_index(&mut self, number: usize, sink: &mut dyn Write) -> Result<(), Error> {
        self.require_unlocked()?;
        let image = self.image(number)?.clone();
        if image.sealed.is_some() {
            return self.read_sealed_index(number, Some(sink));
        }
        let member = self.begin_index(number)?;
        let mut hasher = Hasher::new();
        let mut tally = Tally::new(&image);
        let mut wrong = None;
        let mut window = vec![0; INDEX_WINDOW_BYTES];
        while tally.remaining() > 0 && wrong.is_none() {
            let bytes = tally.remaining().saturating_mul(RECORD_BYTES as u64);
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let part = window.get_mut(..bytes.min(INDEX_WINDOW_BYTES)).unwrap_or_default();
            self.cursor.read_exact(part, &member)?;
            hasher.update(part);
            sink.write_all(part).map_err(|source| Error::Sink { what: member.clone(), source })?;
            let (records, _) = part.as_chunks::<RECORD_BYTES>();
            wrong = records.iter().find_map(|record| tally.admit(record).err());
        }
        // A changed index is reported as changed, not as malformed; so a record's problem waits for the hash.
        let unread = self.body.place(number)?.index + image.index.size - self.cursor.position();
        self.hash_rest(unread, &mut hasher, &mut window, &member)?;
        let found = hasher.finish();
        if found != image.index.sha256 {
            return Err(Error::HashMismatch { what: member, found, wanted: image.index.sha256 });
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Moves to the index of an image; returns its name.
    fn begin_index(&mut self, number: usize) -> Result<String, Error> {
        let image = self.image(number)?;
        let (member, size) = (crate::container::index_name(&image.role), image.stored_index().size);
        let start = self.body.place(number)?.index;
        // Its length is signed: nothing behind it need be fetched with it.
        let index = start..start.saturating_add(size);
        self.cursor.expect(self.body.unseen(start).chain([index]).collect());
        self.body.advance(&mut self.cursor, start)?;
        Ok(member)
    }

    /// Reads an encrypted index: first the table, by the manifest's hash; then each frame, by its hash in the table, and only then
    /// decrypted. Without a sink the stored bytes are checked, and nothing is decrypted.
    pub(crate) fn read_sealed_index(
        &mut self,
        number: usize,
        mut sink: Option<&mut dyn Write>,
    ) -> Result<(), Error> {
        let image = self.image(number)?.clone();
        let member = self.begin_index(number)?;
        let table = self.read_table(&image, &member)?;
        let (mut tally, mut hasher, mut left) = (Tally::new(&image), Hasher::new(), image.index.size);
        let mut frame = vec![0; index::FRAME_BYTES + index::TAG];
        for (frame_number, known) in (0u64..).zip(table.as_chunks::<{ index::HASH_BYTES }>().0) {
            let plain = usize::try_from(left).unwrap_or(usize::MAX).min(index::FRAME_BYTES);
            left -= plain as u64;
            let stored = frame.get_mut(..plain + index::TAG).unwrap_or_default();
            self.cursor.read_exact(stored, &member)?;
            let found = Digest::of(stored);
            if found.0 != *known {
                let what = format!("part {frame_number} of {member}");
                return Err(Error::HashMismatch { what, found, wanted: Digest(*known) });
            }
            let Some(sink) = &mut sink else { continue };
            let seal = self.seal(number).ok_or_else(|| Error::Caller("an image without its key".into()))?;
            let plain = seal.open(Part::Index, frame_number, stored)?;
            hasher.update(plain);
            plain
                .as_chunks::<RECORD_BYTES>()
                .0
                .iter()
                .try_for_each(|record| tally.admit(record).map(drop))?;
            sink.write_all(plain).map_err(|source| Error::Sink { what: member.clone(), source })?;
        }
        let found = hasher.finish();
        if sink.is_some() && found != image.index.sha256 {
            let what = format!("the decrypted {member}");
            return Err(Error::HashMismatch { what, found, wanted: image.index.sha256 });
        }
        Ok(())
    }

    /// The hashes of the frames of an encrypted index, by the manifest's hash: about 32 bytes for 1024 chunks.
    fn read_table(&mut self, image: &Image, member: &str) -> Result<Vec<u8>, Error> {
        let frames = index::frames(image.chunk_count());
        let bytes = usize::try_from(frames).unwrap_or(usize::MAX).saturating_mul(index::HASH_BYTES);
        let mut table = Vec::new();
        // Never more than is there: a signed length may still be wrong.
        while table.len() < bytes {
            let start = table.len();
            table.resize(bytes.min(start + INDEX_WINDOW_BYTES), 0);
            self.cursor.read_exact(table.get_mut(start..).unwrap_or_default(), member)?;
        }
        let (found, wanted) = (Digest::of(&table), image.stored_index().sha256);
        if found == wanted {
            return Ok(table);
        }
        Err(Error::HashMismatch { what: format!("the table of {member}"), found, wanted })
    }

    fn hash_rest(
        &mut self,
        mut unread: u64,
        hasher: &mut Hasher,
        window: &mut [u8],
        member: &str,
    ) -> Result<(), Error> {
        while unread > 0 {
            let count = usize::try_from(unread).unwrap_or(usize::MAX).min(window.len());
            let part = window.get_mut(..count).unwrap_or_default();
            self.cursor.read_exact(part, member)?;
            hasher.update(part);
            unread -= part.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn read_stored(
        &mut self,
        number: usize,
        offset: u64,
        len: u32,
        buf: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let length = len.min(MAX_CHUNK_BYTES + TAG_BYTES + 1) as usize;
        // No byte is written twice: only growth beyond what was used before is filled with zeros.
        if buf.len() < length {
            buf.resize(length, 0);
        } else {
            buf.truncate(length);
        }
        self.read_stored_into(number, offset, buf)
    }

    fn read_stored_into(&mut self, number: usize, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let image = self.image(number)?;
        let len = buf.len() as u64;
        let fits = offset.checked_add(len).is_some_and(|end| end <= image.payload_size);
        if !fits || len > u64::from(MAX_CHUNK_BYTES + image.cover()) {
            let (role, size) = (&image.role, image.payload_size);
            return Err(Error::Caller(format!("{len} bytes at {offset} of {role}.chunks, which has {size}")));
        }
        let member = crate::container::chunks_name(&image.role);
        self.body.advance(&mut self.cursor, self.body.place(number)?.chunks + offset)?;
        self.cursor.read_exact(buf, &member)
    }

    fn expect_stored(&mut self, number: usize, mut extents: Vec<Range<u64>>) -> Result<(), Error> {
        let start = self.body.place(number)?.chunks;
        for extent in &mut extents {
            *extent = start.saturating_add(extent.start)..start.saturating_add(extent.end);
        }
        // What stands before these chunks is compared on the way to them, what stands behind the last ones at the end.
        extents.splice(0..0, self.body.unseen(start));
        if number + 1 == self.manifest.images.len() {
            let behind = self.body.unseen(u64::MAX).filter(|seam| seam.start >= start);
            extents.extend(behind);
        }
        self.cursor.expect(extents);
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.body.finish(&mut self.cursor)
    }
}
