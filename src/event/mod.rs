//! Our words: [`Event`], [`Cursor`], [`Scope`]. No async, no I/O, no clock.
//!
//! An event keeps the bytes that opencode sent. Its `/global/event` text is stored whole and its `/event` text is a part
//! of it, because the one wraps the other (FACTS §1); only the v2 text of `/api/event` is built anew.

mod cursor;
mod frame;
mod id;
mod scope;
mod unreadable;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

pub use cursor::{Cursor, Epoch, ParseCursorError, Seq};
pub use frame::{Form, Frame, connected, heartbeat, put_frame};
pub use id::fresh_id;
pub use scope::{Scope, Types, TypesError, View, Views};
pub use unreadable::Unreadable;

/// Who supplied an event's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The upstream stream: opencode's own bytes.
    Stream,
    /// Read from the state over REST: opencode's content in a frame of ours.
    State,
    /// Nobody: `--emit-bare` makes an event with empty properties for a log line that no witness could fill.
    Bare,
}

impl Origin {
    /// The word that status and logs use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::State => "state",
            Self::Bare => "bare",
        }
    }

    /// The origin that this word names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Stream, Self::State, Self::Bare].into_iter().find(|origin| origin.name() == name)
    }
}

/// One event as clients will see it, not yet numbered.
#[derive(Clone, Debug)]
pub struct Event {
    /// The type, as `message.updated`; `sync` for the twin of a durable event.
    pub kind: Arc<str>,
    /// The instance it belongs to. `None` for process-wide events, `global` for those opencode sends so.
    pub directory: Option<Arc<str>>,
    /// The session it names, if any.
    pub session: Option<Arc<str>>,
    /// Who supplied the content.
    pub origin: Origin,
    /// Which streams carry it.
    pub views: Views,
    /// The text after `data: ` on `/global/event`. Never has a line break.
    pub global: Bytes,
    /// Where in [`Event::global`] the text after `data: ` on `/event` stands.
    pub payload: Range<usize>,
    /// The text after `data: ` on `/api/event`, if this release has that stream and this event belongs there.
    pub api: Option<Bytes>,
}

impl Event {
    /// The text after `data: ` on `/event`.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.global.slice(self.payload.clone())
    }

    /// What decides who sees it.
    #[must_use]
    pub fn head(&self) -> Head<'_> {
        let Self { kind, directory, session, views, .. } = self;
        Head { kind, directory: directory.as_deref(), session: session.as_deref(), views: *views }
    }

    /// An event of ours: `properties` is JSON text that some witness supplied.
    ///
    /// Keys and their order are those of a healthy opencode (FACTS §1).
    #[must_use]
    pub fn made(origin: Origin, kind: &str, place: &Place, session: Option<&str>, id: &str, properties: &str) -> Self {
        let payload = format!(r#"{{"id":{},"type":{},"properties":{properties}}}"#, quote(id), quote(kind));
        let mut global = String::with_capacity(payload.len() + 128);
        global.push('{');
        if let Some(directory) = &place.directory {
            global.push_str(&format!(r#""directory":{},"#, quote(directory)));
        }
        if let Some(project) = &place.project {
            global.push_str(&format!(r#""project":{},"#, quote(project)));
        }
        global.push_str(r#""payload":"#);
        let start = global.len();
        global.push_str(&payload);
        let end = global.len();
        global.push('}');
        Self {
            kind: kind.into(),
            directory: place.directory.clone(),
            session: session.map(Into::into),
            origin,
            views: Views::of_plain(place.directory.as_deref()),
            global: Bytes::from(global),
            payload: start..end,
            api: None,
        }
    }
}

/// What decides who sees an event.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// As in [`Event`].
    pub kind: &'a str,
    /// As in [`Event`].
    pub directory: Option<&'a str>,
    /// As in [`Event`].
    pub session: Option<&'a str>,
    /// As in [`Event`].
    pub views: Views,
}

/// Where an event happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The instance's directory.
    pub directory: Option<Arc<str>>,
    /// opencode's hash of the project.
    pub project: Option<Arc<str>>,
}

/// A frame of `/global/event`, taken apart without copying.
#[derive(Debug, Deserialize)]
pub struct Global<'a> {
    /// The instance, or `global`, or nothing.
    #[serde(borrow, default)]
    pub directory: Option<std::borrow::Cow<'a, str>>,
    /// opencode's hash of the project.
    #[serde(borrow, default)]
    pub project: Option<std::borrow::Cow<'a, str>>,
    /// What `/event` would have sent.
    #[serde(borrow)]
    pub payload: &'a RawValue,
}

/// The payload of a frame.
#[derive(Debug, Deserialize)]
pub struct Payload<'a> {
    /// Unique from 1.14 on, absent before.
    #[serde(borrow, default)]
    pub id: Option<std::borrow::Cow<'a, str>>,
    /// The event's type.
    #[serde(borrow, rename = "type")]
    pub kind: std::borrow::Cow<'a, str>,
    /// The content; absent in `sync` frames.
    #[serde(borrow, default)]
    pub properties: Option<&'a RawValue>,
    /// The durable twin's content, in `sync` frames only.
    #[serde(borrow, default, rename = "syncEvent")]
    pub sync: Option<Sync<'a>>,
}

/// The durable form of the event right before it (FACTS §1).
#[derive(Debug, Deserialize)]
pub struct Sync<'a> {
    /// The id of the event that it is the twin of.
    #[serde(borrow, default)]
    pub id: Option<std::borrow::Cow<'a, str>>,
    /// The type with its version, as `message.updated.1`.
    #[serde(borrow, rename = "type")]
    pub kind: std::borrow::Cow<'a, str>,
    /// Counts per aggregate from 1.17 on, 0 before.
    #[serde(default)]
    pub seq: u64,
    /// The session.
    #[serde(borrow, rename = "aggregateID")]
    pub aggregate: std::borrow::Cow<'a, str>,
}

