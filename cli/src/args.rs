//! The command line: one definition that feeds the parser, the help, the man pages and the completions.
//!
//! Owns names, defaults and help texts; does nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::Format;

/// Talks to otad on this device, and makes and checks update bundles anywhere.
#[derive(Debug, Parser)]
#[command(name = "otactl", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  otactl status                                     what runs, what is installed, what happened last
  otactl install https://updates.example.com/x.otab --reboot
  ssh root@device otactl install - < x.otab         push a bundle through ssh
  otactl bundle create --manifest m.toml --image rootfs=rootfs.ext4 --key release.key -o x.otab
  otactl bundle verify x.otab --root root.toml

Exit status: 0 done, 1 failed, 2 wrong command line, 3 rejected (signature,
compatibility, downgrade), 4 busy, 5 otad is not running, 6 not authorized,
130 interrupted.";

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Write JSON to standard output, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// Write nothing but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// The D-Bus on which otad is: system, session or an address such as unix:path=/run/x
    #[arg(long, global = true, value_name = "BUS", env = "OTAD_BUS", default_value = "system")]
    pub bus: String,
}

impl Globals {
    /// What standard output is meant for.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

/// All commands. The first ones talk to otad, the rest need no daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Commands that talk to otad.
    #[command(flatten)]
    Device(DeviceCommand),
    /// Make release keys and show their ids
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make and show the root of trust (root.toml)
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Say which release is the latest, and until when (channel documents)
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Make, sign, check and unpack bundles (.otab)
    #[command(subcommand)]
    Bundle(BundleCommand),
}

/// Commands that talk to otad over D-Bus.
#[derive(Debug, Clone, Subcommand)]
pub enum DeviceCommand {
    /// Install a bundle into the other slot
    #[command(after_help = "\
Examples:
  otactl install x.otab --reboot --wait-commit      from a file, to the end
  otactl install https://host/x.otab                otad fetches it, only the chunks it lacks
  curl -s https://host/x.otab | otactl install -    from a pipe

Interrupting otactl does not stop the install: `otactl status --follow` shows it again,
`otactl cancel` stops it.")]
    Install(InstallArgs),
    /// Show slots, versions, state and the last result
    Status(StatusArgs),
    /// Confirm the running system now, without waiting for the health checks
    Commit(CommitArgs),
    /// Go back to the other slot, if it holds a verified system
    Rollback,
    /// Stop the running install, or disarm one that waits for its reboot
    Cancel,
    /// Reboot the device into the armed slot
    Reboot,
    /// Ask the update server now
    Check,
    /// Show the history of updates on this device
    Log,
}

/// `otactl install`.
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// A file, an http(s) URL, or - for standard input
    #[arg(value_name = "BUNDLE|URL|-")]
    pub source: String,
    /// Reboot into the new system when it is installed
    #[arg(long)]
    pub reboot: bool,
    /// URL of a delta from the release that runs (otactl bundle delta); the bundle must be a URL too
    #[arg(long, value_name = "URL")]
    pub delta: Option<String>,
    /// Wait until the new system has booted and is committed, or rolled back
    #[arg(long)]
    pub wait_commit: bool,
}

/// `otactl commit`.
#[derive(Debug, Clone, Args)]
pub struct CommitArgs {
    /// Leave the decision to the health checks and wait for it; ends at once when no system is on trial
    #[arg(long)]
    pub when_healthy: bool,
}

/// `otactl status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Stay and show changes and progress until interrupted
    #[arg(long, short)]
    pub follow: bool,
}

/// `otactl key`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Make a new key: KEY (private, mode 0600) and KEY.pub; Ed25519, which signs, or X25519 for --device
    #[command(after_help = "\
Existing files are never replaced. `openssl pkey` reads both files.

Example:
  otactl key generate --out release.key && otactl trust create --key release.key.pub --out root.toml")]
    Generate {
        /// Where the private key goes; the public key goes beside it, with .pub appended
        #[arg(long, value_name = "KEY")]
        out: PathBuf,
        /// Make an X25519 key, which bundles can be encrypted for, instead of one that signs
        #[arg(long, conflicts_with = "encrypt")]
        device: bool,
        /// Put the private key under a passphrase: asked for, or the first line of the file in OTAD_PASSPHRASE_FILE
        #[arg(long)]
        encrypt: bool,
    },
    /// Print the id of a private or public key file
    Id {
        /// A private or a public key file (PEM)
        key: PathBuf,
    },
}

