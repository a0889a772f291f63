//! Memory that devices can read and write without a copy in between.

/// What offset, length and memory of such a transfer are multiples of, in bytes; no device asks for more.
pub(crate) const ALIGNMENT: usize = 4096;

/// A buffer of fixed length whose first byte lies on a multiple of [`ALIGNMENT`].
#[derive(Debug)]
pub(crate) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Takes the memory; it is zero.
    pub(crate) fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Aligned { memory, start, length }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.length).unwrap_or_default()
    }

    /// All of it, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.length).unwrap_or_default()
    }
}
