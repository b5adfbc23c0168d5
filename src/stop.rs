//! Stopping: one signal that everybody watches, and a tracker that knows who is still running.
//!
//! Every task starts through [`Tasks::spawn`] with a name, so that a stop which does not finish can say in the log
//! whose fault that is. `app` decides the order of a stop; this module only gives the means.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A stop signal: cheap to clone, pulled once, watched by many.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    /// Set before anybody is told. To ask the token would be to lock it, and whoever waits for a stop beside other things asks
    /// each time he is woken, on every thread.
    is_pulled: AtomicBool,
    token: CancellationToken,
    parent: Option<Stop>,
}

impl Stop {
    /// A signal that nobody has pulled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal that is pulled when this one is, and can also be pulled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let (token, parent) = (self.0.token.child_token(), Some(self.clone()));
        Self(Arc::new(Signal { is_pulled: AtomicBool::new(false), token, parent }))
    }

    /// Pulls the signal. Pulling it twice is no mistake.
    pub fn pull(&self) {
        self.0.is_pulled.store(true, Ordering::Release);
        self.0.token.cancel();
    }

    /// Whether the signal was pulled.
    #[must_use]
    pub fn is_pulled(&self) -> bool {
        self.0.is_pulled.load(Ordering::Acquire) || self.0.parent.as_ref().is_some_and(Self::is_pulled)
    }

    /// Waits until the signal is pulled; at once if it already was.
    pub async fn pulled(&self) {
        let mut told = pin!(self.0.token.cancelled());
        let mut registered: Option<Waker> = None;
        poll_fn(|context| {
            if self.is_pulled() {
                return Poll::Ready(());
            }
            if registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                return Poll::Pending;
            }
            registered = Some(context.waker().clone());
            told.as_mut().poll(context)
        })
        .await;
    }

    /// Runs `future` until it ends or the signal is pulled; `None` says that it was cut short.
    pub fn or<F: Future>(&self, future: F) -> impl Future<Output = Option<F::Output>> {
        // Not an async function, which would have room for the future twice.
        self.0.token.run_until_cancelled(future)
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
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Debug, Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stop_wakes_the_task_that_asked_last() {
        let parent = Stop::new();
        let stop = parent.child();
        let mut waiting = pin!(stop.pulled());
        let tasks = [(); 2].map(|()| Arc::new(Task::default()));
        for task in &tasks {
            let waker = task.clone().into();
            for _ in 0..2 {
                assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        parent.pull();
        assert_eq!(tasks.map(|task| task.0.load(Ordering::Relaxed)), [0, 1]);
        assert!(waiting.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn a_child_is_pulled_with_its_parent_and_not_the_other_way_round() {
        let parent = Stop::new();
        let (one, other) = (parent.child(), parent.child());
        one.pull();
        assert!(one.is_pulled() && !other.is_pulled() && !parent.is_pulled());
        parent.pull();
        assert!(other.is_pulled() && other.child().is_pulled());
    }

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
