//! What the file needs now and then: checkpoints, which wait for the disk, on a thread of their own.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::Shared;
use super::disk::{Checkpoints, Failure, wal_size};

/// How often. What was appended is safe from the machine going down after this long.
const EVERY: Duration = Duration::from_secs(1);

/// When the write-ahead log has more bytes than this, it is cut off, and the writer waits meanwhile. A long one makes every
/// read slower.
const LONGEST_LOG: u64 = 16 << 20;

/// Before that, checkpoints are made without holding up the writer until one is this quick, so that little is left for
/// the one that does; but no more than these.
const QUICK: Duration = Duration::from_millis(50);
const ROUNDS: usize = 5;

/// Most steps of dropping old events at once, and the pause between them in which others may write.
const STEPS: usize = 50;
const BETWEEN_STEPS: Duration = Duration::from_millis(5);

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// Only ever dropped, which ends the thread's wait.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || run(&shared, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, stopped: &Receiver<()>) {
    let mut checkpoints = None;
    while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        tend(shared, &mut checkpoints);
    }
}

/// One round. `checkpoints` is the connection of the last one, with the number of the file it is to.
pub(super) fn tend(shared: &Shared, checkpoints: &mut Option<(u64, Checkpoints)>) {
    let dirty = shared.with_store(|store| {
        if store.is_degraded() {
            store.retry(shared, &[]);
        } else if store.is_gone()
            && let Err(failure) = store.replace(shared, &[], "somebody moved or deleted it")
        {
            store.degrade(shared, &failure);
        }
        store.take_dirty()
    });
    if let Some(Some((path, number))) = dirty {
        let result = match checkpoints.take().filter(|(of, _)| *of == number) {
            Some((_, connection)) => Ok(connection),
            None => Checkpoints::open(&path),
        };
        let result = result.and_then(|connection| {
            for _ in 0..ROUNDS {
                let start = Instant::now();
                connection.make()?;
                if wal_size(&path) <= LONGEST_LOG || start.elapsed() < QUICK {
                    break;
                }
            }
            if wal_size(&path) > LONGEST_LOG {
                shared.with_store(|_| connection.make_and_cut()).transpose()?;
            }
            Ok(connection)
        });
        match result {
            Ok(connection) => *checkpoints = Some((number, connection)),
            Err(failure) => shared.report(number, failure),
        }
    }
    for _ in 0..STEPS {
        match shared.with_store(|store| store.trim(shared.limits(now()))) {
            Some(Ok(true)) => thread::sleep(BETWEEN_STEPS),
            Some(Err(failure @ Failure::Corrupt(_))) => {
                let number = shared.with_store(|store| store.number());
                shared.report(number.unwrap_or_default(), failure);
                return;
            }
            // A disk that is too full to delete is met by the next append too.
            _ => return,
        }
    }
}

/// Unix time in milliseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
