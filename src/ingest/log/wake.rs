//! What wakes the follower of a file: inotify, and a poll.
//!
//! inotify says nothing on overlay and network mounts, knows files by the folder they lie in and not by the links to them,
//! loses events when its queue is full, and its watch stays with a folder that is moved. So it only ever shortens a wait;
//! what happened is found by looking at the files. Where nothing of this is the case, looking without being told is rare.

use std::fs::{metadata, symlink_metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use inotify::{Event, EventMask, EventStream, Inotify, WatchMask};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statfs, statx};
use tokio::time::{Instant, sleep, timeout};

use super::position::Identity;

/// How long a change can go unnoticed when inotify says nothing.
const POLL: Duration = Duration::from_millis(250);

/// The same where inotify should tell every change: for what it does not tell all the same, as a folder above that was moved.
const CHECK: Duration = Duration::from_secs(10);

/// Least time from one change that wakes to the next: opencode writes lines in bursts, and a folder may be busy with files
/// that are not ours. The first change after a pause wakes at once.
const GATHER: Duration = Duration::from_millis(2);

/// How many changes are taken at once; the kernel's own limit (`fs.inotify.max_queued_events`).
const QUEUED_CHANGES: usize = 16 * 1024;

/// The file systems of which all changes are made through this kernel and told by it, as `linux/magic.h` numbers them:
/// bcachefs, Btrfs, ext2 to ext4, F2FS, tmpfs, XFS, ZFS.
const LOCAL: [u32; 7] = [0xca45_1a4e, 0x9123_683e, 0xef53, 0xf2f5_2010, 0x0102_1994, 0x5846_5342, 0x2fc1_2fc1];

/// After these a watch tells nothing more, or not of what its path means.
const END: EventMask =
    EventMask::DELETE_SELF.union(EventMask::IGNORED).union(EventMask::MOVE_SELF).union(EventMask::UNMOUNT);

/// Waits for changes in a folder.
pub(super) struct Wake {
    folder: PathBuf,
    watch: Option<Watch>,
    /// As far as is known beforehand, every change is told.
    is_told: bool,
    trust: Trust,
    /// When a change ended a wait last.
    woken: Option<Instant>,
}

/// Whether what is known beforehand holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Nothing speaks against it.
    Full,
    /// The last wait ended after [`CHECK`] without a change, so there should be none.
    Checking,
    /// There was one. If it came only a moment ago, it is told by now.
    Doubtful,
    /// It was not told: nothing is relied on any more.
    Gone,
}

struct Watch {
    changes: EventStream<[u8; 4096]>,
    /// Which folder is watched.
    folder: Identity,
    is_local: bool,
}

impl Wake {
    /// For the files in `folder`, which need not exist.
    pub(super) fn new(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { folder, watch: None, is_told: false, trust: Trust::Full, woken: None }
    }

    /// Without inotify, as where the kernel refuses a watch.
    #[cfg(test)]
    pub(super) fn polling(_: &Path) -> Self {
        Self::new(Path::new(""))
    }

    /// To be called before each look, so that no change falls between the look and the wait after it. `file` is the one that is
    /// being read, by the path it was opened by. Asks the file system, which may hang on a network mount.
    pub(super) fn prepare(&mut self, file: Option<(&Path, Identity)>) {
        let folder = metadata(&self.folder).ok().map(|metadata| Identity::from(&metadata));
        if self.watch.as_ref().map(|watch| watch.folder) != folder {
            self.watch = folder.and_then(|folder| Watch::new(&self.folder, folder));
        }
        let is_local = self.watch.as_ref().is_some_and(|watch| watch.is_local);
        self.is_told = is_local && file.is_none_or(|(path, identity)| lies_at(path, identity));
    }

    /// Returns when something may have changed.
    pub(super) async fn wait(&mut self) {
        let is_told = self.is_told && matches!(self.trust, Trust::Full | Trust::Checking);
        self.wait_at_most(if is_told { CHECK } else { POLL }).await;
    }

    /// The same, soon, for what time alone may bring.
    pub(super) async fn wait_briefly(&mut self) {
        self.wait_at_most(POLL).await;
    }

    /// The look after the last wait found something new.
    pub(super) fn found(&mut self) {
        if self.trust == Trust::Checking {
            self.trust = Trust::Doubtful;
        }
    }

    async fn wait_at_most(&mut self, limit: Duration) {
        let has_changed = self.wait_for(limit).await;
        self.trust = match self.trust {
            Trust::Gone => Trust::Gone,
            Trust::Doubtful if !has_changed => {
                tracing::debug!(folder = %self.folder.display(), "inotify did not tell of a change; looking often");
                Trust::Gone
            }
            _ if !has_changed && limit == CHECK => Trust::Checking,
            _ => Trust::Full,
        };
    }

    /// Says whether a change ended the wait.
    async fn wait_for(&mut self, limit: Duration) -> bool {
        let Some(watch) = &mut self.watch else {
            sleep(limit).await;
            return false;
        };
        let Ok(change) = timeout(limit, watch.changes.next()).await else { return false };
        self.note(change);
        if let Some(rest) = self.woken.and_then(|woken| GATHER.checked_sub(woken.elapsed())) {
            sleep(rest).await;
        }
        // What else is waiting is answered by the same look. At most what one queue of the kernel holds, so that a folder that
        // never rests cannot keep us here.
        for _ in 0..QUEUED_CHANGES {
            if !self.take() {
                break;
            }
        }
        self.woken = Some(Instant::now());
        true
    }

