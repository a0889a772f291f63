//! Putting the parts into one file that appears when it is complete.
//!
//! The manifest stands first but is known last, so index and payload wait in files without a name beside the output. A
//! power cut or a kill leaves at most one hidden temporary file; every other failure removes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chain::Chain;
use crate::container::{
    Body, END_BYTES, MAGIC, MAGIC_NAME, MANIFEST_NAME, ROOTS_NAME, SIGNATURE_NAME, chunks_name, index_name,
    member_bytes,
};
use crate::digest::{Digest, HashWriter, Hasher};
use crate::error::Error;
use crate::header::{self, BLOCK_BYTES, MEMBER_LIMIT_BYTES};
use crate::manifest::{Image, IndexRef, Manifest, Sealed, SealedHashes};
use crate::seal::{ImageSeal, Part, index};
use crate::signature::{SIGNATURE_FILE_LIMIT_BYTES, Signatures};

/// Index records gather up to this many bytes before they are written.
const INDEX_BUFFER_BYTES: usize = 64 * 1024;
/// Distinguishes temporary files of one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Index and payload of one image while the manifest is not known yet.
pub(super) struct Spool {
    index: BufWriter<File>,
    payload: File,
    beside: PathBuf,
}

impl Spool {
    pub(super) fn create(output: &Path) -> Result<Spool, Error> {
        let (index, payload) = (unnamed(output)?, unnamed(output)?);
        let index = BufWriter::with_capacity(INDEX_BUFFER_BYTES, index);
        Ok(Spool { index, payload, beside: output.to_owned() })
    }

    pub(super) fn push(&mut self, record: &[u8], stored: &[u8]) -> Result<(), Error> {
        let written = self.index.write_all(record).and_then(|()| self.payload.write_all(stored));
        written.map_err(Error::file("write beside", &self.beside))
    }

    /// Encrypts the index and says in `image` what there is now.
    pub(super) fn seal_index(&mut self, seal: &ImageSeal, image: &mut Image) -> Result<(), Error> {
        let failed = |error| Error::file("encrypt the index beside", &self.beside)(error);
        let mut plain = std::mem::replace(&mut self.index, BufWriter::new(unnamed(&self.beside)?))
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        plain.seek(SeekFrom::Start(0)).map_err(failed)?;
        let frames = index::frames(image.chunk_count());
        let table_bytes = frames * index::HASH_BYTES as u64;
        self.index.seek(SeekFrom::Start(table_bytes)).map_err(failed)?;
        let (mut table, mut frame) = (Vec::new(), Vec::new());
        for number in 0..frames {
            frame.clear();
            Read::by_ref(&mut plain)
                .take(index::FRAME_BYTES as u64)
                .read_to_end(&mut frame)
                .map_err(failed)?;
            seal.seal(Part::Index, number, &mut frame)?;
            table.extend_from_slice(&Digest::of(&frame).0);
            self.index.write_all(&frame).map_err(failed)?;
        }
        self.index.seek(SeekFrom::Start(0)).and_then(|_| self.index.write_all(&table)).map_err(failed)?;
        self.index.flush().map_err(failed)?;
        self.payload.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut payload = HashWriter(Hasher::new());
        io::copy(&mut self.payload, &mut payload).map_err(failed)?;
        let mut hashes = [image.sha256.0, image.index.sha256.0].concat();
        seal.seal(Part::Hashes, 0, &mut hashes)?;
        let hashes = hashes.try_into().map_err(|_| Error::Caller("hashes of another length".into()))?;
        image.sealed = Some(Sealed {
            index: IndexRef { size: index::stored_bytes(image.chunk_count()), sha256: Digest::of(&table) },
            payload_sha256: payload.0.finish(),
            hashes: SealedHashes(hashes),
        });
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.index.flush().map_err(Error::file("write beside", &self.beside))
    }
}

/// A file without a name in the directory of `output`: it vanishes with its descriptor.
fn unnamed(output: &Path) -> Result<File, Error> {
    let (file, path) = create_beside(output)?;
    fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    Ok(file)
}

/// A new file beside the output. What a killed run of the same process id left behind (always 1 in a container) stands in
/// nobody's way: the serial moves on.
fn create_beside(output: &Path) -> Result<(File, PathBuf), Error> {
    loop {
        let path = beside(output);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((opened.map_err(Error::file("create", &path))?, path)),
        }
    }
}

fn beside(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    output.with_file_name(format!(".{name}.{}-{serial}.tmp", std::process::id()))
}

