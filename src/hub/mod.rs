//! The hub: one tail, many followers.
//!
//! A [`Follower`] reads the journal, whose newest records are in memory; one at the tail is woken by the next
//! [`Hub::publish`] that has something for it. Nothing is queued per client: a client that stops reading keeps a position and
//! a waker, and costs reads of the journal when it returns, never memory. Those who asked for the same are one audience:
//! whether a record is for them is looked up once, and frames that are written together are shared. Those that wait at the
//! tail are served all together, by way of what they left for that (an [`Outlet`]). Reads of the journal's file wait for a
//! disk, so they are made apart from the threads that serve clients, few at once.

mod audience;
mod crier;
mod follower;
mod wakers;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime;
use tokio::sync::Semaphore;

use crate::event::{Cursor, Event, Form, Scope, fresh_id};
use crate::journal::{Journal, Record};
use crate::stop::Tasks;
use audience::{Audience, Interest};
use crier::{Crier, Criers};

pub use audience::Standing;
pub use follower::{Expired, Follower, Reason, Word};
pub use wakers::{Frames, Offered, Outlet};

/// Most reads of the journal's file at once; other followers wait for their turn, in order.
const READS: usize = 2;

/// Hands records to followers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    journal: Arc<Journal>,
    tail: Mutex<Tail>,
    reads: Arc<Semaphore>,
    tasks: Tasks,
    /// Makes the ids of greetings and heartbeats differ.
    frames: AtomicU64,
}

#[derive(Debug)]
struct Tail {
    /// The newest record.
    cursor: Cursor,
    /// True as of `cursor`.
    pending: Pending,
    /// How many followers wait to be told what is pending.
    owing: usize,
    followers: usize,
    /// Those that have followers. An audience is locked by whoever holds this lock, never the other way round.
    audiences: HashMap<Arc<Interest>, Arc<Audience>>,
    criers: Criers,
}

/// What a client has to know after a gap: open permissions and questions, busy sessions.
#[derive(Debug, Default)]
pub struct Pending {
    /// As events, to be sent without ids: they are not in the journal.
    pub events: Vec<Event>,
    /// The directories of which everything is known.
    pub directories: BTreeSet<Arc<str>>,
    /// These are all that are in use.
    pub is_complete: bool,
}

impl Pending {
    /// Whether everything in the scope is known.
    fn covers(&self, scope: &Scope) -> bool {
        scope.directory.as_ref().map_or(self.is_complete, |directory| self.directories.contains(directory))
    }
}

/// The runtime that a crier is for; `None` is followers that are on none.
fn runtime(crier: &Option<Arc<Crier>>) -> Option<runtime::Id> {
    crier.as_ref().map(|crier| crier.runtime())
}

impl Hub {
    /// A hub over a journal, at its end. A runtime on which there are followers gets a task.
    #[must_use]
    pub fn new(journal: Arc<Journal>, tasks: Tasks) -> Self {
        let tail = Tail {
            cursor: journal.cursor(journal.fill().newest),
            pending: Pending::default(),
            owing: 0,
            followers: 0,
            audiences: HashMap::new(),
            criers: Criers::default(),
        };
        let reads = Arc::new(Semaphore::new(READS));
        Self(Arc::new(Shared { journal, tail: Mutex::new(tail), reads, tasks, frames: AtomicU64::new(0) }))
    }

    /// Shows records that the journal has already to every follower. `pending`, if it changed, is true as of the last one.
    pub fn publish(&self, records: Vec<Arc<Record>>, pending: Option<Pending>) {
        let mut tail = self.tail();
        let is_owed = pending.is_some() && tail.owing > 0;
        if let Some(pending) = pending {
            tail.pending = pending;
        }
        match records.last() {
            Some(newest) => tail.cursor = newest.cursor(),
            None if is_owed => {}
            None => return,
        }
        let cursor = tail.cursor;
        Self::tell(tail, |audience, woken| audience.show(&records, cursor, is_owed, woken));
    }

    /// Wakes every follower that waits, for events or for the journal's file. There is nothing new for them.
    pub fn rouse(&self) {
        Self::tell(self.tail(), |audience, woken| {
            audience.rouse(woken);
            false
        });
    }

    /// Has those audiences served for which `look` says that there is something, and those followers woken that it takes along.
    fn tell(tail: MutexGuard<'_, Tail>, look: impl Fn(&Audience, &mut Vec<Waker>) -> bool) {
        let mut wakers = Vec::new();
        for audience in tail.audiences.values() {
            let mut woken = Vec::new();
            let is_news = look(audience, &mut woken);
            match &audience.crier {
                Some(crier) => wakers.extend(crier.call(is_news.then(|| Arc::downgrade(audience)), woken)),
                None => wakers.append(&mut woken),
            }
        }
        drop(tail);
        // Outside the locks, because a woken follower takes them at once.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A follower from here on, or from the position that a client brought back.
    ///
    /// `last_id` is what the client sent, unchecked; `form` says how it wants its frames.
    #[must_use]
    pub fn follow(&self, scope: Scope, last_id: Option<&str>, form: Form) -> Follower {
        let mut tail = self.tail();
        let crier = tail.criers.here(&self.0.journal, &self.0.tasks);
        let interest = Arc::new(Interest { scope, form, runtime: runtime(&crier) });
        let (word, start) = follower::place(last_id, &self.0.journal, tail.cursor);
        let owes = matches!(word, Word::Gap { .. });
        tail.owing += usize::from(owes);
        tail.followers += 1;
        let cursor = tail.cursor;
        let new = || Arc::new(Audience::new(interest.clone(), crier, cursor));
        let audience = tail.audiences.entry(interest.clone()).or_insert_with(new).clone();
        let place = audience.enter();
        drop(tail);
        Follower::new(self.clone(), audience, place, word, start, owes)
    }

    /// How many followers there are.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.tail().followers
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id for a greeting or a heartbeat.
    fn frame_id(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = self.0.frames.fetch_add(1, Ordering::Relaxed);
        fresh_id(u64::try_from(now.as_millis()).unwrap_or_default(), number)
    }
}

#[cfg(test)]
mod tests;
