//! The container: which bytes stand where, and reading them in order.
//!
//! An `.otab` file is a sequence of *members* and, between them, *seams*. A seam is everything that is not content: the
//! padding of one member and the header of the next, or the end. Once the manifest is known every byte of every seam is
//! known, so a seam is built and compared, never interpreted.
//!
//! ```text
//! header(otab) "otab 1\n" pad | [header(roots) … pad |] header(manifest.toml) … pad | header(manifest.sig) … pad          read by `Front`
//! header(<role>.index) … pad  | header(<role>.chunks) … pad    for each image                     read by `Body`
//! 1024 zero bytes, end of file
//! ```
//!
//! This module promises that no byte of a seam passes unseen on the way to a member, that every read is bounded before
//! memory is taken, and that offsets never wrap. It knows nothing of signatures.

use std::io;

use crate::chain::CHAIN_LIMIT_BYTES;
use crate::error::Error;
use crate::header::{self, BLOCK_BYTES, Block, MEMBER_LIMIT_BYTES};
use crate::input::Input;
use crate::manifest::{MANIFEST_LIMIT_BYTES, Manifest};
use crate::signature::SIGNATURE_FILE_LIMIT_BYTES;

/// Name of the first member.
pub(crate) const MAGIC_NAME: &str = "otab";
/// Content of the first member: the format version.
pub(crate) const MAGIC: &[u8] = b"otab 1\n";
/// Name of the roots that lead to the one that the bundle is signed by; the one member that may be missing.
pub(crate) const ROOTS_NAME: &str = "roots";
/// Name of the signed description.
pub(crate) const MANIFEST_NAME: &str = "manifest.toml";
/// Name of the signatures.
pub(crate) const SIGNATURE_NAME: &str = "manifest.sig";
/// The two zero blocks at the end.
pub(crate) const END_BYTES: u64 = 2 * BLOCK_BYTES as u64;

/// Name of an image's index.
pub(crate) fn index_name(role: &str) -> String {
    format!("{role}.index")
}

/// Name of an image's stored chunks.
pub(crate) fn chunks_name(role: &str) -> String {
    format!("{role}.chunks")
}

/// Bytes that a member takes with its header and padding.
pub(crate) fn member_bytes(size: u64) -> u64 {
    BLOCK_BYTES as u64 + size + header::padding(size)
}

/// An input that knows where it is and how much it delivered.
pub(crate) struct Cursor<I> {
    input: I,
    position: u64,
    bytes_read: u64,
}

impl<I: Input> Cursor<I> {
    pub(crate) fn new(input: I) -> Self {
        Cursor { input, position: 0, bytes_read: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.input.fetched().unwrap_or(self.bytes_read)
    }

    pub(crate) fn random_access(&self) -> bool {
        self.input.random_access()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.input.length()
    }

    pub(crate) fn expect(&mut self, extents: Vec<std::ops::Range<u64>>) {
        self.input.expect(extents);
    }

    /// Moves to `offset`; back only where the input can.
    pub(crate) fn seek_to(&mut self, offset: u64) -> Result<(), Error> {
        if offset == self.position {
            return Ok(());
        }
        if offset < self.position && !self.input.random_access() {
            let from = self.position;
            return Err(Error::Caller(format!("a stream cannot go back from offset {from} to {offset}")));
        }
        self.input.seek_to(offset).map_err(|source| Error::Read { offset: self.position, source })?;
        self.position = offset;
        Ok(())
    }

    /// Fills `buf` or says how far the input reached.
    pub(crate) fn read_exact(&mut self, buf: &mut [u8], member: &str) -> Result<(), Error> {
        match self.read_up_to(buf)? {
            count if count == buf.len() => Ok(()),
            _ => Err(Error::Truncated { member: member.to_owned(), offset: self.position }),
        }
    }

    /// Fills `buf` as far as the input reaches; returns how far.
    pub(crate) fn read_up_to(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    self.position += count as u64;
                    self.bytes_read += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Read { offset: self.position, source }),
            }
        }
        Ok(filled)
    }

    /// Reads `count` bytes, fewer than two blocks, that must be zero.
    fn read_zeros(&mut self, count: u64, member: &str) -> Result<(), Error> {
        let start = self.position;
        let mut buf = [0; 2 * BLOCK_BYTES];
        let wanted = usize::try_from(count).ok().and_then(|count| buf.get_mut(..count));
        let wanted = wanted.ok_or_else(|| Error::Caller(format!("{count} bytes of padding")))?;
        self.read_exact(wanted, member)?;
        match wanted.iter().position(|&byte| byte != 0) {
            Some(at) => Err(Error::Padding { offset: start + at as u64 }),
            None => Ok(()),
        }
    }

    /// Reads a header and compares it with the canonical one; without `size`, the size is taken from the header.
    fn read_header(&mut self, name: &str, size: Option<u64>) -> Result<u64, Error> {
        let offset = self.position;
        let mut found: Block = [0; BLOCK_BYTES];
        self.read_exact(&mut found, name)?;
        let size = size.unwrap_or_else(|| header::size_of(&found).unwrap_or(0));
        compare(&found, &header::canonical(name, size), name, offset)?;
        Ok(size)
    }

    /// Reads a header block that may be one of several.
    fn read_block(&mut self, name: &str) -> Result<Block, Error> {
        let mut found: Block = [0; BLOCK_BYTES];
        self.read_exact(&mut found, name)?;
        Ok(found)
    }

    /// Reads a whole small member whose size stands only in its header, which was read.
    fn read_member(&mut self, found: &Block, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let size = header::size_of(found).unwrap_or(0);
        let offset = self.position.saturating_sub(BLOCK_BYTES as u64);
        compare(found, &header::canonical(name, size), name, offset)?;
        if size > limit {
            return Err(Error::MemberSize { member: name.to_owned(), size, limit });
        }
        let length = usize::try_from(size).map_err(|_| Error::Caller("size_t below the limit".into()))?;
        let mut content = vec![0; length];
        self.read_exact(&mut content, name)?;
        self.read_zeros(header::padding(size), name)?;
        Ok(content)
    }
}