/// A file that gets its name only by [`NewFile::publish`]; dropped before that, it is removed.
pub(crate) struct NewFile {
    pub(crate) file: File,
    pub(crate) temporary: PathBuf,
    output: PathBuf,
}

impl NewFile {
    pub(crate) fn create(output: &Path) -> Result<NewFile, Error> {
        let (file, temporary) = create_beside(output)?;
        Ok(NewFile { file, temporary, output: output.to_owned() })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::file("write", &self.output))
    }

    pub(crate) fn copy_from(&mut self, source: &mut File) -> Result<u64, Error> {
        // In the kernel where it can be done there.
        io::copy(source, &mut self.file).map_err(Error::file("write", &self.output))
    }

    /// Flushes the file, gives it its name and flushes the directory.
    pub(crate) fn publish(mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::file("flush", &self.output))?;
        fs::rename(&self.temporary, &self.output).map_err(Error::file("rename to", &self.output))?;
        // The name is given: nothing is left for drop to remove.
        self.temporary = PathBuf::new();
        let directory = match self.output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(Error::file("flush", directory))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            // The failure that brought us here is the one to report.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A whole small member: header, content, padding.
fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let size = content.len() as u64;
    let mut bytes = header::canonical(name, size).to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(content.len().next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES, 0);
    bytes
}

/// Writes the file; returns its length in bytes.
pub(super) fn write(
    output: &Path,
    manifest: &Manifest,
    front: &NewFront<'_>,
    spools: &mut [Spool],
) -> Result<u64, Error> {
    let mut out = NewFile::create(output)?;
    let size = front.write(&mut out)?;
    let mut written = size;
    for (image, spool) in manifest.images.iter().zip(spools) {
        let index = image.stored_index().size;
        written += write_spooled(&mut out, &index_name(&image.role), index, spool.index.get_mut())?;
        written +=
            write_spooled(&mut out, &chunks_name(&image.role), image.payload_size, &mut spool.payload)?;
    }
    out.write(&[0; 2 * BLOCK_BYTES])?;
    written += END_BYTES;
    // The reader's arithmetic must agree with what was written.
    let planned = Body::new(manifest, size)?.total_size();
    if planned != written {
        return Err(Error::Caller(format!("{written} bytes were written, {planned} planned")));
    }
    out.publish()?;
    Ok(written)
}

/// The members that stand before the images.
pub(crate) struct NewFront<'a> {
    /// The exact bytes that are signed.
    pub(crate) manifest: &'a [u8],
    /// Who signed them.
    pub(crate) signatures: &'a Signatures,
    /// The roots that the bundle brings.
    pub(crate) roots: Option<&'a Chain>,
}

impl NewFront<'_> {
    /// Writes them; returns their length in bytes.
    pub(crate) fn write(&self, out: &mut NewFile) -> Result<u64, Error> {
        let signatures = self.signatures.to_toml();
        if signatures.len() as u64 > SIGNATURE_FILE_LIMIT_BYTES {
            return Err(Error::MemberSize {
                member: SIGNATURE_NAME.into(),
                size: signatures.len() as u64,
                limit: SIGNATURE_FILE_LIMIT_BYTES,
            });
        }
        let mut front = member(MAGIC_NAME, MAGIC);
        if let Some(roots) = self.roots {
            front.extend(member(ROOTS_NAME, roots.to_text().as_bytes()));
        }
        front.extend(member(MANIFEST_NAME, self.manifest));
        front.extend(member(SIGNATURE_NAME, signatures.as_bytes()));
        out.write(&front)?;
        Ok(front.len() as u64)
    }
}

fn write_spooled(out: &mut NewFile, name: &str, size: u64, spool: &mut File) -> Result<u64, Error> {
    if size > MEMBER_LIMIT_BYTES {
        return Err(Error::MemberSize { member: name.to_owned(), size, limit: MEMBER_LIMIT_BYTES });
    }
    out.write(&header::canonical(name, size))?;
    spool.seek(SeekFrom::Start(0)).map_err(Error::file("read beside", &out.output))?;
    let copied = out.copy_from(spool)?;
    if copied != size {
        return Err(Error::Caller(format!("{name} has {copied} bytes in its spool, {size} were counted")));
    }
    let zeros = [0; BLOCK_BYTES];
    let padding = zeros.iter().take(usize::try_from(header::padding(size)).unwrap_or(0)).copied();
    out.write(&padding.collect::<Vec<u8>>())?;
    Ok(member_bytes(size))
}
