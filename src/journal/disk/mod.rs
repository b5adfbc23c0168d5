//! The journal's file: SQLite with a write-ahead log, which `sqlite3` can read while the relay runs.
//!
//! In the state folder are:
//!
//! 1. `journal.sqlite3` with `-wal` and `-shm`: the tables below. `PRAGMA application_id` is 0x6f63726a, `PRAGMA
//!    user_version` the format, 1.
//! 2. `journal.newest`: the newest id that was given out, as text; see [`folder`].
//! 3. `lock`: held by the relay that uses the folder; its process id, as text.
//! 4. `journal.sqlite3.corrupt-<unix time>`: damaged files that were set aside, the newest two.
//!
//! The tables, each row with a CRC-32 over all its other columns (`crc`; numbers as 8 bytes, little-endian; texts
//! with their length as such a number in front, which is 2^64 - 1 for NULL):
//!
//! 1. `event`: one row per event. `seq` (neighbours differ by one), `at` (milliseconds of Unix time), `kind` (the type),
//!    `directory`, `session`, `origin` (`stream`, `state`, `bare`), `views` (1 `/event`, 2 `/global/event`, 4
//!    `/api/event`, added up), `payload_start` and `payload_end` (where in the data of `frame` the data of `/event` stands),
//!    `total` (bytes of all events up to this one, with dropped ones, for the limit), `api` (the data on `/api/event`),
//!    `frame` (the frame on `/global/event`, as it is sent).
//! 2. `epoch`: which epoch (`number`, 16 hex digits) numbered the events from `first_seq` on, in the order of `position`.
//! 3. `note`: what the relay needs to go on after a restart, by `name`.
//! 4. `meta`: `boot` (the machine's start in which the file was opened last), `clean` (`1` when it was closed in order),
//!    `file` (device and inode, by which a copy is told apart).
//!
//! A commit writes to the write-ahead log and does not wait for the disk: it outlives a kill of the relay, not of the
//! machine. A checkpoint waits for the disk; upkeep makes one every second.

mod failure;
mod folder;
mod row;
mod schema;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::Record;
use super::epochs::{Entry, Epochs};
use crate::event::{Cursor, Seq};
use folder::Mark;

pub(super) use failure::Failure;
pub(super) use folder::{Folder, FolderError, wal_size};
#[cfg(test)]
pub(super) use row::checksum;
pub(super) use schema::VERSION;

/// How long a lock that somebody else holds (a person with `sqlite3`) is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// How long readers are waited for when the write-ahead log is to be cut off; the writer waits too.
const CUT_BUSY: Duration = Duration::from_millis(100);

/// Most records that are read at a start, and most bytes of them.
const RECENT_EVENTS: u64 = 20_000;
const RECENT_BYTES: u64 = 16 << 20;

/// The file, opened by its one writer.
#[derive(Debug)]
pub(super) struct Disk {
    connection: Connection,
    mark: Mark,
    identity: String,
    extent: Extent,
}

/// Which events the file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The oldest event; one past the newest when there is none.
    pub(super) oldest: Seq,
    /// When that was numbered, in milliseconds of Unix time.
    oldest_at: u64,
    /// The newest number the file knows of.
    pub(super) newest: Seq,
    /// The bytes of all events up to the newest, and of those before the oldest.
    total: u64,
    before: u64,
}

impl Extent {
    /// The bytes of the events in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.total.saturating_sub(self.before)
    }
}

/// What is too much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most bytes of events.
    pub(super) bytes: u64,
    /// Events from before this time are too old, in milliseconds of Unix time.
    pub(super) expired: u64,
}

/// What the file held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// `None` for a new file.
    pub(super) epochs: Option<Epochs>,
    pub(super) notes: BTreeMap<String, String>,
    /// The newest records.
    pub(super) recent: Vec<Arc<Record>>,
    /// Why the end of the file may be missing, if it may.
    pub(super) cut: Option<&'static str>,
}

