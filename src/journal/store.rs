//! The file's writer: what is done when the file fails.
//!
//! Three things can happen to it. It cannot be written (a full disk): events stay in memory, under a new epoch, because a
//! kill would lose them and their numbers would be given again; everything is written once the disk has room. It is
//! damaged: it is set aside, and a new file begins with what is in memory. It is gone: likewise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::disk::{Disk, Failure, Folder, FolderError, Limits, VERSION};
use super::epochs::{Epochs, draw};
use super::{Kept, Record, Shared, lock};
use crate::event::Seq;

/// How long a failing disk is left alone, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why the journal cannot be opened. Each message can follow "failed to" and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another relay uses the folder.
    #[error(
        "use the state folder {}: another opencode-relay{} uses it; stop that one, or give this one its own with --state-dir",
        path.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other's process id.
        pid: Option<u32>,
    },
    /// The folder or a file in it cannot be written.
    #[error(
        "use the state folder {}: {reason}; make it writable, choose another with --state-dir, or keep events in memory only with --journal memory",
        path.display()
    )]
    Denied {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A newer relay wrote the file.
    #[error(
        "read {}: a newer opencode-relay wrote it (format {found}, this one knows up to {VERSION}); use that release, move the file away, or choose another folder with --state-dir",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// No thread can be had for the upkeep.
    #[error("start the journal's thread: {source}")]
    Thread {
        /// What the system says.
        source: std::io::Error,
    },
}

/// The writer's side of the file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// `None` as long as a full disk did not even let it be made.
    folder: Option<Folder>,
    /// `None` while there is no file.
    disk: Option<Disk>,
    /// Goes up with each new file.
    number: u64,
    /// The newest number that is in the file for good.
    saved: Seq,
    /// The newest note of each name, for a new file.
    notes: BTreeMap<String, String>,
    degraded: Option<Degraded>,
    /// Something was appended since the last checkpoint.
    is_dirty: bool,
}

#[derive(Debug)]
struct Degraded {
    retry: Instant,
    pause: Duration,
}

/// What an earlier run left.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) epochs: Epochs,
    pub(super) newest: Seq,
    pub(super) recent: Vec<Arc<Record>>,
}

/// A state folder that is this relay's, not read yet.
#[derive(Debug)]
pub struct Taken {
    path: PathBuf,
    /// `None` as long as a full disk does not even let it be made.
    folder: Option<Folder>,
}

pub(super) fn take(path: &Path) -> Result<Taken, OpenError> {
    let folder = match Folder::open(path) {
        Ok(folder) => Some(folder),
        Err(FolderError::InUse(pid)) => return Err(OpenError::InUse { path: path.to_owned(), pid }),
        Err(FolderError::Failed(Failure::Disk(_))) => None,
        Err(FolderError::Failed(failure)) => {
            return Err(OpenError::Denied { path: path.to_owned(), reason: failure.to_string() });
        }
    };
    Ok(Taken { path: path.to_owned(), folder })
}

/// Reads the file. Nothing is written yet but an empty file; [`Shared::begin`] does.
pub(super) fn open(taken: Taken) -> Result<Opened, OpenError> {
    let denied = {
        let path = taken.path.clone();
        move |reason| OpenError::Denied { path: path.clone(), reason }
    };
    let mut store = Store {
        path: taken.path,
        folder: taken.folder,
        disk: None,
        number: 0,
        saved: Seq(0),
        notes: BTreeMap::new(),
        degraded: None,
        is_dirty: false,
    };
    let empty = |store| Opened { store, epochs: Epochs::new(draw()), newest: Seq(0), recent: Vec::new() };
    let Some(folder) = &mut store.folder else { return Ok(empty(store)) };
    let (disk, loaded) = match Disk::open(folder) {
        Ok(opened) => opened,
        Err(Failure::Newer(found)) => return Err(OpenError::Newer { path: folder.file(), found }),
        Err(Failure::Denied(reason)) => return Err(denied(reason)),
        Err(Failure::Disk(_)) => return Ok(empty(store)),
        Err(Failure::Corrupt(reason)) => {
            set_aside(folder, &reason).map_err(|error| denied(error.to_string()))?;
            return Ok(empty(store));
        }
    };
    let newest = disk.extent().newest;
    store.disk = Some(disk);
    store.saved = newest;
    store.notes = loaded.notes;
    let is_new = loaded.epochs.is_none();
    let mut epochs = loaded.epochs.unwrap_or_else(|| Epochs::new(draw()));
    if let Some(reason) = loaded.cut {
        tracing::warn!("the newest events of the journal may be missing ({reason}); its numbers go on in a new epoch");
        epochs.begin(draw(), newest.next());
    } else if !is_new {
        tracing::info!("the journal goes on after event {newest}");
    }
    Ok(Opened { store, epochs, newest, recent: loaded.recent })
}

