//! What is written into the file, each within somebody else's transaction.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{Extent, Failure, Limits, row};
use crate::event::Seq;
use crate::journal::Record;

/// Most rows that upkeep deletes at once: some milliseconds.
pub(super) const STEP: usize = 500;

/// Does all of the work or nothing of it. What begins and ends it is kept prepared: parsing that anew took a tenth of a commit's
/// instructions with one event in it.
pub(super) fn transact(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<(), Failure>,
) -> Result<(), Failure> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let result = work(connection).and_then(|()| {
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    });
    if result.is_err() && !connection.is_autocommit() {
        // It may fail after what failed before it, and ends the transaction all the same.
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

pub(super) fn put(transaction: &Connection, records: &[Arc<Record>], extent: &mut Extent) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    let sql = format!("INSERT INTO event ({}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", row::COLUMNS);
    let mut statement = transaction.prepare_cached(&sql)?;
    for record in records {
        extent.total += row::size(record);
        row::insert(&mut statement, record, extent.total)?;
        extent.newest = record.seq;
        if record.seq == extent.oldest {
            extent.oldest_at = record.at;
        }
    }
    Ok(())
}

pub(super) fn put_notes(transaction: &Connection, notes: &[(&str, &str)]) -> Result<(), Failure> {
    for (name, text) in notes {
        let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO note VALUES (?1, ?2, ?3)")?;
        statement.execute(params![name, text, row::checksum(&[name, text])])?;
    }
    Ok(())
}

pub(super) fn put_meta(connection: &Connection, key: &str, value: &str) -> Result<(), Failure> {
    let crc = row::checksum(&[key, value]);
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2, ?3)", params![key, value, crc])?;
    Ok(())
}

impl Extent {
    /// Whether the oldest event is too much. The newest one always stays: it says which number comes next.
    pub(super) fn is_over(&self, limits: Limits) -> bool {
        self.oldest < self.newest && (self.bytes() > limits.bytes || self.oldest_at < limits.expired)
    }
}

pub(super) fn trim(transaction: &Connection, extent: &mut Extent, limits: Limits, rows: usize) -> Result<(), Failure> {
    if !extent.is_over(limits) {
        return Ok(());
    }
    let mut statement =
        transaction.prepare_cached("SELECT seq, at, total FROM event WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
    let mut found = statement.query([extent.oldest.0, rows as u64 + 1])?;
    let mut last = None;
    while let Some(row) = found.next()? {
        extent.oldest = Seq(row.get(0)?);
        extent.oldest_at = row.get(1)?;
        if let Some(before) = last.replace(row.get(2)?) {
            extent.before = before;
        }
        if !extent.is_over(limits) {
            break;
        }
    }
    transaction.prepare_cached("DELETE FROM event WHERE seq < ?1")?.execute([extent.oldest.0])?;
    Ok(())
}
