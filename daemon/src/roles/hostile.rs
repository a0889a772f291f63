//! What the daemon makes of whatever a role says: for fuzzing, since a role may have been taken over.
//!
//! The roles are not started: their end of the socket holds bytes, and then its end.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use otad_bundle::{Input as _, Job, Packing};

use super::expander::read_answer;
use super::fetcher::{Place, SeparateFetch};
use super::frame;
use super::input::{STOP_LATENCY, SeparateInput};
use crate::config::Server;
use crate::failure::Failure;
use crate::ports::{Fetch as _, Question, Stop};

/// The most that a role says here: what fits into a socket that nobody reads.
const MAX_BYTES: usize = 64 * 1024;
/// What is read of a bundle at a time.
const PIECE_BYTES: usize = 10_000;

fn socket(says: &[u8]) -> io::Result<(UnixStream, UnixStream)> {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(STOP_LATENCY))?;
    ours.set_write_timeout(Some(STOP_LATENCY))?;
    theirs.write_all(says.get(..MAX_BYTES).unwrap_or(says))?;
    theirs.shutdown(Shutdown::Write)?;
    Ok((ours, theirs))
}

/// A fetcher's answer to every question of the daemon in turn.
///
/// # Errors
/// There are no sockets.
pub fn fetcher_answers(says: &[u8]) -> io::Result<[Result<(), Failure>; 4]> {
    let server = Server {
        url: "https://updates.example.com".into(),
        interval: std::time::Duration::from_secs(60),
        ca: None,
        pins: Vec::new(),
        identity: None,
        token_file: None,
    };
    let answered = |ask: &dyn Fn(&SeparateFetch) -> Result<(), Failure>| -> io::Result<Result<(), Failure>> {
        let (ours, _theirs) = socket(says)?;
        // Nobody listens there: what is no answer is not asked for again.
        let place = Place::Socket(PathBuf::from("/nonexistent"));
        Ok(SeparateFetch::new(place, Some(&server), || 0)
            .and_then(|fetch| fetch.speaking_through(ours))
            .and_then(|fetch| ask(&fetch)))
    };
    Ok([
        answered(&|fetch| fetch.check(&Question::default()).map(drop))?,
        answered(&|fetch| fetch.channel("acme").map(drop))?,
        answered(&|fetch| fetch.ready())?,
        answered(&|fetch| fetch.report("{}").map(drop))?,
    ])
}

/// A bundle as a fetcher gives it: what is read of it with jumps and expectations, and why no more.
///
/// # Errors
/// There are no sockets.
pub fn fetcher_gives(says: &[u8]) -> io::Result<(u64, Option<io::Error>)> {
    let (ours, _theirs) = socket(says)?;
    let mut input = SeparateInput::new(ours, None, &Stop::default(), u64::MAX, true);
    input.expect(vec![5..20_000, 30_000..30_001, 40_000..90_000]);
    let (mut read, mut buffer) = (0, vec![0; PIECE_BYTES]);
    for offset in [0, 5, 15_000, 30_000, 0, 40_000, 200_000] {
        let came = input.seek_to(offset).and_then(|()| input.read(&mut buffer));
        match came {
            Ok(count) => read += count as u64,
            Err(error) => return Ok((read, Some(error))),
        }
    }
    Ok((read, None))
}

/// A decoder's answer to two jobs; true when they are said to be done.
pub fn decoder_answers(says: &[u8]) -> bool {
    let (mut one, mut two) = ([0; 100], [0; 200]);
    let plain: [&mut [u8]; 2] = [&mut one, &mut two];
    let jobs = plain.map(|plain| Job { packing: Packing::Zstd, prefix: 0, stored: b"packed", plain });
    let answer = frame::read(&mut &*says).and_then(|frame| frame.ok_or(io::ErrorKind::UnexpectedEof.into()));
    answer.and_then(|frame| read_answer(frame, &jobs)).is_ok_and(|wrong| wrong.is_none())
}
