//! Frames: the bytes of one event on one stream (WHATWG HTML, "Server-sent events").

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Cursor, Origin, View, quote};

/// How long a client waits before it reconnects, in milliseconds: the `retry:` of a stream's first frame.
///
/// Short, because a relay that restarts is back within a second and holds what was missed.
const RETRY: u64 = 500;

/// How a client wants its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// With an `id:` line.
    pub ids: bool,
    /// With the key `relay` in front of the others: who supplied the content, and when the event was numbered.
    pub origin: bool,
}

/// A whole frame with its id, and the same frame without it.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    /// How many bytes the `id:` line has.
    id: usize,
}

impl Frame {
    /// Writes a frame. `data` has no line break.
    #[must_use]
    pub fn new(cursor: Cursor, data: &[u8]) -> Self {
        let id = format!("id: {cursor}\n");
        let mut bytes = BytesMut::with_capacity(id.len() + data.len() + 8);
        bytes.put_slice(id.as_bytes());
        put_data(&mut bytes, data);
        Self { bytes: bytes.freeze(), id: id.len() }
    }

    /// The frame's bytes, with or without the `id:` line.
    #[must_use]
    pub fn bytes(&self, ids: bool) -> &[u8] {
        if ids { &self.bytes } else { &self.bytes[self.id..] }
    }

    /// The frame's bytes as a client wants them. `origin` and `at`, in milliseconds of Unix time, are the event's.
    #[must_use]
    pub fn formed(&self, form: Form, origin: Origin, at: u64) -> Cow<'_, [u8]> {
        let bytes = self.bytes(form.ids);
        // The data is a JSON object that is not empty: there is a key to stand in front of.
        let start = if form.ids { self.id } else { 0 };
        match memchr::memchr(b'{', &bytes[start..]) {
            Some(brace) if form.origin => {
                let (head, rest) = bytes.split_at(start + brace + 1);
                let word = format!(r#""relay":{{"origin":{},"at":{at}}},"#, quote(origin.name()));
                Cow::Owned([head, word.as_bytes(), rest].concat())
            }
            _ => Cow::Borrowed(bytes),
        }
    }

    /// The text after `data: `.
    #[must_use]
    pub fn data(&self) -> Bytes {
        self.bytes.slice(self.id + "data: ".len()..self.bytes.len() - 2)
    }

    /// How much memory the frame takes, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

fn put_data(bytes: &mut BytesMut, data: &[u8]) {
    bytes.put_slice(b"data: ");
    bytes.put_slice(data);
    bytes.put_slice(b"\n\n");
}

/// The first frame of every stream. `properties` is JSON text; `{}` on a fresh connection (DESIGN §3).
///
/// It carries the position the stream starts from, so that a client which drops before its first event misses nothing.
#[must_use]
pub fn connected(view: View, cursor: Option<Cursor>, id: &str, properties: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    if let Some(cursor) = cursor {
        bytes.put_slice(format!("retry: {RETRY}\nid: {cursor}\n").as_bytes());
    }
    put_data(&mut bytes, server(view, id, "server.connected", properties).as_bytes());
    bytes.freeze()
}

/// The frame that shows a client its stream is alive (FACTS §1): a data event, on `/api/event` a comment.
///
/// It carries the position, so that the id of a client whose filter admits little does not expire.
#[must_use]
pub fn heartbeat(view: View, cursor: Option<Cursor>, id: &str) -> Bytes {
    if view == View::Api {
        return Bytes::from_static(b": heartbeat\n\n");
    }
    let mut bytes = BytesMut::new();
    if let Some(cursor) = cursor {
        bytes.put_slice(format!("id: {cursor}\n").as_bytes());
    }
    put_data(&mut bytes, server(view, id, "server.heartbeat", "{}").as_bytes());
    bytes.freeze()
}

fn server(view: View, id: &str, kind: &str, properties: &str) -> String {
    let (id, kind) = (quote(id), quote(kind));
    match view {
        View::Instance | View::Session => format!(r#"{{"id":{id},"type":{kind},"properties":{properties}}}"#),
        View::Global => format!(r#"{{"payload":{{"id":{id},"type":{kind},"properties":{properties}}}}}"#),
        View::Api => format!(r#"{{"id":{id},"type":{kind},"data":{properties}}}"#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Epoch, Seq};

    #[test]
    fn frames_have_no_lone_fields() {
        let cursor = Cursor { epoch: Epoch::new(1), seq: Seq(2) };
        let frame = Frame::new(cursor, b"{}");
        assert_eq!(frame.bytes(true), b"id: 0000000000000001-2\ndata: {}\n\n");
        assert_eq!(frame.bytes(false), b"data: {}\n\n");
        let frame = Frame::new(cursor, br#"{"a":{}}"#);
        let with = |ids, origin| frame.formed(Form { ids, origin }, Origin::State, 7).into_owned();
        assert_eq!(with(false, false), frame.bytes(false));
        assert_eq!(with(false, true), b"data: {\"relay\":{\"origin\":\"state\",\"at\":7},\"a\":{}}\n\n");
        assert!(with(true, true).starts_with(b"id: 0000000000000001-2\ndata: {\"relay\":"));
        assert_eq!(
            &heartbeat(View::Global, None, "evt_1")[..],
            br#"data: {"payload":{"id":"evt_1","type":"server.heartbeat","properties":{}}}

"#
            .as_slice()
        );
        assert!(
            connected(View::Instance, Some(cursor), "evt_1", "{}")
                .starts_with(b"retry: 500\nid: 0000000000000001-2\ndata: {")
        );
    }
}
