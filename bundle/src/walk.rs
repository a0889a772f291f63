//! Going through a whole bundle, front to back: to verify every byte, or to write the images out.
//!
//! Works on pipes too. Besides what reading checks anyway, the SHA-256 of every whole image is compared. The index of the
//! image at hand is held in memory (about two thousandths of the image).

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::build::Progress;
use crate::decode::Decoder;
use crate::digest::Hasher;
use crate::error::Error;
use crate::index::{Chunk, ChunkKind, IndexReader};
use crate::input::Input;
use crate::manifest::Image;
use crate::reader::Bundle;

/// Stored bytes of a bundle that cannot be decrypted that are hashed at a time.
const WINDOW_BYTES: u64 = 256 * 1024;

/// Verifies every byte of the bundle: headers, index, stored and plain chunks, whole images, padding and end.
///
/// Of an encrypted bundle that is not unlocked it is every byte too, but as they are stored: nothing is decrypted.
///
/// # Errors
/// The first thing that does not hold, with its place.
pub fn verify<I: Input>(bundle: &mut Bundle<I>, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
    if bundle.is_locked() { walk_locked(bundle, progress) } else { walk(bundle, &mut Discard, progress) }
}

/// Verifies the bundle and writes its images as `<role>.img` into `directory`; returns the files.
///
/// All images are verified even if only some `roles` are asked for (none: all of them). A file gets its name only when its
/// image was complete and right; zeros become holes. Existing files are replaced.
pub fn extract<I: Input>(
    bundle: &mut Bundle<I>,
    directory: &Path,
    roles: &[String],
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<PathBuf>, Error> {
    bundle.contents.require_unlocked()?;
    let images = &bundle.manifest().images;
    if let Some(role) = roles.iter().find(|role| !images.iter().any(|image| image.role == **role)) {
        let known: Vec<_> = images.iter().map(|image| image.role.as_str()).collect();
        return Err(Error::Order(format!("the bundle has no image {role:?}, only {}", known.join(", "))));
    }
    fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    let mut unpack = Unpack { directory, roles, open: None, done: Vec::new() };
    walk(bundle, &mut unpack, progress)?;
    Ok(std::mem::take(&mut unpack.done))
}

/// What happens with verified chunks.
trait Sink {
    fn begin(&mut self, image: &Image) -> Result<(), Error>;
    fn chunk(&mut self, chunk: &Chunk, plain: &[u8]) -> Result<(), Error>;
    fn end(&mut self, image: &Image) -> Result<(), Error>;
}

fn walk<I: Input>(
    bundle: &mut Bundle<I>,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let images = bundle.manifest().images.clone();
    let total = images.iter().map(|image| image.size).fold(0, u64::saturating_add);
    let mut done = 0;
    let mut decoder =
        Decoder::new().map_err(|source| Error::Sink { what: "decoder state".into(), source })?;
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    for (number, image) in images.iter().enumerate() {
        let mut index = Vec::new();
        bundle.read_index(number, &mut index)?;
        sink.begin(image)?;
        let seal = bundle.seal(number);
        let (mut hasher, mut payload) = (Hasher::new(), Hasher::new());
        let mut offset = 0;
        for (chunk_number, chunk) in IndexReader::new(index.as_slice(), image).enumerate() {
            let chunk = chunk?;
            bundle.read_stored(number, offset, chunk.stored_len, &mut stored)?;
            let decoded = match &seal {
                None => decoder.decode(&chunk, &stored, &mut plain),
                Some(seal) => {
                    payload.update(&stored);
                    plain.resize(chunk.plain_len as usize, 0);
                    decoder.decode_sealed_into(&chunk, (seal, chunk_number as u64), &mut stored, &mut plain)
                }
            };
            decoded.map_err(|source| Error::Chunk {
                role: image.role.clone(),
                number: chunk_number as u64,
                offset,
                source: Box::new(source),
            })?;
            hasher.update(&plain);
            sink.chunk(&chunk, &plain)?;
            offset += u64::from(chunk.stored_len);
            done += u64::from(chunk.plain_len);
            progress(Progress { done, total });
        }
        let found = hasher.finish();
        if found != image.sha256 {
            let what = format!("the image {}", image.role);
            return Err(Error::HashMismatch { what, found, wanted: image.sha256 });
        }
        check_payload(image, payload)?;
        sink.end(image)?;
    }
    bundle.finish()
}

/// Compares the whole payload of an encrypted image.
fn check_payload(image: &Image, payload: Hasher) -> Result<(), Error> {
    let Some(sealed) = &image.sealed else { return Ok(()) };
    let (found, wanted) = (payload.finish(), sealed.payload_sha256);
    if found == wanted {
        return Ok(());
    }
    Err(Error::HashMismatch { what: crate::container::chunks_name(&image.role), found, wanted })
}

/// Checks every byte as it is stored.
fn walk_locked<I: Input>(bundle: &mut Bundle<I>, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
    let images = bundle.manifest().images.clone();
    let total = images.iter().map(|image| image.payload_size).sum();
    let (mut done, mut window) = (0, Vec::new());
    for (number, image) in images.iter().enumerate() {
        bundle.contents.read_sealed_index(number, None)?;
        let (mut offset, mut payload) = (0, Hasher::new());
        while offset < image.payload_size {
            let length = (image.payload_size - offset).min(WINDOW_BYTES);
            bundle.read_stored(number, offset, u32::try_from(length).unwrap_or(0), &mut window)?;
            payload.update(&window);
            offset += length;
            done += length;
            progress(Progress { done, total });
        }
        check_payload(image, payload)?;
    }
    bundle.finish()
}

struct Discard;

impl Sink for Discard {
    fn begin(&mut self, _: &Image) -> Result<(), Error> {
        Ok(())
    }

    fn chunk(&mut self, _: &Chunk, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn end(&mut self, _: &Image) -> Result<(), Error> {
        Ok(())
    }
}

struct Unpack<'a> {
    directory: &'a Path,
    roles: &'a [String],
    open: Option<Partial>,
    done: Vec<PathBuf>,
}

/// An image that is being written; removed unless it is completed.
struct Partial {
    file: File,
    path: PathBuf,
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing of this name any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl Sink for Unpack<'_> {
    fn begin(&mut self, image: &Image) -> Result<(), Error> {
        if !self.roles.is_empty() && !self.roles.contains(&image.role) {
            return Ok(());
        }
        let path = self.directory.join(format!(".{}.img.{}.partial", image.role, std::process::id()));
        let options = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = options.map_err(Error::file("create", &path))?;
        self.open = Some(Partial { file, path });
        Ok(())
    }

    fn chunk(&mut self, chunk: &Chunk, plain: &[u8]) -> Result<(), Error> {
        let Some(Partial { file, path }) = &mut self.open else { return Ok(()) };
        let result = match chunk.kind {
            // The file is new, so what is skipped reads as zeros.
            ChunkKind::Zero => file.seek(SeekFrom::Current(i64::from(chunk.plain_len))).map(drop),
            ChunkKind::Stored | ChunkKind::Gzip | ChunkKind::Zstd => file.write_all(plain),
        };
        result.map_err(Error::file("write", path))
    }

    fn end(&mut self, image: &Image) -> Result<(), Error> {
        let Some(partial) = self.open.take() else { return Ok(()) };
        let done = self.directory.join(format!("{}.img", image.role));
        let file = &partial.file;
        file.set_len(image.size).and_then(|()| file.sync_all()).map_err(Error::file("write", &done))?;
        fs::rename(&partial.path, &done).map_err(Error::file("rename to", &done))?;
        self.done.push(done);
        Ok(())
    }
}
