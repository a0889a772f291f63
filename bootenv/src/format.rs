//! One stored copy, and which of two copies is current.
//!
//! ```text
//! single copy      0..4 checksum   4..SIZE data
//! redundant copy   0..4 checksum   4 flags   5..SIZE data
//! ```
//!
//! The checksum is CRC-32 (IEEE 802.3, as in zlib) over the whole data area with its padding, without the flags, in the
//! byte order of the device's processor. Sources: U-Boot `include/env_internal.h`, `env/common.c`, `tools/mkenvimage.c`.
//!
//! ```
//! use bootenv::format::{ByteOrder, Copy, Layout};
//!
//! let copy = Copy { flags: 1, data: b"bootcmd=run x\0bootdelay=2\0\0".to_vec() };
//! let bytes = copy.encode(Layout::Redundant, ByteOrder::Little);
//! assert_eq!(Copy::decode(&bytes, Layout::Redundant, ByteOrder::Little), Ok(copy));
//! ```

use std::fmt;

/// The flags value of a valid copy under [`FlagScheme::Boolean`]. U-Boot `include/env.h`.
pub const FLAG_ACTIVE: u8 = 1;
/// The flags value of a superseded copy under [`FlagScheme::Boolean`].
pub const FLAG_OBSOLETE: u8 = 0;
/// Where the flags byte stands in a redundant copy, in bytes.
pub const FLAGS_OFFSET: usize = CHECKSUM_BYTES;
/// The smallest copy that can hold anything: a header and one terminator, in bytes.
pub const MIN_SIZE: usize = 6;

/// Length of the checksum, in bytes.
const CHECKSUM_BYTES: usize = 4;
/// How far apart the sizes are that [`diagnose`] tries, in bytes; every environment size in use is a multiple.
const SIZE_STEP_BYTES: usize = 0x200;

/// How many copies there are, which decides the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One copy without flags. A power cut while it is written can lose it.
    Single,
    /// Two copies, each with a flags byte.
    Redundant,
}

impl Layout {
    /// Length of the header, in bytes: 4 or 5.
    pub const fn header_bytes(self) -> usize {
        match self {
            Layout::Single => CHECKSUM_BYTES,
            Layout::Redundant => CHECKSUM_BYTES + 1,
        }
    }

    /// The copies of this layout.
    pub const fn copies(self) -> &'static [CopyId] {
        match self {
            Layout::Single => &[CopyId::First],
            Layout::Redundant => &[CopyId::First, CopyId::Second],
        }
    }
}

/// One of the two copies, in the order of `fw_env.config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyId {
    /// The first entry of the configuration.
    First,
    /// The second entry.
    Second,
}

impl CopyId {
    /// The one that is not this one.
    pub const fn other(self) -> CopyId {
        match self {
            CopyId::First => CopyId::Second,
            CopyId::Second => CopyId::First,
        }
    }

    /// 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            CopyId::First => 0,
            CopyId::Second => 1,
        }
    }
}

impl fmt::Display for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copy {}", self.index() + 1)
    }
}

/// Byte order of the checksum: that of the processor U-Boot runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl ByteOrder {
    /// The byte order of the machine this runs on.
    pub const NATIVE: ByteOrder =
        if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };

    const fn swapped(self) -> ByteOrder {
        match self {
            ByteOrder::Little => ByteOrder::Big,
            ByteOrder::Big => ByteOrder::Little,
        }
    }

    const fn read(self, bytes: [u8; CHECKSUM_BYTES]) -> u32 {
        match self {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }

    const fn write(self, checksum: u32) -> [u8; CHECKSUM_BYTES] {
        match self {
            ByteOrder::Little => checksum.to_le_bytes(),
            ByteOrder::Big => checksum.to_be_bytes(),
        }
    }
}

/// What the flags bytes mean, which depends on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagScheme {
    /// A generation counter of 8 bits that wraps; block devices, files, NAND, UBI.
    Counter,
    /// 1 for the valid copy, cleared to 0 when it is superseded; NOR, where a bit can be cleared without an erase.
    Boolean,
}

/// Why a copy is not valid. Each names what was found, and what would fit instead if something does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// The copy could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The copy has fewer bytes than its header.
    #[error("{len} bytes are too few for an environment, {MIN_SIZE} are the least")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// Every byte has the same value: erased flash, or a device nobody wrote yet.
    #[error("every byte is 0x{value:02x}: never written, or erased")]
    Blank {
        /// The value.
        value: u8,
    },
    /// The checksum does not fit.
    #[error("checksum 0x{stored:08x} is stored, the data has 0x{computed:08x}{}", hint_text(.hint))]
    Checksum {
        /// The stored checksum.
        stored: u32,
        /// The checksum of the data.
        computed: u32,
        /// A setting under which the checksum fits.
        hint: Option<Hint>,
    },
}

