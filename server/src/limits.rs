//! Every bound of the server in one place, each with its unit and its reason.

use std::time::Duration;

use crate::assign::Undeclared;

/// What a client may cost. The defaults suit one machine that serves a fleet; tests make them small.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest artifact or delta that is accepted, in bytes.
    pub max_artifact_bytes: u64,
    /// Room that uploads leave free on the file system of the data directory, in bytes, so that the database and its
    /// journal never find the disk full because of an upload.
    pub keep_free_bytes: u64,
    /// The database stops growing here, in bytes: devices need no token to report, so their reports need a bound.
    pub max_database_bytes: u64,
    /// Uploads at the same time. Each may hold a whole artifact of disk and a core while it is verified.
    pub max_uploads: usize,
    /// Longest silence inside an upload.
    pub upload_idle: Duration,
    /// Slowest acceptable upload, in bytes per second since its start, once `upload_grace` has passed.
    pub upload_min_bytes_per_second: u64,
    /// How long an upload may be slower than that.
    pub upload_grace: Duration,
    /// Largest body of a report, in bytes.
    pub max_report_bytes: usize,
    /// Longest time from the headers to the end of a report's body.
    pub report_body: Duration,
    /// Longest time for the headers of a request, and the longest pause between two requests of a connection.
    pub header_read: Duration,
    /// Longest time from the connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// Largest request head, in bytes.
    pub max_header_bytes: usize,
    /// Longest time that a client may take no bytes of a response.
    pub write_stall: Duration,
    /// Connections at the same time; more wait in the kernel's queue. A device at an update has one or two for as long as that takes.
    pub max_connections: usize,
    /// Devices that are recorded. Who asks needs no token unless the operator wants it so. Others are answered, but nothing is written
    /// for them: they get no declared release, and their reports are dropped.
    pub max_devices: usize,
    /// How often devices are told to ask, in seconds: who misses three times is lost.
    pub heartbeat_seconds: u32,
    /// Questions and reports of devices that are worked on at the same time; more are told to come back later.
    pub max_device_requests: usize,
    /// Devices that may be at an update at the same time, over all releases.
    pub max_updates: u32,
    /// Whether devices without a token are refused.
    pub require_device_tokens: bool,
    /// Whether devices are refused that show no certificate of their own on the connection.
    pub require_device_certificates: bool,
    /// Whether the newest artifact is offered where no release is declared.
    pub undeclared: Undeclared,
    /// How often releases are looked after.
    pub round: Duration,
    /// How often it is looked who is newly lost, in seconds.
    pub lost_seconds: i64,
    /// Longest time for a delivery to a webhook, from the connection to the status of the answer.
    pub webhook_timeout: Duration,
    /// Wait after the first try that failed; it doubles with each one after it.
    pub webhook_retry: Duration,
    /// How long records, history and audit log are kept, in days.
    pub keep_records_days: u32,
    /// Listeners to live progress at the same time.
    pub max_listeners: usize,
    /// How often a listener is asked for a sign of life, and its credential is looked at again.
    pub listener_ping: Duration,
    /// How long a refused body is still read, so that the client gets to see the answer.
    pub linger: Duration,
    /// How long open requests may go on after SIGTERM.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_artifact_bytes: 8 << 30,
            keep_free_bytes: 64 << 20,
            max_database_bytes: 4 << 30,
            max_uploads: 4,
            upload_idle: Duration::from_secs(30),
            upload_min_bytes_per_second: 1024,
            upload_grace: Duration::from_secs(60),
            max_report_bytes: 64 << 10,
            report_body: Duration::from_secs(15),
            header_read: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            max_header_bytes: 16 << 10,
            write_stall: Duration::from_secs(60),
            max_connections: 4096,
            max_devices: 200_000,
            heartbeat_seconds: 60,
            max_device_requests: 256,
            max_updates: 5000,
            require_device_tokens: false,
            require_device_certificates: false,
            undeclared: Undeclared::Newest,
            round: Duration::from_secs(1),
            lost_seconds: 10,
            webhook_timeout: Duration::from_secs(10),
            webhook_retry: Duration::from_secs(30),
            keep_records_days: 400,
            max_listeners: 50,
            listener_ping: Duration::from_secs(20),
            linger: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
