//! Real ext4 root file systems from a directory, the same bytes every time, without root and without mounting.
//!
//! `mke2fs` makes an empty file system with a fixed identity, `debugfs` fills it in sorted order with everything owned by
//! root and one time for everything. (`mke2fs -d` alone would copy the owners and change times of the source.)

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use crate::tree::{Release, plant};

use crate::error::Error;
use crate::programs::{run, tail, tool};

/// Size of the demo's images.
pub const IMAGE_BYTES: u64 = 64 << 20;

/// One identity for every image: an image is told by its content.
const UUID: &str = "6f746164-6465-4d6f-8000-000000000001";
const HASH_SEED: &str = "6f746164-6465-4d6f-8000-000000000002";
/// The time of everything in an image, in seconds since 1970.
const TIME: &str = "1767225600";

/// Makes an image of `bytes` bytes from everything in `tree`.
///
/// # Errors
/// The tree does not fit, or has a name that `debugfs` cannot be told.
pub fn make(tree: &Path, image: &Path, bytes: u64) -> Result<(), Error> {
    let file = fs::File::create_new(image).map_err(Error::io("create", image))?;
    file.set_len(bytes).map_err(Error::io("size", image))?;
    let extended = format!("hash_seed={HASH_SEED},lazy_itable_init=0,lazy_journal_init=0,nodiscard");
    let mut mke2fs = Command::new(tool("mke2fs")?);
    mke2fs.args([
        "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "rootfs", "-U", UUID, "-E", &extended,
    ]);
    // A system-wide mke2fs.conf would make other images on other machines.
    mke2fs.env("MKE2FS_CONFIG", "/dev/null").args(["-O", FEATURES]).env("E2FSPROGS_FAKE_TIME", TIME);
    run(mke2fs.arg(image))?;
    fill(tree, image)?;
    // Nothing would say so if the last file did not fit.
    run(Command::new(tool("e2fsck")?).args(["-f", "-n"]).arg(image)).map(drop)
}

/// What Debian's ext4 has, spelled out.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// Copies the tree into an empty file system.
fn fill(tree: &Path, image: &Path) -> Result<(), Error> {
    let mut script = String::new();
    describe(tree, Path::new("/"), &mut script)?;
    let mut command = Command::new(tool("debugfs")?);
    command.args(["-w", "-f", "-"]).arg(image).env("E2FSPROGS_FAKE_TIME", TIME).env("DEBUGFS_PAGER", "cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut debugfs = command.spawn().map_err(Error::io("start", "debugfs"))?;
    if let Some(mut stdin) = debugfs.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(Error::io("write to", "debugfs"))?;
    }
    let output = debugfs.wait_with_output().map_err(Error::io("wait for", "debugfs"))?;
    // It exits with 0 whatever happened, and says its version before anything else.
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = said.lines().filter(|line| !line.starts_with("debugfs ")).collect();
    if output.status.success() && complaints.is_empty() {
        return Ok(());
    }
    Err(Error::Program {
        command: format!("debugfs -w {}", image.display()),
        status: output.status.to_string(),
        said: tail(complaints.join("\n").as_bytes()),
    })
}

/// Appends the commands that make the entries of a directory, sorted by name.
fn describe(source: &Path, target: &Path, script: &mut String) -> Result<(), Error> {
    for path in entries(source)? {
        let name = path.file_name().map(Path::new).unwrap_or(Path::new(""));
        let (from, to) = (plain(&path)?, plain(&target.join(name))?);
        let metadata = fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?;
        if metadata.is_symlink() {
            let link = fs::read_link(&path).map_err(Error::io("read", &path))?;
            script.push_str(&format!("symlink {to} {}\n", plain(&link)?));
        } else if metadata.is_dir() {
            script.push_str(&format!("mkdir {to}\n"));
            describe(&path, Path::new(&to), script)?;
        } else {
            let mode = 0o100_000 | (metadata.permissions().mode() & 0o7777);
            script.push_str(&format!("write {from} {to}\nset_inode_field {to} mode 0{mode:o}\n"));
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    let paths = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.map_err(Error::io("list", dir))?;
    paths.sort();
    Ok(paths)
}

/// A path as a word of a `debugfs` command.
fn plain(path: &Path) -> Result<String, Error> {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '#';
    match path.to_str().filter(|text| text.chars().all(is_plain)) {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::Setup(format!("{}: debugfs takes no name with blanks or quotes", path.display()))),
    }
}
