//! What decoding a delta takes, measured by the kernel in a process of its own: zstd's memory counts too.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use otad_bundle::FileInput;
use otad_bundle::delta::Delta;

use crate::delta::Pair;
use crate::support::Rng;

/// Where the child finds delta and old image.
const PLACE: &str = "OTAD_TEST_DELTA";
const LIMIT_KIB: u64 = 8 * 1024;

/// Prefixes of 128 pages, as many repeated blocks as there may be, and a run for every block.
fn worst() -> (Vec<u8>, Vec<u8>) {
    let old = Rng(1).bytes(40 << 20);
    let mut new = Vec::new();
    // Each half block from another page of the old image, with small changes.
    for half in 0..1024 {
        let at = half * 16384 * 2 + 100;
        let start = new.len();
        new.extend_from_slice(&old[at..at + 2048]);
        new[start..].iter_mut().step_by(200).for_each(|byte| *byte ^= 1);
    }
    let literals = new.clone();
    for block in 0..6000 {
        new.extend_from_slice(&old[block % 97 * 4096..][..4096]);
        new.extend_from_slice(&[0; 4096]);
    }
    new.extend(literals);
    (old, new)
}

#[test]
fn decoding_takes_less_than_8_mib() {
    let (old, new) = worst();
    let pair = Pair::new(&old, &new);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("old"), &old).unwrap();
    std::fs::write(directory.path().join("delta"), &pair.delta).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "delta_memory::child", "--ignored", "--nocapture"])
        .env(PLACE, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let taken = text.lines().find_map(|line| line.split_once("taken ")?.1.strip_suffix(" KiB")).unwrap();
    println!("{taken} KiB");
    let taken: u64 = taken.parse().unwrap();
    assert!(taken < LIMIT_KIB, "{taken} KiB");
    assert!(taken > 3 * 1024, "{taken} KiB is too little to be the worst case");
}

/// Not a test by itself: the process that is measured.
#[test]
#[ignore = "run by decoding_takes_less_than_8_mib"]
fn child() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    let mut old = File::open(place.join("old")).unwrap();
    // Resets the peak to what is in use now (proc(5), clear_refs).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = kib("VmRSS:");
    let mut delta = Delta::open(FileInput::open(&place.join("delta")).unwrap()).unwrap();
    delta.write_all(1, &mut old, &mut std::io::sink()).unwrap();
    println!("\ntaken {} KiB", kib("VmHWM:") - before);
}

fn kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
