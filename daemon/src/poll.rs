//! Asking the server: schedule, jitter, backoff, and which offers are taken.
//!
//! Runs on a thread of its own, one round after the other: hand in reports, then ask. What the server says is never
//! trusted; it only tells where a signed bundle may be.

use std::time::Duration;

use otad_bundle::Digest;

use crate::config::Server;
use crate::failure::{Code, Failure};
use crate::install::prepare::Current;
use crate::lifecycle::event::{Stage, State};
use crate::lifecycle::record::{FailedRelease, Record};
use crate::ports::{Answer, Fetch, Offer, Question};
use crate::trust::{Keeper, freshness};

/// After failures the interval doubles up to this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
/// The interval varies by this share each time, so that a fleet that lost power together does not ask together.
const JITTER_PERCENT: u64 = 20;
/// How often a release is taken again after the boot counter gave it up: flickering power is not a bad image.
const TRIES_AFTER_BOOT_COUNT: u32 = 3;
/// How often a release is taken again after something else than its content failed, for example the slot's flash.
const TRIES_AFTER_OTHERS: u32 = 3;
/// How often a release is taken that was refused, or whose own health checks failed: it will not get better by itself.
const TRIES_AFTER_VERDICT: u32 = 1;

/// When to ask next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    /// What the server asked for. It can have its peace, not more questions: what they cost is the device's business.
    asked_for: Duration,
    failures: u32,
}

impl Schedule {
    /// Starts with the configured interval.
    pub fn new(server: &Server) -> Self {
        Schedule { interval: server.interval, asked_for: Duration::ZERO, failures: 0 }
    }

    /// The server answered, and may have said when it wants to be asked again.
    pub fn answered(&mut self, asked_for: Option<Duration>) {
        self.failures = 0;
        self.asked_for = asked_for.unwrap_or_default().min(LONGEST_INTERVAL);
    }

    /// It did not.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How long to wait now; `random` is any number, evenly distributed.
    pub fn wait(&self, random: u64) -> Duration {
        let interval = self.interval.max(self.asked_for);
        let base = interval.saturating_mul(1 << self.failures.min(12));
        let base = base.min(LONGEST_INTERVAL.max(interval));
        let millis = u64::try_from(base.as_millis()).unwrap_or(u64::MAX);
        let span = millis / 100 * JITTER_PERCENT;
        let offset = random.checked_rem(span.saturating_mul(2).saturating_add(1)).unwrap_or(0);
        Duration::from_millis((millis - span).saturating_add(offset))
    }
}

/// What to tell the server.
pub fn question(
    device: String,
    compatible: &str,
    current: &Current,
    boot_id: String,
    state: &State,
) -> Question {
    let Current { version, sequence, release, .. } = current.clone();
    let (compatible, state) = (compatible.to_owned(), state.word().to_owned());
    Question { device, compatible, version, sequence, release, boot_id, state }
}

/// Whether the device may start an install by itself now.
pub fn may_install(state: &State) -> bool {
    match state {
        State::Idle | State::Failed(..) => true,
        State::PreUpgrade(_)
        | State::Upgrading(_)
        | State::PostUpgrade(_, Stage::Arming | Stage::Armed | Stage::Trial | Stage::RollingBack(_)) => false,
    }
}

/// An offer that this device does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was offered.
    pub release: Digest,
    /// Its version.
    pub version: String,
    /// Why it is not taken.
    pub failure: Failure,
}

