//! The running daemon: threads, queues and the bus, wired together.
//!
//! | thread | does |
//! |---|---|
//! | main | tokio, one thread: D-Bus, signals, the watchdog |
//! | engine | the lifecycle, one message after the other |
//! | install, health | one stage that takes long, then gone |
//! | poll | asks the server |
//!
//! Fetching and decompressing is done by processes of their own ([`crate::roles`]).

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bootenv::{FileStore, LockDirs, Scheme};
use otad_bundle::Chain;
use tokio::sync::watch;

use crate::adapters::block::SystemDevices;
use crate::adapters::clock::SystemClock;
use crate::adapters::health::SystemHealth;
use crate::adapters::http::{HttpFetch, Security, Times};
use crate::adapters::journal::FileTrail;
use crate::adapters::machine::SystemMachine;
use crate::adapters::model::ModelMachine;
use crate::adapters::state_fs::DataDirectory;
use crate::bus::{self, Bus, Desk, Manager};
use crate::config::{Backend, Config};
use crate::engine::{Audience, Engine, Message, Notice, Ports, Status, Task, Tasks};
use crate::failure::{Code, Failure, from_bundle};
use crate::ports::{Decoders, Fetch, Here, Machine};
use crate::roles::{Place, Processes, SeparateFetch};
use crate::threads::spawn;
use crate::trial::BootControl;
use crate::trust::{Keeper, built_at};
use crate::{poller, watchdog};

/// What is around the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surroundings {
    /// Nobody: it starts fetchers and health checks itself.
    Alone,
    /// Nobody, and it does everything itself, in one process: to measure what separation costs, and for nothing else.
    Together,
    /// The units of its package: they run those, and the daemon itself has no network.
    Units,
}

/// Where systemd listens for whoever wants a fetcher: `ListenStream=` of `otad-fetch.socket`.
const FETCHERS: &str = "/run/otad-fetch.sock";

/// Runs otad until it is told to stop or the model machine reboots.
pub fn run(config: Config, bus: &Bus, surroundings: Surroundings) -> Result<(), Failure> {
    let config = Arc::new(config);
    let _lock = only_one(&config.runtime_dir)?;
    let keeper = Arc::new(OnceLock::new());
    let ports = ports(&config, keeper.clone(), surroundings)?;
    let boot = Arc::new(boot_control(&config)?);
    let roots = Chain::read(&config.trust_root).map_err(|error| from_bundle(&error));
    let trust = roots.and_then(|roots| Keeper::open(roots, ports.fs.clone())).map(Arc::new);
    match &trust {
        Ok(trust) => drop(keeper.set(trust.clone())),
        Err(failure) => log::error!("{}: {failure}; nothing can be installed", failure.code),
    }

    let (messages, queue) = mpsc::channel();
    let (notices, told) = tokio::sync::mpsc::unbounded_channel();
    let (sender, status) = watch::channel(Arc::new(Status::starting()));
    let (started, start) = mpsc::channel();
    let threads = Box::new(Threads { messages: messages.clone() });
    let (wake_poller, wakes) = mpsc::channel();
    let audience = Box::new(Listeners { status: sender, notices, wake_poller });
    let (engine_config, engine_ports, engine_trust) = (config.clone(), ports.clone(), trust.clone());
    spawn("engine", move || {
        let start = || Engine::start(engine_config, engine_ports, boot, engine_trust, threads, audience);
        run_engine(start, &started, &queue);
    })?;
    start.recv().map_err(|_| Failure::new(Code::Internal, "the engine did not start"))??;

    let desk = Desk::new(messages.clone(), status.clone());
    let poller = poller::start(&config, &ports, &desk, trust.clone(), messages, wakes)?;
    let manager = Manager::new(desk.clone(), config.compatible.clone(), trust, poller);
    let runtime = runtime()?;
    let result = runtime.block_on(serve(config, bus, desk, manager, status, told));
    // A question to a dead server or an inspection of a silent pipe must not hold up a reboot.
    runtime.shutdown_background();
    result
}

