//! Where programs are: this project's own, and the system's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// The directory with otad, otactl and otaserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Finds them in `$OTAD_BIN_DIR`, or beside this program (a test's program lies one directory deeper).
    ///
    /// # Errors
    /// [`Error::Missing`] names the first that is not there.
    pub fn find() -> Result<Binaries, Error> {
        let dir = match std::env::var_os("OTAD_BIN_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => beside_this_program()?,
        };
        let dir = dir.canonicalize().map_err(Error::io("find", &dir))?;
        let binaries = Binaries { dir };
        for name in ["otad", "otactl", "otaserver"] {
            let path = binaries.path(name);
            if !path.is_file() {
                let profile = if cfg!(debug_assertions) { "" } else { " --release" };
                return Err(Error::Missing {
                    program: path.display().to_string(),
                    hint: format!("run `cargo build{profile}` first, or set OTAD_BIN_DIR"),
                });
            }
        }
        Ok(binaries)
    }

    /// Takes a directory without looking whether they are there.
    pub fn in_directory(dir: impl Into<PathBuf>) -> Binaries {
        Binaries { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn beside_this_program() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    let dir = program.parent().unwrap_or(Path::new("."));
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    Ok(dir.to_owned())
}

/// The Debian packages of the system's programs that are used here.
const PACKAGES: [(&str, &str); 7] = [
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("dbus-daemon", "dbus-daemon"),
    ("debugfs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("losetup", "mount"),
    ("mke2fs", "e2fsprogs"),
];

/// Finds a program of the system: on the path, or where people who are not root do not look.
pub(crate) fn tool(name: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = dirs.map(|dir| dir.join(name)).find(|candidate| candidate.is_file());
    found.ok_or_else(|| {
        let package =
            PACKAGES.iter().find(|(program, _)| *program == name).map_or(name, |(_, package)| package);
        Error::Missing { program: name.to_owned(), hint: format!("apt-get install {package}") }
    })
}

/// Runs a command to its end and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>, Error> {
    let name = shown(command);
    let output = command.stdin(Stdio::null()).output().map_err(Error::io("start", &name))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Program { command: name, status: output.status.to_string(), said: tail(&output.stderr) })
}

/// The command line as somebody would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The last lines of what a program said.
pub(crate) fn tail(output: &[u8]) -> String {
    const LINES: usize = 6;
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.trim().lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}
