//! The encrypted delta: a delta for an encrypted bundle, for those who can read that.
//!
//! What stands inside is a delta as [`super`] describes it, cut into *frames* of 64 KiB (the last one what is left). Each is
//! encrypted by itself, so that a reader can begin anywhere.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 16 | `otad-delta-e 1` newline, one zero byte |
//! | 16 | 8 | length of the delta inside |
//! | 24 | 8 | zero |
//! | 32 | 32 | SHA-256 of the old bundle's manifest, as inside |
//! | 64 | 32 | SHA-256 of the new bundle's manifest, as inside |
//! | 96 | 32 | salt: random |
//! | 128 | … | the frames: AES-256-GCM, the tag of 16 bytes behind each; nothing behind them |
//!
//! The key is HKDF-SHA256 of the new bundle's content key with the salt and the info `otad-delta-v1`, so no two deltas share one. The
//! nonce is four zero bytes and the number of the frame (8 bytes, little-endian), the associated data the SHA-256 of the 128
//! bytes in front. Nothing in it is believed, as little as in another delta: what does not open is fetched from the bundle.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::decode::Delta;
use super::error::DeltaError;
use crate::digest::Digest;
use crate::error::Error;
use crate::input::Input;
use crate::reader::Bundle;
use crate::seal::{ContentKey, TAG_BYTES, cipher, hpke, random};

/// First bytes of an encrypted delta: the format and its version.
pub const SEALED_MAGIC: &[u8; 16] = b"otad-delta-e 1\n\0";
/// Bytes before the frames.
const HEADER_BYTES: usize = 128;
/// Plain bytes of a frame: what is decrypted to read one byte, and little beside a segment's head.
const FRAME_BYTES: usize = 64 * 1024;
/// Bytes of a frame and its tag.
const STORED_BYTES: u64 = FRAME_BYTES as u64 + TAG_BYTES as u64;
/// What the key is derived for.
const KEY_INFO: &[u8] = b"otad-delta-v1";

/// What a delta says of itself to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Length of the whole file in bytes.
    pub total_size: u64,
    /// SHA-256 of the old bundle's manifest.
    pub old_release: Digest,
    /// SHA-256 of the new bundle's manifest.
    pub new_release: Digest,
    /// Whether the rest of it is encrypted.
    pub encrypted: bool,
}

impl Announced {
    /// Reads the front of a delta, encrypted or not, from an input that can go back.
    ///
    /// # Errors
    /// The input is no delta, breaks a rule, or cannot be read.
    pub fn read<I: Input>(mut input: I) -> Result<Announced, DeltaError> {
        let mut magic = [0; SEALED_MAGIC.len()];
        let count = fill(&mut input, &mut magic).map_err(|source| DeltaError::Read { offset: 0, source })?;
        input.seek_to(0).map_err(|source| DeltaError::Read { offset: count as u64, source })?;
        if magic != *SEALED_MAGIC {
            let header = Delta::open(input)?.header().clone();
            let (total_size, old_release, new_release) =
                (header.total_size, header.old_release, header.new_release);
            return Ok(Announced { total_size, old_release, new_release, encrypted: false });
        }
        let front = Front::read(&mut input)?;
        Ok(Announced {
            total_size: front.total_size(),
            old_release: front.old_release,
            new_release: front.new_release,
            encrypted: true,
        })
    }
}

/// The bytes before the frames.
#[derive(Clone, Copy)]
struct Front {
    plain_size: u64,
    old_release: Digest,
    new_release: Digest,
    salt: [u8; 32],
}

impl Front {
    fn read<I: Input>(input: &mut I) -> Result<Front, DeltaError> {
        let mut bytes = [0; HEADER_BYTES];
        match fill(input, &mut bytes) {
            Ok(HEADER_BYTES) => {}
            Ok(count) => return Err(DeltaError::Truncated { offset: count as u64 }),
            Err(source) => return Err(DeltaError::Read { offset: 0, source }),
        }
        let wrong = |problem: &str| DeltaError::Directory { place: "header".into(), problem: problem.into() };
        let mut rest = bytes.as_slice();
        let magic: [u8; 16] = take(&mut rest);
        if magic != *SEALED_MAGIC {
            let start: String = magic.iter().map(|byte| byte.escape_ascii().to_string()).collect();
            return Err(DeltaError::NotADelta { start: format!("\"{start}\", and the bundle is encrypted") });
        }
        let plain_size = u64::from_le_bytes(take(&mut rest));
        if take::<8>(&mut rest) != [0; 8] {
            return Err(wrong("bytes 24 to 31 must be zero"));
        }
        // Far above every delta, and far below where sums wrap.
        if plain_size == 0 || plain_size > 1 << 60 {
            return Err(wrong("its length is none that a delta has"));
        }
        let (old_release, new_release) = (Digest(take(&mut rest)), Digest(take(&mut rest)));
        Ok(Front { plain_size, old_release, new_release, salt: take(&mut rest) })
    }

