//! What the file needs now and then: syncs and checkpoints, which wait for the disk, on a thread of their own.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::disk::{Checkpoints, Failure, sync_wal, wal_size};
use super::{Shared, lock};

/// How long after an append. What was appended is safe from the machine going down after this long; and how often a file that
/// cannot be written is looked at.
const SOON: Duration = Duration::from_secs(1);

/// How long after a checkpoint only the write-ahead log is synced, which is all that keeping what was appended takes. A checkpoint
/// moves the pages into the file and syncs twice, and the commit after it waits for the disk as well.
pub(super) const RARELY: Duration = Duration::from_secs(10);

/// How often when nothing was appended: how much longer than their age events stay in a relay that is idle.
const IDLE: Duration = Duration::from_secs(60);

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

/// What the thread waits for.
#[derive(Debug, Default)]
pub(super) struct Bell {
    call: Mutex<Call>,
    rung: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Call {
    Nothing,
    /// At first, because an earlier run may have left much that is too old.
    #[default]
    Work,
    Stop,
}

impl Bell {
    /// There is something to do [`SOON`].
    pub(super) fn ring(&self) {
        let mut call = lock(&self.call);
        if *call == Call::Nothing {
            *call = Call::Work;
            self.rung.notify_one();
        }
    }

    fn stop(&self) {
        *lock(&self.call) = Call::Stop;
        self.rung.notify_one();
    }

    /// Waits until a round is due; `false` says that there shall be none.
    fn wait(&self) -> bool {
        let wait = |call, limit, until: fn(&mut Call) -> bool| {
            let waited = self.rung.wait_timeout_while(call, limit, until);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let mut call = wait(lock(&self.call), IDLE, |call| *call == Call::Nothing);
        if *call == Call::Work {
            call = wait(call, SOON, |call| *call != Call::Stop);
        }
        // From here on, an append asks for another round.
        std::mem::replace(&mut *call, Call::Nothing) != Call::Stop
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Upkeep {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || run(&theirs))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.shared.bell.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    let mut checkpoints = None;
    while shared.bell.wait() {
        tend(shared, &mut checkpoints);
        if shared.health.borrow().degraded.is_some() {
            shared.bell.ring();
        }
    }
}

/// The last checkpoint.
#[derive(Debug)]
pub(super) struct Last {
    /// Which file it was of.
    number: u64,
    pub(super) made: Instant,
    /// For the next one.
    connection: Checkpoints,
}

/// One round.
pub(super) fn tend(shared: &Shared, checkpoints: &mut Option<Last>) {
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
    if let Some(Some((path, number))) = dirty
        && let Err(failure) = save(shared, &path, number, checkpoints)
    {
        shared.report(number, failure);
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
    shared.bell.ring();
}

/// Waits until what was appended to a file is on the disk.
fn save(shared: &Shared, path: &Path, number: u64, checkpoints: &mut Option<Last>) -> Result<(), Failure> {
    let last = checkpoints.take().filter(|last| last.number == number);
    let is_recent = last.as_ref().is_some_and(|last| last.made.elapsed() < RARELY);
    // What keeps the log from being synced keeps a checkpoint from being made, which says what it is.
    if is_recent && wal_size(path) <= LONGEST_LOG && sync_wal(path).is_ok() {
        *checkpoints = last;
        return Ok(());
    }
    let connection = last.map_or_else(|| Checkpoints::open(path), |last| Ok(last.connection))?;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        connection.make()?;
        if wal_size(path) <= LONGEST_LOG || start.elapsed() < QUICK {
            break;
        }
    }
    if wal_size(path) > LONGEST_LOG {
        shared.with_store(|_| connection.make_and_cut()).transpose()?;
    }
    *checkpoints = Some(Last { number, made: Instant::now(), connection });
    Ok(())
}

/// Unix time in milliseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
