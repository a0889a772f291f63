//! The two edges of a simulated device that [`otad::testing`] does not have: a machine with a name, and an audience for the poll round.

use std::io;
use std::sync::Arc;

use otad::engine::{Audience, Notice, Status};
use otad::ports::{DeviceId, Kernel, Machine};
use tokio::sync::watch;

/// The machine of a rig, with an id of its own.
pub(crate) struct NamedMachine {
    pub(crate) name: String,
    pub(crate) machine: Arc<dyn Machine>,
}

impl Machine for NamedMachine {
    fn command_line(&self) -> io::Result<String> {
        self.machine.command_line()
    }

    fn root_device(&self) -> io::Result<DeviceId> {
        self.machine.root_device()
    }

    fn boot_id(&self) -> io::Result<String> {
        self.machine.boot_id()
    }

    fn device_id(&self) -> io::Result<String> {
        Ok(self.name.clone())
    }

    fn reboot(&self) -> io::Result<()> {
        self.machine.reboot()
    }

    fn image_info(&self) -> io::Result<Option<String>> {
        self.machine.image_info()
    }

    fn kernel(&self) -> Kernel {
        self.machine.kernel()
    }

    fn default_environment(&self) -> io::Result<Vec<u8>> {
        self.machine.default_environment()
    }
}

/// Keeps the newest status where the poll round looks for it.
pub(crate) struct Ear(pub(crate) watch::Sender<Arc<Status>>);

impl Audience for Ear {
    fn status(&self, status: Status) {
        self.0.send_replace(Arc::new(status));
    }

    fn notice(&self, _notice: Notice) {}
}
