//! Stopping: one signal that everybody watches, and a tracker that knows who is still running.
//!
//! Every task starts through [`Tasks::spawn`] with a name, so that a stop which does not finish can say in the log
//! whose fault that is. `app` decides the order of a stop; this module only gives the means.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A stop signal: cheap to clone, pulled once, watched by many.
#[derive(Clone, Debug, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// A signal that nobody has pulled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal that is pulled when this one is, and can also be pulled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Pulls the signal. Pulling it twice is no mistake.
    pub fn pull(&self) {
        self.0.cancel();
    }

    /// Whether the signal was pulled.
    #[must_use]
    pub fn is_pulled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the signal is pulled; at once if it already was.
    pub async fn pulled(&self) {
        self.0.cancelled().await;
    }

    /// Runs `future` until it ends or the signal is pulled; `None` says that it was cut short.
    pub fn or<F: Future>(&self, future: F) -> impl Future<Output = Option<F::Output>> {
        // Not an async function, which would have room for the future twice.
        self.0.run_until_cancelled(future)
    }
}

/// The tasks of this process, by name.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Tasks {
    /// A tracker without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task; `name` is what the log says when it does not end.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let running = Running::enter(name, self.running.clone());
        // Not an async block, which would have room for the future twice.
        self.tracker.spawn(future.map(|output| {
            drop(running);
            output
        }))
    }

    /// Waits until all tasks ended.
    ///
    /// # Errors
    ///
    /// The names of those still running after `limit`, with their number, as `name` or `name ×3`.
    pub async fn finish(&self, limit: Duration) -> Result<(), Vec<String>> {
        self.tracker.close();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        Err(lock(&self.running)
            .iter()
            .map(|(name, &count)| if count == 1 { (*name).to_owned() } else { format!("{name} ×{count}") })
            .collect())
    }
}

/// Takes the name off the list when the task ends, however it ends.
struct Running {
    name: &'static str,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Running {
    fn enter(name: &'static str, running: Arc<Mutex<BTreeMap<&'static str, usize>>>) -> Self {
        *lock(&running).entry(name).or_default() += 1;
        Self { name, running }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_what_does_not_stop() {
        let tasks = Tasks::new();
        let stop = Stop::new();
        let watched = stop.clone();
        tasks.spawn("good", async move { watched.pulled().await });
        tasks.spawn("stuck", std::future::pending::<()>());
        tasks.spawn("stuck", std::future::pending::<()>());
        stop.pull();
        let left = tasks.finish(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(left, ["stuck ×2"]);
    }
}