/// What the properties say about where an event belongs.
#[derive(Debug, Default, Deserialize)]
struct Belongs<'a> {
    #[serde(borrow, default, rename = "sessionID")]
    session: Option<std::borrow::Cow<'a, str>>,
}

/// Why a frame of the upstream stream could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read a frame of the upstream stream as an event: {}", Unreadable(.0))]
pub struct ReadEventError(#[from] serde_json::Error);

impl Event {
    /// Reads the data of a `/global/event` frame. The bytes are kept as they are.
    ///
    /// # Errors
    ///
    /// When the text is no JSON object with a `payload` that has a `type`.
    pub fn read(data: Bytes) -> Result<Self, ReadEventError> {
        // A JSON string holds no raw line break, so one can only stand between tokens, where a space means the same.
        let data = if memchr::memchr2(b'\n', b'\r', &data).is_some() {
            data.iter().map(|&b| if b == b'\n' || b == b'\r' { b' ' } else { b }).collect()
        } else {
            data
        };
        let global: Global<'_> = serde_json::from_slice(&data)?;
        let text = global.payload.get();
        let start = text.as_ptr() as usize - data.as_ptr() as usize;
        let payload: Payload<'_> = serde_json::from_str(text)?;
        let (session, views) = match (&payload.sync, payload.properties) {
            (Some(sync), _) => (Some(Arc::from(&*sync.aggregate)), Views::of_twin()),
            (None, Some(properties)) => {
                let belongs: Belongs<'_> = serde_json::from_str(properties.get()).unwrap_or_default();
                (belongs.session.map(|session| Arc::from(&*session)), Views::of_plain(global.directory.as_deref()))
            }
            (None, None) => (None, Views::of_plain(global.directory.as_deref())),
        };
        Ok(Self {
            kind: Arc::from(&*payload.kind),
            directory: global.directory.as_deref().map(Arc::from),
            session,
            origin: Origin::Stream,
            views,
            payload: start..start + text.len(),
            api: None,
            global: data.clone(),
        })
    }

    /// The payload, taken apart.
    ///
    /// # Errors
    ///
    /// Never for an event that [`Event::read`] or [`Event::made`] gave.
    pub fn parts(&self) -> Result<Payload<'_>, ReadEventError> {
        Ok(serde_json::from_slice(&self.global[self.payload.clone()])?)
    }

    /// opencode's hash of the project, if the frame says it.
    #[must_use]
    pub fn project(&self) -> Option<Arc<str>> {
        let global: Global<'_> = serde_json::from_slice(&self.global).ok()?;
        global.project.as_deref().map(Arc::from)
    }
}

/// JSON text of a string.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_frame_and_keeps_its_bytes() {
        let data = r#"{"directory":"/a b","project":"p1","payload":{"id":"evt_1","type":"session.idle","properties":{"sessionID":"ses_1"}}}"#;
        let event = Event::read(Bytes::from_static(data.as_bytes())).unwrap();
        assert_eq!(&*event.kind, "session.idle");
        assert_eq!(event.directory.as_deref(), Some("/a b"));
        assert_eq!(event.session.as_deref(), Some("ses_1"));
        assert_eq!(event.payload(), &data[data.find(r#"{"id""#).unwrap()..data.len() - 1]);
        assert_eq!(event.global, data);
        assert_eq!(event.project().as_deref(), Some("p1"));
    }

    #[test]
    fn made_events_read_back_as_themselves() {
        let place = Place { directory: Some("/x\"y".into()), project: Some("p".into()) };
        let made = Event::made(
            Origin::State,
            "todo.updated",
            &place,
            Some("ses_1"),
            "evt_1",
            r#"{"sessionID":"ses_1","todos":[]}"#,
        );
        let read = Event::read(made.global.clone()).unwrap();
        assert_eq!(
            (read.kind, read.directory, read.session, read.payload),
            (made.kind, made.directory, made.session, made.payload)
        );
    }

    #[test]
    fn a_line_break_between_tokens_becomes_a_space() {
        let event = Event::read(Bytes::from_static(b"{\"payload\":\n{\"type\":\"a\",\"properties\":{}}}")).unwrap();
        assert_eq!(event.payload(), r#"{"type":"a","properties":{}}"#);
        assert!(!event.global.contains(&b'\n'));
    }

    #[test]
    fn garbage_is_an_error() {
        for bad in ["", "{}", "[]", r#"{"payload":1}"#, r#"{"payload":{"type":1}}"#, "<html>"] {
            assert!(Event::read(Bytes::from_static(bad.as_bytes())).is_err(), "{bad}");
        }
    }
}
