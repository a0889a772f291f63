//! Memory is bounded by constants, not by the image.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use otad_bundle::{Chunking, Compression, Recipe, Source, Update, build};

use super::shelf::{Rig, noise, said, shelf};

const IMAGE_BYTES: u64 = 1 << 30;
/// The promise of this version.
const PEAK_KIB: u64 = 24 * 1024;

/// What the kernel gives otad for all it does, page cache included.
const CGROUP_BYTES: u64 = 32 << 20;

/// A memory cgroup of its own below that of the test, of either version; it is removed once its process has ended.
struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Confines a process, which has used some memory already, so that all of it together stays below the limit.
    fn confining(process: u32) -> Cgroup {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path_of =
            |line: Option<&str>| line.and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or("/").to_owned();
        let first = own.lines().find(|line| line.contains(":memory:"));
        let (mount, limit) = match first {
            Some(_) => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            None => ("/sys/fs/cgroup", "memory.max"),
        };
        let unified = own.lines().find(|line| line.starts_with("0::"));
        let below = PathBuf::from(format!("{mount}{}", path_of(first.or(unified))));
        let parent = if below.is_dir() { below } else { PathBuf::from(mount) };
        if first.is_none() {
            // Where it is on already, or processes are in the way, the next write tells.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let dir = parent.join(format!("otad-test-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let group = Cgroup { dir };
        let limit_bytes = CGROUP_BYTES - (status_kib(process, "VmRSS:") << 10);
        fs::write(group.dir.join(limit), limit_bytes.to_string())
            .expect("this test needs root and the kernel's memory cgroup");
        fs::write(group.dir.join("cgroup.procs"), process.to_string()).unwrap();
        group
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever is still in it goes to the parent; an empty one can be removed.
        let parent = self.dir.parent().unwrap_or(Path::new("/")).join("cgroup.procs");
        for process in fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&parent, process);
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// A figure of `/proc/PID/status` in KiB.
fn status_kib(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The peak of otad while it installs a 1 GiB image, every second megabyte of it data, in a memory cgroup of 32 MiB.
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
    let process = rig.device.lights().otad.unwrap();
    let group = Cgroup::confining(process);
    let output = rig.otactl(&["install", bundle.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(rig.device.lights().otad, Some(process), "the kernel ended it for want of memory");
    let peak = status_kib(process, "VmHWM:");
    println!("otad's peak while installing 1 GiB in a memory cgroup of 32 MiB: {peak} KiB");
    assert!(peak <= PEAK_KIB, "{peak} KiB");
    drop(group);
    fs::remove_file(&bundle).unwrap();
}
