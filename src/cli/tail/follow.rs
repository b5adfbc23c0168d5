//! Follows a stream over everything that may happen to it: connects, reads, comes back with the last id, and says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::event::Event;
use super::frames::{FRAME, Frame, Frames};
use super::output::Output;
use crate::client::{Answer, Client, SendError};
use crate::printable;

/// How long the head of the answer may take. A relay holds requests back while its opencode starts, 30 s at most as long as
/// nobody sets that otherwise.
const HEAD: Duration = Duration::from_secs(35);

/// How long the stream may show nothing. Heartbeats come every 10 s.
const SILENCE: Duration = Duration::from_secs(25);

/// Waits between attempts: the first, doubling up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How much of a refusal is read for its reason, in bytes, and how much of the reason is told, in letters.
const REASON: (usize, usize) = (64 << 10, 500);

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Path and query.
    pub(super) target: String,
    /// Begin after this id.
    pub(super) since: Option<Arc<str>>,
    /// Wait for a server that is not there at first.
    pub(super) waits: bool,
}

/// Failed to follow; the messages can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The first connection, or one that cannot become better by itself.
    #[error(transparent)]
    Connect(#[from] Failure),
    /// The first connection, by a server that may take a later one.
    #[error("{0}; wait for it with --wait")]
    NotYet(Failure),
    /// Nobody takes the events any more, or the disk is full.
    #[error("write the events: {0}")]
    Write(#[from] io::Error),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}; start the relay there, name its address, or wait for it with --wait")]
    Unreachable(SendError),
    #[error("{0}")]
    Send(SendError),
    #[error(
        "follow the events of {place}: it wants a password; set OPENCODE_SERVER_PASSWORD, or name its file by --password-file"
    )]
    NoPassword { place: String },
    #[error(
        "follow the events of {place}: it refuses this user and password; set OPENCODE_SERVER_PASSWORD (and \
         OPENCODE_SERVER_USERNAME) as it has them"
    )]
    WrongPassword { place: String },
    #[error("follow the events of {place}: it answered {status}{reason}")]
    Refused { place: String, status: StatusCode, reason: String },
    #[error(
        "follow the events of {place}: it answered with {kind} instead of an event stream; neither a relay nor an opencode \
         listens there"
    )]
    NoStream { place: String, kind: String },
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Unreachable { .. } => Self::Unreachable(error),
            _ => Self::Send(error),
        }
    }
}

impl Failure {
    /// Whether it can go away by itself. What a proxy in front of a relay says while that restarts can.
    fn passes(&self, was_connected: bool) -> bool {
        match self {
            Self::Send(SendError::Tls { .. }) => was_connected,
            Self::Unreachable(_) | Self::Send(_) => true,
            Self::NoPassword { .. } | Self::WrongPassword { .. } => false,
            Self::Refused { status, .. } => match *status {
                StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => false,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
                status => status.is_server_error() || was_connected,
            },
            Self::NoStream { .. } => was_connected,
        }
    }
}

/// Why a stream ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Ended {
    #[error("the stream ended")]
    Closed,
    #[error("the stream broke")]
    Broken,
    #[error("nothing came for {} s, not even a heartbeat", SILENCE.as_secs())]
    Silent,
}

/// How far the events were read.
#[derive(Debug, Default)]
struct Position {
    /// The id of the newest frame that was taken.
    last: Option<Arc<str>>,
    /// There was a stream before this one.
    was_connected: bool,
    /// The stream gives ids, so a relay serves it.
    is_relay: bool,
    /// Attempts since a stream last delivered something.
    failures: u32,
    /// What was said last about having no stream, so that it is not said again and again.
    said: Option<String>,
    /// A frame that could not be read was told of.
    is_unreadable_told: bool,
}

