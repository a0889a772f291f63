//! New tokens.

use std::fs::File;
use std::io::{self, Read};

/// 256 bits cannot be guessed, whatever the network.
const TOKEN_BYTES: usize = 32;

/// Makes a token: 64 hex digits from the kernel's random numbers.
pub fn token() -> io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
