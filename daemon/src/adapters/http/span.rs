//! Judging the answer to a range request: is it a piece of the file that reading began with, and which one?
//!
//! Pure but for the message it looks at; reads no body.

use ureq::http::StatusCode;

use super::client::{BadHeader, Next, Reply, Trouble, from_status, header};
use super::parts::{Fault, boundary};
use super::range::{ContentRange, Tag, content_length, unsatisfied_total};
use super::{is_html, portal};
use crate::failure::Code;

/// What must stay the same while a file is fetched in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Bytes of the whole file.
    pub(super) total: u64,
    tag: Option<Tag>,
    /// Whether the server gave a range when it was asked for one.
    pub(super) ranges: bool,
}

impl Identity {
    /// The tag that a later request can insist on.
    pub(super) fn strong_tag(&self) -> Option<&str> {
        self.tag.as_ref().and_then(Tag::strong)
    }

    /// Why a response cannot belong to the same state of the file.
    ///
    /// A range may leave the tag out: it was only given because the server compared the tag itself.
    fn conflict(&self, now: &Identity) -> Option<String> {
        if now.total != self.total {
            return Some(format!("it had {} bytes and now has {}", self.total, now.total));
        }
        match (&self.tag, &now.tag) {
            (before, after) if before == after => None,
            (None, Some(_)) => None,
            (Some(_), None) if now.ranges => None,
            (Some(before), Some(after)) => Some(format!("its ETag was {before} and now is {after}")),
            (Some(before), None) => Some(format!("its ETag was {before} and now it has none")),
            (None, None) => None,
        }
    }
}

/// The range that was asked for, both ends inclusive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What a response's body is: bytes `at..end` of the file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) at: u64,
    pub(super) end: u64,
}

/// Decides what the body of a response is, or why it is of no use.
///
/// `least` is the number of bytes that a shortened range must have: a server may shorten one, but not to a trickle.
pub(super) fn judge(
    reply: &Reply,
    wanted: Wanted,
    known: Option<&Identity>,
    least: u64,
) -> Result<Found, Trouble> {
    let status = reply.response.status();
    if status.is_success() && is_html(reply) {
        return Err(portal(&reply.place));
    }
    let found = match status {
        StatusCode::OK => whole(reply)?,
        StatusCode::PARTIAL_CONTENT => part(reply, wanted, known, least)?,
        StatusCode::PRECONDITION_FAILED => return Err(changed(reply, "the server says so")),
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(not_satisfiable(reply, wanted, known)),
        _ => return Err(from_status(reply)),
    };
    if let Some(why) = known.and_then(|known| known.conflict(&found.identity)) {
        return Err(changed(reply, &why));
    }
    Ok(found)
}

/// A body of several ranges, as its header announces it.
#[derive(Debug)]
pub(super) struct Several {
    pub(super) boundary: String,
    /// Bytes of the body.
    pub(super) length: u64,
}

/// Decides whether a response brings several ranges of the file that is known.
pub(super) fn judge_several(reply: &Reply, known: &Identity) -> Result<Several, Fault> {
    let unsuited = |why: &str| Fault::Unsuited(format!("{} {why}", reply.place));
    let status = reply.response.status();
    if status.is_success() && is_html(reply) {
        return Err(portal(&reply.place).into());
    }
    match status {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::PRECONDITION_FAILED => return Err(changed(reply, "the server says so").into()),
        // Whatever else is final may be about the form of the request; a plain one shows.
        _ if !status.is_success() => match from_status(reply) {
            trouble if trouble.next != Next::GiveUp => return Err(trouble.into()),
            _ => return Err(unsuited(&format!("answered {status}"))),
        },
        _ => return Err(unsuited("gave the whole file")),
    }
    let now = Identity { total: known.total, tag: tag(reply)?, ranges: true };
    if let Some(why) = known.conflict(&now) {
        return Err(changed(reply, &why).into());
    }
    let kind = field(reply, "content-type", Code::NetRange)?.unwrap_or_default();
    let boundary = boundary(kind).ok_or_else(|| unsuited("gave another range"))?;
    let length = body_length(reply).map_err(|trouble| Fault::Unsuited(trouble.failure.to_string()))?;
    Ok(Several { boundary, length })
}

