//! Keys of the board, made once: who releases, who logs in, and the board's own SSH identity.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::step;

/// The directory of the keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) directory: PathBuf,
}

impl Keys {
    /// Takes the keys that are there, or makes all of them.
    pub(crate) fn obtain(directory: PathBuf, otactl: &Path) -> Result<Keys, Error> {
        let keys = Keys { directory };
        if keys.directory.is_dir() {
            return Ok(keys);
        }
        let unfinished = Keys { directory: keys.directory.with_extension("unfinished") };
        match fs::remove_dir_all(&unfinished.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &unfinished.directory)(error));
            }
            _ => fs::create_dir_all(&unfinished.directory)
                .map_err(Error::io("create", &unfinished.directory))?,
        }
        unfinished.make(otactl)?;
        fs::rename(&unfinished.directory, &keys.directory)
            .map_err(Error::io("rename", &unfinished.directory))?;
        Ok(keys)
    }

    fn make(&self, otactl: &Path) -> Result<(), Error> {
        let program = otactl.display().to_string();
        let run = |program: &str, words: Vec<OsString>| {
            step::run(
                "keys",
                &mut step::command(program, words),
                "scripts/need-board installs what is needed",
            )
            .map(drop)
        };
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        run(&program, [words("key generate --out"), vec![self.release().into()]].concat())?;
        let public = self.directory.join("release.key.pub");
        let create =
            [words("trust create --key"), vec![public.into(), "--out".into(), self.trust_root().into()]];
        run(&program, create.concat())?;
        run(
            "ssh-keygen",
            [
                words("-q -t ed25519 -N"),
                vec!["".into(), "-C".into(), "board".into(), "-f".into(), self.ssh().into()],
            ]
            .concat(),
        )?;
        run("dropbearkey", [words("-t ed25519 -f"), vec![self.host().into()]].concat())
    }

    /// Signs releases.
    pub(crate) fn release(&self) -> PathBuf {
        self.directory.join("release.key")
    }

    /// What the board trusts.
    pub(crate) fn trust_root(&self) -> PathBuf {
        self.directory.join("root.toml")
    }

    /// Logs in as root.
    pub(crate) fn ssh(&self) -> PathBuf {
        self.directory.join("ssh")
    }

    /// Lets [`Keys::ssh`] in.
    pub(crate) fn ssh_public(&self) -> PathBuf {
        self.directory.join("ssh.pub")
    }

    /// The board's identity, the same in all slots.
    pub(crate) fn host(&self) -> PathBuf {
        self.directory.join("host")
    }
}
