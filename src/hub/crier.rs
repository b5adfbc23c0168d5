//! Serves the followers of one runtime from within. From another thread each wake would be a system call, and a look of
//! that runtime's at what else there is; so the publisher wakes one task there, which sees to the others.
//!
//! That task also gathers: the more followers were served, the longer it waits before it serves them again, so that events
//! which come in quick succession to many are written together. The first after a pause is never held up.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::audience::Audience;
use crate::journal::Journal;
use crate::stop::Tasks;

/// From one wave to the next, for each follower that was served: some five times what that takes. So of a thread's time a
/// fifth at most goes to events as long as they can be written together.
const PAUSE: Duration = Duration::from_micros(30);

/// A shorter pause is none: the runtime's timer counts in milliseconds.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest pause, which is as long as people take for at once.
const LONGEST: Duration = Duration::from_millis(100);

/// Wakes on one runtime. Its task ends with the last follower there.
#[derive(Debug)]
pub(super) struct Crier {
    runtime: runtime::Id,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Calls,
    /// The task, while it waits for a call.
    task: Option<Waker>,
}

/// What there is to do.
#[derive(Debug, Default)]
struct Calls {
    /// Who has something for those that wait; each once at most.
    audiences: Vec<Weak<Audience>>,
    /// Whom to wake; each follower waits once at most.
    wakers: Vec<Waker>,
}

/// The criers that there are.
#[derive(Debug, Default)]
pub(super) struct Criers(Vec<Weak<Crier>>);

impl Criers {
    /// The one of the runtime that this is called on, if it is called on one.
    pub(super) fn here(&mut self, journal: &Arc<Journal>, tasks: &Tasks) -> Option<Arc<Crier>> {
        let runtime = Handle::try_current().ok()?.id();
        self.0.retain(|crier| crier.strong_count() > 0);
        if let Some(crier) = self.0.iter().filter_map(Weak::upgrade).find(|crier| crier.runtime == runtime) {
            return Some(crier);
        }
        let crier = Arc::new(Crier { runtime, state: Mutex::default() });
        let task = Arc::downgrade(&crier);
        self.0.push(task.clone());
        tasks.spawn("news for event streams", Crier::run(task, journal.clone()));
        Some(crier)
    }
}

impl Crier {
    pub(super) fn runtime(&self) -> runtime::Id {
        self.runtime
    }

    /// Serves an audience and wakes followers soon; gives whom to wake for that, outside of all locks.
    pub(super) fn call(&self, audience: Option<Weak<Audience>>, mut wakers: Vec<Waker>) -> Option<Waker> {
        if audience.is_none() && wakers.len() < 2 {
            // The way by the task would be the longer one.
            return wakers.pop();
        }
        let mut state = self.lock();
        state.calls.audiences.extend(audience);
        state.calls.wakers.append(&mut wakers);
        state.task.take()
    }

    /// Ends when nobody is left who could call.
    async fn run(crier: Weak<Self>, journal: Arc<Journal>) {
        let mut rested = Instant::now();
        while Self::is_called(&crier).await {
            // Only now, because a timer of its own would wake the thread once more for each event that comes alone.
            if rested > Instant::now() {
                sleep_until(rested).await;
            }
            let Some(calls) = crier.upgrade().map(|crier| std::mem::take(&mut crier.lock().calls)) else { return };
            let begun = Instant::now();
            calls.wakers.into_iter().for_each(Waker::wake);
            let mut served = 0;
            for audience in calls.audiences {
                served += serve(audience, &journal).await;
            }
            let pause = PAUSE.saturating_mul(u32::try_from(served).unwrap_or(u32::MAX)).min(LONGEST);
            rested = if pause < SHORTEST { begun } else { begun + pause };
        }
    }

    /// Waits for a call; no when nobody is left who could.
    async fn is_called(crier: &Weak<Self>) -> bool {
        poll_fn(|context| {
            let Some(crier) = crier.upgrade() else { return Poll::Ready(false) };
            let mut state = crier.lock();
            if state.calls.audiences.is_empty() && state.calls.wakers.is_empty() {
                state.task = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(true)
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives those that wait all there is for them; says how many got the end of it. Only that was not a whole batch, and would
/// have been worth waiting for more.
async fn serve(audience: Weak<Audience>, journal: &Journal) -> usize {
    loop {
        let Some(audience) = audience.upgrade() else { return 0 };
        let mut woken = Vec::new();
        let wave = audience.due(journal, &mut woken);
        woken.into_iter().for_each(Waker::wake);
        let Some(mut wave) = wave else { return 0 };
        let mut served = audience.serve(&mut wave);
        while !wave.is_over() {
            // A request on this thread does not wait until all are served.
            yield_now().await;
            served += audience.serve(&mut wave);
        }
        if !audience.end(&wave) {
            return served;
        }
        yield_now().await;
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

    use super::*;
    use crate::event::Epoch;
    use crate::journal::Options;

    fn here(criers: &mut Criers, tasks: &Tasks) -> Option<Arc<Crier>> {
        criers.here(&Arc::new(Journal::new(Epoch::new(1), Options::default())), tasks)
    }

    /// What the hub does outside of its locks.
    fn call(crier: &Crier, wakers: Vec<Waker>) {
        crier.call(None, wakers).into_iter().for_each(Waker::wake);
    }

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
        let crier = here(&mut Criers::default(), &tasks).unwrap();
        let counted = Counted::new();
        for round in 1..=3 {
            let (crier, wakers) = (crier.clone(), counted.wakers(100));
            thread::spawn(move || call(&crier, wakers)).join().unwrap();
            counted.count(100 * round).await;
        }
        assert_eq!(counted.strange.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn calls_that_come_before_the_task_runs_are_kept() {
        let crier = here(&mut Criers::default(), &Tasks::new()).unwrap();
        let counted = Counted::new();
        call(&crier, counted.wakers(2));
        call(&crier, counted.wakers(3));
        assert_eq!(counted.wakes.load(Ordering::Relaxed), 0);
        counted.count(5).await;
    }

    #[tokio::test]
    async fn a_runtime_has_one_which_ends_with_the_last_follower() {
        let (mut criers, tasks) = (Criers::default(), Tasks::new());
        let (one, other) = (here(&mut criers, &tasks).unwrap(), here(&mut criers, &tasks).unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other));
        tasks.finish(Duration::from_secs(10)).await.unwrap();
        assert!(here(&mut criers, &Tasks::new()).is_some());
        assert_eq!(criers.0.len(), 1);
    }

    #[test]
    fn there_is_none_without_a_runtime() {
        assert!(here(&mut Criers::default(), &Tasks::new()).is_none());
    }
}
