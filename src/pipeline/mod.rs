//! The pipeline: the one writer. It takes what the witnesses say, lets `reconcile` decide, numbers the resulting events
//! in the journal and shows them to the hub — in this order, so that no client has an event the journal does not.
//!
//! One task, one flat loop. All that arrived together is worked off together and published once.

mod api;
mod core;
mod history;
mod status;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::hub::Hub;
use crate::ingest::state::Ask;
use crate::ingest::{Message, UpstreamWatch};
use crate::journal::{Journal, Restored};
use crate::reconcile::{Input, Now, Options, Past, Reconcile};
use crate::stop::Stop;
use api::Api;
use core::{Commit, Core, lost, wall};

pub use history::{BUCKET, Bucket, Change, History, Subject, Totals};
pub use status::{LogState, Status, StreamState, StreamStatus};

/// Most messages worked off before the events are published.
const BATCH: usize = 256;

/// The journal's note with the position in the log, for [`crate::ingest::log::Start::After`].
pub const LOG_NOTE: &str = "log";

/// The journal's note with what `reconcile` needs to go on.
const RECONCILE_NOTE: &str = "reconcile";

/// The parts a pipeline works with.
#[derive(Debug)]
pub struct Parts {
    /// How to reconcile.
    pub options: Options,
    /// Where events are numbered and kept.
    pub journal: Arc<Journal>,
    /// What an earlier run left in it.
    pub restored: Restored,
    /// Where they are shown.
    pub hub: Hub,
    /// Where questions about the state go. `reconcile` has fewer in flight than this queue holds.
    pub asks: mpsc::Sender<Ask>,
    /// Whether opencode runs.
    pub upstream: UpstreamWatch,
    /// Whether this opencode has `/api/event`, whose texts are built only then.
    pub has_api: Arc<AtomicBool>,
}

/// A handle on the pipeline for those who want to know how it is.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Mutex<Core>>);

/// The pipeline, ready to run.
#[derive(Debug)]
pub struct Pipeline {
    core: Arc<Mutex<Core>>,
    asks: mpsc::Sender<Ask>,
    upstream: UpstreamWatch,
    journal: Arc<Journal>,
    hub: Hub,
}

impl Pipeline {
    /// A pipeline that goes on after an earlier run, or has seen nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let started = Instant::now();
        let is_kept = parts.journal.health().path.is_some();
        let reconcile = restore(parts.options, &parts.restored, Now { steady: 0, wall: wall() });
        let history = History::new(Totals { lost: lost(&reconcile), ..Totals::default() });
        let core = Core {
            reconcile,
            status: Status { history, ..Status::default() },
            stream_state: watch::Sender::default(),
            changes: watch::Sender::default(),
            api: Api::restore(&parts.restored.recent),
            has_api: parts.has_api,
            newest: parts.journal.fill().newest.0,
            hub: parts.hub.clone(),
            started,
            events: Vec::new(),
            deferred: VecDeque::new(),
            position: None,
            is_listened: false,
            // At once: from here on the relay looks.
            notes_due: is_kept.then_some(0),
            unnoted: 0,
            is_kept,
        };
        Self {
            core: Arc::new(Mutex::new(core)),
            asks: parts.asks,
            upstream: parts.upstream,
            journal: parts.journal,
            hub: parts.hub,
        }
    }

    /// A handle that outlives the pipeline.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.core.clone())
    }

    /// Runs until the stop, then works off what has arrived.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>, stop: Stop) {
        let mut messages = Vec::with_capacity(BATCH);
        let mut next = self.step(&mut messages, true);
        // One timer for all: a new one is set each time where an old one is put off at most, and setting one wakes the runtime.
        let mut tick = pin!(sleep_until(Instant::now()));
        loop {
            let due = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            if tick.deadline() != due {
                tick.as_mut().reset(due);
            }
            let mut upstream_changed = false;
            // Ranked: a stop is heard before more work, messages come before the clock, because they may answer what
            // the clock would ask for.
            tokio::select! {
                biased;
                () = stop.pulled() => break,
                changed = self.upstream.changed() => upstream_changed = changed.is_ok(),
                count = inbox.recv_many(&mut messages, BATCH) => if count == 0 { break },
                () = tick.as_mut() => {}
            }
            gather(&mut inbox, &mut messages).await;
            next = self.step(&mut messages, upstream_changed);
        }
        // Everything that was sent before the senders stopped is still told.
        inbox.close();
        while inbox.recv_many(&mut messages, BATCH).await > 0 {
            self.step(&mut messages, false);
        }
        let commit = lock(&self.core).finish(&self.asks);
        self.perform(commit);
    }

    /// Works off the messages; says when time alone will bring more work.
    fn step(&mut self, messages: &mut Vec<Message>, upstream_changed: bool) -> Option<Instant> {
        let mut core = lock(&self.core);
        let now = core.now();
        if upstream_changed {
            let reachable = self.upstream.borrow_and_update().is_some();
            core.changed(now, Subject::Opencode, if reachable { "up" } else { "down" }, None);
            core.input(Input::Reachable(reachable), now, &self.asks);
        }
        let is_listened = core.hub.followers() > 0;
        if std::mem::replace(&mut core.is_listened, is_listened) != is_listened {
            core.input(Input::Listened(is_listened), now, &self.asks);
        }
        for message in messages.drain(..) {
            core.message(message, now, &self.asks);
        }
        core.input(Input::Tick, now, &self.asks);
        core.deliver_deferred(now, &self.asks);
        let commit = core.commit(now);
        core.count(now);
        let next = [core.reconcile.next_tick(now), core.notes_due].into_iter().flatten().min();
        let next = next.map(|next| core.started + Duration::from_millis(next.max(now.steady + 1)));
        drop(core);
        self.perform(commit);
        next
    }

    /// Appends and shows. It waits for the file, so it holds no lock: whoever asks how the pipeline is must not wait.
    fn perform(&self, commit: Option<Commit>) {
        let Some(Commit { batch, pending, at }) = commit else { return };
        let records = self.journal.append(batch, at);
        self.hub.publish(records, pending);
    }
}

