//! One client's event stream: what it asked for, the head of the answer, and the body that follows the hub.
//!
//! The hub gives whole frames; this module adds the heartbeats and the ending. A stream never ends cleanly, because
//! the SDK comes back after an error only.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT, VARY};
use http::{Response, Uri};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::Front;
use super::body::AnswerBody;
use super::clients::Place;
use crate::event::{Form, Scope, Types, View};
use crate::hub::{Expired, Follower, Outlet, Word};
use crate::proxy::{Peer, query};
use crate::stop::Stop;

/// The usual pause between heartbeats, as opencode's (FACTS §1).
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// The pause between the comments on `/api/event`, the first of which comes at once.
const API_HEARTBEAT: Duration = Duration::from_secs(15);

/// The longest session id worth comparing, in bytes; and as much of a wrong value is told back, in characters.
const SESSION_LIMIT: usize = 128;

/// Most batches that a stream still gives after it was told to end, of 64 KiB each.
const LAST_BATCHES: u8 = 16;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a request asks of a stream, besides the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) view: View,
    session: Option<Arc<str>>,
    types: Types,
    form: Form,
    last_id: Option<String>,
    agent: Option<String>,
}

/// What is wrong with a wish. Each message says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WishError {
    #[error("{0:?} is no session id; write ?session=ses_… as GET /session shows it")]
    Session(String),
    #[error("failed to {0}")]
    Types(#[from] crate::event::TypesError),
    #[error("?{0}={1:?} is neither 0 nor 1")]
    Switch(&'static str, String),
}

impl Wish {
    /// Reads path, query and headers; `session` is the raw segment of the path on `/session/{id}/event`.
    pub(super) fn read(view: View, session: Option<&str>, uri: &Uri, headers: &HeaderMap) -> Result<Self, WishError> {
        let query = uri.query().unwrap_or_default();
        let session = session
            .map(|raw| percent_decode_str(raw).decode_utf8_lossy().into_owned())
            .or_else(|| query::first(query, "session"));
        let session = session.map(read_session).transpose()?;
        let types = query::first(query, "types").map(|text| Types::parse(&text)).transpose()?.unwrap_or_default();
        let agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
        // Some tools around curl take every line for data (FACTS §5).
        let is_curl = agent.as_ref().is_some_and(|agent| agent.starts_with("curl/"));
        let ids = switch(query, "ids")?.unwrap_or(!is_curl);
        let origin = switch(query, "origin")?.unwrap_or(false);
        // A browser that comes back repeats the URL it began with, so the header is the newer word.
        let last_id = headers
            .get(LAST_EVENT_ID)
            .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned())
            .or_else(|| ["lastEventId", "last_event_id", "since"].iter().find_map(|name| query::first(query, name)))
            .filter(|id| !id.is_empty());
        Ok(Self { view, session, types, form: Form { ids, origin }, last_id, agent })
    }
}

fn switch(query: &str, name: &'static str) -> Result<Option<bool>, WishError> {
    match query::first(query, name).as_deref() {
        None => Ok(None),
        Some("1") => Ok(Some(true)),
        Some("0") => Ok(Some(false)),
        Some(other) => Err(WishError::Switch(name, other.chars().take(SESSION_LIMIT).collect())),
    }
}

fn read_session(id: String) -> Result<Arc<str>, WishError> {
    let fits = !id.is_empty()
        && id.len() <= SESSION_LIMIT
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if fits { Ok(id.into()) } else { Err(WishError::Session(id.chars().take(SESSION_LIMIT).collect())) }
}

/// Opens the stream: the answer's head as a healthy opencode's, and the body.
pub(super) fn open(
    front: &Front,
    wish: Wish,
    directory: Option<Arc<str>>,
    peer: Peer,
    cors: HeaderMap,
) -> Response<AnswerBody> {
    let scope = Scope { view: wish.view, directory, session: wish.session, types: wish.types };
    let follower = front.hub.follow(scope, wish.last_id.as_deref(), wish.form);
    let word = header(follower.word());
    let place = front.clients.enter(peer, wish.agent.as_deref(), follower.standing());
    let stream = EventStream::new(follower, place, front.heartbeat, front.streams.clone());
    let mut response = Response::new(AnswerBody::from(Box::new(stream)));
    let headers = response.headers_mut();
    *headers = cors;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.entry(VARY).or_insert(HeaderValue::from_static("Origin"));
    if let Ok(word) = HeaderValue::from_str(&word) {
        headers.insert("x-relay-resume", word);
    }
    response
}

/// The greeting's word for those who read heads: `fresh`, `resumed`, or `gap; reason=…; missed=…`.
fn header(word: &Word) -> String {
    match word {
        Word::Fresh => "fresh".to_owned(),
        Word::Resumed => "resumed".to_owned(),
        Word::Gap { reason, missed: Some(missed) } => format!("gap; reason={reason}; missed={missed}"),
        Word::Gap { reason, missed: None } => format!("gap; reason={reason}"),
    }
}

