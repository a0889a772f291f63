//! `org.otad1.Manager`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use otad_bundle::Bundle;
use otad_dbus::value::option;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, Variant};

use super::Desk;
use super::authorize::{self, Act, Pass};
use super::dictionary::{self, Dictionary, Options};
use super::job::Job;
use crate::adapters::pipe;
use crate::engine::{Answer, Install, Request, Status, Verdict};
use crate::failure::{Code, Failure, from_bundle};
use crate::install::prepare::Source;
use crate::lifecycle::event::Origin;
use crate::ports::Stop;
use crate::trust::Keeper;
use crate::trust::sequence::Permit;

/// Starts a check of the server and answers whether an install was started.
pub type Check = Arc<dyn Fn() -> Result<bool, Failure> + Send + Sync>;

/// The manager on the bus.
pub struct Manager {
    desk: Desk,
    compatible: String,
    trust: Result<Arc<Keeper>, Failure>,
    check: Check,
}

impl Manager {
    /// Makes the manager's object.
    pub fn new(desk: Desk, compatible: String, trust: Result<Arc<Keeper>, Failure>, check: Check) -> Self {
        Manager { desk, compatible, trust, check }
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Starts an install; when the caller gets the job's path, the object is there, unless the job has ended already.
    async fn start(&self, install: Install, connection: &Connection) -> Result<OwnedObjectPath, Failure> {
        let Answer::Job(id) = self.desk.ask(Request::Install(install)).await? else {
            return Err(Failure::new(Code::Internal, "the install was accepted without a job"));
        };
        let path = job_path(id)?;
        if let Some(view) = self.desk.status().job.clone().filter(|view| view.id == id)
            && let Err(error) =
                connection.object_server().at(path.clone(), Job::new(self.desk.clone(), view)).await
        {
            log::warn!("job {id} is not on the bus: {error}");
        }
        Ok(path)
    }
}

/// The object path of a job.
pub(super) fn job_path(id: u64) -> Result<OwnedObjectPath, Failure> {
    OwnedObjectPath::try_from(format!("{}/{id}", otad_dbus::JOB_ROOT))
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// The object path of the job under way.
pub(super) fn current_job(status: &Status) -> OwnedObjectPath {
    let job = status.job.as_ref().and_then(|job| job_path(job.id).ok());
    job.unwrap_or_default()
}

/// What keeps the device from being updated: code and message.
pub(super) fn problems(status: &Status) -> Vec<(String, String)> {
    status
        .problems
        .iter()
        .map(|problem| (problem.code.as_str().to_owned(), problem.message.clone()))
        .collect()
}

/// The dictionary of how the last update ended; empty when there was none.
pub(super) fn last_result(status: &Status) -> Dictionary {
    status.record.history.last().map(dictionary::ended).unwrap_or_default()
}

#[zbus::interface(name = "org.otad1.Manager", introspection_docs = false)]
impl Manager {
    #[zbus(out_args("job"))]
    async fn install(
        &self,
        url: String,
        options: HashMap<String, Variant<'_>>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Failure> {
        let options = dictionary::options(&options)?;
        let (_pass, permit) = may_install(connection, &header, &options).await?;
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            let what = format!("`{url}` is not an http:// or https:// URL; pass files with InstallFd");
            return Err(Failure::new(Code::InvalidSource, what));
        }
        let origin = Origin::Url(url.clone());
        let (source, stop, reboot) =
            (Source::Url { url, delta: options.delta }, Stop::default(), options.reboot);
        self.start(Install { source, origin, stop, reboot, permit }, connection).await
    }

    #[zbus(out_args("job"))]
    async fn install_fd(
        &self,
        bundle: zbus::OwnedFd,
        options: HashMap<String, Variant<'_>>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Failure> {
        let options = dictionary::options(&options)?;
        let (_pass, permit) = may_install(connection, &header, &options).await?;
        if options.delta.is_some() {
            let what = format!("option `{}` goes with a URL, not with a file or pipe", option::DELTA);
            return Err(Failure::new(Code::InvalidOption, what));
        }
        let stop = Stop::default();
        let input = pipe::open(OwnedFd::from(bundle), &stop)?;
        let (source, origin, reboot) = (Source::Open(input), Origin::Descriptor, options.reboot);
        self.start(Install { source, origin, stop, reboot, permit }, connection).await
    }

    #[zbus(out_args("info"))]
    async fn inspect(
        &self,
        bundle: zbus::OwnedFd,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Dictionary, Failure> {
        let _pass = authorize::require(connection, &header, Act::Check).await?;
        let root = self.trust.clone()?.root();
        let read = move || {
            let input = pipe::open(OwnedFd::from(bundle), &Stop::default())?;
            let bundle = Bundle::open(input, &root).map_err(|error| from_bundle(&error))?;
            Ok(dictionary::bundle(&bundle))
        };
        blocking(read).await
    }

    #[zbus(out_args("found"))]
    async fn check(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<bool, Failure> {
        let _pass = authorize::require(connection, &header, Act::Check).await?;
        let check = self.check.clone();
        blocking(move || check()).await
    }

    async fn commit(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        let _pass = authorize::require(connection, &header, Act::Commit).await?;
        self.desk.ask(Request::Commit).await.map(drop)
    }

    async fn rollback(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        let _pass = authorize::require(connection, &header, Act::Commit).await?;
        self.desk.ask(Request::Rollback).await.map(drop)
    }

    async fn cancel(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        let _pass = authorize::require(connection, &header, Act::Install).await?;
        self.desk.ask(Request::Cancel(None)).await.map(drop)
    }

    async fn mark(
        &self,
        slot: String,
        verdict: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        let _pass = authorize::require(connection, &header, Act::Commit).await?;
        let verdict = match verdict.as_str() {
            "good" => Verdict::Good,
            "bad" => Verdict::Bad,
            other => {
                let what = format!("verdict `{other}` is neither `good` nor `bad`");
                return Err(Failure::new(Code::InvalidOption, what));
            }
        };
        self.desk.ask(Request::Mark(slot, verdict)).await.map(drop)
    }

    async fn reboot(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        let _pass = authorize::require(connection, &header, Act::Reboot).await?;
        self.desk.ask(Request::Reboot).await.map(drop)
    }

    #[zbus(out_args("entries"))]
    fn history(&self) -> Vec<Dictionary> {
        self.desk.status().record.history.iter().map(dictionary::ended).collect()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.desk.status().state.word().to_owned()
    }

    #[zbus(property)]
    fn booted_slot(&self) -> String {
        self.desk.status().booted.clone().unwrap_or_default()
    }

    #[zbus(property)]
    fn primary_slot(&self) -> String {
        self.desk.status().primary.clone().unwrap_or_default()
    }

    #[zbus(property)]
    fn current_job(&self) -> OwnedObjectPath {
        current_job(&self.desk.status())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn compatible(&self) -> String {
        self.compatible.clone()
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.desk.status().current.version.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn api_revision(&self) -> u32 {
        otad_dbus::API_REVISION
    }

    #[zbus(property)]
    fn problems(&self) -> Vec<(String, String)> {
        problems(&self.desk.status())
    }

    #[zbus(property)]
    fn root_version(&self) -> u64 {
        self.desk.status().root_version
    }

    #[zbus(property)]
    fn sequence_floor(&self) -> u64 {
        self.desk.status().record.floor
    }

    #[zbus(property)]
    fn last_result(&self) -> Dictionary {
        last_result(&self.desk.status())
    }

    #[zbus(signal)]
    pub(super) async fn job_removed(
        emitter: &SignalEmitter<'_>,
        job: OwnedObjectPath,
        result: &str,
        error: &str,
        message: &str,
    ) -> zbus::Result<()>;
}

/// Lets those pass who may install, and reboot where they ask for that too; and says whether they may go back.
async fn may_install(
    connection: &Connection,
    header: &Header<'_>,
    options: &Options,
) -> Result<(Pass, Permit), Failure> {
    let pass = authorize::require(connection, header, Act::Install).await?;
    if options.reboot {
        drop(authorize::require(connection, header, Act::Reboot).await?);
    }
    authorize::downgrade(connection, header).await.map(|permit| (pass, permit))
}

/// Runs what blocks on a thread of its own, so that the bus stays answerable.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Code::Resource, format!("no thread for the request: {error}")))?
}