impl Disk {
    /// Opens the file, or makes a new one. Nothing of ours is written before [`Disk::rewrite`].
    pub(super) fn open(folder: &Folder) -> Result<(Self, Loaded), Failure> {
        folder.make_file()?;
        let path = folder.file();
        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")?;
        let is_new = schema::prepare(&mut connection)?;
        let (mut mark, identity) = (folder.mark()?, folder::identity(&path)?);
        let mut disk = Self { connection, mark: folder.mark()?, identity, extent: Extent::default() };
        disk.extent.oldest = Seq(1);
        let loaded = if is_new { Loaded::default() } else { disk.load(mark.read())? };
        Ok((disk, loaded))
    }

    fn load(&mut self, mark: Option<Cursor>) -> Result<Loaded, Failure> {
        let snapshot = self.connection.transaction()?;
        let epochs = load_epochs(&snapshot)?;
        let meta = load_texts(&snapshot, "SELECT key, value, crc FROM meta")?;
        let notes = load_texts(&snapshot, "SELECT name, text, crc FROM note")?;
        let (oldest, newest) = (edge(&snapshot, "ASC")?, edge(&snapshot, "DESC")?);
        let Some(epochs) = epochs else {
            // Killed while it made the file.
            return match newest {
                None => Ok(Loaded::default()),
                Some(_) => Err(Failure::Corrupt("it has events but no epoch".to_owned())),
            };
        };
        let first = epochs.current().first;
        let mut recent = Vec::new();
        let extent = if let (Some((oldest, total)), Some((newest, _))) = (&oldest, &newest) {
            if newest.seq.next() < first {
                return Err(Failure::Corrupt("its newest events are missing".to_owned()));
            }
            let sql = "SELECT seq FROM event WHERE seq > ?1 AND total > ?2 ORDER BY seq LIMIT 1";
            let newest_total = newest_total(&snapshot)?;
            let few = newest.seq.0.saturating_sub(RECENT_EVENTS);
            let start: u64 =
                snapshot.query_row(sql, [few, newest_total.saturating_sub(RECENT_BYTES)], |row| row.get(0))?;
            recent = read(&snapshot, Seq(start - 1), usize::MAX)?.unwrap_or_default();
            if recent.last().map(|record| record.seq) != Some(newest.seq) {
                return Err(Failure::Corrupt("its newest events are missing".to_owned()));
            }
            Extent {
                oldest: oldest.seq,
                oldest_at: oldest.at,
                newest: newest.seq,
                total: newest_total,
                before: total.saturating_sub(row::size(oldest)),
            }
        } else {
            let newest = Seq(first.0.saturating_sub(1));
            Extent { oldest: newest.next(), newest, ..Extent::default() }
        };
        drop(snapshot);
        self.extent = extent;
        let cut = cut(&meta, &self.identity, mark, &epochs, extent.newest);
        Ok(Loaded { epochs: Some(epochs), notes, recent, cut })
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// Whether the path still leads to the opened file.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        folder::identity(path).is_ok_and(|identity| identity == self.identity)
    }