fn set_aside(folder: &Folder, reason: &str) -> std::io::Result<()> {
    let aside = folder.set_aside()?;
    tracing::warn!("the journal is damaged ({reason}); it was set aside as {} and a new one begins", aside.display());
    Ok(())
}

impl Store {
    pub(super) fn notes(&self) -> &BTreeMap<String, String> {
        &self.notes
    }

    pub(super) fn file_path(&self) -> PathBuf {
        self.folder.as_ref().map_or_else(|| self.path.join("journal.sqlite3"), Folder::file)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    #[cfg(test)]
    pub(super) fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    /// Lets the next append or round of upkeep try the disk again.
    #[cfg(test)]
    pub(super) fn retry_now(&mut self) {
        if let Some(degraded) = &mut self.degraded {
            degraded.retry = Instant::now();
        }
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.degraded.is_some()
    }

    /// What can be read from the file, and the newest number in it.
    pub(super) fn kept(&self) -> Option<(Kept, Seq)> {
        let extent = self.disk.as_ref()?.extent();
        let kept = Kept { path: self.file_path(), number: self.number, oldest: extent.oldest, bytes: extent.bytes() };
        Some((kept, self.saved))
    }

    /// Saves records that are not in memory's ring yet. When that fails, they get another epoch.
    pub(super) fn append(
        &mut self,
        shared: &Shared,
        records: &mut [Arc<Record>],
        notes: Vec<(&'static str, String)>,
        now: u64,
    ) {
        if self.is_degraded() {
            self.notes.extend(notes.into_iter().map(|(name, text)| (name.to_owned(), text)));
            self.retry(shared, records);
            return;
        }
        let texts: Vec<(&str, &str)> = notes.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let limits = shared.limits(now);
        let result = match &mut self.disk {
            Some(disk) => disk.commit(records, &texts, limits),
            None => Err(Failure::Disk("there is no file".to_owned())),
        };
        self.notes.extend(notes.into_iter().map(|(name, text)| (name.to_owned(), text)));
        let failure = match result {
            Ok(()) => {
                self.saved = records.last().map_or(self.saved, |record| record.seq);
                self.is_dirty = true;
                return;
            }
            Err(Failure::Corrupt(reason)) => match self.replace(shared, records, &reason) {
                Ok(()) => return,
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        self.degrade(shared, &failure);
        let epoch = shared.read_memory().epochs.current().epoch;
        for record in records {
            *record = Arc::new(record.in_epoch(epoch));
        }
    }

    /// From here on, events are in memory only, in an epoch of their own.
    pub(super) fn degrade(&mut self, shared: &Shared, failure: &Failure) {
        let path = self.file_path();
        tracing::warn!(
            "the journal cannot be written ({failure}); events are kept in memory only, and clients lose their place if \
             the relay ends now: make room at, or repair, {}",
            path.display()
        );
        shared.set_degraded(Some(failure.to_string()));
        self.degraded = Some(Degraded { retry: Instant::now() + PAUSE, pause: PAUSE });
        let mut memory = shared.write_memory();
        let first = memory.ring.newest().next();
        memory.epochs.begin(draw(), first);
    }

    /// Tries to come back to the file, if it is time. `records` are not in the ring yet.
    pub(super) fn retry(&mut self, shared: &Shared, records: &[Arc<Record>]) {
        let Some(degraded) = &self.degraded else { return };
        if Instant::now() < degraded.retry {
            return;
        }
        match self.come_back(shared, records) {
            Ok(()) => {
                self.degraded = None;
                shared.set_degraded(None);
                tracing::info!("the journal can be written again: {}", self.file_path().display());
            }
            Err(failure) => {
                shared.set_degraded(Some(failure.to_string()));
                if let Some(degraded) = &mut self.degraded {
                    degraded.pause = (degraded.pause * 2).min(LONGEST_PAUSE);
                    degraded.retry = Instant::now() + degraded.pause;
                }
                tracing::debug!("the journal still cannot be written: {failure}");
            }
        }
    }

    /// Writes what is in memory and not in the file; a damaged one is replaced.
    fn come_back(&mut self, shared: &Shared, records: &[Arc<Record>]) -> Result<(), Failure> {
        match self.save_all(shared, records) {
            Err(Failure::Corrupt(reason)) => self.replace(shared, records, &reason),
            result => result,
        }
    }

    /// Sets a damaged file aside and begins a new one.
    pub(super) fn replace(&mut self, shared: &Shared, records: &[Arc<Record>], reason: &str) -> Result<(), Failure> {
        self.disk = None;
        self.number += 1;
        if let Some(folder) = &self.folder {
            set_aside(folder, reason)?;
        }
        self.save_all(shared, records)
    }

    /// Writes what is in memory and not in the file, into a new file if that is needed.
    fn save_all(&mut self, shared: &Shared, records: &[Arc<Record>]) -> Result<(), Failure> {
        let (epochs, mut unsaved) = {
            let memory = shared.read_memory();
            // All that is in memory, for the case that a new file is made.
            let all = memory.ring.read(Seq(memory.ring.oldest().0 - 1), usize::MAX).unwrap_or_default();
            (memory.epochs.clone(), all)
        };
        unsaved.extend(records.iter().cloned());
        let first = unsaved.first().map_or(self.saved.next(), |record| record.seq);
        if self.disk.is_some() && first > self.saved.next() {
            // Events between the file's and those in memory were lost. The old ones cannot be read on from, and deleting
            // them row by row would need room on a disk that has none.
            self.disk = None;
            self.number += 1;
            if let Some(folder) = &self.folder {
                folder.remove()?;
            }
        }
        if self.disk.is_none() && !self.path.exists() {
            // Somebody deleted the whole folder, and the lock with it.
            self.folder = None;
        }
        let folder = match &mut self.folder {
            Some(folder) => folder,
            none => none.insert(Folder::open(&self.path).map_err(|error| match error {
                FolderError::InUse(_) => Failure::Denied("another relay uses the folder".to_owned()),
                FolderError::Failed(failure) => failure,
            })?),
        };
        let mut keep = self.saved;
        let disk = match &mut self.disk {
            Some(disk) => {
                unsaved.retain(|record| record.seq > self.saved);
                disk
            }
            none => {
                let disk = match Disk::open(folder) {
                    Ok((disk, loaded)) if loaded.epochs.is_none() => disk,
                    // Damaged, or one that could not be read at the start, which this journal is no continuation of.
                    Ok(_) | Err(Failure::Corrupt(_)) => {
                        set_aside(folder, "it could not be read before")?;
                        Disk::open(folder)?.0
                    }
                    Err(failure) => return Err(failure),
                };
                keep = Seq(first.0 - 1);
                none.insert(disk)
            }
        };
        disk.rewrite(keep, &epochs, &unsaved, &self.notes)?;
        self.saved = disk.extent().newest;
        self.is_dirty = false;
        Ok(())
    }

    /// The opened file's path and number, if something was appended since the last time this was asked.
    pub(super) fn take_dirty(&mut self) -> Option<(PathBuf, u64)> {
        (std::mem::take(&mut self.is_dirty) && self.disk.is_some()).then(|| (self.file_path(), self.number))
    }

    /// Whether the file is gone from its place, or another is there.
    pub(super) fn is_gone(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| !disk.is_at(&self.file_path()))
    }

    /// Drops a step of what is too much; whether there may be more.
    pub(super) fn trim(&mut self, limits: Limits) -> Result<bool, Failure> {
        self.disk.as_mut().map_or(Ok(false), |disk| disk.trim(limits))
    }
}

impl Shared {
    pub(super) fn limits(&self, now: u64) -> Limits {
        Limits { bytes: self.options.bytes as u64, expired: self.expired(now) }
    }

    /// Writes the first things into a file that was opened, or goes on in memory.
    pub(super) fn begin(&self) {
        self.with_store(|store| {
            if let Err(failure) = store.come_back(self, &[]) {
                store.degrade(self, &failure);
            }
        });
    }

    /// Does something about a failure that was met while reading file `number` or making a checkpoint.
    pub(super) fn report(&self, number: u64, failure: Failure) {
        self.with_store(|store| {
            if store.number != number {
                return;
            }
            let failure = match failure {
                Failure::Corrupt(reason) => match store.replace(self, &[], &reason) {
                    // Memory's records are in the new file under the ids they were given.
                    Ok(()) if !store.is_degraded() => return,
                    Ok(()) => {
                        store.degraded = None;
                        self.set_degraded(None);
                        return;
                    }
                    Err(failure) => failure,
                },
                failure => failure,
            };
            if !store.is_degraded() {
                store.degrade(self, &failure);
            }
        });
    }

    /// Works with the store, and tells readers what is in the file then.
    pub(super) fn with_store<T>(&self, work: impl FnOnce(&mut Store) -> T) -> Option<T> {
        let mut guard = lock(&self.store);
        let store = guard.as_mut()?;
        let result = work(store);
        let file = store.kept();
        let mut memory = self.write_memory();
        memory.follow(file);
        Some(result)
    }

    pub(super) fn close(&self) {
        self.with_store(|store| {
            if let Some(degraded) = &mut store.degraded {
                // Once more, whatever the pause says.
                degraded.retry = Instant::now();
                store.retry(self, &[]);
            }
            if store.is_degraded() {
                tracing::warn!("the newest events are lost: the journal could not be written to the end");
            } else if let Some(Err(failure)) = store.disk.take().map(Disk::close) {
                tracing::warn!("failed to close the journal: {failure}");
            }
        });
        lock(&self.readers).clear();
        // The lock goes with it.
        drop(lock(&self.store).take());
    }
}
