//! The connection to otad: calls, and the stream of what happens on the other side.
//!
//! Promises: events come in the order in which they were sent, none is lost between [`Link::listen`] and the end of the
//! program, and only the owner of `org.otad1` is believed. Holds no knowledge of what a command wants.

use std::collections::HashMap;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use otad_dbus::{BUS_NAME, JOB_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH, ManagerProxy, value::option};
use tokio::sync::mpsc;
use zbus::connection::Builder;
use zbus::fdo::{self, DBusProxy, NameOwnerChanged, PropertiesChanged};
use zbus::message::{Sequence, Type};
use zbus::names::BusName;
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, Message, MessageStream, Variant};

use super::fields::Dict;
use super::model::{Device, Job, Outcome};
use super::source::Source;
use super::trouble::Trouble;

/// How long an answer may take. Otad answers a call when the act is done, and `Check` waits for a server: more than
/// the 25 s that are common on D-Bus, and still an end.
const PATIENCE: Duration = Duration::from_secs(90);

/// Messages that may wait in zbus before the reader of the socket stops; the pump drains them at once.
const QUEUED_MESSAGES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// Something that happened on the other side, or here.
#[derive(Debug)]
pub(super) enum Event {
    /// Properties of an object changed.
    Changed { path: String, interface: String, properties: Dict, position: Sequence },
    /// A job ended.
    JobRemoved(JobEnd),
    /// Otad appeared on the bus.
    Appeared,
    /// Otad disappeared from the bus.
    Vanished,
    /// The bus is gone.
    BusLost,
    /// The person at the terminal pressed Ctrl-C.
    Interrupt,
}

/// What `JobRemoved` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobEnd {
    pub(super) job: String,
    pub(super) result: String,
    pub(super) error: String,
    pub(super) message: String,
}

/// What the person asks of an install.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct InstallOptions {
    pub(super) reboot: bool,
    pub(super) delta: Option<String>,
}

/// Events, first come first served.
pub(super) struct Events(mpsc::UnboundedReceiver<Event>);

impl Events {
    /// Waits for the next event.
    pub(super) async fn next(&mut self) -> Event {
        // The pump says `BusLost` before it ends; that it ended says the same.
        self.0.recv().await.unwrap_or(Event::BusLost)
    }

    /// Waits for the next event, but not longer than `limit`.
    pub(super) async fn next_within(&mut self, limit: Duration) -> Option<Event> {
        tokio::time::timeout(limit, self.next()).await.ok()
    }
}

/// An open connection.
pub(super) struct Link {
    connection: Connection,
    manager: ManagerProxy<'static>,
}

impl Link {
    /// Connects to a bus: `system`, `session` or a D-Bus address.
    pub(super) async fn open(bus: &str) -> Result<Link, Trouble> {
        let builder = match bus {
            "system" => Builder::system(),
            "session" => Builder::session(),
            address => {
                let parsed: zbus::Address = address.parse().map_err(|source| Trouble::Address {
                    address: address.to_owned(),
                    source: Box::new(source),
                })?;
                Builder::address(parsed)
            }
        };
        let no_bus = |source| Trouble::NoBus { bus: bus.to_owned(), source: Box::new(source) };
        let connection =
            builder.max_queued(QUEUED_MESSAGES).method_timeout(PATIENCE).build().await.map_err(no_bus)?;
        let manager = ManagerProxy::builder(&connection).cache_properties(CacheProperties::No);
        let manager = manager.build().await.map_err(no_bus)?;
        Ok(Link { connection, manager })
    }

    /// Asks for everything at once. The object manager stands on the root, so one answer holds the manager, its slots
    /// and the job.
    pub(super) async fn device(&self) -> Result<Device, Trouble> {
        let call = self.connection.call_method(
            Some(BUS_NAME),
            "/",
            Some("org.freedesktop.DBus.ObjectManager"),
            "GetManagedObjects",
            &(),
        );
        let answer = call.await.map_err(explain)?;
        let mut device = Device::read(&answer.body().deserialize().map_err(explain)?)?;
        if let Some(job) = &mut device.job {
            job.as_of = answer.recv_position();
        }
        Ok(device)
    }

