//! Wakes the followers of one runtime from within. From another thread each wake would be a system call, and a look of
//! that runtime's at what else there is; so the publisher wakes one task there, which wakes the others.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{self, Handle};

use crate::stop::Tasks;

/// Wakes on one runtime. Its task ends with the last follower there.
#[derive(Debug)]
pub(super) struct Crier {
    runtime: runtime::Id,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whom to wake; each follower waits once at most.
    calls: Vec<Waker>,
    task: Option<Waker>,
}

/// The criers that there are.
#[derive(Debug, Default)]
pub(super) struct Criers(Vec<Weak<Crier>>);

impl Criers {
    /// The one of the runtime that this is called on, if it is called on one.
    pub(super) fn here(&mut self, tasks: &Tasks) -> Option<Arc<Crier>> {
        let runtime = Handle::try_current().ok()?.id();
        self.0.retain(|crier| crier.strong_count() > 0);
        if let Some(crier) = self.0.iter().filter_map(Weak::upgrade).find(|crier| crier.runtime == runtime) {
            return Some(crier);
        }
        let crier = Arc::new(Crier { runtime, state: Mutex::default() });
        let task = Arc::downgrade(&crier);
        self.0.push(task.clone());
        tasks.spawn("wakes of event streams", poll_fn(move |context| Crier::poll(&task, context)));
        Some(crier)
    }
}

impl Crier {
    pub(super) fn runtime(&self) -> runtime::Id {
        self.runtime
    }

    /// Wakes them soon.
    pub(super) fn call(&self, mut woken: Vec<Waker>) {
        if woken.len() < 2 {
            // The way by the task would be the longer one.
            woken.into_iter().for_each(Waker::wake);
            return;
        }
        let mut state = self.lock();
        state.calls.append(&mut woken);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Ready when nobody is left who could call.
    fn poll(crier: &Weak<Self>, context: &Context<'_>) -> Poll<()> {
        let Some(crier) = crier.upgrade() else { return Poll::Ready(()) };
        let mut state = crier.lock();
        let calls = std::mem::take(&mut state.calls);
        state.task = Some(context.waker().clone());
        drop(state);
        calls.into_iter().for_each(Waker::wake);
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Crier {
    fn drop(&mut self) {
        if let Some(task) = self.lock().task.take() {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Counts wakes, and remembers whether one came from elsewhere than from this thread.
    struct Counted {
        home: thread::ThreadId,
        wakes: AtomicUsize,
        strange: AtomicUsize,
    }

    impl Counted {
        fn new() -> Arc<Self> {
            Arc::new(Self { home: thread::current().id(), wakes: AtomicUsize::new(0), strange: AtomicUsize::new(0) })
        }

        fn wakers(self: &Arc<Self>, count: usize) -> Vec<Waker> {
            (0..count).map(|_| Waker::from(self.clone())).collect()
        }

        async fn count(&self, expected: usize) {
            while self.wakes.load(Ordering::Relaxed) < expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            self.strange.fetch_add(usize::from(thread::current().id() != self.home), Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn whoever_is_called_from_elsewhere_is_woken_from_here() {
        let tasks = Tasks::new();
        let crier = Criers::default().here(&tasks).unwrap();
        let counted = Counted::new();
        for round in 1..=3 {
            let (crier, wakers) = (crier.clone(), counted.wakers(100));
            thread::spawn(move || crier.call(wakers)).join().unwrap();
            counted.count(100 * round).await;
        }
        assert_eq!(counted.strange.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn calls_that_come_before_the_task_runs_are_kept() {
        let crier = Criers::default().here(&Tasks::new()).unwrap();
        let counted = Counted::new();
        crier.call(counted.wakers(2));
        crier.call(counted.wakers(3));
        assert_eq!(counted.wakes.load(Ordering::Relaxed), 0);
        counted.count(5).await;
    }

    #[tokio::test]
    async fn a_runtime_has_one_which_ends_with_the_last_follower() {
        let (mut criers, tasks) = (Criers::default(), Tasks::new());
        let (one, other) = (criers.here(&tasks).unwrap(), criers.here(&tasks).unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other));
        tasks.finish(Duration::from_secs(10)).await.unwrap();
        assert!(criers.here(&Tasks::new()).is_some());
        assert_eq!(criers.0.len(), 1);
    }

    #[test]
    fn there_is_none_without_a_runtime() {
        assert!(Criers::default().here(&Tasks::new()).is_none());
    }
}
