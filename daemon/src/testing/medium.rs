//! The bytes of one device, in pages that snapshots share.

use std::sync::Arc;

/// Bytes that snapshots share or copy as a whole.
pub const PAGE_BYTES: usize = 4096;
/// What a device writes or does not write.
pub const SECTOR_BYTES: usize = 512;

/// One page and the hash of its bytes.
#[derive(Debug)]
struct Page {
    bytes: Box<[u8]>,
    hash: u64,
}

impl Page {
    fn new(bytes: Box<[u8]>) -> Arc<Page> {
        let hash = hash_bytes(&bytes);
        Arc::new(Page { bytes, hash })
    }
}

/// Bytes on their way to a medium, cut into pages once, however often a snapshot takes them over.
#[derive(Debug)]
pub struct Data {
    bytes: Vec<u8>,
    pages: Vec<Arc<Page>>,
    hash: u64,
}

impl Data {
    /// Takes the bytes of one write.
    pub fn new(bytes: Vec<u8>) -> Arc<Data> {
        let whole = bytes.chunks_exact(PAGE_BYTES);
        let tail = mix(bytes.len() as u64, hash_bytes(whole.remainder()));
        let pages: Vec<Arc<Page>> = whole.map(|page| Page::new(page.into())).collect();
        let hash = pages.iter().fold(tail, |hash, page| mix(hash, page.hash));
        Arc::new(Data { bytes, pages, hash })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A hash of the bytes.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// The content of one device; a clone shares every page.
#[derive(Debug, Clone)]
pub struct Medium {
    pages: Arc<Vec<Arc<Page>>>,
    size: u64,
}

impl Medium {
    /// A medium of these bytes.
    pub fn new(bytes: &[u8]) -> Medium {
        let pages = bytes.chunks(PAGE_BYTES).map(|page| {
            let mut page = page.to_vec();
            page.resize(PAGE_BYTES, 0);
            Page::new(page.into())
        });
        Medium { pages: Arc::new(pages.collect()), size: bytes.len() as u64 }
    }

    /// Its capacity in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from `offset`; the range lies within the medium.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        let mut at = offset as usize;
        let mut done = 0;
        while done < buffer.len() {
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let count = (PAGE_BYTES - within).min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&self.pages[page].bytes[within..within + count]);
            at += count;
            done += count;
        }
    }

    /// Everything it holds.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = vec![0; self.size as usize];
        self.read(0, &mut all);
        all
    }

    /// Writes that part of `data` which lies in `range`, `data` itself beginning at `offset`.
    pub fn write(&mut self, offset: u64, data: &Data, range: std::ops::Range<usize>) {
        let aligned = (offset as usize).is_multiple_of(PAGE_BYTES);
        let mut done = range.start;
        while done < range.end {
            let at = offset as usize + done;
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let count = (PAGE_BYTES - within).min(range.end - done);
            let fresh = match data.pages.get(done / PAGE_BYTES) {
                Some(whole) if aligned && count == PAGE_BYTES => whole.clone(),
                _ => {
                    let mut bytes = self.pages[page].bytes.clone();
                    bytes[within..within + count].copy_from_slice(&data.bytes[done..done + count]);
                    Page::new(bytes)
                }
            };
            Arc::make_mut(&mut self.pages)[page] = fresh;
            done += count;
        }
    }

    /// A hash of the content.
    pub fn hash(&self) -> u64 {
        self.pages.iter().fold(self.size, |hash, page| mix(hash, page.hash))
    }
}

/// Combines two hashes; the order counts.
pub fn mix(hash: u64, with: u64) -> u64 {
    let product =
        u128::from(hash.rotate_left(23) ^ with ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

/// A hash that is quick and good enough to tell states apart, not to defend anything.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let mut tail = [0; 8];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    let hash = words.fold(bytes.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(word.try_into().unwrap_or_default()))
    });
    mix(hash, u64::from_le_bytes(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_of_any_alignment_reads_back_and_leaves_snapshots_alone() {
        let mut medium = Medium::new(&vec![7; 5 * PAGE_BYTES]);
        for (offset, length) in
            [(0, PAGE_BYTES), (100, 50), (PAGE_BYTES - 1, PAGE_BYTES + 2), (PAGE_BYTES, 3 * PAGE_BYTES)]
        {
            let (before, was) = (medium.clone(), medium.bytes());
            let data = Data::new((0..length).map(|n| n as u8).collect());
            medium.write(offset as u64, &data, 1..length - 1);
            let mut expected = was.clone();
            expected[offset + 1..offset + length - 1].copy_from_slice(&data.bytes()[1..length - 1]);
            assert!(medium.bytes() == expected && before.bytes() == was, "{offset}+{length}");
            assert_eq!(medium.hash(), Medium::new(&expected).hash());
            assert_ne!(medium.hash(), before.hash());
        }
    }
}