    /// What a job's properties are now; `None` when it ended already. Only later changes are signalled.
    pub(super) async fn job(&self, path: &str) -> Result<Option<Job>, Trouble> {
        let call = self.connection.call_method(
            Some(BUS_NAME),
            path,
            Some("org.freedesktop.DBus.Properties"),
            "GetAll",
            &JOB_INTERFACE,
        );
        match call.await {
            Ok(answer) => {
                let mut job = Job::read(path, &answer.body().deserialize().map_err(explain)?)?;
                job.as_of = answer.recv_position();
                Ok(Some(job))
            }
            Err(error) => match (is_no_object(&error), explain(error)) {
                (true, _) => Ok(None),
                // Otad went away again: the events say so next.
                (false, trouble) if trouble.is_absence() => Ok(None),
                (false, trouble) => Err(trouble),
            },
        }
    }

    /// Starts an install and returns the path of its job.
    pub(super) async fn install(&self, source: Source, wanted: InstallOptions) -> Result<String, Trouble> {
        let mut options: HashMap<&str, Variant<'_>> = HashMap::new();
        // Only what is asked for: an older otad refuses options it does not know.
        if wanted.reboot {
            options.insert(option::REBOOT, true.into());
        }
        if let Some(delta) = wanted.delta {
            options.insert(option::DELTA, delta.into());
        }
        let job = match source {
            Source::Url(url) => self.manager.install(&url, options).await,
            Source::Descriptor(descriptor) => self.manager.install_fd(descriptor.into(), options).await,
        };
        Ok(job.map_err(explain)?.as_str().to_owned())
    }

    pub(super) async fn commit(&self) -> Result<(), Trouble> {
        self.manager.commit().await.map_err(explain)
    }

    pub(super) async fn rollback(&self) -> Result<(), Trouble> {
        self.manager.rollback().await.map_err(explain)
    }

    pub(super) async fn cancel(&self) -> Result<(), Trouble> {
        self.manager.cancel().await.map_err(explain)
    }

    pub(super) async fn reboot(&self) -> Result<(), Trouble> {
        self.manager.reboot().await.map_err(explain)
    }

    /// Whether the server had something to install.
    pub(super) async fn check(&self) -> Result<bool, Trouble> {
        self.manager.check().await.map_err(explain)
    }

    /// The history, oldest first.
    pub(super) async fn history(&self) -> Result<Vec<Outcome>, Trouble> {
        let entries = self.manager.history().await.map_err(explain)?;
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in &entries {
            outcomes.extend(Outcome::read(entry)?);
        }
        Ok(outcomes)
    }

    /// Subscribes to everything otad says. Do this before the call whose consequences matter: a job can end at once.
    pub(super) async fn listen(&self) -> Result<Events, Trouble> {
        let (sender, events) = mpsc::unbounded_channel();
        // The stream exists before the bus knows the rules, so nothing falls between.
        let stream = MessageStream::from(&self.connection);
        let bus = DBusProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await;
        let bus = bus.map_err(explain)?;
        for rule in rules().map_err(explain)? {
            bus.add_match_rule(rule).await.map_err(|error| explain(error.into()))?;
        }
        let name = BusName::try_from(BUS_NAME).map_err(explain)?;
        let owner = match bus.get_name_owner(name).await {
            Ok(owner) => Some(owner.as_str().to_owned()),
            // Not an error yet: the bus may start otad when it is called.
            Err(fdo::Error::NameHasNoOwner(_)) => None,
            Err(error) => return Err(explain(error.into())),
        };
        tokio::spawn(Pump { stream, owner, events: sender.clone() }.run());
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if sender.send(Event::Interrupt).is_err() {
                    break;
                }
            }
        });
        Ok(Events(events))
    }
}

/// Waits for an answer, but lets Ctrl-C end the wait: the handler that [`Link::listen`] sets up keeps the signal from
/// ending the program by itself.
pub(super) async fn unless_interrupted<T>(
    answer: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let (mut answer, mut interrupt) = (pin!(answer), pin!(tokio::signal::ctrl_c()));
    poll_fn(|context| {
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(answer);
        }
        interrupt.as_mut().poll(context).map(|_| {
            let message = "interrupted while otad had not answered; `otactl status` tells what it does";
            Err(Trouble::Detached(message.to_owned()))
        })
    })
    .await
}

