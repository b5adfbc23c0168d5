//! A record as a row, and back. The row's checksum is over all its columns.

use bytes::Bytes;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Row, params};

use super::super::{Record, Stored};
use super::Failure;
use crate::event::{Cursor, Head, Origin, Seq, Views};

/// The columns, in the order that [`insert`] and [`read`] use.
pub(super) const COLUMNS: &str =
    "seq, at, kind, directory, session, origin, views, payload_start, payload_end, total, api, frame, crc";

/// What a row counts beside its texts, in bytes: about what SQLite needs for the numbers and short texts.
const OVERHEAD: usize = 64;

/// How many bytes a record counts against the limit: its stored frame, its text for `/api/event`, and the row itself.
pub(super) fn size(record: &Record) -> u64 {
    let api = record.event.api.as_ref().map_or(0, Bytes::len);
    (record.stored().size() + api + OVERHEAD) as u64
}

/// Bytes that are stored as text, so that people can read them. opencode's frames are UTF-8; if one is not, SQLite stores
/// and gives it back all the same.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// Writes a record; `total` counts the bytes of all records up to this one.
pub(super) fn insert(statement: &mut CachedStatement<'_>, record: &Record, total: u64) -> Result<(), Failure> {
    let frame = record.stored();
    let event = &record.event;
    let columns = Columns {
        seq: record.seq.0,
        at: record.at,
        kind: event.kind.as_bytes(),
        directory: event.directory.as_deref().map(str::as_bytes),
        session: event.session.as_deref().map(str::as_bytes),
        origin: event.origin.name().as_bytes(),
        views: event.views.bits(),
        start: event.payload.start as u64,
        end: event.payload.end as u64,
        total,
        api: event.api.as_deref(),
        frame: frame.bytes(),
    };
    statement.execute(params![
        columns.seq,
        columns.at,
        Text(columns.kind),
        columns.directory.map(Text),
        columns.session.map(Text),
        Text(columns.origin),
        columns.views,
        columns.start,
        columns.end,
        columns.total,
        columns.api.map(Text),
        Text(columns.frame),
        columns.checksum(),
    ])?;
    Ok(())
}

/// Reads a record and the total up to it.
pub(super) fn read<'a>(row: &'a Row<'_>) -> Result<(Stored<'a>, u64), Failure> {
    let text = |at| row.get_ref(at)?.as_bytes().map_err(|error| wrong(&error.to_string()));
    let some = |at| row.get_ref(at)?.as_bytes_or_null().map_err(|error| wrong(&error.to_string()));
    let columns = Columns {
        seq: row.get(0)?,
        at: row.get(1)?,
        kind: text(2)?,
        directory: some(3)?,
        session: some(4)?,
        origin: text(5)?,
        views: row.get(6)?,
        start: row.get(7)?,
        end: row.get(8)?,
        total: row.get(9)?,
        api: some(10)?,
        frame: text(11)?,
    };
    if row.get::<_, u32>(12)? != columns.checksum() {
        return Err(wrong(&format!("the checksum of event {} does not fit", columns.seq)));
    }
    let total = columns.total;
    columns.stored().map(|stored| (stored, total)).ok_or_else(|| wrong("an event cannot be read"))
}

fn wrong(what: &str) -> Failure {
    Failure::Corrupt(what.to_owned())
}

/// The columns but the last.
struct Columns<'a> {
    seq: u64,
    at: u64,
    kind: &'a [u8],
    directory: Option<&'a [u8]>,
    session: Option<&'a [u8]>,
    origin: &'a [u8],
    views: u8,
    start: u64,
    end: u64,
    total: u64,
    api: Option<&'a [u8]>,
    frame: &'a [u8],
}

impl<'a> Columns<'a> {
    fn checksum(&self) -> u32 {
        let mut checksum = Checksum::default();
        for number in [self.seq, self.at, self.views.into(), self.start, self.end, self.total] {
            checksum.number(number);
        }
        for text in [Some(self.kind), self.directory, self.session, Some(self.origin), self.api, Some(self.frame)] {
            checksum.text(text);
        }
        checksum.end()
    }

    /// The record, if the columns make one. The checksum fits when this is called, so a `None` here is a mistake of the
    /// relay that wrote it.
    fn stored(&self) -> Option<Stored<'a>> {
        let (cursor, global) = frame_parts(self.frame)?;
        let cursor: Cursor = text(cursor)?.parse().ok()?;
        let payload = usize::try_from(self.start).ok()?..usize::try_from(self.end).ok()?;
        global.get(payload.clone())?;
        let some = |bytes: Option<&'a [u8]>| match bytes {
            None => Some(None),
            Some(bytes) => text(bytes).map(Some),
        };
        let head = Head {
            kind: text(self.kind)?,
            directory: some(self.directory)?,
            session: some(self.session)?,
            views: Views::from_bits(self.views)?,
        };
        let origin = Origin::from_name(text(self.origin)?)?;
        let stored = Stored { cursor, at: self.at, head, origin, global, payload, api: self.api };
        (cursor.seq == Seq(self.seq)).then_some(stored)
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A CRC-32 over fields, each told apart from its neighbours by its length.
pub(super) struct Checksum {
    hasher: crc32fast::Hasher,
    /// Short fields that the hasher does not have yet: it takes as long for one of them as for all together.
    short: [u8; SHORT],
    filled: usize,
}

/// The room for short fields, in bytes: all of an event but its texts for the streams.
const SHORT: usize = 256;

impl Default for Checksum {
    fn default() -> Self {
        Self { hasher: crc32fast::Hasher::default(), short: [0; SHORT], filled: 0 }
    }
}

impl Checksum {
    pub(super) fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: Option<&[u8]>) {
        self.number(text.map_or(u64::MAX, |text| text.len() as u64));
        self.bytes(text.unwrap_or_default());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if bytes.len() > SHORT - self.filled {
            self.hasher.update(&self.short[..self.filled]);
            self.filled = 0;
        }
        match self.short.get_mut(self.filled..self.filled + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.filled += bytes.len();
            }
            None => self.hasher.update(bytes),
        }
    }

    pub(super) fn end(mut self) -> u32 {
        self.hasher.update(&self.short[..self.filled]);
        self.hasher.finalize()
    }
}

/// The checksum of a short row of texts.
pub(in crate::journal) fn checksum(texts: &[&str]) -> u32 {
    let mut checksum = Checksum::default();
    for text in texts {
        checksum.text(Some(text.as_bytes()));
    }
    checksum.end()
}

/// The id and the data of a stored frame. Relays of an earlier day wrote the id in front.
fn frame_parts(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let lines = frame.strip_suffix(b"\n\n")?;
    let end = memchr::memchr(b'\n', lines)?;
    let (first, second) = (&lines[..end], &lines[end + 1..]);
    match first.strip_prefix(b"data: ") {
        Some(data) => Some((second.strip_prefix(b"id: ")?, data)),
        None => Some((first.strip_prefix(b"id: ")?, second.strip_prefix(b"data: ")?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_both_orders_are_read() {
        let parts = Some((&b"00d1ce5eed5eed00-42"[..], &br#"{"a":1}"#[..]));
        assert_eq!(frame_parts(b"data: {\"a\":1}\nid: 00d1ce5eed5eed00-42\n\n"), parts);
        assert_eq!(frame_parts(b"id: 00d1ce5eed5eed00-42\ndata: {\"a\":1}\n\n"), parts);
        for none in [&b""[..], b"\n\n", b"data: {}\n\n", b"id: 1\nid: 2\n\n", b"data: {}\nid: 1\n"] {
            assert_eq!(frame_parts(none), None, "{none:?}");
        }
    }
}