/// Follows for ever, or until it makes no sense any more.
pub(super) async fn follow(client: &Client, wish: &Wish, output: &mut Output) -> Result<(), Error> {
    let mut position = Position { last: wish.since.clone(), ..Position::default() };
    loop {
        let reason = match connect(client, wish, position.last.as_deref()).await {
            Ok(body) => {
                let ended = read(body, &client.place.to_string(), &mut position, output).await?;
                format!("lost {}: {ended}; reconnecting", client.place)
            }
            Err(failure) if !failure.passes(position.was_connected) => return Err(failure.into()),
            Err(Failure::Unreachable(error) | Failure::Send(error)) if position.was_connected || wish.waits => {
                format!("failed to {error}; trying again")
            }
            Err(failure) if position.was_connected || wish.waits => format!("failed to {failure}; trying again"),
            Err(failure @ Failure::Refused { .. }) => return Err(Error::NotYet(failure)),
            Err(failure) => return Err(failure.into()),
        };
        if position.said.as_ref() != Some(&reason) {
            output.say(&reason)?;
            position.said = Some(reason);
        }
        sleep(BACK_OFF.0.saturating_mul(1 << position.failures.min(10)).min(BACK_OFF.1)).await;
        position.failures = position.failures.saturating_add(1);
    }
}

async fn connect(client: &Client, wish: &Wish, last: Option<&str>) -> Result<Answer, Failure> {
    let mut request = Request::new(Full::<Bytes>::default());
    // The target was made of checked parts; what is not a URI all the same is answered as the whole stream.
    *request.uri_mut() = wish.target.parse().unwrap_or(http::Uri::from_static("/global/event"));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    request.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(id) = last.and_then(|id| HeaderValue::from_str(id).ok()) {
        request.headers_mut().insert("last-event-id", id);
    }
    let response = client.send(request, HEAD).await?;
    let (head, body) = response.into_parts();
    let place = client.place.to_string();
    match head.status {
        StatusCode::UNAUTHORIZED if client.authorization.is_some() => return Err(Failure::WrongPassword { place }),
        StatusCode::UNAUTHORIZED => return Err(Failure::NoPassword { place }),
        StatusCode::OK => {}
        status => return Err(Failure::Refused { place, status, reason: reason(body).await }),
    }
    let kind = head.headers.get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
    match kind {
        Some(kind) if kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream") => Ok(body),
        Some(kind) => Err(Failure::NoStream { place, kind: printable::text(&kind) }),
        None => Err(Failure::NoStream { place, kind: "something without a type".to_owned() }),
    }
}

/// What a refusal says, in opencode's error shape; empty if it says nothing.
async fn reason(body: Answer) -> String {
    let body = timeout(HEAD, body.collect(REASON.0)).await.map_or(Bytes::new(), Result::unwrap_or_default);
    let error: Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = error["data"]["message"].as_str().or_else(|| error["message"].as_str()).unwrap_or_default();
    let told: String = said.chars().take(REASON.1).collect();
    if told.is_empty() { told } else { format!(": {}", printable::text(&told)) }
}

/// Reads a stream to its end.
async fn read<B>(mut body: B, place: &str, position: &mut Position, output: &mut Output) -> Result<Ended, io::Error>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut parser = Frames::default();
    let mut frames = Vec::new();
    let mut delivered = 0usize;
    loop {
        let chunk = match timeout(SILENCE, body.frame()).await {
            Err(_) => return Ok(Ended::Silent),
            Ok(None) => return Ok(Ended::Closed),
            Ok(Some(Err(_))) => return Ok(Ended::Broken),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        let skipped = parser.push(&chunk, &mut frames);
        delivered = delivered.saturating_add(frames.len());
        output.measure();
        for frame in frames.drain(..) {
            take(&frame, place, position, output)?;
            position.last = frame.id.or(position.last.take());
        }
        if skipped > 0 {
            output.say(&format!("an event of more than {} MiB was left out", FRAME >> 20))?;
        }
        // Before the position goes to the server again, what led to it is written.
        output.flush()?;
        // The greeting alone proves nothing: `/event` of some releases ends right after it, for ever.
        if delivered > 1 {
            (position.failures, position.said) = (0, None);
        }
    }
}

fn take(frame: &Frame, place: &str, position: &mut Position, output: &mut Output) -> io::Result<()> {
    let Some(event) = Event::read(&frame.data) else {
        if !std::mem::replace(&mut position.is_unreadable_told, true) {
            output.say("something that is no event was left out")?;
        }
        return Ok(());
    };
    if event.is_heartbeat() {
        output.rest();
        return Ok(());
    }
    if !event.is_greeting() {
        output.take(frame, &event, position.is_relay);
        return Ok(());
    }
    position.is_relay = frame.id.is_some();
    let content = event.content();
    let word = word(&content, place, position);
    let is_complete = content["resumed"] == true || position.last.is_none() && !position.was_connected;
    position.was_connected = true;
    if let Some(word) = word {
        output.say(&word)?;
    }
    if !is_complete {
        output.take_greeting(frame);
    }
    Ok(())
}

