//! Where the bytes of a bundle come from.
//!
//! Owns the trait [`Input`] and its forms for files and pipes; HTTP lives in the daemon. An input promises nothing about
//! what it delivers: every byte is checked by the reader above it, out of the buffer it was read into.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crate::error::Error;

/// Bytes with an absolute position.
pub trait Input: Read {
    /// Moves to `offset`, counted in bytes from the start of the bundle. Forward always works (by reading and dropping if
    /// it must); back only if [`Input::random_access`]. Moving past the end is allowed; the next read then returns 0.
    fn seek_to(&mut self, offset: u64) -> io::Result<()>;

    /// Whether [`Input::seek_to`] can go back, and forward without reading what lies between.
    fn random_access(&self) -> bool;

    /// Bytes there are in all, where that is known beforehand. Only a hint to refuse early what cannot be whole.
    fn length(&self) -> Option<u64> {
        None
    }

    /// Bytes that were fetched to read from here, whether they were read or not; nothing where that is what was read.
    fn fetched(&self) -> Option<u64> {
        None
    }

    /// Says which bytes will be read from now on, in rising order and without overlaps, and that hardly any other will be. Only a
    /// hint: an input for which a jump costs a round trip can ask for them in good time.
    fn expect(&mut self, extents: Vec<Range<u64>>) {
        drop(extents);
    }
}

impl<I: Input + ?Sized> Input for Box<I> {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        (**self).seek_to(offset)
    }

    fn random_access(&self) -> bool {
        (**self).random_access()
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }

    fn fetched(&self) -> Option<u64> {
        (**self).fetched()
    }

    fn expect(&mut self, extents: Vec<Range<u64>>) {
        (**self).expect(extents);
    }
}

/// A regular file or block device.
#[derive(Debug)]
pub struct FileInput {
    file: File,
}

impl FileInput {
    /// Takes an open file; its position does not matter.
    ///
    /// # Errors
    /// The file cannot seek: it is a pipe or terminal, use [`StreamInput`].
    pub fn new(mut file: File) -> io::Result<FileInput> {
        file.seek(SeekFrom::Start(0))?;
        Ok(FileInput { file })
    }

    /// Opens a file by its path.
    pub fn open(path: &Path) -> Result<FileInput, Error> {
        File::open(path).and_then(FileInput::new).map_err(Error::file("read", path))
    }
}

impl Read for FileInput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Input for FileInput {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset)).map(drop)
    }

    fn random_access(&self) -> bool {
        true
    }

    fn length(&self) -> Option<u64> {
        self.file.metadata().ok().filter(|data| data.is_file()).map(|data| data.len())
    }
}

/// A pipe, a socket, or anything else that only goes forward.
#[derive(Debug)]
pub struct StreamInput<R> {
    inner: R,
    position: u64,
}

impl<R: Read> StreamInput<R> {
    /// Takes a stream that stands at the first byte of the bundle.
    pub fn new(inner: R) -> StreamInput<R> {
        StreamInput { inner, position: 0 }
    }
}

impl<R: Read> Read for StreamInput<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read> Input for StreamInput<R> {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        let Some(distance) = offset.checked_sub(self.position) else {
            let text = format!("a stream cannot go back from {} to {offset}", self.position);
            return Err(io::Error::new(io::ErrorKind::NotSeekable, text));
        };
        let mut dropped = Read::by_ref(self).take(distance);
        io::copy(&mut dropped, &mut io::sink()).map(drop)
    }

    fn random_access(&self) -> bool {
        false
    }
}