/// Everything on the main thread.
async fn serve(
    config: Arc<Config>,
    bus: &Bus,
    desk: Desk,
    manager: Manager,
    status: watch::Receiver<Arc<Status>>,
    told: tokio::sync::mpsc::UnboundedReceiver<Notice>,
) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let no_bus = |error: zbus::Error| Failure::new(Code::Internal, format!("no D-Bus: {error}"));
    let connection = bus::connect(bus, &config, manager).await.map_err(no_bus)?;
    bus::claim_name(&connection).await?;
    watchdog::ready(&desk.status());
    let no_signal =
        |error: std::io::Error| Failure::new(Code::Resource, format!("no signal handler: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let (gone, mut machine_gone) = watch::channel(false);
    // A model machine goes down with its otad; a real one is systemd's business.
    let goes_down = matches!(config.boot.backend, Backend::File(_));
    let rebooting = move || {
        let _ = gone.send(goes_down);
    };
    tokio::select! {
        () = bus::publish(&connection, &desk, status.clone(), told, rebooting) => {
            return Err(Failure::new(Code::Internal, "the engine has stopped"));
        }
        () = watchdog::feed(&desk) => {}
        () = bus_lost(&connection, status.clone()) => {
            return Err(Failure::new(Code::Internal, "the message bus is gone; otad starts again and connects anew"));
        }
        _ = terminate.recv() => log::info!("told to stop; a job under way ends as interrupted and can be repeated"),
        _ = interrupt.recv() => log::info!("interrupted"),
        _ = machine_gone.wait_for(|gone| *gone) => log::info!("the model machine goes down"),
    }
    watchdog::stopping();
    // The answer to whoever asked for the reboot may still be on its way.
    tokio::time::sleep(LAST_WORDS).await;
    Ok(())
}

/// Returns when the bus is gone and no job is under way: an install goes on without it (D9), and the next start of otad
/// connects anew.
async fn bus_lost(connection: &zbus::Connection, mut status: watch::Receiver<Arc<Status>>) {
    connection.closed().await;
    log::warn!("the message bus is gone");
    // An error means that the engine is gone too.
    let _ = status.wait_for(|status| status.job.is_none()).await;
}

/// Runs the engine on this thread; `started` hears once that it runs, or why not.
fn run_engine(
    start: impl FnOnce() -> Result<Engine, Failure>,
    started: &Sender<Result<(), Failure>>,
    queue: &Receiver<Message>,
) {
    let (mut engine, started_well) = match start() {
        Ok(engine) => (engine, started.send(Ok(()))),
        Err(failure) => {
            let _ = started.send(Err(failure));
            return;
        }
    };
    if started_well.is_err() {
        return;
    }
    while let Ok(message) = queue.recv() {
        engine.handle(message);
    }
}

struct Listeners {
    status: watch::Sender<Arc<Status>>,
    notices: tokio::sync::mpsc::UnboundedSender<Notice>,
    wake_poller: Sender<()>,
}

impl Audience for Listeners {
    fn status(&self, status: Status) {
        let reportable = !status.record.reports.is_empty();
        self.status.send_replace(Arc::new(status));
        if reportable {
            // There is no poller when no server is configured.
            let _ = self.wake_poller.send(());
        }
    }

    fn notice(&self, notice: Notice) {
        // Nobody listens any more only when the daemon is stopping.
        let _ = self.notices.send(notice);
    }
}

struct Threads {
    messages: Sender<Message>,
}

impl Tasks for Threads {
    fn start(&self, name: &str, task: Task) -> Result<(), Failure> {
        let messages = self.messages.clone();
        spawn(name, move || {
            let _ = messages.send(task());
        })
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| Failure::new(Code::Resource, format!("no runtime: {error}")))
}

fn ports(
    config: &Config,
    trust: Arc<OnceLock<Arc<Keeper>>>,
    surroundings: Surroundings,
) -> Result<Ports, Failure> {
    let machine: Arc<dyn Machine> = match &config.boot.backend {
        Backend::Uboot => Arc::new(SystemMachine::new(config)),
        Backend::File(dir) => Arc::new(ModelMachine::new(config, dir)),
    };
    let earliest = move || trust.get().map_or_else(built_at, |trust| trust.earliest());
    let Helpers { fetch, decoders } = helpers(config, earliest, surroundings)?;
    Ok(Ports {
        fs: Arc::new(DataDirectory::open(&config.data_dir)?),
        devices: Arc::new(SystemDevices),
        // The engine introduces the device once it knows which version runs.
        fetch,
        decoders,
        clock: Arc::new(SystemClock::default()),
        machine,
        health: Arc::new(SystemHealth::new(&config.health, &config.runtime_dir, surroundings)),
        trail: Arc::new(FileTrail::new(config.data_dir.join("trial.log"))),
        lanes: std::thread::available_parallelism().map_or(1, usize::from).min(MOST_LANES),
    })
}

/// Who fetches and who decompresses.
struct Helpers {
    fetch: Arc<dyn Fetch>,
    decoders: Arc<dyn Decoders>,
}

fn helpers(
    config: &Config,
    earliest: impl Fn() -> u64 + Send + Sync + 'static,
    surroundings: Surroundings,
) -> Result<Helpers, Failure> {
    let server = config.server.as_ref();
    let place = match surroundings {
        Surroundings::Alone => Place::Child,
        Surroundings::Units => Place::Socket(FETCHERS.into()),
        Surroundings::Together => {
            log::warn!("everything is done in one process: that is for measuring only");
            // The engine introduces the device once it knows which version runs.
            let fetch = HttpFetch::new(server.map(|server| server.url.as_str()), "otad")?;
            let times = Times::bounded(earliest);
            let security = match server {
                Some(server) => Security::of(server, times),
                None => Ok(Security::public(times)),
            };
            return Ok(Helpers { fetch: Arc::new(fetch.secured(security)), decoders: Arc::new(Here) });
        }
    };
    let fetch = Arc::new(SeparateFetch::new(place, server, earliest)?);
    Ok(Helpers { fetch, decoders: Arc::new(Processes) })
}

pub(crate) fn boot_control(config: &Config) -> Result<BootControl, Failure> {
    let path = config.boot.env_config.display().to_string();
    let wrong =
        |what: &dyn std::fmt::Display| Failure::new(Code::EnvConfigMismatch, format!("{path}: {what}"));
    let env = bootenv::Config::from_file(&config.boot.env_config).map_err(|error| wrong(&error))?;
    let store = FileStore::new(&env).map_err(|error| wrong(&error))?;
    let [a, b] = &config.slots;
    let scheme = Scheme::new(config.boot.scheme, [&a.name, &b.name], config.boot.limit)
        .map_err(|error| Failure::new(Code::Config, error.to_string()))?;
    let locks = match config.boot.backend {
        Backend::Uboot => LockDirs::system(),
        // Nobody but otad and its model touches an environment made of files.
        Backend::File(_) => LockDirs::new([config.runtime_dir.clone()]),
    };
    Ok(BootControl::new(Box::new(store), scheme, locks))
}

/// Keeps a second otad out (D3). The lock goes with the process.
fn only_one(dir: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, Failure> {
    use nix::fcntl::{Flock, FlockArg};
    let path = dir.join("lock");
    let fail = |error: std::io::Error| {
        Failure::new(Code::StateIo, format!("cannot use {}: {error}", path.display()))
    };
    std::fs::create_dir_all(dir).map_err(fail)?;
    let file = std::fs::File::create(&path).map_err(fail)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Failure::new(
            Code::AlreadyRunning,
            format!("another otad holds {}; stop it first", path.display()),
        ),
        errno => fail(errno.into()),
    })
}

/// Threads of a stage: no slot is fast enough for more, and each of them takes memory.
const MOST_LANES: usize = 4;

/// What a reply needs to get out of the process; a local socket takes microseconds.
const LAST_WORDS: Duration = Duration::from_millis(100);
