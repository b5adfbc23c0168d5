//! The journal: every event clients were or will be sent, numbered, for those who come back.
//!
//! Only the pipeline appends; the hub reads for clients that are behind. The newest records are in memory; with a state
//! folder all of them, as far as the limits reach, are also in a file (`disk` says what is in it), which an appended batch is in
//! before [`Journal::append`] returns it. When the file cannot be written, the journal goes on in memory and comes back
//! to the file when it can.
//!
//! An id is good as long as its event is kept: after a stop, a kill and an upgrade too. Where ids were given out that
//! the file may not know of (it could not be written, the machine went down, the file is an older copy), a new epoch
//! begins, so that no number means two events.

mod disk;
mod epochs;
mod record;
mod ring;
mod store;
mod upkeep;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::event::{Cursor, Epoch, Event, Seq};
use disk::Reader;
use epochs::Epochs;
use ring::Ring;
use store::Store;
use upkeep::{Bell, Upkeep};

pub use epochs::Lost;
pub use record::{Record, Stored};
pub use store::{OpenError, Taken};

/// Most bytes of the newest records in memory while all of them are in a file. A client that reads as fast as it can
/// never needs the file.
const AT_HAND: usize = 16 << 20;

/// Most bytes in memory while the file cannot be written; older events are lost then.
const UNSAVED: usize = 64 << 20;

/// Connections for reading that are kept open; more are opened for the moment.
const READERS: usize = 2;

/// How much is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes of frames; older events are dropped. Without a file this is memory.
    pub bytes: usize,
    /// Events older than this are dropped.
    pub age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { bytes: 256 << 20, age: Duration::from_secs(24 * 60 * 60) }
    }
}

/// What is kept together: after a crash the durable form has all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events, in order, not numbered yet.
    pub events: Vec<Event>,
    /// What the pipeline needs to go on after a restart, by name; each takes the place of the one of that name.
    pub notes: Vec<(&'static str, String)>,
}

/// What an earlier run of the relay left.
#[derive(Debug, Default)]
pub struct Restored {
    /// The newest note of each name.
    pub notes: BTreeMap<String, String>,
    /// The newest records, in order, as many as are worth going through at a start: at most 20,000, and 16 MiB of frames.
    pub recent: Vec<Arc<Record>>,
}

/// A part of the journal.
#[derive(Debug)]
pub enum Read {
    /// The records after the asked position, in order; none when there is none yet.
    Here(Vec<Arc<Record>>),
    /// They are in the file: ask [`Journal::read_file`] where waiting for a disk is allowed.
    InFile,
}

/// The asked position is older than what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the journal after {after}: it begins with {oldest}")]
pub struct Expired {
    /// The asked position.
    pub after: Seq,
    /// The oldest number kept.
    pub oldest: Seq,
}

/// How full a journal is.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Events kept.
    pub events: u64,
    /// Bytes they take, as the limit counts them.
    pub bytes: u64,
    /// The oldest number that can be read; one past the newest when nothing is kept.
    pub oldest: Seq,
    /// The newest number given.
    pub newest: Seq,
}

/// How a journal is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Its file; `None` when it is in memory by choice.
    pub path: Option<PathBuf>,
    /// Why events are in memory only although there should be a file.
    pub degraded: Option<String>,
}

/// The journal. Everything on it can be called from any thread; what waits for a disk says so.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// `None` in memory, and once closed.
    upkeep: Mutex<Option<Upkeep>>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// Locked for moments only, never while waiting for a disk.
    memory: RwLock<Memory>,
    /// Locked by whoever writes, before `memory`. `None` in memory, and once closed.
    store: Mutex<Option<Store>>,
    /// Connections at rest, each with the number of the file it is to.
    readers: Mutex<Vec<(u64, Reader)>>,
    health: watch::Sender<Health>,
    /// Wakes the upkeep.
    bell: Bell,
}

#[derive(Debug)]
struct Memory {
    epochs: Epochs,
    ring: Ring,
    file: Option<Kept>,
}

/// What can be read from the file.
#[derive(Clone, Debug)]
struct Kept {
    path: PathBuf,
    /// Which file this is: a damaged one is replaced, and what is found in the old one must not be taken for the new one's.
    number: u64,
    oldest: Seq,
    bytes: u64,
}

