//! Where the bundle comes from: a URL that otad fetches itself, or a descriptor that otactl opens and hands over.
//!
//! Otad opens no path for a caller, so a file is opened here, with the rights of the person who asks. Standard input is
//! handed over as it is when it is a file or a pipe: otad then reads it itself, and the install does not depend on
//! otactl. A socket (what many SSH servers give a command as standard input) cannot be handed over; a thread copies it
//! into a pipe.

use std::fs::{File, FileType};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::trouble::Trouble;

/// A bundle that otad can be asked to install.
#[derive(Debug)]
pub(super) enum Source {
    /// Otad fetches it.
    Url(String),
    /// Otad reads it from here.
    Descriptor(OwnedFd),
}

/// What has to stay alive for the bundle to reach otad.
#[derive(Debug, Clone)]
pub(super) enum Lifeline {
    /// Nothing: a file or a URL.
    None,
    /// The program at the other end of the pipe.
    Sender,
    /// That program, and this one, which copies.
    Relay(Relay),
}

/// The thread that copies a socket into a pipe.
#[derive(Debug, Clone, Default)]
pub(super) struct Relay {
    failure: Arc<OnceLock<String>>,
}

impl Relay {
    /// Why the copy broke off, if it did: otad only sees that the bundle ends too early.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn start(mut from: File) -> Result<(OwnedFd, Relay), Trouble> {
        let (reader, mut writer) =
            io::pipe().map_err(|source| Trouble::System { act: "make a pipe for the bundle", source })?;
        let relay = Relay::default();
        let failure = Arc::clone(&relay.failure);
        let copy = move || {
            if let Err(error) = copy_until_end(&mut from, &mut writer) {
                // Nobody else sets it.
                let _ = failure.set(error.to_string());
            }
        };
        std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(copy)
            .map_err(|source| Trouble::System { act: "start a thread for the bundle", source })?;
        Ok((reader.into(), relay))
    }
}

/// Copies everything. That the reader closes early is no failure: otad has what it needs, or has refused it.
fn copy_until_end(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    match io::copy(from, to) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map(|_| ()),
    }
}

impl Source {
    /// Opens what the person named: a path, a URL, or `-` for standard input.
    pub(super) fn open(bundle: &str) -> Result<(Source, Lifeline), Trouble> {
        if bundle == "-" {
            return Source::standard_input();
        }
        if let Some((scheme, _)) = bundle.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Ok((Source::Url(bundle.to_owned()), Lifeline::None)),
                other => Err(Trouble::Source(format!(
                    "otad fetches http:// and https:// only, not {other}://; for a file give its path"
                ))),
            };
        }
        let path = PathBuf::from(bundle);
        let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = opened.map_err(|source| Trouble::Open { path, source })?;
        match Input::of(metadata.file_type(), false) {
            Input::File => Ok((Source::Descriptor(file.into()), Lifeline::None)),
            Input::Pipe => Ok((Source::Descriptor(file.into()), Lifeline::Sender)),
            Input::Socket | Input::Terminal | Input::Other => {
                Err(Trouble::Source(format!("{bundle} is neither a regular file nor a pipe")))
            }
        }
    }

    fn standard_input() -> Result<(Source, Lifeline), Trouble> {
        let stdin = io::stdin();
        let system = |source| Trouble::System { act: "look at standard input", source };
        let file = File::from(stdin.as_fd().try_clone_to_owned().map_err(system)?);
        let kind = file.metadata().map_err(system)?.file_type();
        match Input::of(kind, stdin.is_terminal()) {
            Input::File => Ok((Source::Descriptor(file.into()), Lifeline::None)),
            Input::Pipe => Ok((Source::Descriptor(file.into()), Lifeline::Sender)),
            Input::Socket => {
                let (reader, relay) = Relay::start(file)?;
                Ok((Source::Descriptor(reader), Lifeline::Relay(relay)))
            }
            Input::Terminal => Err(Trouble::Source(
                "standard input is a terminal; feed the bundle: otactl install - < BUNDLE".to_owned(),
            )),
            Input::Other => {
                Err(Trouble::Source("standard input is neither a file nor a pipe nor a socket".to_owned()))
            }
        }
    }
}

/// What a descriptor is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    File,
    Pipe,
    Socket,
    Terminal,
    /// A directory, a block device, `/dev/null`, …
    Other,
}

impl Input {
    fn of(kind: FileType, is_terminal: bool) -> Input {
        if is_terminal {
            Input::Terminal
        } else if kind.is_file() {
            Input::File
        } else if kind.is_fifo() {
            Input::Pipe
        } else if kind.is_socket() {
            Input::Socket
        } else {
            Input::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn urls_are_told_from_paths() {
        for url in ["http://device/x.otab", "HTTPS://h/x"] {
            assert!(matches!(Source::open(url), Ok((Source::Url(kept), Lifeline::None)) if kept == url));
        }
        for (bundle, status) in
            [("file:///x.otab", 2), ("ftp://h/x", 2), ("/dev/null", 2), ("/", 2), ("/no/such", 1)]
        {
            assert_eq!(Source::open(bundle).unwrap_err().status(), status, "{bundle}");
        }
    }

    #[test]
    fn a_relay_copies_a_socket_to_its_end() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let (reader, relay) = Relay::start(File::from(OwnedFd::from(far))).unwrap();
        near.write_all(&[7; 100_000]).unwrap();
        drop(near);
        let mut copied = Vec::new();
        File::from(reader).read_to_end(&mut copied).unwrap();
        assert_eq!(copied, [7; 100_000]);
        assert_eq!(relay.failure(), None);
    }
}
