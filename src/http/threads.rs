//! The threads that serve clients. Each has a runtime of its own, and a connection stays where it began: so nothing of it
//! moves from one processor to another, and an event that one thread has work with wakes one thread. (A runtime over
//! several threads wakes a second one for everything that comes to the first, to see whether there is more.)

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;

/// Most threads. Each takes a few descriptors and 50 KB, and two of them keep an opencode busier than it can be.
const MOST: usize = 8;

/// Threads that serve clients. They end when this is dropped; what still runs on them then is cut off.
#[derive(Debug, Default)]
pub struct Threads {
    threads: Vec<Thread>,
    /// The one that the next client comes to.
    next: AtomicUsize,
}

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Ends it when dropped.
    _end: oneshot::Sender<()>,
}

impl Threads {
    /// One for each processor that this process may use, up to eight.
    ///
    /// # Errors
    ///
    /// When the system does not give a thread or what its runtime needs.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let threads = (0..count).map(|number| Thread::start(format!("clients-{number}"))).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// What is made and spawned while this is kept belongs to the thread whose turn it is; without threads, to the runtime of
    /// whoever asks.
    pub(super) fn enter(&self) -> Option<EnterGuard<'_>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let thread = self.threads.get(number.checked_rem(self.threads.len())?)?;
        Some(thread.runtime.enter())
    }
}

impl Thread {
    fn start(name: String) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let (sender, started) = mpsc::sync_channel(1);
        thread::Builder::new().name(name).spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            let _ = sender.send(Ok(runtime.handle().clone()));
            let _ = runtime.block_on(ended);
            // A read of a hanging disk is left to itself.
            runtime.shutdown_background();
        })?;
        let runtime = started.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { runtime, _end: end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The threads that the next tasks run on.
    async fn turns(threads: &Threads, count: usize) -> Vec<thread::ThreadId> {
        let mut turns = Vec::new();
        for _ in 0..count {
            let task = {
                let _on = threads.enter();
                Handle::current().spawn(async { thread::current().id() })
            };
            turns.push(task.await.unwrap());
        }
        turns
    }

    #[tokio::test]
    async fn clients_come_to_all_threads_by_turns() {
        let count = 3;
        let threads =
            (0..count).map(|number| Thread::start(format!("test-{number}"))).collect::<io::Result<_>>().unwrap();
        let threads = Threads { threads, next: AtomicUsize::new(0) };
        let turns = turns(&threads, 2 * count).await;
        assert_eq!(turns[..count], turns[count..]);
        assert!(!turns.contains(&thread::current().id()), "nobody is served where the clients are accepted");
        assert!(turns[0] != turns[1] && turns[1] != turns[2] && turns[0] != turns[2], "{turns:?}");
    }

    #[tokio::test]
    async fn without_threads_clients_stay_where_they_are_accepted() {
        assert!(Threads::default().enter().is_none());
    }

    #[tokio::test]
    async fn what_still_runs_when_the_threads_end_is_cut_off() {
        let threads = Threads::start().unwrap();
        let task = {
            let _on = threads.enter();
            Handle::current().spawn(std::future::pending::<()>())
        };
        drop(threads);
        assert!(task.await.unwrap_err().is_cancelled());
    }
}