/// Why a stream ended; always an error towards the client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("go on with the stream: the relay is stopping")]
    Stopping,
    #[error(transparent)]
    Expired(#[from] Expired),
}

/// The body of an event stream.
pub(super) struct EventStream {
    follower: Follower,
    heartbeat: Interval,
    /// Nothing may come before the greeting.
    greeted: bool,
    /// Ends it. Nobody waits for this here: whoever pulls it wakes the hub's followers.
    stop: Stop,
    leaving: Leaving,
    place: Place,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("follower", &self.follower).finish_non_exhaustive()
    }
}

/// How far a stream is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// It was told to end, and gives at most so many batches of what is there already.
    Told(u8),
    /// What was there already was given to hyper.
    Given,
    /// hyper had its chance to write that: it throws away what it has not written when a body ends as an error.
    Written,
}

impl EventStream {
    pub(super) fn new(follower: Follower, place: Place, heartbeat: Duration, stop: Stop) -> Self {
        let (first, period) = match place.view() {
            View::Api => (Instant::now(), API_HEARTBEAT),
            View::Instance | View::Session | View::Global => (Instant::now() + heartbeat, heartbeat),
        };
        let mut heartbeat = interval_at(first, period);
        // A client that was away gets one heartbeat when it reads again, not all that were due.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { follower, heartbeat, greeted: false, stop, leaving: Leaving::No, place }
    }

    /// While it waits for events, they go to `outlet`.
    pub(super) fn attach(&self, outlet: Arc<dyn Outlet>) {
        self.follower.attach(outlet);
    }

    /// Who it is for.
    pub(super) fn peer(&self) -> Peer {
        self.place.peer()
    }

    /// The next bytes. Ranked: the stop (see [`Self::leave`]), a heartbeat that is due (a busy stream must not hold it up), events.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        if self.is_told() {
            return self.leave(context);
        }
        if self.greeted && self.heartbeat.poll_tick(context).is_ready() {
            return Poll::Ready(Ok(self.follower.heartbeat()));
        }
        let frames = self.follower.poll_frames(context);
        if frames.is_ready() {
            self.greeted = true;
        } else if self.is_told() {
            // Just now, and the hub's followers may have been woken before this one was among them.
            return self.leave(context);
        }
        frames.map_err(Ended::from)
    }

    /// Whether it was told to end.
    pub(super) fn is_told(&mut self) -> bool {
        if self.leaving == Leaving::No && self.stop.is_pulled() {
            self.leaving = Leaving::Told(LAST_BATCHES);
        }
        self.leaving != Leaving::No
    }

    /// What tells it to end.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Gives what is there already, so that clients at the tail miss nothing, and ends. Who is further behind resumes by id.
    fn leave(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        if let Leaving::Told(left) = self.leaving {
            self.leaving = Leaving::Given;
            if left > 0
                && let Poll::Ready(frames) = self.follower.poll_frames(context)
            {
                self.leaving = Leaving::Told(left - 1);
                return Poll::Ready(frames.map_err(Ended::from));
            }
        }
        if self.leaving == Leaving::Given {
            self.leaving = Leaving::Written;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Err(Ended::Stopping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(uri: &str, headers: &[(&'static str, &'static str)]) -> Result<Wish, WishError> {
        let headers = headers
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Wish::read(View::Instance, None, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn curl_gets_no_ids_unless_it_asks() {
        let ids = |uri, agent| wish(uri, &[("user-agent", agent)]).unwrap().form.ids;
        assert!(ids("/event", "Bun/1.3"));
        assert!(!ids("/event", "curl/8.5.0"));
        assert!(ids("/event?ids=1", "curl/8.5.0"));
        assert!(!ids("/event?ids=0", "Bun/1.3"));
        for uri in ["/event?ids=yes", "/event?origin="] {
            assert!(wish(uri, &[]).unwrap_err().to_string().contains("neither 0 nor 1"), "{uri}");
        }
    }

    #[test]
    fn the_header_is_the_newer_resume_id() {
        assert_eq!(wish("/event?since=a", &[("last-event-id", "b")]).unwrap().last_id.as_deref(), Some("b"));
        for name in ["since", "lastEventId", "last_event_id"] {
            assert_eq!(wish(&format!("/event?{name}=a-1"), &[]).unwrap().last_id.as_deref(), Some("a-1"));
        }
        assert_eq!(wish("/event?since=", &[]).unwrap().last_id, None);
    }

    #[test]
    fn bad_filters_say_what_to_write() {
        for (uri, word) in
            [("/event?session=a/b", "ses_"), ("/event?session=", "ses_"), ("/event?types=a,,b", "message.*")]
        {
            assert!(wish(uri, &[]).unwrap_err().to_string().contains(word), "{uri}");
        }
        let session = Wish::read(View::Session, Some("ses%5F1"), &Uri::from_static("/x"), &HeaderMap::new());
        assert_eq!(session.unwrap().session.as_deref(), Some("ses_1"));
    }
}
