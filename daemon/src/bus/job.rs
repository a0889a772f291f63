//! `org.otad1.Job`.

use zbus::Connection;
use zbus::message::Header;

use super::Desk;
use super::authorize::{self, Act};
use crate::engine::{JobView, Request};
use crate::failure::Failure;

/// A job on the bus.
pub(super) struct Job {
    desk: Desk,
    view: JobView,
}

impl Job {
    pub(super) fn new(desk: Desk, view: JobView) -> Self {
        Job { desk, view }
    }
}

#[zbus::interface(name = "org.otad1.Job", introspection_docs = false)]
impl Job {
    async fn cancel(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        let _pass = authorize::require(connection, &header, Act::Install).await?;
        self.desk.ask(Request::Cancel(Some(self.view.id))).await.map(drop)
    }

    #[zbus(property)]
    fn phase(&self) -> String {
        self.view.progress.snapshot().phase.word().to_owned()
    }

    #[zbus(property)]
    fn bytes_done(&self) -> u64 {
        self.view.progress.snapshot().done
    }

    #[zbus(property)]
    fn bytes_total(&self) -> u64 {
        self.view.progress.snapshot().total
    }

    #[zbus(property)]
    fn bytes_fetched(&self) -> u64 {
        self.view.progress.counts().fetched
    }

    #[zbus(property)]
    fn bytes_written(&self) -> u64 {
        self.view.progress.counts().written
    }

    #[zbus(property)]
    fn bytes_unchanged(&self) -> u64 {
        self.view.progress.counts().unchanged
    }

    #[zbus(property)]
    fn progress(&self) -> u32 {
        self.view.progress.snapshot().percent()
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.view.progress.snapshot().version
    }
}