    /// Writes records that follow the newest and notes, all or nothing, and drops some of what is too much.
    pub(super) fn commit(
        &mut self,
        records: &[Arc<Record>],
        notes: &[(&str, &str)],
        limits: Limits,
    ) -> Result<(), Failure> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut extent = self.extent;
        put(&transaction, records, &mut extent)?;
        put_notes(&transaction, notes)?;
        // Twice as many as come, so that it gets less, and it costs in proportion.
        trim(&transaction, &mut extent, limits, (records.len() * 2).max(16))?;
        transaction.commit()?;
        self.extent = extent;
        self.mark(records.last());
        Ok(())
    }

    /// Writes what a file needs that goes on from here: who uses it, the epochs, the records, all notes. What it holds
    /// after `keep` is dropped first: it was never given out.
    pub(super) fn rewrite<'a>(
        &mut self,
        keep: Seq,
        epochs: &Epochs,
        records: &[Arc<Record>],
        notes: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<(), Failure> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut extent = self.extent;
        transaction.execute("DELETE FROM event WHERE seq > ?1", [keep.0])?;
        extent.total = newest_total(&transaction)?;
        extent.newest = records.first().map_or(keep, |first| Seq(first.seq.0 - 1));
        if edge(&transaction, "ASC")?.is_none() {
            extent = Extent { oldest: extent.newest.next(), newest: extent.newest, ..Extent::default() };
        }
        transaction.execute("DELETE FROM epoch", [])?;
        for (position, Entry { epoch, first }) in epochs.entries().iter().enumerate() {
            let (position, number) = (position as u64, epoch.to_string());
            let crc = epoch_checksum(position, &number, *first);
            transaction
                .execute("INSERT INTO epoch VALUES (?1, ?2, ?3, ?4)", params![position, number, first.0, crc])?;
        }
        put(&transaction, records, &mut extent)?;
        let notes: Vec<(&str, &str)> = notes.into_iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        put_notes(&transaction, &notes)?;
        for (key, value) in [("boot", folder::boot().as_str()), ("clean", "0"), ("file", &self.identity)] {
            put_meta(&transaction, key, value)?;
        }
        transaction.commit()?;
        self.extent = extent;
        let _ = self.mark.write(epochs.cursor_of_current(extent.newest));
        // Synced before anything is given out: a file that says it was closed in order while it is used would hide that
        // its end was lost.
        self.checkpoint()
    }

    /// Drops a step of what is too much; whether there may be more.
    pub(super) fn trim(&mut self, limits: Limits) -> Result<bool, Failure> {
        let mut extent = self.extent;
        if !extent.is_over(limits) {
            return Ok(false);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        trim(&transaction, &mut extent, limits, STEP)?;
        transaction.commit()?;
        self.extent = extent;
        Ok(extent.is_over(limits))
    }

    /// Moves the write-ahead log into the file, waits for the disk, and cuts the log off if nobody reads it.
    pub(super) fn checkpoint(&self) -> Result<(), Failure> {
        checkpoint(&self.connection, "TRUNCATE")
    }

    /// Writes everything out and says in the file that nothing is missing.
    pub(super) fn close(self) -> Result<(), Failure> {
        self.checkpoint()?;
        self.mark.sync()?;
        put_meta(&self.connection, "clean", "1")?;
        self.checkpoint()
    }

    /// Lets the file have this many pages more and no others, as a full disk does.
    #[cfg(test)]
    pub(super) fn limit_growth(&self, pages: u32) {
        let count: u32 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let limit = count.saturating_add(pages);
        self.connection.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(())).unwrap();
    }

    fn mark(&self, newest: Option<&Arc<Record>>) {
        if let Some(record) = newest
            && let Err(error) = self.mark.write(record.cursor())
        {
            // The events are safe; only a file that loses its end would not be noticed.
            tracing::debug!("failed to write journal.newest: {error}");
        }
    }
}

/// A connection that only reads.
#[derive(Debug)]
pub(super) struct Reader(Connection);

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?))
    }

    /// Reads on after a position, about `limit` bytes, at least one record; `None` when the one after it is not kept.
    pub(super) fn read(&self, after: Seq, limit: usize) -> Result<Option<Vec<Arc<Record>>>, Failure> {
        let snapshot = self.0.unchecked_transaction()?;
        read(&snapshot, after, limit)
    }
}

/// A connection for checkpoints, which do not hold up the writer.
#[derive(Debug)]
pub(super) struct Checkpoints(Connection);

