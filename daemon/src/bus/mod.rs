//! The bus layer: calls become requests to the engine, its status becomes properties and signals. Nothing is decided
//! here but who may ask.

mod authorize;
mod dictionary;
mod job;
mod manager;
mod places;
mod polkit;
mod publish;
mod slot;

pub use manager::{Check, Manager};
pub use publish::publish;

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use zbus::Connection;
use zbus::fdo::ObjectManager;

use crate::config::Config;
use crate::engine::{Answer, Message, Request, Status};
use crate::failure::{Code, Failure};

/// Which bus to serve on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// The system bus.
    System,
    /// The user's session bus.
    Session,
    /// A bus at an address, for tests and the demo.
    Address(String),
}

impl From<&str> for Bus {
    fn from(text: &str) -> Self {
        match text {
            "system" => Bus::System,
            "session" => Bus::Session,
            address => Bus::Address(address.to_owned()),
        }
    }
}

/// How the bus layer reaches the engine.
#[derive(Clone)]
pub struct Desk {
    messages: std::sync::mpsc::Sender<Message>,
    status: watch::Receiver<Arc<Status>>,
}

impl Desk {
    /// Takes the engine's queue and its status.
    pub fn new(messages: std::sync::mpsc::Sender<Message>, status: watch::Receiver<Arc<Status>>) -> Self {
        Desk { messages, status }
    }

    /// The newest status.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Has the engine do something that takes no time, to see that it lives.
    pub(crate) fn touch(&self, pulse: Box<dyn FnOnce() + Send>) {
        // An engine that is gone does not answer, which is what the caller wants to know.
        let _ = self.messages.send(Message::Touch(pulse));
    }

    /// Asks the engine and waits for its answer.
    pub async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        let gone = || Failure::new(Code::Internal, "the engine has stopped");
        let (reply, answer) = oneshot::channel();
        // The asker may have gone away; the engine does not mind.
        let reply = Box::new(move |result| drop(reply.send(result)));
        self.messages.send(Message::Ask(request, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[cfg(feature = "testing")]
pub use zbus::wire::Endian;

/// Reads the body of an `Install` message, as it would be read from the bus; for tests with hostile bytes.
#[cfg(feature = "testing")]
pub fn read_arguments(body: &[u8], endian: Endian) -> Result<(), Failure> {
    use zbus::wire::serialized::{Context, Data};
    type Arguments<'a> = (String, std::collections::HashMap<String, zbus::Variant<'a>>);
    let data = Data::new(body, Context::new(endian, 0));
    let ((_url, options), _length) = data
        .deserialize::<Arguments<'_>>()
        .map_err(|error| Failure::new(Code::InvalidOption, error.to_string()))?;
    dictionary::options(&options).map(drop)
}

/// Connects and registers every object; the name is not requested yet.
pub async fn connect(bus: &Bus, config: &Arc<Config>, manager: Manager) -> zbus::Result<Connection> {
    let builder = match bus {
        Bus::System => zbus::connection::Builder::system(),
        Bus::Session => zbus::connection::Builder::session(),
        Bus::Address(address) => zbus::connection::Builder::address(address.as_str()),
    };
    let desk = manager.desk().clone();
    let mut builder = builder
        .serve_at("/", ObjectManager)
        .serve_at(otad_dbus::MANAGER_PATH, ObjectManager)
        .serve_at(otad_dbus::MANAGER_PATH, manager);
    for slot in &config.slots {
        let object = slot::Slot::new(desk.clone(), slot);
        builder = builder.serve_at(format!("{}/{}", otad_dbus::SLOT_ROOT, slot.name), object);
    }
    builder.build().await
}

/// Requests the name; every object is there already, so nobody ever sees half of them.
pub async fn claim_name(connection: &Connection) -> Result<(), Failure> {
    use zbus::fdo::RequestNameFlags;
    connection
        .request_name_with_flags(otad_dbus::BUS_NAME, RequestNameFlags::DO_NOT_QUEUE)
        .await
        .map(drop)
        .map_err(|error| {
            let name = otad_dbus::BUS_NAME;
            if matches!(error, zbus::Error::NameTaken) {
                return Failure::new(
                    Code::AlreadyRunning,
                    format!("another program has the name {name} on the bus; stop it first"),
                );
            }
            Failure::new(
                Code::Internal,
                format!("cannot get the name {name} on the bus: {error}; is the bus policy installed?"),
            )
        })
}
