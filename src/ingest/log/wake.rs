//! What wakes the follower of a file: inotify where it works, and always a poll.
//!
//! inotify says nothing on overlay and network mounts, loses events when its queue is full, and its watch dies with the
//! folder. So it only ever shortens a wait; what happened is found by looking at the files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use inotify::{EventStream, Inotify, WatchMask};

/// How long a change can go unnoticed when inotify says nothing.
const POLL: Duration = Duration::from_millis(250);

/// How long to wait after a change before looking: opencode writes lines in bursts, and a folder may be busy with files
/// that are not ours.
const SETTLE: Duration = Duration::from_millis(2);

/// How many changes are taken at once; the kernel's own limit (`fs.inotify.max_queued_events`).
const QUEUED_CHANGES: usize = 16 * 1024;

/// How many polls pass between two attempts to set the watch up.
const POLLS_PER_ATTEMPT: u32 = 20;

/// Waits for changes in a folder.
pub(super) struct Wake {
    folder: PathBuf,
    changes: Option<EventStream<[u8; 4096]>>,
    polls: u32,
}

impl Wake {
    /// For the files in `folder`, which need not exist.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), changes: watch(folder), polls: 0 }
    }

    /// Without inotify, as where the kernel refuses a watch.
    #[cfg(test)]
    pub(super) fn polling(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), changes: None, polls: 0 }
    }

    /// Returns when something may have changed.
    pub(super) async fn wait(&mut self) {
        let Some(changes) = &mut self.changes else {
            tokio::time::sleep(POLL).await;
            self.polls += 1;
            if self.polls.is_multiple_of(POLLS_PER_ATTEMPT) {
                self.changes = watch(&self.folder);
            }
            return;
        };
        match tokio::time::timeout(POLL, changes.next()).await {
            Ok(Some(Ok(_))) => {
                tokio::time::sleep(SETTLE).await;
                // What else is waiting is answered by the same look. At most what one queue of the kernel holds, so that a
                // folder that never rests cannot keep us here.
                for _ in 0..QUEUED_CHANGES {
                    match changes.next().now_or_never() {
                        Some(Some(Ok(_))) => {}
                        _ => break,
                    }
                }
            }
            Ok(Some(Err(_)) | None) => self.changes = None,
            Err(_poll) => {}
        }
    }
}

/// Watches a folder; `None` when that is not possible here or now.
fn watch(folder: &Path) -> Option<EventStream<[u8; 4096]>> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
    inotify.watches().add(folder, mask | WatchMask::ONLYDIR).ok()?;
    inotify.into_event_stream([0; 4096]).ok()
}
