//! The state folder: one relay at a time, and the names of the files in it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Failure;
use crate::event::Cursor;

/// The journal's file.
const FILE: &str = "journal.sqlite3";

/// The newest id that was given out from disk, see [`Mark`].
const MARK: &str = "journal.newest";

/// Held by the relay that uses the folder; its text is that relay's process id.
const LOCK: &str = "lock";

/// What SQLite puts behind a file's name for the files beside it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Most damaged files kept; older ones are deleted.
const ASIDE: usize = 2;

/// A state folder that this process alone uses, until this is dropped.
#[derive(Debug)]
pub(in crate::journal) struct Folder {
    path: PathBuf,
    /// Locked; the system unlocks it when the process ends, however it ends.
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug)]
pub(in crate::journal) enum FolderError {
    /// Another relay uses it; its process id, if it could be read.
    InUse(Option<u32>),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for FolderError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Folder {
    /// Makes the folder if need be, for its owner only, and locks it.
    pub(in crate::journal) fn open(path: &Path) -> Result<Self, FolderError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let mut lock = private().read(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = lock.read_to_string(&mut text);
                return Err(FolderError::InUse(text.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // For people only, so a full disk does not matter here.
        let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The journal's file.
    pub(in crate::journal) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Makes the journal's file if it is not there, so that it is its owner's only, as are those that SQLite puts beside it.
    pub(super) fn make_file(&self) -> io::Result<()> {
        private().open(self.file()).map(drop)
    }

    pub(super) fn mark(&self) -> io::Result<Mark> {
        Ok(Mark(private().read(true).open(self.path.join(MARK))?))
    }

    /// Gives the journal's file another name, and deletes the oldest such files. What the file is called then.
    pub(in crate::journal) fn set_aside(&self) -> io::Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // After the newest one, also when the clock went back or two come within a second.
        let time = self.asides()?.last().map_or(now, |(newest, _)| now.max(newest + 1));
        let aside = self.path.join(format!("{FILE}.corrupt-{time}"));
        // The file last: as long as it has its name, a relay that starts takes this up again.
        for suffix in BESIDE {
            if suffix == "-shm" {
                // SQLite makes it anew from the other two.
                ignore_missing(fs::remove_file(add(&self.file(), suffix)))?;
            } else {
                ignore_missing(fs::rename(add(&self.file(), suffix), add(&aside, suffix)))?;
            }
        }
        ignore_missing(fs::rename(self.file(), &aside))?;
        for (_, path) in self.asides()?.iter().rev().skip(ASIDE) {
            ignore_missing(fs::remove_file(path))?;
            ignore_missing(fs::remove_file(add(path, "-wal")))?;
        }
        Ok(aside)
    }

    /// Deletes the journal's file, for one that is worth nothing any more.
    pub(in crate::journal) fn remove(&self) -> io::Result<()> {
        for suffix in BESIDE {
            ignore_missing(fs::remove_file(add(&self.file(), suffix)))?;
        }
        ignore_missing(fs::remove_file(self.file()))
    }

    /// The files that were set aside, the oldest first.
    fn asides(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let time = name.strip_prefix(FILE).and_then(|rest| rest.strip_prefix(".corrupt-"));
            if let Some(time) = time.and_then(|time| time.parse::<u64>().ok()) {
                found.push((time, path));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The newest id that was given out, as text. It is written after each commit and before anybody gets the events, so
/// after a kill the file reaches at least as far; if it does not, its end was lost: cut off, flipped, or replaced by an
/// older copy. It is not synced, because a machine that went down begins a new epoch anyway.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// What was written last; `None` when there is nothing or it is damaged.
    pub(super) fn read(&mut self) -> Option<Cursor> {
        let mut text = String::new();
        self.0.read_to_string(&mut text).ok()?;
        text.lines().next()?.trim_end().parse().ok()
    }

    pub(super) fn write(&self, cursor: Cursor) -> io::Result<()> {
        // Always as long as the longest, so that no digit of an older one is left.
        self.0.write_all_at(format!("{:<37}\n", cursor.to_string()).as_bytes(), 0)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// What tells a file from its copy: device and inode, as `device:inode`.
pub(super) fn identity(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Which start of the machine this is; empty when the system does not say.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// How many bytes the write-ahead log of a file has.
pub(in crate::journal) fn wal_size(file: &Path) -> u64 {
    fs::metadata(add(file, "-wal")).map_or(0, |metadata| metadata.len())
}

/// Waits until what is in the write-ahead log is on the disk. SQLite's locks are on other files, so closing this one loses none.
pub(in crate::journal) fn sync_wal(file: &Path) -> io::Result<()> {
    File::open(add(file, "-wal"))?.sync_data()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}

fn add(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Epoch, Seq};

    #[test]
    fn only_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = Folder::open(&path).unwrap();
        let Err(FolderError::InUse(Some(pid))) = Folder::open(&path) else { panic!("locked twice") };
        assert_eq!(pid, std::process::id());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(path.join(LOCK)).unwrap().mode() & 0o777, 0o600);
        drop(first);
        assert!(Folder::open(&path).is_ok());
        let Err(FolderError::Failed(Failure::Denied(_))) = Folder::open(Path::new("/dev/null/x")) else { panic!() };
    }

    #[test]
    fn keeps_the_two_newest_damaged_files() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        let mut names = Vec::new();
        for round in 0..4 {
            fs::write(folder.file(), round.to_string()).unwrap();
            fs::write(add(&folder.file(), "-wal"), round.to_string()).unwrap();
            names.push(folder.set_aside().unwrap());
        }
        assert!(!folder.file().exists() && !names[0].exists() && !names[1].exists());
        assert_eq!(fs::read_to_string(&names[2]).unwrap(), "2");
        assert_eq!(fs::read_to_string(add(&names[3], "-wal")).unwrap(), "3");
        assert!(!add(&names[1], "-wal").exists());
        assert!(folder.set_aside().is_ok(), "nothing to set aside is no failure");
    }

    #[test]
    fn a_mark_is_read_whole_or_not_at_all() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        assert_eq!(folder.mark().unwrap().read(), None);
        let cursor = |seq| Cursor { epoch: Epoch::new(u64::MAX), seq: Seq(seq) };
        for seq in [0, u64::MAX, 7] {
            folder.mark().unwrap().write(cursor(seq)).unwrap();
            assert_eq!(folder.mark().unwrap().read(), Some(cursor(seq)));
        }
        fs::write(temporary.path().join(MARK), "fffffff").unwrap();
        assert_eq!(folder.mark().unwrap().read(), None);
    }
}