fn compare(found: &Block, wanted: &Block, member: &str, offset: u64) -> Result<(), Error> {
    match found.iter().zip(wanted).enumerate().find(|(_, (found, wanted))| found != wanted) {
        None => Ok(()),
        Some((at, (&found, &wanted))) => {
            Err(Error::Header { member: member.to_owned(), offset, at, found, wanted })
        }
    }
}

/// The members that are read before anything is authenticated.
pub(crate) struct Front {
    /// The exact bytes that are signed.
    pub(crate) manifest: Vec<u8>,
    /// The exact bytes of the signature file.
    pub(crate) signatures: Vec<u8>,
    /// The exact bytes of the roots that the bundle brings, if it brings any.
    pub(crate) roots: Option<Vec<u8>>,
}

impl Front {
    /// Reads `otab`, `roots` where there is one, `manifest.toml` and `manifest.sig`; interprets none of them.
    pub(crate) fn read<I: Input>(cursor: &mut Cursor<I>) -> Result<Front, Error> {
        read_magic(cursor)?;
        let mut block = cursor.read_block(MANIFEST_NAME)?;
        let roots = if names_roots(&block) {
            let roots = cursor.read_member(&block, ROOTS_NAME, CHAIN_LIMIT_BYTES as u64)?;
            block = cursor.read_block(MANIFEST_NAME)?;
            Some(roots)
        } else {
            None
        };
        let manifest = cursor.read_member(&block, MANIFEST_NAME, MANIFEST_LIMIT_BYTES as u64)?;
        let block = cursor.read_block(SIGNATURE_NAME)?;
        let signatures = cursor.read_member(&block, SIGNATURE_NAME, SIGNATURE_FILE_LIMIT_BYTES)?;
        Ok(Front { manifest, signatures, roots })
    }
}