impl Handle {
    /// What the stream witness does, as it changes.
    #[must_use]
    pub fn stream_state(&self) -> watch::Receiver<StreamState> {
        lock(&self.0).stream_state.subscribe()
    }

    /// Moves when [`states`](Self::states) may be others.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        lock(&self.0).changes.subscribe()
    }

    /// What each witness does, those of which nothing was heard left out.
    #[must_use]
    pub fn states(&self) -> Vec<(Subject, &'static str)> {
        let core = lock(&self.0);
        let state = |subject| Some((subject, core.status.history.state(subject)?));
        [Subject::Opencode, Subject::Stream, Subject::Log, Subject::State].into_iter().filter_map(state).collect()
    }

    /// How the pipeline is.
    #[must_use]
    pub fn status(&self) -> Status {
        let core = lock(&self.0);
        let mut status = core.status.clone();
        status.ledger = core.reconcile.counts().map(|(kind, count)| (kind.clone(), count.clone())).collect();
        (status.state.reads, status.state.in_flight) = core.reconcile.reads();
        status.directories = core.reconcile.directories().cloned().collect();
        status.newest = core.newest;
        status
    }
}

/// Adds what comes while others of this thread have their turn: each batch costs a commit, however many events it has.
async fn gather(inbox: &mut mpsc::Receiver<Message>, messages: &mut Vec<Message>) {
    while messages.len() < BATCH {
        yield_now().await;
        if inbox.is_empty() {
            return;
        }
        inbox.recv_many(messages, BATCH - messages.len()).await;
    }
}

/// Goes on where the earlier run was ended, if there was one.
fn restore(options: Options, restored: &Restored, now: Now) -> Reconcile {
    let Some(snapshot) = restored.notes.get(RECONCILE_NOTE) else { return Reconcile::new(options, now) };
    let past = restored.recent.iter();
    let past = past.map(|record| Past { seq: record.seq.0, at: record.at, event: &record.event });
    match Reconcile::restore(options.clone(), snapshot, past, now) {
        Ok(reconcile) => reconcile,
        Err(error) => {
            tracing::warn!("failed to {error}; what happened meanwhile is told as far as the state shows it as new");
            Reconcile::new(options, now)
        }
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Origin, Place};
    use crate::ingest::stream;
    use crate::journal;
    use crate::reconcile::Witness;
    use crate::stop::Tasks;

    #[test]
    fn notes_are_kept_a_second_or_a_mebibyte_after_an_event() {
        let folder = tempfile::tempdir().unwrap();
        let taken = Journal::take(folder.path()).unwrap();
        let (journal, restored) = Journal::open(taken, journal::Options::default()).unwrap();
        let journal = Arc::new(journal);
        let pipeline = Pipeline::new(Parts {
            options: Options { witness: Witness::Auto, grace: 2000, watch: 0, emit_bare: false },
            hub: Hub::new(journal.clone(), Tasks::new()),
            journal,
            restored,
            asks: mpsc::channel(1).0,
            upstream: watch::channel(None).1,
            has_api: Arc::default(),
        });
        let mut core = lock(&pipeline.core);
        let mut is_noted = |steady, bytes: usize| {
            let properties = format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes));
            core.events.push(Event::made(Origin::State, "x", &Place::default(), None, "evt_1", &properties));
            !core.commit(Now { steady, wall: 0 }).unwrap().batch.notes.is_empty()
        };
        let kept = [(0, 1), (1, 1), (1_000, 1), (1_001, 1), (1_002, 1), (1_003, 1 << 20), (1_004, 1)];
        let kept = kept.map(|(steady, bytes)| is_noted(steady, bytes));
        assert_eq!(kept, [true, false, false, true, false, true, false], "the first at once");
    }

    #[tokio::test]
    async fn what_comes_by_turns_is_one_batch() {
        let (sender, mut inbox) = mpsc::channel(2);
        Tasks::new().spawn("sender", async move {
            for _ in 0..BATCH + 10 {
                sender.send(Message::Stream(stream::Message::Alive)).await.unwrap();
            }
        });
        for size in [BATCH, 10, 0] {
            let mut messages = Vec::new();
            inbox.recv_many(&mut messages, BATCH).await;
            gather(&mut inbox, &mut messages).await;
            assert_eq!(messages.len(), size);
        }
    }
}