/// `otactl trust`.
#[derive(Debug, Clone, Subcommand)]
pub enum TrustCommand {
    /// Make version 1 of a root of trust from public keys
    #[command(visible_alias = "create")]
    #[command(after_help = "\
Example:
  otactl trust init --key alice.key.pub --key bob.key.pub --threshold 2 \\
      --root-key safe1.key.pub --root-key safe2.key.pub --root-threshold 2 --out root.toml
The device then takes only bundles that alice and bob have signed (`otactl bundle sign`), and a new
root only from safe1 and safe2. Without --root-key the release keys sign the next root.")]
    Init {
        /// A public key that may sign releases; give it once for each key
        #[arg(long = "key", value_name = "KEY.pub", required = true)]
        keys: Vec<PathBuf>,
        /// How many distinct keys must have signed a bundle
        #[arg(long, default_value_t = 1)]
        threshold: usize,
        /// A public key that may sign the next root; give it once for each key
        #[arg(long = "root-key", value_name = "KEY.pub")]
        root_keys: Vec<PathBuf>,
        /// How many distinct keys must have signed the next root
        #[arg(long, default_value_t = 1, requires = "root_keys")]
        root_threshold: usize,
        /// A public key of the role online or recovery
        #[arg(long = "add", value_name = "ROLE=KEY.pub")]
        add: Vec<String>,
        /// When the root ends, such as 2035-01-01
        #[arg(long, value_name = "DATE")]
        expires: Option<String>,
        /// Where the root goes; an existing file is not replaced
        #[arg(long, short, value_name = "root.toml")]
        out: PathBuf,
    },
    /// Add a key to a role of a root that nobody has signed yet
    Add {
        /// The root file, which is replaced
        root: PathBuf,
        /// The role: root, release, online or recovery
        #[arg(long)]
        role: String,
        /// A public key; give it once for each key
        #[arg(long = "key", value_name = "KEY.pub", required = true)]
        keys: Vec<PathBuf>,
        /// How many distinct keys of the role must sign from now on
        #[arg(long)]
        threshold: Option<usize>,
    },
    /// Make the draft of the root that follows, one version on
    #[command(after_help = "\
Example: bob leaves, carol comes.
  otactl trust rotate root.toml --remove $(otactl key id bob.key.pub) --add release=carol.key.pub --out root.2.toml
  otactl trust sign root.2.toml --key safe1.key      # the thresholds of the old and of the new root
  otactl trust sign root.2.toml --key safe2.key
  otactl trust show root.toml root.2.toml            # says whether devices will follow
  otactl bundle create --with-root root.2.toml ...")]
    Rotate {
        /// The newest root
        root: PathBuf,
        /// A key to add to a role; give it once for each
        #[arg(long, value_name = "ROLE=KEY.pub")]
        add: Vec<String>,
        /// Id of a key to remove from every role; give it once for each
        #[arg(long, value_name = "KEY-ID")]
        remove: Vec<String>,
        /// Another threshold for a role; give it once for each
        #[arg(long, value_name = "ROLE=N")]
        threshold: Vec<String>,
        /// When the new root ends, such as 2040-01-01; without it as the old one
        #[arg(long, value_name = "DATE")]
        expires: Option<String>,
        /// Where the draft goes; an existing file is not replaced
        #[arg(long, short, value_name = "root.N.toml")]
        out: PathBuf,
    },
    /// Add signatures to a root
    Sign {
        /// The root file, which is replaced in one step
        root: PathBuf,
        /// What signs.
        #[command(flatten)]
        signing: SignArgs,
    },
    /// Show roots and check that each follows the one before it
    Show {
        /// Root files, oldest first
        #[arg(required = true)]
        roots: Vec<PathBuf>,
    },
}

/// `otactl channel`.
#[derive(Debug, Clone, Subcommand)]
pub enum ChannelCommand {
    /// Make and sign a channel document: the release of a bundle is the latest one
    #[command(after_help = "\
Devices whose root has an online role take nothing from a server without such a document that has not
ended. Make a new one in good time, with a higher counter, and hand it to the server:
  otactl channel create x.otab --root root.toml --counter 18 --key online.key -o channel.toml
  curl --fail-with-body -H @header.txt -T channel.toml -X POST https://updates.example.com/api/v1/channels")]
    Create(ChannelArgs),
    /// Show a channel document
    Show {
        /// The document
        channel: PathBuf,
        /// The root of trust to check it with
        #[arg(long, value_name = "root.toml")]
        root: Option<PathBuf>,
    },
}