fn whole(reply: &Reply) -> Result<Found, Trouble> {
    let total = body_length(reply)?;
    if total == 0 {
        return Err(Trouble::last(Code::NotABundle, format!("{} is empty", reply.place)));
    }
    Ok(Found { identity: Identity { total, tag: tag(reply)?, ranges: false }, at: 0, end: total })
}

fn part(reply: &Reply, wanted: Wanted, known: Option<&Identity>, least: u64) -> Result<Found, Trouble> {
    let wrong = |what: String| {
        let Wanted { first, last } = wanted;
        Trouble::last(
            Code::NetRange,
            format!("{} was asked for bytes {first} to {last} and {what}", reply.place),
        )
    };
    let kind = field(reply, "content-type", Code::NetRange)?.unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with("multipart/") {
        return Err(wrong(format!("sent {kind:?}")));
    }
    let text = field(reply, "content-range", Code::NetRange)?;
    let text = text.ok_or_else(|| wrong("did not say which bytes it sent".to_owned()))?;
    let range = ContentRange::parse(text).ok_or_else(|| wrong(format!("sent {text:?}")))?;
    if range.first != wanted.first || range.last > wanted.last {
        return Err(wrong(format!("sent {text:?}")));
    }
    let length = body_length(reply)?;
    if length != range.length() {
        let message = format!("{} announced {length} bytes for {text:?}", reply.place);
        return Err(Trouble::last(Code::NetLength, message));
    }
    let expected = known.map_or(range.total, |known| known.total);
    let shortened = range.last < wanted.last.min(expected.saturating_sub(1));
    if shortened && length < least {
        return Err(wrong(format!("sent only {length} of them")));
    }
    let identity = Identity { total: range.total, tag: tag(reply)?, ranges: true };
    Ok(Found { identity, at: range.first, end: range.last.saturating_add(1) })
}

fn not_satisfiable(reply: &Reply, wanted: Wanted, known: Option<&Identity>) -> Trouble {
    // Without a readable total the status itself is all there is to go by.
    let total = header(reply.response.headers(), "content-range").ok().flatten().and_then(unsatisfied_total);
    let busy = from_status(reply);
    match (total, known) {
        _ if matches!(busy.next, Next::RetryAfter(_)) => busy,
        (Some(0), None) => Trouble::last(Code::NotABundle, format!("{} is empty", reply.place)),
        (Some(now), Some(known)) if now != known.total => {
            changed(reply, &format!("it had {} bytes and now has {now}", known.total))
        }
        _ => Trouble::last(
            Code::NetRange,
            format!("{} refused to give bytes {} to {} (416)", reply.place, wanted.first, wanted.last),
        ),
    }
}

/// The length of the body, which must be announced, in plain, and once.
fn body_length(reply: &Reply) -> Result<u64, Trouble> {
    let place = &reply.place;
    if let Some(coding) =
        field(reply, "content-encoding", Code::NetStatus)?.filter(|text| *text != "identity")
    {
        let message = format!("{place} sent an encoded body ({coding:?}), which was not asked for");
        return Err(Trouble::last(Code::NetStatus, message));
    }
    if field(reply, "transfer-encoding", Code::NetLength)?.is_some() {
        return Err(Trouble::last(
            Code::NetLength,
            format!("{place} sent a chunked body: its length is not known"),
        ));
    }
    let text = field(reply, "content-length", Code::NetLength)?;
    let text = text
        .ok_or_else(|| Trouble::last(Code::NetLength, format!("{place} did not say how long its body is")))?;
    content_length(text)
        .ok_or_else(|| Trouble::last(Code::NetLength, format!("{place}: content-length is {text:?}")))
}

fn tag(reply: &Reply) -> Result<Option<Tag>, Trouble> {
    Ok(field(reply, "etag", Code::SourceChanged)?.and_then(Tag::parse))
}

fn field<'a>(reply: &'a Reply, name: &'static str, code: Code) -> Result<Option<&'a str>, Trouble> {
    header(reply.response.headers(), name)
        .map_err(|bad: BadHeader| Trouble::last(code, format!("{}: {bad}", reply.place)))
}

fn changed(reply: &Reply, why: &str) -> Trouble {
    let message = format!("{} changed while it was fetched: {why}; start the update again", reply.place);
    Trouble::last(Code::SourceChanged, message)
}