/// Decides about the server's answer: the offer to take, nothing, or why not.
///
/// # Errors
/// [`Code::ReleaseFailedBefore`]: the release had its tries on this device.
pub fn decide(answer: Answer, record: &Record, running: Option<Digest>) -> Result<Option<Offer>, Refusal> {
    let Answer::Offer(offer) = answer else { return Ok(None) };
    if running == Some(offer.release) {
        return Ok(None);
    }
    let failed = record.failed.iter().find(|failed| failed.release == offer.release);
    match failed.filter(|failed| failed.tries >= limit(failed)) {
        None => Ok(Some(offer)),
        Some(failed) => {
            let (version, code) = (&offer.version, &failed.code);
            let tries =
                if failed.tries == 1 { "1 try".to_owned() } else { format!("{} tries", failed.tries) };
            let what = format!(
                "version {version} did not work on this device ({code}, {tries}) and is not taken again"
            );
            let what = format!("{what}; install it by hand to try once more");
            let failure = Failure::new(Code::ReleaseFailedBefore, what);
            Err(Refusal { release: offer.release, version: offer.version, failure })
        }
    }
}

/// Refuses a server's answer that is not fresh, or not what the online role assigns.
///
/// Where the root has an online role, nothing is taken from the server unasked without its word. What a person installs by hand
/// is that person's business.
///
/// # Errors
/// The codes of [`freshness`], and what the network does.
pub fn refuse_stale(
    trust: &Keeper,
    fetch: &dyn Fetch,
    now: u64,
    compatible: &str,
    answer: &Answer,
    current: &Current,
) -> Result<(), Failure> {
    if !trust.expects_channel() {
        return Ok(());
    }
    let document = fetch.channel(compatible)?.ok_or_else(|| {
        let what = "the server has no channel document, which the root of trust asks for (role online)";
        Failure::new(Code::MetadataStale, what)
    })?;
    let channel = trust.see(&document, compatible, now)?;
    let offered = match answer {
        Answer::Offer(offer) => Some(offer.release),
        Answer::Nothing => None,
    };
    freshness::agrees(&channel, offered, current.release, current.sequence)
}

