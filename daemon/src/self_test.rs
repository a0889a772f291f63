//! Whether this otad could update this device: what `otad --self-test` does.
//!
//! It is what a *new* system is asked before it is armed, from a sandbox that shows it the device's own configuration, boot
//! environment and data directory, all read-only. A system that cannot read them could never be updated again. Nothing
//! here writes, takes a lock or asks the network.

use std::sync::Arc;

use otad_bundle::Chain;

use crate::adapters::state_fs::DataDirectory;
use crate::config::Config;
use crate::daemon::boot_control;
use crate::failure::{Code, Failure, from_bundle};
use crate::lifecycle::record;
use crate::trust::Keeper;

/// Reads everything that an update of this device would need; a sentence for people when all of it can be read.
///
/// # Errors
/// What cannot be read, with the code that an install would end with.
pub fn run(config: &Config) -> Result<String, Failure> {
    let data = Arc::new(DataDirectory::read_only(&config.data_dir));
    let roots = Chain::read(&config.trust_root).map_err(|error| from_bundle(&error))?;
    let root = Keeper::open(roots, data.clone())?.root();
    let [a, b] = &config.slots;
    let view = boot_control(config)?.view(&a.name, &b.name)?;
    let view = view.ok_or_else(|| {
        let path = config.boot.env_config.display();
        Failure::new(
            Code::EnvLost,
            format!("neither copy of the boot environment that {path} names is valid"),
        )
    })?;
    let loaded = record::load(&*data)?;
    // One that a newer otad wrote is settled from the environment; one that is damaged has been read without success.
    if let Some(remark) = loaded.remark {
        return Err(Failure::new(Code::StateIo, format!("{}: {remark}", config.data_dir.display())));
    }
    let (found, needed) = (root.version(), loaded.record.root_version);
    if found < needed {
        let what = format!("its root of trust is version {found}, this device follows {needed}");
        let next = "put every root since into the image";
        return Err(Failure::new(Code::KeysReplay, format!("{what} and would refuse every bundle; {next}")));
    }
    let (version, primary) = (env!("CARGO_PKG_VERSION"), view.primary.as_deref().unwrap_or("none"));
    let keys = root.keys().count();
    Ok(format!("otad {version} can update this device: first slot {primary}, {keys} keys in the trust root"))
}
