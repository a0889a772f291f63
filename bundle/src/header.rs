//! The one tar header that a member may have.
//!
//! `.otab` members carry POSIX `ustar` headers (IEEE Std 1003.1, "ustar Interchange Format") in which every byte is
//! decided by the member's name and size, so a reader compares 512 bytes and interprets nothing but the size:
//!
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 100 | name | the member's name, then zeros |
//! | 100 | 8 | mode | `0000644` NUL |
//! | 108 | 8 | uid | `0000000` NUL |
//! | 116 | 8 | gid | `0000000` NUL |
//! | 124 | 12 | size | 11 octal digits, NUL |
//! | 136 | 12 | mtime | `00000000000` NUL |
//! | 148 | 8 | chksum | 6 octal digits, NUL, space: sum of all header bytes with this field as spaces |
//! | 156 | 1 | typeflag | `0` |
//! | 157 | 100 | linkname | zeros |
//! | 257 | 6 | magic | `ustar` NUL |
//! | 263 | 2 | version | `00` |
//! | 265 | 32 | uname | zeros |
//! | 297 | 32 | gname | zeros |
//! | 329 | 8 | devmajor | `0000000` NUL |
//! | 337 | 8 | devminor | `0000000` NUL |
//! | 345 | 155 | prefix | zeros |
//! | 500 | 12 | – | zeros |
//!
//! The content follows, padded with zeros to a multiple of 512 bytes.

/// Bytes of a tar block.
pub const BLOCK_BYTES: usize = 512;
/// Largest member: 11 octal digits, one byte below 8 GiB.
pub const MEMBER_LIMIT_BYTES: u64 = 0o77_777_777_777;

/// A header as it stands in the file.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// The canonical header for a member; `size` must not exceed [`MEMBER_LIMIT_BYTES`], `name` 99 bytes.
pub(crate) fn canonical(name: &str, size: u64) -> Block {
    debug_assert!(size <= MEMBER_LIMIT_BYTES && name.len() < 100);
    let mut block = [0; BLOCK_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (place, byte) in block.iter_mut().skip(offset).zip(bytes) {
            *place = *byte;
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    for (place, byte) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").as_bytes()) {
        *place = *byte;
    }
    block
}

/// The size by a header: exactly 11 octal digits and NUL; every other spelling (spaces, base-256, signs) is `None`.
pub(crate) fn size_of(block: &Block) -> Option<u64> {
    let (last, digits) = block.get(124..136)?.split_last()?;
    if *last != 0 {
        return None;
    }
    digits.iter().try_fold(0u64, |size, &digit| match digit {
        b'0'..=b'7' => Some(size * 8 + u64::from(digit - b'0')),
        _ => None,
    })
}

/// Zero bytes that follow a content of `size` bytes.
pub(crate) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK_BYTES as u64) - size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_spelling() {
        for size in [0, 1, 511, 512, 0o7777, u64::from(u32::MAX), u64::from(u32::MAX) + 1, MEMBER_LIMIT_BYTES]
        {
            assert_eq!(size_of(&canonical("x", size)), Some(size));
        }
        for junk in [
            &b"0000000001 \0"[..],
            b"00000000001 ",
            b"         1\0\0",
            b"0000000008 \0",
            b"-0000000001\0",
            b"+0000000001\0",
            b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"777777777777",
        ] {
            let mut block = canonical("x", 1);
            block[124..136].copy_from_slice(junk);
            assert_eq!(size_of(&block), None, "{junk:?}");
        }
    }
}