fn limit(failed: &FailedRelease) -> u32 {
    match Code::from_text(&failed.code) {
        Some(Code::RolledBack) => TRIES_AFTER_BOOT_COUNT,
        Some(Code::HealthFailed | Code::HealthTimeout | Code::KernelSlotMismatch) => TRIES_AFTER_VERDICT,
        Some(code) if code.class() == otad_dbus::Class::Rejected => TRIES_AFTER_VERDICT,
        Some(_) | None => TRIES_AFTER_OTHERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_doubles_after_failures_and_stays_within_bounds() {
        let server = Server {
            url: String::new(),
            interval: Duration::from_secs(60),
            ca: None,
            pins: Vec::new(),
            identity: None,
            token_file: None,
        };
        let mut schedule = Schedule::new(&server);
        for random in [0, 1, 12_345, u64::MAX] {
            let wait = schedule.wait(random);
            assert!((48..=72).contains(&wait.as_secs()), "{wait:?}");
        }
        schedule.failed();
        assert!(schedule.wait(0) >= Duration::from_secs(96));
        (0..100).for_each(|_| schedule.failed());
        assert!(schedule.wait(u64::MAX / 3) <= LONGEST_INTERVAL * 12 / 10);
        schedule.answered(None);
        assert!(schedule.wait(0) < Duration::from_secs(72));
        for (asked_for, least, most) in [(600, 480, 720), (1, 48, 72), (1_000_000, 2880, 4320)] {
            schedule.answered(Some(Duration::from_secs(asked_for)));
            let wait = schedule.wait(12_345).as_secs();
            assert!((least..=most).contains(&wait), "{asked_for}: {wait}");
        }
    }

    struct Line(Option<String>);

    impl Fetch for Line {
        fn open(
            &self,
            _: &str,
            _: &crate::ports::Stop,
        ) -> Result<Box<dyn otad_bundle::Input + Send>, Failure> {
            Err(Failure::new(Code::NetFailed, "nothing to fetch here"))
        }
        fn check(&self, _: &Question) -> Result<Answer, Failure> {
            Ok(Answer::Nothing)
        }
        fn channel(&self, _: &str) -> Result<Option<Vec<u8>>, Failure> {
            Ok(self.0.clone().map(String::into_bytes))
        }
        fn report(&self, _: &str) -> Result<crate::ports::Receipt, Failure> {
            Ok(crate::ports::Receipt::Taken)
        }
        fn introduce(&self, _: &str) {}
    }

    /// V3: what the server shows must be fresh, and what the online role says, if there is such a role.
    #[test]
    fn a_server_is_held_to_the_channel_document() {
        use otad_bundle::{Channel, Role, Root, SignedChannel, Signer as _, SigningKey};
        let key = |seed| SigningKey::from_seed([seed; 32]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let fs = std::sync::Arc::new(crate::adapters::state_fs::DataDirectory::open(dir.path()).unwrap());
        let plain = Root::with_release_keys(&[key(1).public_key()]);
        let keeper = |root: &Root| Keeper::of(root, fs.clone()).unwrap();
        let online = keeper(&plain.clone().with_key(Role::Online, key(2).public_key()));
        let offer = |n| {
            let release = Digest([n; 32]);
            Answer::Offer(Offer { release, version: "3.0.0".into(), url: "http://x/y".into(), delta: None })
        };
        let document = |issued: u64| {
            let (compatible, release) = ("acme".to_owned(), Digest([7; 32]));
            let channel = Channel {
                compatible,
                counter: 1,
                issued,
                expires: issued + 100,
                release,
                sequence: 3,
                also: Vec::new(),
            };
            let mut signed = SignedChannel::draft(&channel).unwrap();
            signed.sign(&key(2)).unwrap();
            Some(signed.to_text())
        };
        let current = Current { sequence: 2, ..Current::default() };
        let code = |trust: &Keeper, document: Option<String>, answer: Answer| {
            refuse_stale(trust, &Line(document), 1000, "acme", &answer, &current)
                .map_err(|failure| failure.code)
        };
        assert_eq!(code(&keeper(&plain), None, offer(7)), Ok(()), "no online role: nobody asks");
        assert_eq!(code(&online, None, offer(7)), Err(Code::MetadataStale), "no document");
        assert_eq!(code(&online, None, Answer::Nothing), Err(Code::MetadataStale));
        assert_eq!(code(&online, document(500), offer(7)), Err(Code::MetadataStale), "it has ended");
        assert_eq!(code(&online, document(950), offer(7)), Ok(()));
        assert_eq!(code(&online, document(950), offer(8)), Err(Code::MetadataMismatch));
        assert_eq!(code(&online, document(950), Answer::Nothing), Err(Code::MetadataStale), "withheld");
        assert_eq!(code(&online, Some(String::new()), offer(7)), Err(Code::SigMissing));
    }

    /// A release that failed its own health checks is not taken again; one that only lost its boots is, a few times.
    #[test]
    fn failed_releases_are_remembered() {
        let release = Digest([7; 32]);
        let offer = || {
            Answer::Offer(Offer { release, version: "3.0.0".into(), url: "http://x/y".into(), delta: None })
        };
        let mut record = Record::default();
        assert!(decide(offer(), &record, None).unwrap().is_some());
        assert_eq!(decide(offer(), &record, Some(release)), Ok(None));
        for n in 1..=TRIES_AFTER_BOOT_COUNT {
            record.count_failure(release, "ROLLED_BACK");
            assert_eq!(decide(offer(), &record, None).is_ok(), n < TRIES_AFTER_BOOT_COUNT);
        }
        record.count_failure(Digest([8; 32]), "HEALTH_FAILED");
        let other = Answer::Offer(Offer {
            release: Digest([8; 32]),
            version: "4.0.0".into(),
            url: String::new(),
            delta: None,
        });
        let refusal = decide(other, &record, None).unwrap_err();
        assert_eq!((refusal.release, refusal.version.as_str()), (Digest([8; 32]), "4.0.0"));
        assert_eq!(refusal.failure.code, Code::ReleaseFailedBefore);
    }
}
