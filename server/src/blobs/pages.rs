//! Reading a file for a download: what is in the page cache at once, the rest on a thread that may wait for the disk.
//!
//! `tokio::fs::File` hands every piece to another thread and copies it there. For what many devices fetch, which is in memory after the
//! first of them, that was most of the server's work.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// A part of a file.
pub(super) struct Pages {
    file: Arc<File>,
    at: u64,
    end: u64,
    /// A piece that was not in memory.
    coming: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// What came, and how much of it was handed out.
    came: (Vec<u8>, usize),
}

impl Pages {
    /// `length` bytes from `first` on.
    pub(super) fn new(file: Arc<File>, first: u64, length: u64) -> Pages {
        let end = first.saturating_add(length);
        Pages { file, at: first, end, coming: None, came: (Vec::new(), 0) }
    }

    /// Hands out what came from the disk; false when there is nothing of it.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let (bytes, done) = &mut self.came;
        let rest = bytes.get(*done..).unwrap_or_default();
        let some = rest.get(..rest.len().min(buffer.remaining())).unwrap_or_default();
        buffer.put_slice(some);
        *done += some.len();
        !some.is_empty()
    }
}

impl AsyncRead for Pages {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(coming) = &mut self.coming {
                let came = ready!(Pin::new(coming).poll(context)).map_err(io::Error::other)?;
                self.coming = None;
                self.came = (came?, 0);
                self.at += self.came.0.len() as u64;
                if self.came.0.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let room = left.min(buffer.remaining()).min(PIECE_BYTES);
            if self.hand_out(buffer) || room == 0 {
                return Poll::Ready(Ok(()));
            }
            let place = buffer.initialize_unfilled_to(room);
            match preadv2(&self.file, &mut [IoSliceMut::new(place)], self.at, ReadWriteFlags::NOWAIT) {
                Ok(count) => {
                    buffer.advance(count);
                    self.at += count as u64;
                    return Poll::Ready(Ok(()));
                }
                // Not in memory, or a file system that cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    let (file, at) = (self.file.clone(), self.at);
                    self.coming = Some(spawn_blocking(move || {
                        let mut bytes = vec![0; room];
                        let count = file.read_at(&mut bytes, at)?;
                        bytes.truncate(count);
                        Ok(bytes)
                    }));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::fs::{Advice, fadvise};
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Parts are what they should be, from memory and from the disk, into buffers of any length.
    #[tokio::test]
    async fn parts_come_whole() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> =
            (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        let file = Arc::new(file);
        for (first, length) in [(0, 3_000_000), (1, 0), (4_095, 1_000_000), (2_999_999, 1), (2_999_990, 100)]
        {
            for window in [1_000, 65_536, 1_000_000] {
                fadvise(&file, 0, None, Advice::DontNeed).unwrap();
                let mut pages = Pages::new(file.clone(), first, length);
                let (mut found, mut buffer) = (Vec::new(), vec![0; window]);
                loop {
                    let count = pages.read(&mut buffer).await.unwrap();
                    if count == 0 {
                        break;
                    }
                    found.extend_from_slice(&buffer[..count]);
                }
                let end = usize::try_from((first + length).min(3_000_000)).unwrap();
                assert!(found == bytes[usize::try_from(first).unwrap()..end], "{first} {length} {window}");
            }
        }
    }
}