    /// Takes a change that is there already, if there is one.
    fn take(&mut self) -> bool {
        let change = self.watch.as_mut().and_then(|watch| watch.changes.next().now_or_never());
        change.is_some_and(|change| {
            self.note(change);
            true
        })
    }

    fn note<T>(&mut self, change: Option<io::Result<Event<T>>>) {
        if !matches!(change, Some(Ok(Event { mask, .. })) if !mask.intersects(END)) {
            self.watch = None;
        }
    }
}

impl Watch {
    /// Watches a folder, which was this one a moment ago; `None` when that is not possible here or now.
    fn new(path: &Path, folder: Identity) -> Option<Self> {
        let inotify = Inotify::init().ok()?;
        let inside = WatchMask::MODIFY | WatchMask::ATTRIB | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        let itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
        inotify.watches().add(path, inside | itself).ok()?;
        let is_local = statfs(path).is_ok_and(|known| LOCAL.contains(&(known.f_type as u32)));
        Some(Self { changes: inotify.into_event_stream([0; 4096]).ok()?, folder, is_local })
    }
}

/// Whether a file lies where it was found, so that whoever watches that folder is told when it is written to: it was not moved
/// away since, and it is neither a link nor mounted there.
fn lies_at(path: &Path, identity: Identity) -> bool {
    let is_it = |metadata: std::fs::Metadata| metadata.is_file() && Identity::from(&metadata) == identity;
    let mounted = |path| {
        let known = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).ok()?;
        let is_known = known.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        is_known.then(|| known.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    };
    symlink_metadata(path).is_ok_and(is_it) && mounted(path) == Some(false)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// What a test waits for at most.
    const LIMIT: Duration = Duration::from_secs(20);

    /// On tmpfs, whatever the other files lie on.
    fn temporary() -> TempDir {
        TempDir::new_in("/dev/shm").unwrap()
    }

    fn prepared(folder: &Path, file: Option<(&Path, Identity)>) -> Wake {
        let mut wake = Wake::new(folder);
        wake.prepare(file);
        wake
    }

    fn write(path: &Path) -> Identity {
        fs::write(path, "text\n").unwrap();
        Identity::from(&metadata(path).unwrap())
    }

    #[tokio::test]
    async fn relies_on_inotify_only_where_it_tells_all() {
        assert!(!prepared(Path::new("/proc"), None).is_told);
        let folder = temporary();
        let path = folder.path().join("log");
        assert!(prepared(folder.path(), None).is_told);
        assert!(!prepared(&folder.path().join("not there"), None).is_told);
        let identity = write(&path);
        let is_told = |path| prepared(folder.path(), Some((path, identity))).is_told;
        assert!(is_told(&path));
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(!is_told(&link));
        let away = temporary();
        fs::rename(&path, away.path().join("log")).unwrap();
        assert!(!is_told(&path));
        write(&path);
        assert!(!is_told(&path), "another one");
    }

    #[tokio::test]
    async fn follows_the_folder_of_its_name() {
        let above = temporary();
        let folder = above.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let mut wake = prepared(&folder, None);
        fs::rename(&folder, above.path().join("away")).unwrap();
        assert!(wake.wait_for(LIMIT).await);
        wake.prepare(None);
        assert!(!wake.is_told);
        fs::create_dir(&folder).unwrap();
        wake.prepare(None);
        write(&folder.join("log"));
        assert!(wake.wait_for(LIMIT).await);
        // Nothing is told of it, not even its name changes.
        fs::rename(above.path(), above.path().with_extension("away")).unwrap();
        fs::create_dir_all(&folder).unwrap();
        wake.prepare(None);
        write(&folder.join("log"));
        assert!(wake.wait_for(LIMIT).await);
        fs::remove_dir_all(above.path().with_extension("away")).unwrap();
    }

    #[tokio::test]
    async fn one_silent_change_is_enough() {
        let folder = temporary();
        let mut wake = prepared(folder.path(), None);
        // As after a wait that nothing ended, and a look that found what came only then.
        wake.trust = Trust::Checking;
        write(&folder.path().join("log"));
        wake.found();
        wake.wait().await;
        assert_eq!(wake.trust, Trust::Full);
        // And one that nothing told of.
        while wake.wait_for(POLL).await {}
        wake.trust = Trust::Checking;
        wake.found();
        wake.wait().await;
        assert_eq!(wake.trust, Trust::Gone);
        write(&folder.path().join("log"));
        wake.wait().await;
        assert_eq!(wake.trust, Trust::Gone);
    }

    /// The shortest of some, because others may keep the processor.
    #[tokio::test]
    async fn the_first_change_wakes_at_once_and_the_next_ones_together() {
        let folder = temporary();
        let path = folder.path().join("log");
        let mut wake = prepared(folder.path(), None);
        let mut took = Vec::new();
        for _ in 0..50 {
            sleep(2 * GATHER).await;
            let start = Instant::now();
            write(&path);
            assert!(wake.wait_for(LIMIT).await);
            took.push(start.elapsed());
            let woken = Instant::now();
            write(&path);
            assert!(wake.wait_for(LIMIT).await);
            assert!(woken.elapsed() >= GATHER / 2 && !wake.take());
        }
        let shortest = took.into_iter().min().unwrap();
        assert!(shortest < GATHER / 2, "{shortest:?}");
    }
}
