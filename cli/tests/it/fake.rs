//! A private bus, a stand-in for otad on it that plays a script, and a way to run `otactl` against both.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use zbus::message::Header;
use zbus::names::{ErrorName, UniqueName};
use zbus::object_server::ObjectServer;
use zbus::{Connection, DBusError, Message, OwnedObjectPath, OwnedVariant, Variant};

/// The only job of the fake.
pub(crate) const JOB: &str = "/org/otad1/job/1";

/// No command of these tests needs longer; a hang is a failure, not a stuck suite.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) type Dict = HashMap<String, OwnedVariant>;

/// Makes an `a{sv}`.
pub(crate) fn dict<const N: usize>(entries: [(&str, Variant<'_>); N]) -> Dict {
    entries.into_iter().map(|(key, value)| (key.to_owned(), OwnedVariant::try_from(value).unwrap())).collect()
}

/// A `dbus-daemon` of its own in a directory of its own; both are gone after the test, also after a panic.
pub(crate) struct Bus {
    daemon: Child,
    pub(crate) address: String,
    directory: tempfile::TempDir,
}

impl Bus {
    /// Starts a bus that delivers everything but the call `Reboot`.
    pub(crate) fn start() -> Bus {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("bus.conf");
        let socket = directory.path().join("bus");
        let text = format!(
            r#"<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
            <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
            <deny send_destination="org.otad1" send_interface="org.otad1.Manager" send_member="Reboot"/></policy></busconfig>"#,
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::piped())
            // It complains about limits it may not raise; that it did not start shows below.
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon must be installed for these tests");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("unix:path="), "dbus-daemon did not start: {address:?}");
        Bus { daemon, address: address.trim().to_owned(), directory }
    }

    /// A file in the bus's directory.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `otactl` with its bus set and nothing on standard input.
    pub(crate) fn otactl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otactl"));
        command.args(arguments).env("OTAD_BUS", &self.address).env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    /// Runs `otactl` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.otactl(arguments))
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(mut command: Command) -> Ran {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ran::finish(command.spawn().unwrap())
    }

    /// Waits for the end, but not for ever.
    pub(crate) fn finish(child: Child) -> Ran {
        let id = child.id();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if is_done.recv_timeout(DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            }
        });
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        drop(done);
        watchdog.join().unwrap();
        Ran {
            status: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Standard output as one JSON value per line.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What the fake does after an install was asked for, one after the other.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Properties of the job change.
    Job(Dict),
    /// Nothing happens for so many milliseconds.
    Pause(u64),
    /// `JobRemoved`: result, error, message.
    Removed(&'static str, &'static str, &'static str),
    /// State and last result change.
    Become(&'static str, Dict),
    /// The booted slot's state changes without a signal (it was another boot).
    Boot { slot: &'static str, state: &'static str },
    /// The name leaves the bus.
    Vanish,
    /// The name comes back, as after a restart.
    Return,
    /// Somebody else sends the client a `JobRemoved` that says `done`.
    Forge,
}

/// What the fake is and does.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) state: String,
    pub(crate) last_result: Dict,
    pub(crate) history: Vec<Dict>,
    pub(crate) booted: String,
    pub(crate) primary: String,
    pub(crate) slot_states: HashMap<String, String>,
    pub(crate) update_found: bool,
    /// Steps before the reply to an install.
    pub(crate) before_reply: Vec<Step>,
    /// Steps after it.
    pub(crate) script: Vec<Step>,
    /// Whether a job runs from the beginning, which then plays `script`.
    pub(crate) running: bool,
    /// The error that every method returns.
    pub(crate) refusal: Option<&'static str>,
    /// Bytes that came through the descriptor.
    pub(crate) received: Option<Vec<u8>>,
    /// Methods that were called, with the options of installs.
    pub(crate) calls: Vec<String>,
    /// Properties of the job so far; the script sets them.
    pub(crate) job: Dict,
}

impl World {
    /// A confirmed slot a with 2.0.0, a disarmed slot b, nothing under way.
    pub(crate) fn idle() -> World {
        World {
            state: "idle".to_owned(),
            last_result: Dict::new(),
            history: Vec::new(),
            booted: "a".to_owned(),
            primary: "a".to_owned(),
            slot_states: [("a", "confirmed"), ("b", "disarmed")]
                .map(|(slot, state)| (slot.to_owned(), state.to_owned()))
                .into(),
            update_found: false,
            before_reply: Vec::new(),
            script: Vec::new(),
            running: false,
            refusal: None,
            received: None,
            calls: Vec::new(),
            job: Dict::new(),
        }
    }
}

/// The stand-in for otad.
pub(crate) struct Fake {
    world: Arc<Mutex<World>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Serves `world` on the bus; when this returns, the name is taken.
    pub(crate) fn start(bus: &Bus, world: World) -> Fake {
        let world = Arc::new(Mutex::new(world));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (shared, address) = (Arc::clone(&world), bus.address.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let connection = serve(&address, shared).await.unwrap();
                ready.send(()).unwrap();
                let _ = stopped.await;
                drop(connection);
            });
        });
        is_ready.recv_timeout(DEADLINE).expect("the fake did not start");
        Fake { world, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(address: &str, world: Arc<Mutex<World>>) -> zbus::Result<Connection> {
    let running = world.lock().unwrap().running;
    let player = Player { world: Arc::clone(&world), address: address.to_owned() };
    let connection = zbus::connection::Builder::address(address)
        .serve_at("/", zbus::fdo::ObjectManager)
        .serve_at("/org/otad1", Manager(player.clone()))
        .serve_at("/org/otad1/slot/a", Slot(Arc::clone(&world), "a"))
        .serve_at("/org/otad1/slot/b", Slot(Arc::clone(&world), "b"))
        .build()
        .await?;
    if running {
        connection.object_server().at(JOB, Job(Arc::clone(&world))).await?;
    }
    connection.request_name("org.otad1").await?;
    if running {
        let connection = connection.clone();
        tokio::spawn(async move {
            let steps = player.world.lock().unwrap().script.clone();
            player.play(&connection, steps, None).await.unwrap();
        });
    }
    Ok(connection)
}

/// An error with any name.
#[derive(Debug)]
struct Refusal(&'static str);

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.0).build(&("the fake refuses",))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.0)
    }

    fn description(&self) -> Option<&str> {
        Some("the fake refuses")
    }
}