impl Checkpoints {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(CUT_BUSY)?;
        connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")?;
        Ok(Self(connection))
    }

    /// Moves into the file what nobody reads in the write-ahead log, and waits for the disk.
    pub(super) fn make(&self) -> Result<(), Failure> {
        checkpoint(&self.0, "PASSIVE")
    }

    /// The same, and cuts the log off, unless somebody reads it for longer than 100 ms. Nobody may write meanwhile.
    pub(super) fn make_and_cut(&self) -> Result<(), Failure> {
        checkpoint(&self.0, "TRUNCATE")
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> Result<(), Failure> {
    // The row says whether somebody was in the way; then the log is synced all the same.
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
    Ok(())
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Failure> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    // Otherwise the last connection to an old file would delete the write-ahead log of a new one with its name, and the
    // end of a process would take as long as a checkpoint.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF")?;
    Ok(connection)
}

/// Most rows that upkeep deletes at once: some milliseconds.
const STEP: usize = 500;

fn put(transaction: &Transaction<'_>, records: &[Arc<Record>], extent: &mut Extent) -> Result<(), Failure> {
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

fn put_notes(transaction: &Transaction<'_>, notes: &[(&str, &str)]) -> Result<(), Failure> {
    for (name, text) in notes {
        let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO note VALUES (?1, ?2, ?3)")?;
        statement.execute(params![name, text, row::checksum(&[name, text])])?;
    }
    Ok(())
}

fn put_meta(connection: &Connection, key: &str, value: &str) -> Result<(), Failure> {
    let crc = row::checksum(&[key, value]);
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2, ?3)", params![key, value, crc])?;
    Ok(())
}

impl Extent {
    /// Whether the oldest event is too much. The newest one always stays: it says which number comes next.
    fn is_over(&self, limits: Limits) -> bool {
        self.oldest < self.newest && (self.bytes() > limits.bytes || self.oldest_at < limits.expired)
    }
}

fn trim(transaction: &Transaction<'_>, extent: &mut Extent, limits: Limits, rows: usize) -> Result<(), Failure> {
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

/// The records after a position. Whoever reads checks: rows are whole, and none is missing.
fn read(snapshot: &Connection, after: Seq, limit: usize) -> Result<Option<Vec<Arc<Record>>>, Failure> {
    let sql = format!("SELECT {} FROM event WHERE seq > ?1 ORDER BY seq", row::COLUMNS);
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut found = statement.query([after.0])?;
    let mut records: Vec<Arc<Record>> = Vec::new();
    let (mut expected, mut left) = (after.next(), limit);
    while left > 0
        && let Some(row) = found.next()?
    {
        let (record, _) = row::read(row)?;
        if record.seq != expected {
            let is_first = records.is_empty();
            drop(found);
            drop(statement);
            let is_kept = edge(snapshot, "ASC")?.is_some_and(|(oldest, _)| oldest.seq < expected);
            if is_first && !is_kept {
                return Ok(None);
            }
            return Err(Failure::Corrupt(format!("event {expected} is missing")));
        }
        expected = record.seq.next();
        left = left.saturating_sub(record.size());
        records.push(record);
    }
    Ok((!records.is_empty()).then_some(records))
}

/// The oldest (`ASC`) or newest (`DESC`) record, with the total up to it.
fn edge(snapshot: &Connection, order: &str) -> Result<Option<(Arc<Record>, u64)>, Failure> {
    let sql = format!("SELECT {} FROM event ORDER BY seq {order} LIMIT 1", row::COLUMNS);
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    found.next()?.map(row::read).transpose()
}

fn newest_total(snapshot: &Connection) -> Result<u64, Failure> {
    Ok(edge(snapshot, "DESC")?.map_or(0, |(_, total)| total))
}

fn load_epochs(snapshot: &Connection) -> Result<Option<Epochs>, Failure> {
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

fn epoch_checksum(position: u64, number: &str, first: Seq) -> u32 {
    let mut checksum = row::Checksum::default();
    checksum.number(position);
    checksum.text(Some(number.as_bytes()));
    checksum.number(first.0);
    checksum.end()
}

fn load_texts(snapshot: &Connection, sql: &str) -> Result<BTreeMap<String, String>, Failure> {
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
fn cut(
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
