//! Frames: the bytes of one event on one stream (WHATWG HTML, "Server-sent events").

use bytes::{BufMut, Bytes, BytesMut};

use super::{Cursor, Origin, View, quote};

/// How long a client waits before it reconnects, in milliseconds: the `retry:` of a stream's first frame.
///
/// Short, because a relay that restarts is back within a second and holds what was missed.
const RETRY: u64 = 500;

/// How a client wants its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// With an `id:` line.
    pub ids: bool,
    /// With the key `relay` in front of the others: who supplied the content, and when the event was numbered.
    pub origin: bool,
}

/// A whole frame with its id, and the same frame without it.
///
/// The id stands behind the data. Some readers count an id when they see its line and not when the frame is whole (npm
/// `eventsource` 2 does): with the id in front, one that is cut off in the data would come back as if it had the event.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    /// Where the `id:` line begins.
    id: usize,
}

impl Frame {
    /// How [`Frame::bytes`] looks.
    pub const FORM: Form = Form { ids: true, origin: false };

    /// Writes a frame. `data` has no line break.
    #[must_use]
    pub fn new(cursor: Cursor, data: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(data.len() + OVERHEAD);
        let id = put_data(&mut bytes, data);
        put_end(&mut bytes, Some(cursor));
        Self { bytes: bytes.freeze(), id }
    }

    /// The whole frame, with its id.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The text after `data: `.
    #[must_use]
    pub fn data(&self) -> Bytes {
        self.bytes.slice("data: ".len()..self.id - 1)
    }

    /// How much memory the frame takes, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// What a frame may have besides its data without the key `relay`, in bytes.
const OVERHEAD: usize = "data: \nid: \n\n".len() + Cursor::LONGEST;

/// Writes an event's frame as a client wants it. `data` is what [`Frame::data`] gives; `origin` and `at`, in milliseconds of
/// Unix time, are the event's.
pub fn put_frame(data: &[u8], cursor: Cursor, form: Form, origin: Origin, at: u64, out: &mut BytesMut) {
    out.reserve(data.len() + OVERHEAD);
    // The data is a JSON object that is not empty: there is a key to stand in front of.
    if let (true, Some(brace)) = (form.origin, memchr::memchr(b'{', data)) {
        let (head, rest) = data.split_at(brace + 1);
        out.put_slice(b"data: ");
        out.put_slice(head);
        out.put_slice(format!(r#""relay":{{"origin":{},"at":{at}}},"#, quote(origin.name())).as_bytes());
        out.put_slice(rest);
        out.put_slice(b"\n");
    } else {
        put_data(out, data);
    }
    put_end(out, form.ids.then_some(cursor));
}

/// Writes the `data:` line; where it ends.
fn put_data(bytes: &mut BytesMut, data: &[u8]) -> usize {
    bytes.put_slice(b"data: ");
    bytes.put_slice(data);
    bytes.put_slice(b"\n");
    bytes.len()
}

fn put_end(bytes: &mut BytesMut, cursor: Option<Cursor>) {
    if let Some(cursor) = cursor {
        bytes.put_slice(b"id: ");
        cursor.put(bytes);
        bytes.put_slice(b"\n");
    }
    bytes.put_slice(b"\n");
}

/// The first frame of every stream. `properties` is JSON text; `{}` on a fresh connection (DESIGN §3).
///
/// It carries the position the stream starts from, so that a client which drops before its first event misses nothing.
#[must_use]
pub fn connected(view: View, cursor: Option<Cursor>, id: &str, properties: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    if cursor.is_some() {
        bytes.put_slice(format!("retry: {RETRY}\n").as_bytes());
    }
    put_data(&mut bytes, server(view, id, "server.connected", properties).as_bytes());
    put_end(&mut bytes, cursor);
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
    put_data(&mut bytes, server(view, id, "server.heartbeat", "{}").as_bytes());
    put_end(&mut bytes, cursor);
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
        let frame = Frame::new(cursor, br#"{"a":{}}"#);
        let put = |ids, origin| {
            let mut out = BytesMut::new();
            put_frame(&frame.data(), cursor, Form { ids, origin }, Origin::State, 7, &mut out);
            out
        };
        assert_eq!(frame.bytes(), &b"data: {\"a\":{}}\nid: 0000000000000001-2\n\n"[..]);
        assert_eq!(put(true, false), frame.bytes());
        assert_eq!(put(false, false), &b"data: {\"a\":{}}\n\n"[..]);
        let relay = b"data: {\"relay\":{\"origin\":\"state\",\"at\":7},\"a\":{}}\n";
        assert_eq!(put(false, true), &[&relay[..], b"\n"].concat()[..]);
        assert_eq!(put(true, true), &[&relay[..], b"id: 0000000000000001-2\n\n"].concat()[..]);
        assert_eq!(frame.data(), &br#"{"a":{}}"#[..]);
        assert_eq!(
            &heartbeat(View::Global, None, "evt_1")[..],
            br#"data: {"payload":{"id":"evt_1","type":"server.heartbeat","properties":{}}}

"#
            .as_slice()
        );
        assert!(connected(View::Instance, Some(cursor), "evt_1", "{}").starts_with(b"retry: 500\ndata: {"));
    }
}