#[derive(Clone)]
struct Player {
    world: Arc<Mutex<World>>,
    address: String,
}

impl Player {
    fn note(&self, call: String) -> Result<(), Refusal> {
        let mut world = self.world.lock().unwrap();
        world.calls.push(call);
        world.refusal.map_or(Ok(()), |name| Err(Refusal(name)))
    }

    async fn begin(
        &self,
        connection: &Connection,
        server: &ObjectServer,
        client: UniqueName<'static>,
    ) -> OwnedObjectPath {
        server.at(JOB, Job(Arc::clone(&self.world))).await.unwrap();
        let (before, after) = {
            let mut world = self.world.lock().unwrap();
            world.running = true;
            (world.before_reply.clone(), world.script.clone())
        };
        self.play(connection, before, Some(&client)).await.unwrap();
        let (player, connection) = (self.clone(), connection.clone());
        tokio::spawn(async move { player.play(&connection, after, Some(&client)).await.unwrap() });
        OwnedObjectPath::try_from(JOB).unwrap()
    }

    async fn play(
        &self,
        bus: &Connection,
        steps: Vec<Step>,
        client: Option<&UniqueName<'_>>,
    ) -> zbus::Result<()> {
        for step in steps {
            match step {
                Step::Job(properties) => {
                    self.world.lock().unwrap().job.extend(properties.clone());
                    changed(bus, JOB, "org.otad1.Job", properties).await?;
                }
                Step::Pause(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
                Step::Removed(result, error, message) => {
                    self.world.lock().unwrap().running = false;
                    let body = (OwnedObjectPath::try_from(JOB)?, result, error, message);
                    let path = "/org/otad1";
                    bus.emit_signal(None::<&str>, path, "org.otad1.Manager", "JobRemoved", &body).await?;
                }
                Step::Become(state, last_result) => {
                    {
                        let mut world = self.world.lock().unwrap();
                        state.clone_into(&mut world.state);
                        world.last_result.clone_from(&last_result);
                    }
                    let properties =
                        dict([("State", state.into()), ("LastResult", Variant::new(last_result))]);
                    changed(bus, "/org/otad1", "org.otad1.Manager", properties).await?;
                }
                Step::Boot { slot, state } => {
                    let mut world = self.world.lock().unwrap();
                    slot.clone_into(&mut world.booted);
                    slot.clone_into(&mut world.primary);
                    world.slot_states.insert(slot.to_owned(), state.to_owned());
                    world.running = false;
                }
                Step::Vanish => {
                    bus.release_name("org.otad1").await?;
                }
                Step::Return => bus.request_name("org.otad1").await?,
                Step::Forge => {
                    let forger = zbus::connection::Builder::address(self.address.as_str()).build().await?;
                    let body = (OwnedObjectPath::try_from(JOB)?, "done", "", "forged");
                    let path = "/org/otad1";
                    forger.emit_signal(client, path, "org.otad1.Manager", "JobRemoved", &body).await?;
                    forger.close().await?;
                }
            }
        }
        Ok(())
    }
}

async fn changed(bus: &Connection, path: &str, interface: &str, properties: Dict) -> zbus::Result<()> {
    let body = (interface, properties, Vec::<&str>::new());
    bus.emit_signal(None::<&str>, path, "org.freedesktop.DBus.Properties", "PropertiesChanged", &body).await
}

struct Manager(Player);

fn shown(options: &HashMap<String, OwnedVariant>) -> String {
    let mut keys: Vec<&str> = options.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys.join(",")
}

#[zbus::interface(name = "org.otad1.Manager")]
impl Manager {
    async fn install(
        &self,
        url: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(object_server)] server: &ObjectServer,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.0.note(format!("Install {url} [{}]", shown(&options)))?;
        Ok(self.0.begin(connection, server, header.sender().unwrap().to_owned()).await)
    }

