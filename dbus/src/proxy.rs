//! Typed client proxies for the three interfaces.

use std::collections::HashMap;

use zbus::{OwnedFd, OwnedObjectPath, OwnedVariant, Variant};

/// Client side of `org.otad1.Manager`.
#[zbus::proxy(interface = "org.otad1.Manager", default_service = "org.otad1", default_path = "/org/otad1")]
pub trait Manager {
    /// Starts an install from an `http://` or `https://` URL and returns the job.
    fn install(&self, url: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedObjectPath>;

    /// Starts an install from an open regular file or pipe and returns the job.
    fn install_fd(
        &self,
        bundle: OwnedFd,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Verifies a bundle's signature and tells what it holds, without installing it.
    fn inspect(&self, bundle: OwnedFd) -> zbus::Result<HashMap<String, OwnedVariant>>;

    /// Asks the server now; true when an update was found and its install started.
    fn check(&self) -> zbus::Result<bool>;

    /// Confirms the running trial without waiting for the health checks.
    fn commit(&self) -> zbus::Result<()>;

    /// Rolls back: from a trial at once, from a confirmed slot by a trial of the other one.
    fn rollback(&self) -> zbus::Result<()>;

    /// Cancels the running job, disarms an armed target, or acknowledges a failure.
    fn cancel(&self) -> zbus::Result<()>;

    /// Gives a verdict (`good`, `bad`) on a slot (its name, `booted` or `other`).
    fn mark(&self, slot: &str, verdict: &str) -> zbus::Result<()>;

    /// Reboots the device.
    fn reboot(&self) -> zbus::Result<()>;

    /// The history of updates on this device, oldest first, in the dictionaries of `LastResult`.
    fn history(&self) -> zbus::Result<Vec<HashMap<String, OwnedVariant>>>;

    /// idle, pre-upgrade, upgrading, post-upgrade or failed.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Name of the running slot; empty when the evidence does not agree.
    #[zbus(property)]
    fn booted_slot(&self) -> zbus::Result<String>;

    /// Name of the slot that the boot loader tries first.
    #[zbus(property)]
    fn primary_slot(&self) -> zbus::Result<String>;

    /// Path of the job under way, `/` when there is none.
    #[zbus(property)]
    fn current_job(&self) -> zbus::Result<OwnedObjectPath>;

    /// The hardware this device is.
    #[zbus(property)]
    fn compatible(&self) -> zbus::Result<String>;

    /// Version of the running system; empty when unknown.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;

    /// Revision of this interface.
    #[zbus(property(emits_changed_signal = "const"))]
    fn api_revision(&self) -> zbus::Result<u32>;

    /// How the last update ended; empty when there was none.
    #[zbus(property)]
    fn last_result(&self) -> zbus::Result<HashMap<String, OwnedVariant>>;

    /// What keeps this device from being updated, each as code and message; empty when all is well.
    #[zbus(property)]
    fn problems(&self) -> zbus::Result<Vec<(String, String)>>;

    /// Version of the root of trust that counts; 0 when there is none.
    #[zbus(property)]
    fn root_version(&self) -> zbus::Result<u64>;

    /// The highest sequence that was committed on this device.
    #[zbus(property)]
    fn sequence_floor(&self) -> zbus::Result<u64>;

    /// A job ended; `result` is done, failed or cancelled.
    #[zbus(signal)]
    fn job_removed(
        &self,
        job: OwnedObjectPath,
        result: String,
        error: String,
        message: String,
    ) -> zbus::Result<()>;
}

/// Client side of `org.otad1.Slot`.
#[zbus::proxy(interface = "org.otad1.Slot", default_service = "org.otad1")]
pub trait Slot {
    /// The slot's name in the configuration.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// Whether the system runs from it.
    #[zbus(property)]
    fn booted(&self) -> zbus::Result<bool>;

    /// Whether the boot loader tries it first.
    #[zbus(property)]
    fn primary(&self) -> zbus::Result<bool>;

    /// confirmed, trial, disarmed or unknown.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Version it holds; empty when unknown.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;

    /// Sequence of the release it holds; 0 when unknown.
    #[zbus(property)]
    fn sequence(&self) -> zbus::Result<u64>;

    /// Digest of the release it holds; empty when unknown.
    #[zbus(property)]
    fn release(&self) -> zbus::Result<String>;

    /// When it was installed, seconds since 1970; 0 when unknown.
    #[zbus(property)]
    fn installed_at(&self) -> zbus::Result<u64>;

    /// Role to device path.
    #[zbus(property(emits_changed_signal = "const"))]
    fn images(&self) -> zbus::Result<HashMap<String, String>>;
}

/// Client side of `org.otad1.Job`.
#[zbus::proxy(interface = "org.otad1.Job", default_service = "org.otad1")]
pub trait Job {
    /// Asks the job to stop; it ends with `JobRemoved` and the result `cancelled`.
    fn cancel(&self) -> zbus::Result<()>;

    /// What it does now: opening, verifying, scanning, disarming, writing, flushing, reading-back, pre-run, arming.
    #[zbus(property)]
    fn phase(&self) -> zbus::Result<String>;

    /// Bytes of the phase that are done.
    #[zbus(property)]
    fn bytes_done(&self) -> zbus::Result<u64>;

    /// Bytes of the phase in all; 0 while unknown.
    #[zbus(property)]
    fn bytes_total(&self) -> zbus::Result<u64>;

    /// Bytes fetched from the source so far.
    #[zbus(property)]
    fn bytes_fetched(&self) -> zbus::Result<u64>;

    /// Bytes written to the target.
    #[zbus(property)]
    fn bytes_written(&self) -> zbus::Result<u64>;

    /// Bytes of the release that the target held already.
    #[zbus(property)]
    fn bytes_unchanged(&self) -> zbus::Result<u64>;

    /// The whole job in percent, 0 to 100.
    #[zbus(property)]
    fn progress(&self) -> zbus::Result<u32>;

    /// Version that is being installed; empty until the manifest is verified.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
}
