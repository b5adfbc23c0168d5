//! What is read from the file. Whoever reads checks: every row by its checksum, and that none is missing between two.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::connection::connect;
use super::{Failure, folder, row};
use crate::event::{Cursor, Seq};
use crate::journal::epochs::{Entry, Epochs};
use crate::journal::{Record, Stored};

/// A connection that only reads.
#[derive(Debug)]
pub(in crate::journal) struct Reader(Connection);

impl Reader {
    pub(in crate::journal) fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?))
    }

    /// Reads on after a position until `visit` breaks off; whether the record after it is kept.
    pub(in crate::journal) fn read(
        &self,
        after: Seq,
        visit: impl FnMut(Stored<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Failure> {
        let snapshot = self.0.unchecked_transaction()?;
        read(&snapshot, after, visit)
    }
}

/// Shows the records after a position, until `visit` breaks off; the first of them may be gone, none after it. Whether there
/// was any.
pub(super) fn read(
    snapshot: &Connection,
    after: Seq,
    mut visit: impl FnMut(Stored<'_>) -> ControlFlow<()>,
) -> Result<bool, Failure> {
    let sql = format!("SELECT {} FROM event WHERE seq > ?1 ORDER BY seq", row::COLUMNS);
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut found = statement.query([after.0])?;
    let mut expected = after.next();
    while let Some(row) = found.next()? {
        let (stored, _) = row::read(row)?;
        let seq = stored.cursor.seq;
        if seq != expected {
            let is_first = expected == after.next();
            drop(found);
            drop(statement);
            let is_kept = edge(snapshot, "ASC")?.is_some_and(|(oldest, _)| oldest.seq < expected);
            if is_first && !is_kept {
                return Ok(false);
            }
            return Err(Failure::Corrupt(format!("event {expected} is missing")));
        }
        expected = seq.next();
        if visit(stored).is_break() {
            break;
        }
    }
    Ok(expected > after.next())
}

/// The oldest (`ASC`) or newest (`DESC`) record, with the total up to it.
pub(super) fn edge(snapshot: &Connection, order: &str) -> Result<Option<(Record, u64)>, Failure> {
    let sql = format!("SELECT {} FROM event ORDER BY seq {order} LIMIT 1", row::COLUMNS);
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let (stored, total) = row::read(row)?;
    Ok(Some((stored.record(), total)))
}

pub(super) fn newest_total(snapshot: &Connection) -> Result<u64, Failure> {
    Ok(edge(snapshot, "DESC")?.map_or(0, |(_, total)| total))
}

pub(super) fn load_epochs(snapshot: &Connection) -> Result<Option<Epochs>, Failure> {
    let mut statement = snapshot.prepare("SELECT position, number, first_seq, crc FROM epoch ORDER BY position")?;
    let mut found = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = found.next()? {
        let (position, number, first): (u64, String, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let cursor = format!("{number}-{first}").parse::<Cursor>();
        match cursor {
            Ok(Cursor { epoch, seq }) if epoch_checksum(position, &number, seq) == row.get::<_, u32>(3)? => {
                entries.push(Entry { epoch, first: seq });
            }
            _ => return Err(Failure::Corrupt(format!("epoch {number:?} is damaged"))),
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    Epochs::stored(entries).map(Some).ok_or_else(|| Failure::Corrupt("its epochs are not in order".to_owned()))
}

pub(super) fn epoch_checksum(position: u64, number: &str, first: Seq) -> u32 {
    let mut checksum = row::Checksum::default();
    checksum.number(position);
    checksum.text(Some(number.as_bytes()));
    checksum.number(first.0);
    checksum.end()
}

pub(super) fn load_texts(snapshot: &Connection, sql: &str) -> Result<BTreeMap<String, String>, Failure> {
    let mut statement = snapshot.prepare(sql)?;
    let mut found = statement.query([])?;
    let mut texts = BTreeMap::new();
    while let Some(row) = found.next()? {
        let (name, text): (String, String) = (row.get(0)?, row.get(1)?);
        if row.get::<_, u32>(2)? != row::checksum(&[&name, &text]) {
            return Err(Failure::Corrupt(format!("the row {name:?} is damaged")));
        }
        texts.insert(name, text);
    }
    Ok(texts)
}

/// Why the end of the file may be missing.
pub(super) fn cut(
    meta: &BTreeMap<String, String>,
    identity: &str,
    mark: Option<Cursor>,
    epochs: &Epochs,
    newest: Seq,
) -> Option<&'static str> {
    let get = |key| meta.get(key).map(String::as_str).unwrap_or_default();
    if get("file") != identity {
        return Some("the file is a copy or was moved to another disk");
    }
    let boot = folder::boot();
    if get("clean") != "1" && (boot.is_empty() || get("boot") != boot) {
        return Some("the machine went down while the relay ran");
    }
    match mark {
        None => Some("journal.newest is missing or damaged"),
        Some(mark) if mark.seq > newest || !epochs.entries().iter().any(|entry| entry.epoch == mark.epoch) => {
            Some("the file ends before the newest event that clients were sent")
        }
        Some(_) => None,
    }
}
