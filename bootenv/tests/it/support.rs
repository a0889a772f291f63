//! What several tests need: a seeded generator, other people's tools, places for copies.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bootenv::{BootEnv, ByteOrder, Config, EnvLock, FileStore, LockDirs};

/// A generator whose whole state is its seed (SplitMix64), so that a printed seed repeats a run.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// The seed of this run: `BOOTENV_TEST_SEED`, or a new one.
pub(crate) fn seed() -> u64 {
    match std::env::var("BOOTENV_TEST_SEED") {
        Ok(text) => text.parse().expect("BOOTENV_TEST_SEED is a decimal number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into(),
    }
}

/// Runs a program. One that is missing is a failure with the package that has it, never a skipped test.
pub(crate) fn run<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| {
        let package = match program {
            "fw_printenv" | "fw_setenv" => "libubootenv-tool",
            "mkenvimage" => "u-boot-tools",
            "losetup" => "mount",
            "blockdev" | "flock" => "util-linux",
            _ => "?",
        };
        panic!("cannot run {program} ({error}); this test needs Debian's package {package}")
    })
}

/// Runs a program that must succeed.
pub(crate) fn succeed<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> Output {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// An environment in files of a directory, with its configuration.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) copies: Vec<PathBuf>,
}

impl Place {
    /// One or two copies of `size` bytes, erased.
    pub(crate) fn new(copies: usize, size: usize) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let copies: Vec<PathBuf> =
            (1..=copies).map(|number| dir.path().join(format!("copy{number}"))).collect();
        let mut text = String::new();
        for copy in &copies {
            std::fs::write(copy, vec![0xff; size]).unwrap();
            text.push_str(&format!("{} 0x0 0x{size:x}\n", copy.display()));
        }
        std::fs::write(dir.path().join("fw_env.config"), text).unwrap();
        Place { dir, copies }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("fw_env.config")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the same bytes to every copy.
    pub(crate) fn fill(&self, bytes: &[u8]) {
        for copy in &self.copies {
            std::fs::write(copy, bytes).unwrap();
        }
    }

    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        self.copies.iter().map(|copy| std::fs::read(copy).unwrap()).collect()
    }

    /// The library on these copies.
    pub(crate) fn open(&self) -> BootEnv<FileStore> {
        open(&self.config())
    }

    /// The library's lock, in this directory.
    pub(crate) fn lock(&self) -> EnvLock {
        let dirs = LockDirs::new([self.dir.path().to_owned()]);
        EnvLock::acquire(&dirs, std::time::Duration::from_secs(1)).unwrap()
    }
}

pub(crate) fn open(config: &Path) -> BootEnv<FileStore> {
    let config = Config::from_file(config).unwrap();
    // Debian's tools write in the byte order of the machine they run on.
    BootEnv::new(FileStore::new(&config).unwrap()).with_byte_order(ByteOrder::NATIVE)
}