    async fn install_fd(
        &self,
        bundle: zbus::OwnedFd,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(object_server)] server: &ObjectServer,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.0.note(format!("InstallFd [{}]", shown(&options)))?;
        let world = Arc::clone(&self.0.world);
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            std::fs::File::from(OwnedFd::from(bundle)).read_to_end(&mut bytes).unwrap();
            world.lock().unwrap().received = Some(bytes);
        });
        Ok(self.0.begin(connection, server, header.sender().unwrap().to_owned()).await)
    }

    fn check(&self) -> Result<bool, Refusal> {
        self.0.note("Check".to_owned())?;
        Ok(self.0.world.lock().unwrap().update_found)
    }

    fn commit(&self) -> Result<(), Refusal> {
        self.0.note("Commit".to_owned())
    }

    fn rollback(&self) -> Result<(), Refusal> {
        self.0.note("Rollback".to_owned())
    }

    fn cancel(&self) -> Result<(), Refusal> {
        self.0.note("Cancel".to_owned())
    }

    fn reboot(&self) -> Result<(), Refusal> {
        self.0.note("Reboot".to_owned())
    }

    fn history(&self) -> Result<Vec<Dict>, Refusal> {
        self.0.note("History".to_owned())?;
        Ok(self.0.world.lock().unwrap().history.clone())
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.0.world.lock().unwrap().state.clone()
    }

    #[zbus(property)]
    fn booted_slot(&self) -> String {
        self.0.world.lock().unwrap().booted.clone()
    }

    #[zbus(property)]
    fn primary_slot(&self) -> String {
        self.0.world.lock().unwrap().primary.clone()
    }

    #[zbus(property)]
    fn current_job(&self) -> OwnedObjectPath {
        let running = self.0.world.lock().unwrap().running;
        OwnedObjectPath::try_from(if running { JOB } else { "/" }).unwrap()
    }

    #[zbus(property)]
    fn compatible(&self) -> String {
        "acme-gateway".to_owned()
    }

    #[zbus(property)]
    fn version(&self) -> String {
        "2.0.0".to_owned()
    }

    #[zbus(property)]
    fn api_revision(&self) -> u32 {
        1
    }

    #[zbus(property)]
    fn last_result(&self) -> Dict {
        self.0.world.lock().unwrap().last_result.clone()
    }
}

struct Slot(Arc<Mutex<World>>, &'static str);

#[zbus::interface(name = "org.otad1.Slot")]
impl Slot {
    #[zbus(property)]
    fn name(&self) -> String {
        self.1.to_owned()
    }

    #[zbus(property)]
    fn booted(&self) -> bool {
        self.0.lock().unwrap().booted == self.1
    }

    #[zbus(property)]
    fn primary(&self) -> bool {
        self.0.lock().unwrap().primary == self.1
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.0.lock().unwrap().slot_states.get(self.1).unwrap().clone()
    }

    #[zbus(property)]
    fn version(&self) -> String {
        if self.1 == "a" { "2.0.0".to_owned() } else { "2.1.0".to_owned() }
    }

    #[zbus(property)]
    fn sequence(&self) -> u64 {
        if self.1 == "a" { 41 } else { 42 }
    }

    #[zbus(property)]
    fn release(&self) -> String {
        self.1.repeat(64)
    }

    #[zbus(property)]
    fn installed_at(&self) -> u64 {
        if self.1 == "a" { 1_795_365_942 } else { 0 }
    }

    #[zbus(property)]
    fn images(&self) -> HashMap<String, String> {
        [("rootfs".to_owned(), format!("/dev/disk/by-partlabel/rootfs-{}", self.1))].into()
    }
}

struct Job(Arc<Mutex<World>>);

impl Job {
    fn property<T: TryFrom<OwnedVariant> + Default>(&self, name: &str) -> T {
        self.0
            .lock()
            .unwrap()
            .job
            .get(name)
            .and_then(|value| value.clone().try_into().ok())
            .unwrap_or_default()
    }
}

#[zbus::interface(name = "org.otad1.Job")]
impl Job {
    #[zbus(property)]
    fn phase(&self) -> String {
        self.property("Phase")
    }

    #[zbus(property)]
    fn bytes_done(&self) -> u64 {
        self.property("BytesDone")
    }

    #[zbus(property)]
    fn bytes_total(&self) -> u64 {
        self.property("BytesTotal")
    }

    #[zbus(property)]
    fn bytes_fetched(&self) -> u64 {
        self.property("BytesFetched")
    }

    #[zbus(property)]
    fn bytes_written(&self) -> u64 {
        self.property("BytesWritten")
    }

    #[zbus(property)]
    fn bytes_unchanged(&self) -> u64 {
        self.property("BytesUnchanged")
    }

    #[zbus(property)]
    fn progress(&self) -> u32 {
        self.property("Progress")
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.property("Version")
    }
}

/// Polls until `is_true`, because the fake works beside the test.
pub(crate) fn eventually(mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < DEADLINE, "it did not happen within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes everything and closes.
pub(crate) fn feed(mut to: impl Write, bytes: &[u8]) {
    to.write_all(bytes).unwrap();
}
