//! Bundles that a caller handed over as a descriptor.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use otad_bundle::{FileInput, Input, StreamInput};

use crate::failure::{Code, Failure};
use crate::ports::Stop;

/// How often a waiting read looks whether the job was cancelled.
const LOOK_MILLISECONDS: u16 = 200;
/// A pipe whose other end says nothing for so long is given up.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// Turns a caller's descriptor into an input; regular files and pipes only (D6).
pub fn open(descriptor: OwnedFd, stop: &Stop) -> Result<Box<dyn Input + Send>, Failure> {
    let refuse = |what: &str| {
        Failure::new(Code::InvalidSource, format!("the descriptor is {what}; pass a regular file or a pipe"))
    };
    let file = File::from(descriptor);
    let kind = file.metadata().map_err(|error| refuse(&format!("unusable ({error})")))?.file_type();
    if kind.is_file() {
        let input = FileInput::new(file).map_err(|error| refuse(&format!("unusable ({error})")))?;
        return Ok(Box::new(input));
    }
    if kind.is_fifo() {
        return Ok(Box::new(StreamInput::new(Pipe { file, stop: stop.clone() })));
    }
    Err(refuse(match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_char_device() => "a character device",
        () if kind.is_block_device() => "a block device",
        () => "a socket",
    }))
}

/// A pipe whose reader can be cancelled.
struct Pipe {
    file: File,
    stop: Stop,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        loop {
            if self.stop.requested() {
                return Err(io::Error::other(crate::install::stopped()));
            }
            let ready = poll(
                &mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)],
                PollTimeout::from(LOOK_MILLISECONDS),
            );
            match ready {
                Ok(0) | Err(nix::errno::Errno::EINTR) if started.elapsed() >= IDLE_LIMIT => {
                    let what = format!("the pipe brought nothing for {} seconds", IDLE_LIMIT.as_secs());
                    return Err(io::Error::other(Failure::new(Code::NetStalled, what)));
                }
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