impl Journal {
    /// An empty journal in memory: lost with the process.
    #[must_use]
    pub fn new(epoch: Epoch, options: Options) -> Self {
        let memory = Memory { epochs: Epochs::new(epoch), ring: Ring::default(), file: None };
        Self { shared: Arc::new(Shared::new(options, memory, None, Health::default())), upkeep: Mutex::new(None) }
    }

    /// Takes a state folder, which is made if it is not there, so that no other relay can. Waits for the disk, for a moment.
    ///
    /// # Errors
    ///
    /// When another relay uses the folder, or when it cannot be written.
    pub fn take(folder: &Path) -> Result<Taken, OpenError> {
        store::take(folder)
    }

    /// Opens the journal in a state folder, and what an earlier run left in it. Waits for the disk. A damaged file is set aside;
    /// a full disk is no error, but the journal begins in memory then.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or when a newer relay wrote it.
    pub fn open(folder: Taken, options: Options) -> Result<(Self, Restored), OpenError> {
        let opened = store::open(folder)?;
        let mut ring = Ring::after(opened.newest);
        ring.extend(opened.recent.iter().cloned());
        ring.trim(options.bytes.min(AT_HAND), 0);
        let memory = Memory { epochs: opened.epochs, ring, file: None };
        let health = Health { path: Some(opened.store.file_path()), degraded: None };
        let restored = Restored { notes: opened.store.notes().clone(), recent: opened.recent };
        let shared = Arc::new(Shared::new(options, memory, Some(opened.store), health));
        shared.begin();
        let upkeep = Upkeep::start(shared.clone()).map_err(|source| OpenError::Thread { source })?;
        Ok((Self { shared, upkeep: Mutex::new(Some(upkeep)) }, restored))
    }

