//! Reading a file for a download: what is in the page cache at once, the rest on a thread that may wait for the disk.
//!
//! `tokio::fs::File` hands every piece to another thread and copies it there. For what many devices fetch, which is in memory after the
//! first of them, that was most of the server's work. What is left is one copy into a window and one out of it into the socket; the windows
//! go round, since making each of them anew, zeroed, cost as much as a copy.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

/// What is read from a file at a time, in bytes: large enough for the disk, small enough for hundreds of downloads.
const WINDOW_BYTES: usize = 128 * 1024;
/// Windows that are kept while nobody needs them: 8 MiB.
const KEPT_WINDOWS: usize = 64;

/// Windows that nobody needs at the moment.
#[derive(Debug, Clone, Default)]
pub struct Windows(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Windows {
    fn take(&self) -> Window {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| vec![0; WINDOW_BYTES].into_boxed_slice());
        Window { bytes, filled: 0, home: self.clone() }
    }
}

/// A window and how much of it is filled; it goes back when it is dropped.
struct Window {
    bytes: Box<[u8]>,
    filled: usize,
    home: Windows,
}

impl Window {
    /// The first `most` bytes, to be filled.
    fn place(&mut self, most: usize) -> &mut [u8] {
        let room = self.bytes.len().min(most);
        self.bytes.get_mut(..room).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_WINDOWS {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A part of a file, window by window.
pub(super) struct Pages {
    file: Arc<File>,
    windows: Windows,
    at: u64,
    end: u64,
    /// A window that was not in memory.
    coming: Option<JoinHandle<io::Result<Window>>>,
}

impl Pages {
    /// `length` bytes from `first` on.
    pub(super) fn new(file: Arc<File>, windows: Windows, first: u64, length: u64) -> Pages {
        Pages { file, windows, at: first, end: first.saturating_add(length), coming: None }
    }

    /// Goes on behind a window; an empty one means that the file has become shorter.
    fn hand_out(&mut self, window: Window) -> io::Result<Bytes> {
        let end = self.at.saturating_add(window.filled as u64);
        if window.filled == 0 {
            self.end = end;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at = end;
        Ok(Bytes::from_owner(window))
    }
}

impl Stream for Pages {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(coming) = &mut self.coming {
                let came = ready!(Pin::new(coming).poll(context)).map_err(io::Error::other);
                self.coming = None;
                return Poll::Ready(Some(came.flatten().and_then(|window| self.hand_out(window))));
            }
            let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            if left == 0 {
                return Poll::Ready(None);
            }
            let mut window = self.windows.take();
            let into = &mut [IoSliceMut::new(window.place(left))];
            match preadv2(&self.file, into, self.at, ReadWriteFlags::NOWAIT) {
                Ok(count) => {
                    window.filled = count;
                    return Poll::Ready(Some(self.hand_out(window)));
                }
                // Not in memory, or a file system that cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    let (file, at) = (self.file.clone(), self.at);
                    self.coming = Some(spawn_blocking(move || {
                        window.filled = file.read_at(window.place(left), at)?;
                        Ok(window)
                    }));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Some(Err(errno.into()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::StreamExt as _;
    use rustix::fs::{Advice, fadvise};

    use super::*;

    /// Parts are what they should be, from memory and from the disk, while earlier windows are still held.
    #[tokio::test]
    async fn parts_come_whole() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> =
            (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        let (file, windows) = (Arc::new(file), Windows::default());
        for (first, length) in [(0, 3_000_000), (1, 0), (4_095, 1_000_000), (2_999_999, 1), (2_999_990, 10)] {
            for forget in [true, false] {
                if forget {
                    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
                }
                let mut pages = Pages::new(file.clone(), windows.clone(), first, length);
                let mut held = Vec::new();
                while let Some(piece) = pages.next().await {
                    held.push(piece.unwrap());
                }
                let (from, to) = (usize::try_from(first).unwrap(), usize::try_from(first + length).unwrap());
                assert!(held.concat() == bytes[from..to], "{first} {length} {forget}");
            }
        }
        assert!((1..=KEPT_WINDOWS).contains(&windows.0.lock().unwrap().len()));
    }

    /// A file that is shorter than it should be ends the body with an error.
    #[tokio::test]
    async fn a_short_file_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let mut pages = Pages::new(Arc::new(file), Windows::default(), 0, 4);
        assert_eq!(pages.next().await.unwrap().unwrap(), "abc");
        assert_eq!(pages.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(pages.next().await.is_none());
    }
}