/// A setting under which a copy that looks bad is valid: the configuration is wrong rather than the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// It fits with the other byte order.
    ByteOrder(ByteOrder),
    /// It fits as a copy of the other layout.
    Layout(Layout),
    /// It fits when the environment is this many bytes.
    Size(usize),
}

fn hint_text(hint: &Option<Hint>) -> String {
    match hint {
        None => String::new(),
        Some(Hint::ByteOrder(order)) => format!("; it fits as {order:?}-endian"),
        Some(Hint::Layout(Layout::Single)) => {
            "; it fits as a single copy: configure one entry, or redundancy in U-Boot".to_owned()
        }
        Some(Hint::Layout(Layout::Redundant)) => {
            "; it fits as one of two redundant copies: add the second entry to the configuration".to_owned()
        }
        Some(Hint::Size(size)) => {
            format!("; it fits at a size of 0x{size:x}: correct the size in the configuration")
        }
    }
}

impl Bad {
    /// Tells whether another configuration would make this copy valid.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Bad::Checksum { hint, .. } => *hint,
            Bad::Unreadable(_) | Bad::TooShort { .. } | Bad::Blank { .. } => None,
        }
    }
}

/// A valid copy: its flags (0 in the single layout) and its whole data area with padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The flags byte.
    pub flags: u8,
    /// The data area.
    pub data: Vec<u8>,
}

impl Copy {
    /// Checks and takes apart one copy as stored. `bytes` is exactly the configured size.
    pub fn decode(bytes: &[u8], layout: Layout, order: ByteOrder) -> Result<Copy, Bad> {
        let Some((stored, flags, data)) = split(bytes, layout) else {
            return Err(Bad::TooShort { len: bytes.len() });
        };
        let stored = order.read(stored);
        let computed = crc32fast::hash(data);
        if stored == computed {
            return Ok(Copy { flags, data: data.to_vec() });
        }
        if let Some(value) = blank(bytes) {
            return Err(Bad::Blank { value });
        }
        Err(Bad::Checksum { stored, computed, hint: diagnose(bytes, layout, order) })
    }

