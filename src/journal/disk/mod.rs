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
//! machine. Upkeep syncs the log every second, and makes a checkpoint, which waits for the disk too, every 10 s.

mod connection;
mod failure;
mod folder;
mod read;
mod row;
mod schema;
mod write;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::Record;
use super::epochs::{Entry, Epochs};
use crate::event::{Cursor, Seq};
use connection::{checkpoint, connect};
use folder::Mark;
use read::{cut, edge, epoch_checksum, load_epochs, load_texts, newest_total, read};
use write::{STEP, put, put_meta, put_notes, transact, trim};

pub(super) use connection::Checkpoints;
pub(super) use failure::Failure;
pub(super) use folder::{Folder, FolderError, sync_wal, wal_size};
pub(super) use read::Reader;
#[cfg(test)]
pub(super) use row::checksum;
pub(super) use schema::VERSION;

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
        let mut recent: Vec<Arc<Record>> = Vec::new();
        let extent = if let (Some((oldest, total)), Some((newest, _))) = (&oldest, &newest) {
            if newest.seq.next() < first {
                return Err(Failure::Corrupt("its newest events are missing".to_owned()));
            }
            let sql = "SELECT seq FROM event WHERE seq > ?1 AND total > ?2 ORDER BY seq LIMIT 1";
            let newest_total = newest_total(&snapshot)?;
            let few = newest.seq.0.saturating_sub(RECENT_EVENTS);
            let start: u64 =
                snapshot.query_row(sql, [few, newest_total.saturating_sub(RECENT_BYTES)], |row| row.get(0))?;
            read(&snapshot, Seq(start - 1), |stored| {
                recent.push(Arc::new(stored.record()));
                ControlFlow::Continue(())
            })?;
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
        let mut extent = self.extent;
        transact(&self.connection, |transaction| {
            put(transaction, records, &mut extent)?;
            put_notes(transaction, notes)?;
            // Twice as many as come, so that it gets less, and it costs in proportion.
            trim(transaction, &mut extent, limits, (records.len() * 2).max(16))
        })?;
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
