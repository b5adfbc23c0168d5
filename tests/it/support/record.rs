//! A list that only grows, filled by a reader and watched by a test: lines of a process, frames of a stream.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What arrived so far, with a bell for those who wait.
pub(crate) struct Record<T> {
    items: Mutex<Vec<T>>,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy)]
struct Progress {
    len: usize,
    closed: bool,
    last: Instant,
}

impl<T: Clone> Record<T> {
    pub(crate) fn new() -> Self {
        let progress = Progress { len: 0, closed: false, last: Instant::now() };
        Self { items: Mutex::new(Vec::new()), progress: watch::Sender::new(progress) }
    }

    pub(crate) fn push(&self, item: T) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.push(item);
        let len = items.len();
        drop(items);
        self.progress.send_modify(|progress| {
            progress.len = len;
            progress.last = Instant::now();
        });
    }

    /// Nothing will be added any more; waiters give up at once.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    pub(crate) fn len(&self) -> usize {
        self.progress.borrow().len
    }

    /// Everything from index `start` on.
    pub(crate) fn from(&self, start: usize) -> Vec<T> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items[start.min(items.len())..].to_vec()
    }

    /// Waits for the first item from index `start` on of which `find` makes something.
    /// `None` when the limit passed or the record was closed without one.
    pub(crate) async fn wait<R>(
        &self,
        start: usize,
        limit: Duration,
        mut find: impl FnMut(&T) -> Option<R>,
    ) -> Option<R> {
        let deadline = Instant::now() + limit;
        let mut progress = self.progress.subscribe();
        let mut seen = start;
        loop {
            let closed = progress.borrow_and_update().closed;
            let fresh = self.from(seen);
            seen += fresh.len();
            if let Some(found) = fresh.iter().find_map(&mut find) {
                return Some(found);
            }
            if closed || timeout_at(deadline, progress.changed()).await.is_err() {
                return None;
            }
        }
    }

    /// Waits until the record is closed.
    pub(crate) async fn wait_closed(&self, limit: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        let closed = progress.wait_for(|progress| progress.closed);
        tokio::time::timeout(limit, closed).await.is_ok()
    }

    /// Waits until nothing was added for `span`, counted from now on; false when `limit` passed before.
    pub(crate) async fn quiet(&self, span: Duration, limit: Duration) -> bool {
        let start = Instant::now();
        let mut progress = self.progress.subscribe();
        loop {
            let Progress { last, closed, .. } = *progress.borrow_and_update();
            if closed {
                return true;
            }
            let still = last.max(start) + span;
            if still > start + limit {
                return false;
            }
            tokio::select! {
                () = sleep_until(still) => return true,
                _ = progress.changed() => {}
            }
        }
    }
}
