//! The `org.otad1` D-Bus contract, shared by the daemon, `otactl` and programs on the device.
//!
//! Owns: names and paths, the stable error codes, the shapes of dictionaries, and typed proxies (feature `proxy`).
//! It holds no behaviour of either side. `org.otad1.xml` beside this crate is the golden introspection document;
//! a test of the daemon compares it with what the bus really shows.

mod code;
#[cfg(feature = "proxy")]
mod proxy;
pub mod value;

pub use code::{Class, Code, Failure};
#[cfg(feature = "proxy")]
pub use proxy::{JobProxy, ManagerProxy, SlotProxy};

/// The well-known bus name of otad.
pub const BUS_NAME: &str = "org.otad1";
/// The object that carries [`MANAGER_INTERFACE`].
pub const MANAGER_PATH: &str = "/org/otad1";
/// Interface of the manager object.
pub const MANAGER_INTERFACE: &str = "org.otad1.Manager";
/// Interface of slot objects, `/org/otad1/slot/<name>`.
pub const SLOT_INTERFACE: &str = "org.otad1.Slot";
/// Interface of job objects, `/org/otad1/job/<number>`.
pub const JOB_INTERFACE: &str = "org.otad1.Job";
/// Parent of all slot objects.
pub const SLOT_ROOT: &str = "/org/otad1/slot";
/// Parent of all job objects.
pub const JOB_ROOT: &str = "/org/otad1/job";
/// What `CurrentJob` holds while nothing is under way (a D-Bus object path cannot be empty).
pub const NO_JOB: &str = "/";
/// Prefix of every D-Bus error name of otad; [`Code::dbus_name`] makes the whole name.
pub const ERROR_PREFIX: &str = "org.otad1.Error.";
/// Raised by one whenever a member is added; members are never removed or changed.
pub const API_REVISION: u32 = 1;

/// The golden introspection document of all three interfaces.
pub const INTROSPECTION: &str = include_str!("../org.otad1.xml");
