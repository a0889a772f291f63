//! The key that this device reads encrypted bundles with: a file, or a command that knows a token.
//!
//! Read anew for each bundle that is encrypted, so that a key that was replaced is used at once. A command gets the wrapped key on
//! standard input and the id of its key in `OTAD_KEY_ID`, and writes the 32 raw bytes of the content key to standard output.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use otad_bundle::{
    Binding, CONTENT_KEY_BYTES, ContentKey, DeviceKey, Error, KeyId, RecipientKey, WrapAlgorithm, Wrapped,
    X25519Key,
};

use super::secret::refuse_if_public;
use crate::config::Decrypt;
use crate::failure::{Failure, from_bundle};

/// How long a command may take: a slow TPM takes seconds for an RSA key.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How often a command that has answered is looked at whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// Opens the key that the configuration names, if it names one.
pub fn open(decrypt: Option<&Decrypt>) -> Result<Option<Box<dyn DeviceKey>>, Failure> {
    let failed = |error: Error| from_bundle(&error);
    Ok(match decrypt {
        None => None,
        Some(Decrypt::Key(path)) => {
            refuse_if_public("[decrypt] key", path)?;
            Some(Box::new(X25519Key::read(path).map_err(failed)?))
        }
        Some(Decrypt::Command { command, public }) => {
            let public = RecipientKey::read(public).map_err(failed)?;
            let (id, algorithm) = (public.id(), public.algorithm());
            Some(Box::new(Token { command: command.clone(), id, algorithm, limit: COMMAND_LIMIT }))
        }
    })
}

/// A command that unwraps.
struct Token {
    command: Vec<String>,
    id: KeyId,
    algorithm: WrapAlgorithm,
    limit: Duration,
}

impl DeviceKey for Token {
    fn id(&self) -> KeyId {
        self.id
    }

    fn unwrap(&self, wrapped: &Wrapped, _: &Binding) -> Result<ContentKey, Error> {
        let named = self.command.join(" ");
        if wrapped.algorithm != self.algorithm || self.algorithm != WrapAlgorithm::RsaOaepSha256 {
            let what = format!("{} is not for `{named}`, which unwraps by RSA", wrapped.algorithm.name());
            return Err(Error::Unwrap(what));
        }
        self.run(&wrapped.bytes).map_err(|problem| Error::Unwrap(format!("`{named}` {problem}")))
    }
}

impl Token {
    fn run(&self, input: &[u8]) -> Result<ContentKey, String> {
        let (program, arguments) = self.command.split_first().ok_or("is empty")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env("OTAD_KEY_ID", self.id.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Whatever it starts ends with it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot be started: {error}"))?;
        let answered = self.talk(&mut child, input);
        if answered.is_err() {
            end(&mut child);
        }
        answered
    }

    fn talk(&self, child: &mut Child, input: &[u8]) -> Result<ContentKey, String> {
        let until = Instant::now() + self.limit;
        if let Some(mut standard_input) = child.stdin.take() {
            // Shorter than a pipe is deep, so it never waits. One that does not read all of it tells so by its answer.
            let _ = standard_input.write_all(input);
        }
        let output = child.stdout.take().ok_or("has no output")?;
        let (answer_in, answer) = sync_channel(1);
        let read = move || {
            let mut bytes = Vec::new();
            // One byte more than there may be shows an answer that is too long.
            let read = output.take(CONTENT_KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map(|_| bytes);
            let _ = answer_in.send(read);
        };
        Builder::new().name("unwrap".into()).spawn(read).map_err(|error| format!("not read: {error}"))?;
        let bytes = match answer.recv_timeout(self.limit) {
            Ok(read) => read.map_err(|error| format!("cannot be read: {error}"))?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(self.late()),
        };
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < until => std::thread::sleep(PAUSE),
                Ok(None) => return Err(self.late()),
                Err(error) => return Err(error.to_string()),
            }
        };
        if !status.success() {
            return Err(format!("ended with {status}"));
        }
        let content = bytes.as_slice().try_into().map(ContentKey::new);
        content.map_err(|_| format!("wrote another number of bytes than the {CONTENT_KEY_BYTES} of a key"))
    }

    fn late(&self) -> String {
        format!("did not end within {} seconds", self.limit.as_secs())
    }
}

/// Ends a command and what it started.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended by itself.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(script: &str) -> Token {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let id = "00112233445566778899aabbccddeeff".parse().unwrap();
        Token { command, id, algorithm: WrapAlgorithm::RsaOaepSha256, limit: Duration::from_secs(2) }
    }

    fn answer(script: &str) -> Result<ContentKey, String> {
        token(script).run(&[7; 384])
    }

    #[test]
    fn a_command_answers_with_a_key() {
        let key = answer("head -c 32").unwrap();
        assert_eq!(key.as_bytes(), &[7; 32]);
        assert!(answer("test $OTAD_KEY_ID = 00112233445566778899aabbccddeeff && head -c 32").is_ok());
    }

    #[test]
    fn any_other_answer_is_none() {
        for (script, problem) in [
            ("head -c 31", "another number of bytes"),
            ("head -c 33", "another number of bytes"),
            ("exec yes", "ended with"),
            ("head -c 32; exit 3", "ended with exit status: 3"),
            ("sleep 60", "did not end within 2 seconds"),
            ("head -c 32; exec >&-; sleep 60", "did not end within 2 seconds"),
            ("sleep 60 & head -c 32", "did not end within 2 seconds"),
        ] {
            let error = answer(script).err().unwrap_or_else(|| panic!("{script} was taken"));
            assert!(error.contains(problem), "{script}: {error}");
        }
        let nowhere = Token { command: vec!["/nowhere".into()], ..token("") };
        assert!(nowhere.run(&[]).err().unwrap().contains("cannot be started"));
    }
}
