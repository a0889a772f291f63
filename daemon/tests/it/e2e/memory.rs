//! Memory is bounded by constants, not by the image.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};

use otad_bundle::{Chunking, Compression, Recipe, Source, Update, build};

use super::shelf::{Rig, noise, said, shelf};

const IMAGE_BYTES: u64 = 1 << 30;
/// The promise of this version.
const PEAK_KIB: u64 = 24 * 1024;

/// The peak of otad while it installs a 1 GiB image, every second megabyte of it data.
#[test]
fn installing_one_gibibyte_takes_at_most_24_mebibytes() {
    let image = shelf().path("big.img");
    let mut file = fs::File::create(&image).unwrap();
    let mut megabyte = noise(7, 1 << 20);
    for number in (0..IMAGE_BYTES >> 20).step_by(2) {
        megabyte[..8].copy_from_slice(&number.to_le_bytes());
        file.seek(SeekFrom::Start(number << 20)).unwrap();
        file.write_all(&megabyte).unwrap();
    }
    file.set_len(IMAGE_BYTES).unwrap();
    let update = Update {
        version: "7.0.0".parse().unwrap(),
        sequence: 7,
        compatible: vec!["demo-board".into()],
        description: String::new(),
        critical: Vec::new(),
    };
    let source = Source { role: "rootfs".into(), path: image.clone() };
    let recipe = Recipe {
        chunking: Chunking::Fixed { size: 65536 },
        compression: Compression::None,
        ..Recipe::new(update, vec![source])
    };
    let bundle = shelf().path("big.otab");
    build(&recipe, &[shelf().key()], &bundle, &mut |_| {}).unwrap();
    fs::remove_file(&image).unwrap();

    let rig = Rig::start(|device| device.slot_bytes(IMAGE_BYTES));
    let output = rig.otactl(&["install", bundle.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let process = rig.device.lights().otad.unwrap();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    println!("otad's peak while installing 1 GiB: {peak} KiB");
    assert!(peak <= PEAK_KIB, "{peak} KiB");
    fs::remove_file(&bundle).unwrap();
}