/// `otactl channel create`.
#[derive(Debug, Clone, Args)]
pub struct ChannelArgs {
    /// The bundle of the latest release
    pub bundle: PathBuf,
    /// The root of trust that the bundle is checked with
    #[arg(long, value_name = "root.toml")]
    pub root: PathBuf,
    /// The model it is for, if the bundle is for several
    #[arg(long, value_name = "NAME")]
    pub compatible: Option<String>,
    /// The bundle of an older release that is fine as well, while the latest one is on its way in stages; may be given several times
    #[arg(long, value_name = "BUNDLE")]
    pub also: Vec<PathBuf>,
    /// The number of the document: higher than that of the one before
    #[arg(long)]
    pub counter: u64,
    /// How long it holds
    #[arg(long, default_value_t = 72)]
    pub hours: u64,
    /// What signs.
    #[command(flatten)]
    pub signing: SignArgs,
    /// Where the document goes
    #[arg(long, short, value_name = "channel.toml")]
    pub out: PathBuf,
}

/// `otactl bundle`.
#[derive(Debug, Clone, Subcommand)]
pub enum BundleCommand {
    /// Make a signed bundle from images
    #[command(after_help = "\
M.toml is short; flags override it:
  [update]
  version = \"2.1.0\"
  sequence = 42                  # raise it with every release: a device refuses lower ones
  compatible = [\"acme-gateway\"]
  description = \"what is new\"

Examples:
  otactl bundle create --manifest m.toml --image rootfs=rootfs.ext4 --image kernel=Image --key release.key -o x.otab
  otactl bundle create --version 2.1.0 --sequence 42 --compatible acme-gateway --image rootfs=r.ext4 --key k -o x.otab")]
    Create(CreateArgs),
    /// Show what a bundle or a delta holds
    #[command(after_help = "\
Without --root or --key the signature is NOT checked, and the output says so.")]
    Inspect {
        /// A bundle, or - for standard input
        bundle: PathBuf,
        /// The private X25519 key of a recipient, for an encrypted bundle
        #[arg(long, value_name = "KEY")]
        device_key: Option<PathBuf>,
        /// Whom to trust; optional here
        #[command(flatten)]
        trust: OptionalTrust,
    },
    /// Check every byte of a bundle; exit status 0 only if all of it holds
    Verify {
        /// A bundle, or - for standard input
        bundle: PathBuf,
        /// The private X25519 key of a recipient, for an encrypted bundle
        #[arg(long, value_name = "KEY")]
        device_key: Option<PathBuf>,
        /// Whom to trust.
        #[command(flatten)]
        trust: RequiredTrust,
    },
    /// Add a signature to a bundle, after checking that its content is sound
    Sign {
        /// The bundle; replaced in one step unless -o is given
        bundle: PathBuf,
        /// What signs.
        #[command(flatten)]
        signing: SignArgs,
        /// Roots that lead devices to the one that the bundle is signed by; replace those that it has
        #[arg(long, value_name = "root.toml")]
        with_root: Vec<PathBuf>,
        /// Where the signed bundle goes
        #[arg(long, short, value_name = "X.otab")]
        out: Option<PathBuf>,
    },
    /// Make the delta from one bundle to another, for devices that run the old one
    #[command(after_help = "\
A delta needs no signature: devices check every chunk against the new bundle, and fetch from
it what the delta lacks. Takes a few minutes, and memory for both images.

Example:
  otactl bundle delta --from 2.0.0.otab --to 2.1.0.otab -o 2.0.0-2.1.0.otad-delta")]
    Delta(DeltaArgs),
    /// Verify a bundle and write its images as ROLE.img
    Extract {
        /// A bundle, or - for standard input
        bundle: PathBuf,
        /// The private X25519 key of a recipient, for an encrypted bundle
        #[arg(long, value_name = "KEY")]
        device_key: Option<PathBuf>,
        /// Whom to trust.
        #[command(flatten)]
        trust: RequiredTrust,
        /// Directory for the images; made if missing
        #[arg(long, short, value_name = "DIR")]
        out: PathBuf,
        /// Only this image; give it once for each image
        #[arg(long = "image", value_name = "ROLE")]
        images: Vec<String>,
    },
}

/// `otactl bundle create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Short description of the release: version, sequence, compatible, description
    #[arg(long, value_name = "M.toml")]
    pub manifest: Option<PathBuf>,
    /// An image and its role; give it once for each image
    #[arg(long = "image", value_name = "ROLE=FILE", required = true)]
    pub images: Vec<String>,
    /// What signs.
    #[command(flatten)]
    pub signing: SignArgs,
    /// Encrypt the bundle for this public key (X25519, or RSA with 3072 bits or more); give it once for each
    #[arg(long = "recipient", value_name = "KEY.pub")]
    pub recipients: Vec<PathBuf>,
    /// A root that leads devices to the one that the bundle is signed by; give it once for each, oldest first
    #[arg(long, value_name = "root.toml")]
    pub with_root: Vec<PathBuf>,
    /// Where the bundle goes; it appears only when it is complete
    #[arg(long, short, value_name = "X.otab")]
    pub out: PathBuf,
    /// Semantic version of the release
    #[arg(long)]
    pub version: Option<semver::Version>,
    /// Release counter; a device refuses a lower one than it runs
    #[arg(long)]
    pub sequence: Option<u64>,
    /// Make it a way back for devices up to this sequence; the recovery role has to sign it as well
    #[arg(long, value_name = "SEQUENCE")]
    pub recovery_from: Option<u64>,
    /// Hardware the release is for; give it once for each name
    #[arg(long = "compatible", value_name = "NAME")]
    pub compatible: Vec<String>,
    /// A sentence for people
    #[arg(long)]
    pub description: Option<String>,
    /// How chunks are compressed
    #[arg(long, value_enum, default_value = "zstd")]
    pub compress: Compress,
    /// Compression level: zstd 1 to 19 (default 10), gzip 1 to 9 (default 6)
    #[arg(long, value_name = "N")]
    pub level: Option<u8>,
    /// How images are cut: fastcdc finds moved data again, fixed makes chunks of equal size
    #[arg(long, value_enum, default_value = "fastcdc")]
    pub chunking: ChunkingKind,
    /// Length of chunks in bytes: of fixed ones, a multiple of 4096 up to 1048576; of content-defined
    /// ones the average, 8192 to 262144
    #[arg(long, value_name = "BYTES")]
    pub chunk_size: Option<u32>,
    /// Worker threads; all processors by default. The bundle does not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// What signs.
#[derive(Debug, Clone, Args)]
pub struct SignArgs {
    /// A private key to sign with, or with --sign-command its public half; give it once for each key
    #[arg(long = "key", value_name = "KEY", required = true)]
    pub keys: Vec<PathBuf>,
    /// Sign by this shell command: it reads the message from standard input and writes the signature, raw or
    /// in base64; OTAD_KEY_ID and OTAD_PUBLIC_KEY say which key
    #[arg(long, value_name = "COMMAND")]
    pub sign_command: Option<String>,
}

/// `otactl bundle delta`.
#[derive(Debug, Clone, Args)]
pub struct DeltaArgs {
    /// The bundle that devices run
    #[arg(long, value_name = "OLD.otab")]
    pub from: PathBuf,
    /// The bundle they are to run
    #[arg(long, value_name = "NEW.otab")]
    pub to: PathBuf,
    /// The private X25519 key of a recipient of both bundles, if they are encrypted
    #[arg(long, value_name = "KEY")]
    pub device_key: Option<PathBuf>,
    /// Where the delta goes; it appears only when it is complete
    #[arg(long, short, value_name = "D.otad-delta")]
    pub out: PathBuf,
    /// Worker threads; all processors by default. The delta does not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// `--compress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compress {
    /// Best ratio and fastest to unpack
    Zstd,
    /// For readers without zstd
    Gzip,
    /// No compression
    None,
}

/// `--chunking`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ChunkingKind {
    /// Content-defined chunks
    Fastcdc,
    /// Chunks of equal size
    Fixed,
}

/// Whom to trust, if anybody.
#[derive(Debug, Clone, Args)]
#[group(required = false, multiple = false)]
pub struct OptionalTrust {
    /// A root of trust
    #[arg(long, value_name = "root.toml")]
    pub root: Option<PathBuf>,
    /// A public key, trusted by itself; give it once for each key
    #[arg(long = "key", value_name = "KEY.pub")]
    pub keys: Vec<PathBuf>,
}

/// Whom to trust: one of the two must be given.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct RequiredTrust {
    /// A root of trust
    #[arg(long, value_name = "root.toml")]
    pub root: Option<PathBuf>,
    /// A public key, trusted by itself; give it once for each key
    #[arg(long = "key", value_name = "KEY.pub")]
    pub keys: Vec<PathBuf>,
}

impl From<RequiredTrust> for OptionalTrust {
    fn from(trust: RequiredTrust) -> OptionalTrust {
        OptionalTrust { root: trust.root, keys: trust.keys }
    }
}
