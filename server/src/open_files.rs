//! File descriptors: what the kernel lets this process have, and how many connections that is.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are no connection's: the database, the listener, what the runtime needs, uploads and webhooks.
const KEPT: u64 = 256;
/// A connection is a socket, and may have a file that it is given.
const PER_CONNECTION: u64 = 2;

/// Asks for as many descriptors as the kernel gives without more rights, and returns how many connections of the `wanted` fit into them.
pub fn make_room(wanted: usize) -> usize {
    let soft = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                log::warn!("the limit of open files stays at {soft}: {error}");
                soft
            }
        },
        Ok((soft, _)) => soft,
        Err(error) => {
            log::warn!("the limit of open files is not known: {error}");
            return wanted;
        }
    };
    let room = fitting(soft, wanted);
    if room < wanted {
        log::warn!(
            "{soft} open files allow {room} connections instead of {wanted}; raise LimitNOFILE to {}",
            u64::try_from(wanted).unwrap_or(u64::MAX).saturating_mul(PER_CONNECTION).saturating_add(KEPT)
        );
    }
    room
}

fn fitting(descriptors: u64, wanted: usize) -> usize {
    let room = descriptors.saturating_sub(KEPT) / PER_CONNECTION;
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_descriptors() {
        for (descriptors, wanted, room) in
            [(1024, 4096, 384), (8448, 4096, 4096), (1_048_576, 4096, 4096), (64, 4096, 1), (u64::MAX, 1, 1)]
        {
            assert_eq!(fitting(descriptors, wanted), room, "{descriptors}");
        }
    }
}