    /// The epoch that numbers now.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.read_memory().epochs.current().epoch
    }

    /// The id of a position.
    #[must_use]
    pub fn cursor(&self, seq: Seq) -> Cursor {
        self.shared.read_memory().epochs.cursor(seq)
    }

    /// Where to go on from for an id that a client brought.
    ///
    /// # Errors
    ///
    /// When not everything after it can be read.
    pub fn locate(&self, cursor: Cursor) -> Result<Seq, Lost> {
        let memory = self.shared.read_memory();
        memory.epochs.locate(cursor, memory.ring.newest(), memory.oldest())
    }

    /// Numbers the events and keeps them together with the notes. `now` is Unix time in milliseconds. Waits for the file,
    /// but not for the disk behind it, at most some milliseconds unless the disk is in trouble. There is one caller.
    pub fn append(&self, batch: Batch, now: u64) -> Vec<Arc<Record>> {
        self.shared.append(batch, now)
    }

    /// Reads on after a position, about `limit` bytes at most, but at least one record if there is one. Never waits.
    ///
    /// # Errors
    ///
    /// When the record after `after` was dropped already.
    pub fn read(&self, after: Seq, limit: usize) -> Result<Read, Expired> {
        let memory = self.shared.read_memory();
        if let Some(records) = memory.ring.read(after, limit) {
            return Ok(Read::Here(records));
        }
        let oldest = memory.oldest();
        if after.next() < oldest { Err(Expired { after, oldest }) } else { Ok(Read::InFile) }
    }

    /// The same from the file, until `visit` breaks off or the file ends. Waits for the disk. What `visit` was shown before an
    /// error is right, but may be thrown away.
    ///
    /// # Errors
    ///
    /// When the record after `after` is not kept, or the file cannot be read.
    pub fn read_file(&self, after: Seq, visit: impl FnMut(Stored<'_>) -> ControlFlow<()>) -> Result<(), Expired> {
        self.shared.read_file(after, visit)
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let memory = self.shared.read_memory();
        let (oldest, newest) = (memory.oldest(), memory.ring.newest());
        let bytes = memory.file.as_ref().map_or(memory.ring.bytes() as u64, |file| file.bytes);
        Fill { events: newest.next().0 - oldest.0, bytes, oldest, newest }
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health.borrow().clone()
    }

    /// How it is, as it changes.
    #[must_use]
    pub fn health_changes(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Writes everything to the disk and closes the file; what is appended later is in memory only. Waits for the disk.
    pub fn close(&self) {
        let upkeep = lock(&self.upkeep).take();
        drop(upkeep);
        self.shared.close();
    }
}

impl Shared {
    fn new(options: Options, memory: Memory, store: Option<Store>, health: Health) -> Self {
        Self {
            options,
            memory: RwLock::new(memory),
            store: Mutex::new(store),
            readers: Mutex::default(),
            health: watch::Sender::new(health),
            bell: Bell::default(),
        }
    }

    /// Why events are in memory only, or that they no longer are.
    fn set_degraded(&self, why: Option<String>) {
        if why.is_some() {
            self.bell.ring();
        }
        self.health.send_if_modified(|health| {
            let is_new = health.degraded != why;
            health.degraded = why;
            is_new
        });
    }

    fn append(&self, batch: Batch, now: u64) -> Vec<Arc<Record>> {
        let mut store = lock(&self.store);
        let (epoch, mut newest) = {
            let memory = self.read_memory();
            (memory.epochs.current().epoch, memory.ring.newest())
        };
        let number = |event| {
            newest = newest.next();
            Arc::new(Record::new(epoch, newest, now, event))
        };
        let mut records: Vec<Arc<Record>> = batch.events.into_iter().map(number).collect();
        let limit = match &mut *store {
            None => self.options.bytes,
            Some(store) => {
                store.append(self, &mut records, batch.notes, now);
                self.bell.ring();
                self.in_memory(store)
            }
        };
        let file = store.as_ref().and_then(Store::kept);
        let mut memory = self.write_memory();
        memory.ring.extend(records.iter().cloned());
        memory.ring.trim(limit, self.expired(now));
        memory.follow(file);
        records
    }

    /// How many bytes may be in memory.
    fn in_memory(&self, store: &Store) -> usize {
        self.options.bytes.min(if store.is_degraded() { UNSAVED } else { AT_HAND })
    }

    fn read_file(&self, after: Seq, visit: impl FnMut(Stored<'_>) -> ControlFlow<()>) -> Result<(), Expired> {
        let (file, oldest) = {
            let memory = self.read_memory();
            (memory.file.clone(), memory.oldest())
        };
        let expired = Expired { after, oldest };
        let Kept { path, number, .. } = file.ok_or(expired)?;
        let reader = {
            let mut readers = lock(&self.readers);
            readers.retain(|(of, _)| *of == number);
            readers.pop()
        };
        let reader = reader.map_or_else(|| Reader::open(&path), |(_, reader)| Ok(reader));
        match reader.and_then(|reader| reader.read(after, visit).map(|is_kept| (reader, is_kept))) {
            Ok((reader, is_kept)) => {
                let mut readers = lock(&self.readers);
                if readers.len() < READERS {
                    readers.push((number, reader));
                }
                if is_kept { Ok(()) } else { Err(expired) }
            }
            Err(failure) => {
                tracing::warn!("failed to read the journal after {after}: {failure}");
                self.report(number, failure);
                Err(expired)
            }
        }
    }

    /// Events from before this time are too old, in milliseconds of Unix time.
    fn expired(&self, now: u64) -> u64 {
        now.saturating_sub(u64::try_from(self.options.age.as_millis()).unwrap_or(u64::MAX))
    }

    fn read_memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_memory(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// The oldest number that can be read.
    fn oldest(&self) -> Seq {
        let oldest = self.ring.oldest();
        self.file.as_ref().map_or(oldest, |file| file.oldest.min(oldest))
    }

    /// Takes note of what is in the file. It is good for nothing if events between it and those in memory were lost.
    fn follow(&mut self, file: Option<(Kept, Seq)>) {
        let oldest = self.ring.oldest();
        let reaches = |newest: Seq| oldest <= newest.next();
        if self.file.is_some() && file.as_ref().is_some_and(|(_, newest)| !reaches(*newest)) {
            tracing::warn!("events before {oldest} are lost to clients that come back: memory is full too");
        }
        self.file = file.and_then(|(kept, newest)| reaches(newest).then_some(kept));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
