//! Live progress: devices say how far they are, listeners hear the latest of each.
//!
//! A listener gets at most one frame per [`TICK`], with every device that said something since the last one, the latest word each. One that
//! does not take its frames in time is dropped; it finds everything it missed, in its latest form, when it comes back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::access::{Caller, Credential, Identity, is_own_page, require_device};
use super::devices::{MAX_WORD_BYTES, admit};
use super::{ApiError, App, Peer, input};
use crate::clock::unix_seconds;
use crate::fleet::step::{self, Event};
use crate::live::Word;
use crate::names::check_name;
use crate::store::Detail;

/// Time between two frames.
const TICK: Duration = Duration::from_millis(500);
/// Words of one frame; more come with the next.
const MAX_WORDS: usize = 5000;
/// A listener that does not take a frame within this is dropped.
const SLOW: Duration = Duration::from_secs(5);
/// A listener is dropped when it gives no sign of life for so many pings.
const MISSED_PINGS: u32 = 3;
/// Listeners have nothing to say: the largest message that is read from one, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024;
/// The protocol that is spoken, for clients that must name one.
const PROTOCOL: &str = "otad.progress";

/// A device's word about how far it is. Fields that the server does not know are ignored.
#[derive(Debug, Deserialize)]
struct Progress {
    device: String,
    phase: String,
    #[serde(default)]
    percent: Option<u8>,
    #[serde(default)]
    boot_id: Option<String>,
}

/// `POST /device/v1/progress`: 204. Nothing is written unless the device enters another step of its release.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let _place = admit(&app)?;
    let progress: Progress = input::json(body, &app.limits).await?;
    check_name("device", &progress.device)?;
    check_name("phase", &progress.phase)?;
    let boot = progress.boot_id.as_deref().unwrap_or_default();
    if progress.phase.len() > MAX_WORD_BYTES || boot.len() > MAX_WORD_BYTES {
        return Err(ApiError::too_large(format!("`phase` and `boot_id` have up to {MAX_WORD_BYTES} bytes")));
    }
    require_device(&app, &caller, &progress.device).await?;
    let now = unix_seconds();
    // Only devices that are known: strangers must not fill the memory.
    if app.presence.last_seen(&progress.device).is_none() {
        return Ok(StatusCode::NO_CONTENT);
    }
    app.presence.touch(&progress.device, now);
    take_step(&app, &progress, now).await?;
    app.live.say(Word {
        device: progress.device,
        release: None,
        group: None,
        step: None,
        phase: Some(progress.phase),
        percent: progress.percent.map(|percent| percent.min(100)),
        at: now,
    });
    Ok(StatusCode::NO_CONTENT)
}

async fn take_step(app: &App, progress: &Progress, now: i64) -> Result<(), ApiError> {
    let event = match progress.phase.as_str() {
        "verifying" | "scanning" | "downloading" => Event::Download,
        "disarming" | "writing" | "flushing" | "reading-back" | "pre-run" | "arming" | "installing" => {
            Event::Install
        }
        "rebooting" => Event::Reboot,
        _ => return Ok(()),
    };
    let members = app.store.memberships(&progress.device).await?;
    let Some(member) = members.iter().filter(|m| m.attempts > 0).max_by_key(|m| (m.offered_at, m.rollout_id))
    else {
        return Ok(());
    };
    if step::next(member.step, event).is_some() {
        let detail = Detail { boot_id: progress.boot_id.as_deref(), ..Detail::default() };
        if let Some(taken) = app.store.happen(member.rollout_id, &progress.device, event, detail).await? {
            app.live.step(&taken, now);
        }
    }
    Ok(())
}

/// What a listener wants to hear: everything, or one device, group or release.
#[derive(Debug, Deserialize)]
struct Wanted {
    device: Option<String>,
    group: Option<String>,
    release: Option<String>,
}

impl Wanted {
    fn check(&self) -> Result<(), ApiError> {
        for (field, name) in [("device", &self.device), ("group", &self.group), ("release", &self.release)] {
            name.as_deref().map_or(Ok(()), |name| check_name(field, name))?;
        }
        Ok(())
    }

    fn takes(&self, word: &Word) -> bool {
        self.device.as_ref().is_none_or(|device| *device == word.device)
            && self.group.as_ref().is_none_or(|group| Some(group) == word.group.as_ref())
            && self.release.as_ref().is_none_or(|release| Some(release) == word.release.as_ref())
    }
}

/// `GET /api/v1/progress`: a WebSocket. Frames are `{"at":…,"devices":[…]}`; the first holds what is known of everybody.
pub(super) async fn listen(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    peer: Option<Extension<Peer>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let wanted: Wanted = input::query(&uri)?;
    wanted.check()?;
    let upgrade = upgrade.map_err(|_| {
        let message = "this is a WebSocket: ask with Upgrade: websocket, version 13";
        ApiError::new(StatusCode::UPGRADE_REQUIRED, "INVALID_REQUEST", message)
    })?;
    // Browsers let every page open a WebSocket to everywhere: only our own may listen.
    if headers.contains_key(header::ORIGIN) && !is_own_page(&headers) {
        let message = "a page of another origin may not listen";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "NOT_AUTHORIZED", message));
    }
    let Ok(place) = app.listeners.clone().try_acquire_owned() else {
        return Err(ApiError::busy("as many listen as the server allows; come back later"));
    };
    let offered =
        headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok()).unwrap_or("");
    let named = offered.split(',').any(|protocol| protocol.trim() == PROTOCOL);
    let upgrade = if named { upgrade.protocols([PROTOCOL]) } else { upgrade };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    let peer = peer.map(|Extension(Peer(address))| address.ip());
    let credential = Credential { peer, headers };
    Ok(upgrade
        .on_upgrade(move |mut socket| async move {
            tokio::select! {
                () = talk(&app, &mut socket, &wanted) => {}
                () = until_revoked(&app, &credential, &identity) => {
                    let why = CloseFrame { code: close_code::POLICY, reason: "this token does not open it any more".into() };
                    drop(timeout(SLOW, socket.send(Message::Close(Some(why)))).await);
                }
            }
            drop(place);
        })
        .into_response())
}

/// Returns when whoever was let in would be no more. Looked at with every ping, also when there is so much to say that none is needed.
async fn until_revoked(app: &App, credential: &Credential, identity: &Identity) {
    loop {
        sleep(app.limits.listener_ping).await;
        if !credential.still_opens(app, identity).await {
            return;
        }
    }
}

async fn talk(app: &App, socket: &mut WebSocket, wanted: &Wanted) {
    let ping = app.limits.listener_ping;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    let (mut heard, mut pinged) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => heard = Instant::now(),
            },
            _ = ticks.tick() => {
                let (next, words) = app.live.since(seen, MAX_WORDS, |word| wanted.takes(word));
                seen = next;
                let frame = if !words.is_empty() {
                    Message::Text(json!({ "at": unix_seconds(), "devices": words }).to_string().into())
                } else if pinged.elapsed() >= ping {
                    pinged = Instant::now();
                    Message::Ping(Vec::new().into())
                } else {
                    continue;
                };
                if heard.elapsed() > ping * MISSED_PINGS || !matches!(timeout(SLOW, socket.send(frame)).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}
