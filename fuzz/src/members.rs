//! Members of a bundle, taken out and put in by what the format says of headers: the library gives out no unsigned ones.

use otad_bundle::BLOCK_BYTES;

/// Where the size stands in a header, and where the checksum.
const SIZE: std::ops::Range<usize> = 124..135;
const SUM: std::ops::Range<usize> = 148..156;

/// A bundle in pieces: headers with the contents behind them, without padding.
fn split(bundle: &[u8]) -> Vec<(&[u8], &[u8])> {
    let (mut members, mut at) = (Vec::new(), 0);
    while bundle[at] != 0 {
        let header = &bundle[at..at + BLOCK_BYTES];
        let size = usize::from_str_radix(std::str::from_utf8(&header[SIZE]).unwrap(), 8).unwrap();
        let start = at + BLOCK_BYTES;
        members.push((header, &bundle[start..start + size]));
        at = start + size.next_multiple_of(BLOCK_BYTES);
    }
    members
}

fn is(header: &[u8], name: &str) -> bool {
    header.starts_with(name.as_bytes()) && header[name.len()] == 0
}

/// The content of a member.
pub(crate) fn read(bundle: &[u8], name: &str) -> Vec<u8> {
    split(bundle).into_iter().find(|(header, _)| is(header, name)).unwrap().1.to_vec()
}

/// The bundle with other contents for some members; headers, padding and end as they must be.
pub(crate) fn replace(bundle: &[u8], replaced: &[(&str, &[u8])]) -> Vec<u8> {
    let mut output = Vec::new();
    for (header, content) in split(bundle) {
        let other = replaced.iter().find(|(name, _)| is(header, name));
        let content = other.map_or(content, |(_, content)| *content);
        let mut header = header.to_vec();
        header[SIZE].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[SUM].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        output.extend(header);
        output.extend(content);
        output.resize(output.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    output.resize(output.len() + 2 * BLOCK_BYTES, 0);
    output
}