/// Whether a header's name field is that of the roots; the whole of it is compared afterwards.
fn names_roots(block: &Block) -> bool {
    block.strip_prefix(ROOTS_NAME.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

fn read_magic<I: Input>(cursor: &mut Cursor<I>) -> Result<(), Error> {
    let wanted = header::canonical(MAGIC_NAME, MAGIC.len() as u64);
    let mut found: Block = [0; BLOCK_BYTES];
    let count = cursor.read_up_to(&mut found)?;
    let (head, _) = found.split_at(count);
    // Name field and magic field decide whether this wants to be a bundle at all.
    let ours = |range: std::ops::Range<usize>| {
        let end = range.end.min(count);
        head.get(range.start..end).unwrap_or(&[]) == wanted.get(range.start..end).unwrap_or(&[])
    };
    if !ours(0..16) || !ours(257..263) {
        let start: String = head.iter().take(16).map(|byte| byte.escape_ascii().to_string()).collect();
        return Err(Error::NotABundle { start: format!("\"{start}\"") });
    }
    if count < BLOCK_BYTES {
        return Err(Error::Truncated { member: MAGIC_NAME.into(), offset: count as u64 });
    }
    compare(&found, &wanted, MAGIC_NAME, 0)?;
    let mut content = [0; MAGIC.len()];
    cursor.read_exact(&mut content, MAGIC_NAME)?;
    if content != MAGIC {
        return Err(Error::FormatVersion { found: content.escape_ascii().to_string() });
    }
    cursor.read_zeros(header::padding(MAGIC.len() as u64), MAGIC_NAME)
}

/// Offsets of one image's members in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) chunks: u64,
}

/// Everything behind the signatures, described by a manifest.
pub(crate) struct Body {
    places: Vec<Place>,
    seams: Vec<Seam>,
    /// Seams before this one have been compared.
    seams_seen: usize,
    total_size: u64,
}

/// Padding of the member before, then the header of the next member or the end.
struct Seam {
    offset: u64,
    pad: u64,
    next: Option<(String, u64)>,
}

impl Body {
    /// Lays out the images of `manifest`, whose first header stands at `start`.
    pub(crate) fn new(manifest: &Manifest, start: u64) -> Result<Body, Error> {
        let mut body = Body { places: Vec::new(), seams: Vec::new(), seams_seen: 0, total_size: start };
        let mut pad = 0;
        for image in &manifest.images {
            let index = body.push(&mut pad, index_name(&image.role), image.stored_index().size)?;
            let chunks = body.push(&mut pad, chunks_name(&image.role), image.payload_size)?;
            body.places.push(Place { index, chunks });
        }
        body.seams.push(Seam { offset: body.total_size, pad, next: None });
        body.total_size += pad + END_BYTES;
        Ok(body)
    }

    /// Adds a member; returns the offset of its content. Sums stay far below 2^64: 128 members of less than 2^33 bytes.
    fn push(&mut self, pad: &mut u64, name: String, size: u64) -> Result<u64, Error> {
        if size > MEMBER_LIMIT_BYTES {
            return Err(Error::MemberSize { member: name, size, limit: MEMBER_LIMIT_BYTES });
        }
        self.seams.push(Seam { offset: self.total_size, pad: *pad, next: Some((name, size)) });
        let content = self.total_size + *pad + BLOCK_BYTES as u64;
        *pad = header::padding(size);
        self.total_size = content + size;
        Ok(content)
    }

    pub(crate) fn total_size(&self) -> u64 {
        self.total_size
    }

    pub(crate) fn place(&self, image: usize) -> Result<Place, Error> {
        self.places.get(image).copied().ok_or_else(|| Error::Caller(format!("no image {image}")))
    }

    /// Moves to `offset`, which lies in a member, comparing every seam on the way that was not compared before.
    pub(crate) fn advance<I: Input>(&mut self, cursor: &mut Cursor<I>, offset: u64) -> Result<(), Error> {
        while let Some(seam) = self.seams.get(self.seams_seen).filter(|seam| seam.offset < offset) {
            cursor.seek_to(seam.offset)?;
            seam.compare(cursor)?;
            self.seams_seen += 1;
        }
        cursor.seek_to(offset)
    }

    /// Where the seams are that were not compared yet and begin before `offset`, in the order of the file.
    pub(crate) fn unseen(&self, offset: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
        let unseen = self.seams.iter().skip(self.seams_seen);
        unseen.take_while(move |seam| seam.offset < offset).map(Seam::extent)
    }

    /// Compares all remaining seams and requires the end of the input behind the last.
    pub(crate) fn finish<I: Input>(&mut self, cursor: &mut Cursor<I>) -> Result<(), Error> {
        self.advance(cursor, self.total_size)?;
        match cursor.read_up_to(&mut [0])? {
            0 => Ok(()),
            _ => Err(Error::Trailing { offset: self.total_size }),
        }
    }
}

impl Seam {
    fn extent(&self) -> std::ops::Range<u64> {
        let blocks = if self.next.is_some() { BLOCK_BYTES as u64 } else { END_BYTES };
        self.offset..self.offset + self.pad + blocks
    }

    fn compare<I: Input>(&self, cursor: &mut Cursor<I>) -> Result<(), Error> {
        let member = self.next.as_ref().map_or("the end blocks", |(name, _)| name);
        cursor.read_zeros(self.pad, member)?;
        match &self.next {
            Some((name, size)) => cursor.read_header(name, Some(*size)).map(drop),
            None => cursor.read_zeros(END_BYTES, member),
        }
    }
}
