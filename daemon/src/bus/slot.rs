//! `org.otad1.Slot`.

use std::collections::BTreeMap;

use super::Desk;
use crate::config;
use crate::engine::SlotView;

/// One slot on the bus.
pub(super) struct Slot {
    desk: Desk,
    name: String,
    images: BTreeMap<String, String>,
}

impl Slot {
    pub(super) fn new(desk: Desk, slot: &config::Slot) -> Self {
        let images = slot.images.iter().map(|(role, path)| (role.clone(), path.display().to_string()));
        Slot { desk, name: slot.name.clone(), images: images.collect() }
    }

    fn view(&self) -> zbus::fdo::Result<SlotView> {
        let status = self.desk.status();
        let found = status.slots.iter().find(|slot| slot.name == self.name).cloned();
        found.ok_or_else(|| zbus::fdo::Error::Failed("the slot is not known any more".into()))
    }
}

#[zbus::interface(name = "org.otad1.Slot", introspection_docs = false)]
impl Slot {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.name.clone()
    }

    #[zbus(property)]
    fn booted(&self) -> zbus::fdo::Result<bool> {
        self.view().map(|view| view.booted)
    }

    #[zbus(property)]
    fn primary(&self) -> zbus::fdo::Result<bool> {
        self.view().map(|view| view.primary)
    }

    #[zbus(property)]
    fn state(&self) -> zbus::fdo::Result<String> {
        self.view().map(|view| view.state.to_owned())
    }

    #[zbus(property)]
    fn version(&self) -> zbus::fdo::Result<String> {
        self.view().map(|view| view.version)
    }

    #[zbus(property)]
    fn sequence(&self) -> zbus::fdo::Result<u64> {
        self.view().map(|view| view.sequence)
    }

    #[zbus(property)]
    fn release(&self) -> zbus::fdo::Result<String> {
        self.view().map(|view| view.release)
    }

    #[zbus(property)]
    fn installed_at(&self) -> zbus::fdo::Result<u64> {
        self.view().map(|view| view.installed_at)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn images(&self) -> BTreeMap<String, String> {
        self.images.clone()
    }
}