/// What the greeting of a stream says to people.
fn word(content: &Value, place: &str, position: &Position) -> Option<String> {
    let after = position.last.as_deref();
    let gap = &content["gap"];
    if let Some(reason) = gap["reason"].as_str() {
        let missed = match gap["missed"].as_u64() {
            Some(1) => "1 event missed".to_owned(),
            Some(missed) => format!("{missed} events missed"),
            None => "nobody knows how many events were missed".to_owned(),
        };
        return Some(format!("gap: {}, {missed}; following {place}", printable::text(reason)));
    }
    if content["resumed"] == true {
        let after = after.filter(|_| !position.was_connected).map(|id| format!(" after {id}")).unwrap_or_default();
        return Some(format!("resumed{after}; following {place}"));
    }
    match (position.was_connected, after) {
        // A stream that ends again and again was told of once.
        (true, _) if position.said.is_some() && position.failures > 1 => None,
        (true, _) => Some(format!("following {place} again; it gives no ids, so events in between may be lost")),
        (false, Some(_)) => {
            Some(format!("following {place} from now on; it is no relay, so nothing older can be had (--since)"))
        }
        (false, None) => Some(format!("following {place}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::super::output::Filter;
    use super::*;

    /// A body that gives these pieces, and then nothing.
    struct Mute(VecDeque<Bytes>);

    impl http_body::Body for Mute {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            match self.0.pop_front() {
                Some(bytes) => Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_heartbeats_is_lost() {
        let greeting = "id: e-1\ndata: {\"type\":\"server.connected\",\"properties\":{}}\n\n";
        let beat = "id: e-2\ndata: {\"type\":\"server.heartbeat\",\"properties\":{}}\n\n";
        let body = Mute([greeting, beat].map(Bytes::from).into());
        let mut position = Position { failures: 3, ..Position::default() };
        let mut output = Output::json(false, Filter::default());
        let before = tokio::time::Instant::now();
        assert_eq!(read(body, "here", &mut position, &mut output).await.unwrap(), Ended::Silent);
        assert_eq!(before.elapsed().as_secs(), SILENCE.as_secs());
        assert_eq!((position.last.as_deref(), position.failures), (Some("e-2"), 0));
        assert!(position.is_relay && position.was_connected);
    }

    #[test]
    fn greetings_are_told_in_words() {
        let said =
            |properties: &str, position: &Position| word(&serde_json::from_str(properties).unwrap(), "X", position);
        let fresh = Position::default();
        let since = Position { last: Some("e-1".into()), ..Position::default() };
        let back = Position { was_connected: true, last: Some("e-1".into()), ..Position::default() };
        for (properties, position, expected) in [
            ("{}", &fresh, "following X"),
            (r#"{"resumed":true}"#, &since, "resumed after e-1; following X"),
            (r#"{"resumed":true}"#, &back, "resumed; following X"),
            (r#"{"gap":{"reason":"expired","missed":3}}"#, &back, "gap: expired, 3 events missed; following X"),
            (
                r#"{"gap":{"reason":"un\u001bknown","missed":null}}"#,
                &since,
                "gap: un\\u{1b}known, nobody knows how many events were missed; following X",
            ),
            ("{}", &since, "following X from now on; it is no relay, so nothing older can be had (--since)"),
            ("{}", &back, "following X again; it gives no ids, so events in between may be lost"),
        ] {
            assert_eq!(said(properties, position).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_cannot_become_better_ends_it() {
        let refused = |status| Failure::Refused { place: String::new(), status, reason: String::new() };
        let html = || Failure::NoStream { place: String::new(), kind: "text/html".into() };
        let password = Failure::NoPassword { place: String::new() };
        assert!(!password.passes(true));
        for status in [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN] {
            assert!(!refused(status).passes(true), "{status}");
        }
        for status in [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
            assert!(refused(status).passes(false), "{status}");
        }
        assert!(!refused(StatusCode::NOT_FOUND).passes(false) && refused(StatusCode::NOT_FOUND).passes(true));
        assert!(!html().passes(false) && html().passes(true));
    }
}
