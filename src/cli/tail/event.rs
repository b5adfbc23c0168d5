//! What a frame says, on `/global/event` or on `/event`, as far as `tail` needs it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// An event, taken apart without copying its content.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// The type.
    pub(super) kind: Cow<'a, str>,
    /// The content.
    pub(super) properties: Option<&'a RawValue>,
    /// Who supplied the content, and when it was numbered; only where the relay was asked.
    pub(super) told: Option<Told<'a>>,
}

/// The relay's word on an event.
#[derive(Debug, Deserialize)]
pub(super) struct Told<'a> {
    /// `stream`, `state` or `bare`.
    #[serde(borrow, default)]
    pub(super) origin: Cow<'a, str>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub(super) at: Option<i64>,
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow, default)]
    relay: Option<Told<'a>>,
    #[serde(borrow, default)]
    payload: Option<Inner<'a>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    properties: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    properties: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "syncEvent")]
    twin: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Reads the data of a frame; `None` if it is no event.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        let outer: Outer<'a> = serde_json::from_slice(data).ok()?;
        let told = outer.relay;
        match (outer.payload, outer.kind) {
            (Some(inner), _) => Some(Self { kind: inner.kind, properties: inner.properties.or(inner.twin), told }),
            (None, Some(kind)) => Some(Self { kind, properties: outer.properties, told }),
            (None, None) => None,
        }
    }

    /// The content, for a summary; `null` where there is none.
    pub(super) fn content(&self) -> Value {
        self.properties.and_then(|text| serde_json::from_str(text.get()).ok()).unwrap_or(Value::Null)
    }

    /// Whether it is the relay's or opencode's sign of life.
    pub(super) fn is_heartbeat(&self) -> bool {
        self.kind == "server.heartbeat"
    }

    /// Whether it is the greeting of a stream.
    pub(super) fn is_greeting(&self) -> bool {
        self.kind == "server.connected"
    }

    /// Whether it is the second form of a durable event, which says the same again.
    pub(super) fn is_twin(&self) -> bool {
        self.kind == "sync"
    }
}

/// The session that an event's content names.
pub(super) fn session(content: &Value) -> Option<&str> {
    content["sessionID"].as_str().or_else(|| content["aggregateID"].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read() {
        for data in [
            r#"{"relay":{"origin":"state","at":5},"directory":"/x","payload":{"id":"e","type":"a","properties":{"sessionID":"s"}}}"#,
            r#"{"relay":{"origin":"state","at":5},"id":"e","type":"a","properties":{"sessionID":"s"}}"#,
        ] {
            let event = Event::read(data.as_bytes()).unwrap();
            assert_eq!((&*event.kind, session(&event.content())), ("a", Some("s")));
            let told = event.told.unwrap();
            assert_eq!((&*told.origin, told.at), ("state", Some(5)));
        }
        let twin = r#"{"payload":{"type":"sync","syncEvent":{"type":"a.1","aggregateID":"s"}}}"#;
        let twin = Event::read(twin.as_bytes()).unwrap();
        assert!(twin.is_twin() && twin.told.is_none());
        assert_eq!(session(&twin.content()), Some("s"));
        for none in ["", "{}", "[]", "1", r#"{"payload":{}}"#, "<html>"] {
            assert!(Event::read(none.as_bytes()).is_none(), "{none}");
        }
    }
}
