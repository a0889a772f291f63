//! Integers as they stand in a delta.
//!
//! Reading takes bytes off the front of a slice and says what is wrong with them; it never looks past the end and never
//! takes memory. Every number has one spelling.

/// Bytes that are still to be read.
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

impl Wire<'_> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or("it ends early")?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u32(&mut self) -> Result<u32, &'static str> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, &'static str> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// LEB128 of at most 32 bits in its shortest form.
    pub(super) fn varint(&mut self) -> Result<u32, &'static str> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.bytes()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err("a number is not in its shortest form");
                }
                return u32::try_from(value).map_err(|_| "a number has more than 32 bits");
            }
        }
        Err("a number has more than five bytes")
    }

    /// A varint that is a signed number.
    pub(super) fn zigzag(&mut self) -> Result<i64, &'static str> {
        let value = i64::from(self.varint()?);
        Ok(if value % 2 == 0 { value / 2 } else { -(value / 2) - 1 })
    }

    pub(super) fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() { Ok(()) } else { Err("something follows its end") }
    }
}

/// Appends LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        // The mask leaves seven bits.
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// The unsigned form of a signed number whose magnitude is below 2^31.
pub(super) fn to_zigzag(value: i64) -> u32 {
    let unsigned = if value < 0 { -2 * value - 1 } else { 2 * value };
    u32::try_from(unsigned).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        for value in [0, 1, 127, 128, 300, 16383, 16384, 1 << 28, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(Wire(&bytes).varint(), Ok(value));
            let mut longer = bytes.clone();
            *longer.last_mut().unwrap() |= 0x80;
            longer.push(0);
            assert!(Wire(&longer).varint().is_err(), "{longer:x?}");
            assert!(Wire(&bytes[..bytes.len() - 1]).varint().is_err());
        }
        assert!(Wire(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint().is_err(), "33 bits");
        for value in [0, 1, -1, 5000, -5000, (1 << 31) - 1, -(1 << 31)] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, to_zigzag(value));
            assert_eq!(Wire(&bytes).zigzag(), Ok(value));
        }
    }
}
