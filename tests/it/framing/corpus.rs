//! Requests as bytes, named by the section of RFC 9112 that speaks about them, with what must become of each.

mod chunks;
mod connection;
mod fields;
mod lengths;
mod lines;

/// A request and what must become of it.
pub(crate) struct Vector {
    /// The section of RFC 9112, unless it names another document.
    pub(crate) section: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fate: Fate,
}

/// What becomes of a request. In all but [`Fate::Passed`] and [`Fate::Answered`] nothing that follows on the connection is ever acted on.
pub(crate) enum Fate {
    /// Answered with this status by the relay; the connection is closed.
    Refused(u16),
    /// The connection is closed, with 400 before it or with nothing; opencode may have got the beginning of it.
    Broken,
    /// Answered with this status by the relay, which needs nothing of it; the connection may go on behind its body or end.
    Answered(u16),
    /// opencode gets exactly this, and the connection goes on.
    Passed(Meant),
    /// opencode gets exactly this; the connection is closed after its answer.
    Last(Meant),
    /// More could come that belongs to it; opencode may have got the beginning of it.
    Unfinished,
}

/// The message that was meant.
pub(crate) struct Meant {
    /// Method and target.
    pub(crate) start: String,
    pub(crate) body: Vec<u8>,
    /// Fields and their values; a field named `x-hop` must never arrive.
    pub(crate) fields: Vec<(&'static str, &'static str)>,
    /// Method and target of a request that follows by right.
    pub(crate) next: Option<&'static str>,
}

pub(crate) fn all() -> Vec<Vector> {
    let mut all = Vec::new();
    for part in [lines::vectors, fields::vectors, lengths::vectors, chunks::vectors, connection::vectors] {
        all.extend(part());
    }
    all
}

/// A request that wants to be taken for one, inside of another's body.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: relay\r\n\r\n";

fn vector(section: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>, fate: Fate) -> Vector {
    Vector { section, name: name.into(), bytes: bytes.into(), fate }
}

fn meant(start: &str, body: &str) -> Meant {
    Meant { start: start.to_owned(), body: body.as_bytes().to_vec(), fields: Vec::new(), next: None }
}

impl Meant {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    fn then(mut self, start: &'static str) -> Self {
        self.next = Some(start);
        self
    }
}

fn passed(start: &str, body: &str) -> Fate {
    Fate::Passed(meant(start, body))
}

fn last(start: &str, body: &str) -> Fate {
    Fate::Last(meant(start, body))
}

/// `GET /v` with these field lines.
fn get(fields: &str) -> String {
    format!("GET /v HTTP/1.1\r\nhost: relay\r\n{fields}\r\n")
}

/// `POST /v` with these field lines and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /v HTTP/1.1\r\nhost: relay\r\n{fields}\r\n{body}")
}