    fn encode(&self) -> Vec<u8> {
        let size = self.plain_size.to_le_bytes();
        let parts =
            [SEALED_MAGIC.as_slice(), &size, &[0; 8], &self.old_release.0, &self.new_release.0, &self.salt];
        parts.concat()
    }

    fn total_size(&self) -> u64 {
        HEADER_BYTES as u64
            + self.plain_size
            + self.plain_size.div_ceil(FRAME_BYTES as u64) * u64::from(TAG_BYTES)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((head, tail)) => {
            *rest = tail;
            *head
        }
        None => [0; N],
    }
}

/// Fills `buf` as far as the input reaches; returns how far.
fn fill(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The cipher of one delta.
struct Frames {
    key: Arc<LessSafeKey>,
    aad: [u8; 32],
}

impl Frames {
    fn of(content: &ContentKey, front: &Front) -> Result<Frames, Error> {
        let prk = hpke::extract(&front.salt, content.as_bytes());
        let key = cipher(&hpke::expand(&prk, KEY_INFO))?;
        Ok(Frames { key, aad: Digest::of(&front.encode()).0 })
    }

    fn nonce(number: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().skip(4).zip(number.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Writes the delta `plain` as an encrypted one.
pub(super) fn write(
    content: &ContentKey,
    (old_release, new_release): (Digest, Digest),
    (plain, plain_size): (&mut dyn Read, u64),
    out: &mut dyn Write,
) -> Result<(), Error> {
    let failed = |source| Error::Sink { what: "the encrypted delta".into(), source };
    let front = Front { plain_size, old_release, new_release, salt: random()? };
    let frames = Frames::of(content, &front)?;
    out.write_all(&front.encode()).map_err(failed)?;
    let mut frame = Vec::with_capacity(FRAME_BYTES + TAG_BYTES as usize);
    for number in 0..plain_size.div_ceil(FRAME_BYTES as u64) {
        frame.clear();
        Read::take(&mut *plain, FRAME_BYTES as u64).read_to_end(&mut frame).map_err(failed)?;
        frames
            .key
            .seal_in_place_append_tag(Frames::nonce(number), Aad::from(frames.aad), &mut frame)
            .map_err(|_| Error::Caller("a frame that is too long".into()))?;
        out.write_all(&frame).map_err(failed)?;
    }
    Ok(())
}

/// The delta inside of an encrypted one, decrypted as far as it is read.
pub struct SealedInput<I> {
    inner: I,
    /// Where `inner` stands.
    inner_position: u64,
    /// What `inner` delivered.
    delivered: u64,
    frames: Frames,
    plain_size: u64,
    position: u64,
    /// The frame whose plain bytes are in the buffer, and how many there are.
    current: Option<(u64, usize)>,
    buffer: Vec<u8>,
}

impl<I: Input> SealedInput<I> {
    pub(super) fn open(mut inner: I, content: &ContentKey) -> Result<SealedInput<I>, DeltaError> {
        let front = Front::read(&mut inner)?;
        let frames = Frames::of(content, &front)
            .map_err(|error| DeltaError::Directory { place: "header".into(), problem: error.to_string() })?;
        Ok(SealedInput {
            inner,
            inner_position: HEADER_BYTES as u64,
            delivered: HEADER_BYTES as u64,
            frames,
            plain_size: front.plain_size,
            position: 0,
            current: None,
            buffer: vec![0; FRAME_BYTES + TAG_BYTES as usize],
        })
    }

    /// Decrypts a frame into the buffer; 0 when the input ends inside of it.
    fn load(&mut self, number: u64) -> io::Result<usize> {
        self.current = None;
        let offset = HEADER_BYTES as u64 + number * STORED_BYTES;
        if self.inner_position != offset {
            self.inner.seek_to(offset)?;
            self.inner_position = offset;
        }
        let plain = (self.plain_size - number * FRAME_BYTES as u64).min(FRAME_BYTES as u64);
        let length = usize::try_from(plain).unwrap_or(FRAME_BYTES);
        let stored = self.buffer.get_mut(..length + TAG_BYTES as usize).unwrap_or_default();
        let count = fill(&mut self.inner, stored)?;
        self.inner_position += count as u64;
        self.delivered += count as u64;
        if count < stored.len() {
            return Ok(0);
        }
        let opened = self.frames.key.open_in_place(Frames::nonce(number), Aad::from(self.frames.aad), stored);
        if opened.is_err() {
            let problem = format!("part {number} of the delta does not open with the bundle's key");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        self.current = Some((number, length));
        Ok(length)
    }
}

impl<I: Input> Read for SealedInput<I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.plain_size {
            return Ok(0);
        }
        let number = self.position / FRAME_BYTES as u64;
        let length = match self.current {
            Some((current, length)) if current == number => length,
            Some(_) | None => self.load(number)?,
        };
        let start = usize::try_from(self.position % FRAME_BYTES as u64).unwrap_or(0);
        let found = self.buffer.get(start..length).unwrap_or_default();
        let count = found.len().min(buf.len());
        buf.iter_mut().zip(found).for_each(|(place, byte)| *place = *byte);
        self.position += count as u64;
        Ok(count)
    }
}

impl<I: Input> Input for SealedInput<I> {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.position = offset;
        Ok(())
    }

    fn random_access(&self) -> bool {
        self.inner.random_access()
    }

    fn fetched(&self) -> Option<u64> {
        Some(self.inner.fetched().unwrap_or(self.delivered))
    }

    fn expect(&mut self, extents: Vec<Range<u64>>) {
        let stored = |frame: u64| HEADER_BYTES as u64 + frame.saturating_mul(STORED_BYTES);
        let last = HEADER_BYTES as u64
            + self.plain_size.div_ceil(FRAME_BYTES as u64) * u64::from(TAG_BYTES)
            + self.plain_size;
        let mut wanted: Vec<Range<u64>> = Vec::new();
        for extent in extents.into_iter().filter(|extent| !extent.is_empty()) {
            let frames = extent.start / FRAME_BYTES as u64..extent.end.div_ceil(FRAME_BYTES as u64);
            let range = stored(frames.start).min(last)..stored(frames.end).min(last);
            match wanted.last_mut() {
                Some(before) if range.start <= before.end => before.end = before.end.max(range.end),
                Some(_) | None => wanted.push(range),
            }
        }
        self.inner.expect(wanted);
    }
}

/// A delta to read: as it is, or through its encryption.
pub enum DeltaInput<I> {
    /// Everybody can read it.
    Plain(I),
    /// It is for an encrypted bundle.
    Sealed(SealedInput<I>),
}

impl<I: Input> Bundle<I> {
    /// Prepares a delta to this bundle for [`Delta::open`]: that to an encrypted bundle must be encrypted too.
    ///
    /// # Errors
    /// It is not, or the bundle was not unlocked.
    pub fn delta_input<D: Input>(&self, delta: D) -> Result<DeltaInput<D>, DeltaError> {
        match &self.contents.unlocked {
            Some(unlocked) => Ok(DeltaInput::Sealed(SealedInput::open(delta, &unlocked.content)?)),
            None if self.is_locked() => Err(DeltaError::Caller("the bundle was not unlocked".into())),
            None => Ok(DeltaInput::Plain(delta)),
        }
    }
}

impl<I: Input> Read for DeltaInput<I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            DeltaInput::Plain(input) => input.read(buf),
            DeltaInput::Sealed(input) => input.read(buf),
        }
    }
}

impl<I: Input> Input for DeltaInput<I> {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        match self {
            DeltaInput::Plain(input) => input.seek_to(offset),
            DeltaInput::Sealed(input) => input.seek_to(offset),
        }
    }

    fn random_access(&self) -> bool {
        match self {
            DeltaInput::Plain(input) => input.random_access(),
            DeltaInput::Sealed(input) => input.random_access(),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            DeltaInput::Plain(input) => input.length(),
            DeltaInput::Sealed(input) => input.length(),
        }
    }

    fn fetched(&self) -> Option<u64> {
        match self {
            DeltaInput::Plain(input) => input.fetched(),
            DeltaInput::Sealed(input) => input.fetched(),
        }
    }

    fn expect(&mut self, extents: Vec<Range<u64>>) {
        match self {
            DeltaInput::Plain(input) => input.expect(extents),
            DeltaInput::Sealed(input) => input.expect(extents),
        }
    }
}