/// Whether an error says that the object, with its interfaces, does not exist.
fn is_no_object(error: &zbus::Error) -> bool {
    let zbus::Error::FDO(error) = error else { return false };
    matches!(
        **error,
        fdo::Error::UnknownObject(_) | fdo::Error::UnknownInterface(_) | fdo::Error::UnknownMethod(_)
    )
}

fn explain(error: zbus::Error) -> Trouble {
    Trouble::from_bus(error, PATIENCE)
}

/// What the bus shall deliver: signals of otad's objects, and the comings and goings of otad.
fn rules() -> zbus::Result<[MatchRule<'static>; 2]> {
    let signals =
        MatchRule::builder().msg_type(Type::Signal).sender(BUS_NAME).path_namespace(MANAGER_PATH).build()?;
    let owner = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, BUS_NAME)
        .build()?;
    Ok([signals, owner])
}

/// Turns messages into events and never lets them queue up: a full queue would stop the socket, and with it every answer.
struct Pump {
    stream: MessageStream,
    /// Unique name of otad's connection. The bus also delivers signals that somebody sends to us alone, whatever the
    /// rules say, and those may be forged.
    owner: Option<String>,
    events: mpsc::UnboundedSender<Event>,
}

impl Pump {
    async fn run(mut self) {
        loop {
            let event = match poll_fn(|context| Pin::new(&mut self.stream).poll_next(context)).await {
                Some(Ok(message)) => self.event(&message),
                Some(Err(_)) | None => Some(Event::BusLost),
            };
            let Some(event) = event else { continue };
            let is_last = matches!(event, Event::BusLost);
            if self.events.send(event).is_err() || is_last {
                return;
            }
        }
    }

    fn event(&mut self, message: &Message) -> Option<Event> {
        if message.message_type() != Type::Signal {
            return None;
        }
        if let Some(change) = NameOwnerChanged::from_message(message.clone()) {
            return self.owner_changed(message, &change);
        }
        let header = message.header();
        if header.sender()?.as_str() != self.owner.as_deref()? {
            return None;
        }
        let path = header.path()?.as_str().to_owned();
        if let Some(change) = PropertiesChanged::from_message(message.clone()) {
            let arguments = change.args().ok()?;
            let owned =
                |(key, value): (&&str, &Variant<'_>)| Some(((*key).to_owned(), value.try_to_owned().ok()?));
            let properties = arguments.changed_properties().iter().map(owned).collect::<Option<Dict>>()?;
            let interface = arguments.interface_name().as_str().to_owned();
            let position = message.recv_position();
            return Some(Event::Changed { path, interface, properties, position });
        }
        let is_job_removed = header.interface()?.as_str() == MANAGER_INTERFACE
            && header.member()?.as_str() == "JobRemoved"
            && path == MANAGER_PATH;
        if !is_job_removed {
            return None;
        }
        type Arguments = (zbus::OwnedObjectPath, String, String, String);
        let (job, result, error, text) = message.body().deserialize::<Arguments>().ok()?;
        Some(Event::JobRemoved(JobEnd { job: job.as_str().to_owned(), result, error, message: text }))
    }

    fn owner_changed(&mut self, message: &Message, change: &NameOwnerChanged) -> Option<Event> {
        // Nobody but the bus itself can have this sender.
        if message.header().sender()?.as_str() != "org.freedesktop.DBus" {
            return None;
        }
        let arguments = change.args().ok()?;
        if arguments.name().as_str() != BUS_NAME {
            return None;
        }
        let before = self.owner.take();
        self.owner = arguments.new_owner().as_ref().map(|owner| owner.as_str().to_owned());
        match (before, &self.owner) {
            (None, None) => None,
            (Some(_), None) => Some(Event::Vanished),
            (None, Some(_)) => Some(Event::Appeared),
            (Some(before), Some(now)) if before == *now => None,
            (Some(_), Some(_)) => {
                // One took over from the other: for whoever waits, the old one vanished. A closed channel shows at
                // the next send.
                let _ = self.events.send(Event::Vanished);
                Some(Event::Appeared)
            }
        }
    }
}
