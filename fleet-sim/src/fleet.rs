//! Many devices on a few threads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::device::{Device, DeviceError};

/// Shortest time between two questions of a device.
const ROUND: Duration = Duration::from_millis(100);

/// What all devices of a fleet share.
#[derive(Debug, Default)]
pub struct World {
    weak: AtomicBool,
    stop: AtomicBool,
    committed: Mutex<BTreeSet<String>>,
}

impl World {
    /// Says whether new releases fail on devices that are weak.
    pub fn set_weak(&self, weak: bool) {
        self.weak.store(weak, Ordering::Release);
    }

    /// Whether they do.
    pub fn is_weak(&self) -> bool {
        self.weak.load(Ordering::Acquire)
    }

    /// Whether the fleet stops, or has stopped because something happened that must not.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The devices that have committed a release, whatever the server knows of it.
    pub fn committed(&self) -> BTreeSet<String> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn commit(&self, device: &str) {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).insert(device.to_owned());
    }
}

/// A fleet at work; it stops when it is dropped.
pub struct Fleet {
    world: Arc<World>,
    threads: Vec<JoinHandle<Result<Vec<Device>, DeviceError>>>,
}

impl Fleet {
    /// Lets devices live, on so many threads.
    pub fn start(devices: Vec<Device>, threads: usize) -> Fleet {
        let world = Arc::new(World::default());
        let mut shares: Vec<Vec<Device>> = (0..threads.max(1)).map(|_| Vec::new()).collect();
        let mut devices = devices.into_iter();
        while devices.len() > 0 {
            for (share, device) in shares.iter_mut().zip(devices.by_ref()) {
                share.push(device);
            }
        }
        let live = |share: Vec<Device>| {
            let world = world.clone();
            std::thread::spawn(move || live(share, &world))
        };
        let threads = shares.into_iter().map(live).collect();
        Fleet { world, threads }
    }

    /// What the devices share.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Stops, and hands the devices over.
    ///
    /// # Errors
    /// What happened to a device that must not.
    pub fn stop(mut self) -> Result<Vec<Device>, DeviceError> {
        self.world.stop.store(true, Ordering::Release);
        let mut devices = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(share) => devices.extend(share?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(devices)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.world.stop.store(true, Ordering::Release);
    }
}

fn live(mut devices: Vec<Device>, world: &World) -> Result<Vec<Device>, DeviceError> {
    while !world.is_over() {
        let begin = Instant::now();
        for device in &mut devices {
            if world.is_over() {
                break;
            }
            if let Err(error) = device.step(world) {
                // The others need not go on, and whoever waits for them has to hear of it.
                world.stop.store(true, Ordering::Release);
                return Err(error);
            }
        }
        std::thread::sleep(ROUND.saturating_sub(begin.elapsed()));
    }
    Ok(devices)
}