    /// Puts a copy together: checksum, flags where the layout has them, data.
    pub fn encode(&self, layout: Layout, order: ByteOrder) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(layout.header_bytes() + self.data.len());
        bytes.extend_from_slice(&order.write(crc32fast::hash(&self.data)));
        if layout == Layout::Redundant {
            bytes.push(self.flags);
        }
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

/// Checksum bytes, flags and data of a copy, or nothing if it is too short to have any.
fn split(bytes: &[u8], layout: Layout) -> Option<([u8; CHECKSUM_BYTES], u8, &[u8])> {
    let (checksum, rest) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    let (flags, data) = match layout {
        Layout::Single => (0, rest),
        Layout::Redundant => rest.split_first().map(|(flags, data)| (*flags, data))?,
    };
    (!data.is_empty()).then_some((*checksum, flags, data))
}

/// The value of every byte, if they are all the same.
fn blank(bytes: &[u8]) -> Option<u8> {
    let first = *bytes.first()?;
    bytes.iter().all(|&byte| byte == first).then_some(first)
}

/// Looks for one wrong setting that explains a checksum that does not fit.
fn diagnose(bytes: &[u8], layout: Layout, order: ByteOrder) -> Option<Hint> {
    if fits(bytes, layout, order.swapped()) {
        return Some(Hint::ByteOrder(order.swapped()));
    }
    let other = match layout {
        Layout::Single => Layout::Redundant,
        Layout::Redundant => Layout::Single,
    };
    if fits(bytes, other, order) {
        return Some(Hint::Layout(other));
    }
    smaller_size(bytes, layout, order).map(Hint::Size)
}

fn fits(bytes: &[u8], layout: Layout, order: ByteOrder) -> bool {
    split(bytes, layout).is_some_and(|(stored, _, data)| order.read(stored) == crc32fast::hash(data))
}

/// The smaller size at which the checksum fits, in one pass over the data.
fn smaller_size(bytes: &[u8], layout: Layout, order: ByteOrder) -> Option<usize> {
    let (stored, _, _) = split(bytes, layout)?;
    let stored = order.read(stored);
    let mut hasher = crc32fast::Hasher::new();
    let mut done = layout.header_bytes();
    for size in (SIZE_STEP_BYTES..bytes.len()).step_by(SIZE_STEP_BYTES) {
        hasher.update(bytes.get(done..size)?);
        done = size;
        if hasher.clone().finalize() == stored {
            return Some(size);
        }
    }
    None
}

/// Which copy U-Boot uses, given the flags of the copies that are valid (`None` for a bad copy).
///
/// With one valid copy its flags do not matter. With two, [`FlagScheme::Counter`] takes the greater counter, where 0
/// follows 255, and the first copy on a tie: `env/common.c` in U-Boot. [`FlagScheme::Boolean`] takes the active one of
/// an active and an obsolete copy, then the first copy on a tie, then a copy whose flags are still erased (0xff):
/// `tools/env/fw_env.c` and `env/flash.c`. (On SPI NOR U-Boot's `env/sf.c` reads the flags as counters; both rules
/// agree on every pair that a completed save leaves behind.)
pub fn choose(first: Option<u8>, second: Option<u8>, scheme: FlagScheme) -> Option<CopyId> {
    let (first, second) = match (first, second) {
        (None, None) => return None,
        (Some(_), None) => return Some(CopyId::First),
        (None, Some(_)) => return Some(CopyId::Second),
        (Some(first), Some(second)) => (first, second),
    };
    let second_is_newer = match scheme {
        FlagScheme::Counter => match (first, second) {
            (u8::MAX, 0) => true,
            (0, u8::MAX) => false,
            _ => second > first,
        },
        FlagScheme::Boolean => {
            (first, second) == (FLAG_OBSOLETE, FLAG_ACTIVE)
                || ((first, second) != (FLAG_ACTIVE, FLAG_OBSOLETE)
                    && first != second
                    && first != u8::MAX
                    && second == u8::MAX)
        }
    };
    Some(if second_is_newer { CopyId::Second } else { CopyId::First })
}

/// The flags of the copy that supersedes one with `current` flags.
pub fn next_flags(current: u8, scheme: FlagScheme) -> u8 {
    match scheme {
        FlagScheme::Counter => current.wrapping_add(1),
        FlagScheme::Boolean => FLAG_ACTIVE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = b"a=1\0b=2\0\0";

    fn image(layout: Layout, order: ByteOrder, size: usize) -> Vec<u8> {
        let mut data = DATA.to_vec();
        data.resize(size - layout.header_bytes(), 0);
        Copy { flags: 7, data }.encode(layout, order)
    }

    #[test]
    fn wrong_settings_are_named() {
        use {ByteOrder::*, Layout::*};
        let cases = [
            (image(Redundant, Big, 0x400), Hint::ByteOrder(Big)),
            (image(Single, Little, 0x400), Hint::Layout(Single)),
            ([image(Redundant, Little, 0x400), vec![0xaa; 0x400]].concat(), Hint::Size(0x400)),
        ];
        for (bytes, hint) in cases {
            let bad = Copy::decode(&bytes, Redundant, Little).unwrap_err();
            assert_eq!(bad.hint(), Some(hint), "{bad}");
        }
        let bad = Copy::decode(&image(Redundant, Little, 0x400), Single, Little).unwrap_err();
        assert_eq!(bad.hint(), Some(Hint::Layout(Redundant)));
    }

    #[test]
    fn blank_and_short_copies_are_bad() {
        for value in [0x00, 0xff] {
            let bad = Copy::decode(&[value; 64], Layout::Redundant, ByteOrder::Little);
            assert_eq!(bad, Err(Bad::Blank { value }));
        }
        for len in 0..MIN_SIZE {
            let short = vec![0; len];
            assert_eq!(
                Copy::decode(&short, Layout::Redundant, ByteOrder::Little),
                Err(Bad::TooShort { len })
            );
        }
    }

    #[test]
    fn every_changed_bit_outside_the_flags_is_noticed() {
        let good = image(Layout::Redundant, ByteOrder::Little, 64);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = Copy::decode(&bytes, Layout::Redundant, ByteOrder::Little);
            assert_eq!(decoded.is_ok(), bit / 8 == FLAGS_OFFSET, "bit {bit}");
        }
    }

    /// The next flags always make the new copy the current one, and the flags of a failed write are never reused.
    #[test]
    fn next_flags_win_from_every_start() {
        for old in 0..=u8::MAX {
            let new = next_flags(old, FlagScheme::Counter);
            assert_eq!(choose(Some(old), Some(new), FlagScheme::Counter), Some(CopyId::Second));
            assert_eq!(choose(Some(new), Some(old), FlagScheme::Counter), Some(CopyId::First));
        }
    }
}
