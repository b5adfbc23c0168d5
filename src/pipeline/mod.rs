//! The pipeline: the one writer. It takes what the witnesses say, lets `reconcile` decide, numbers the resulting events
//! in the journal and shows them to the hub — in this order, so that no client has an event the journal does not.
//!
//! One task, one flat loop. All that arrived together is worked off together and published once.

mod api;
mod history;
mod status;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::event::Event;
use crate::hub::{self, Hub};
use crate::ingest::state::{Ask, AskError};
use crate::ingest::{self, Message, Passed, UpstreamWatch};
use crate::journal::{Batch, Journal, Restored};
use crate::reconcile::{self, Effect, Failure, Input, Now, Options, Past, Reconcile};
use crate::stop::Stop;
use api::Api;

pub use history::{BUCKET, Bucket, Change, History, Subject, Totals};
pub use status::{LogState, Status, StreamState, StreamStatus};

/// Most messages worked off before the events are published.
const BATCH: usize = 256;

/// Most events of the stream that wait for what happened while the relay was away. More are not held back.
const DEFERRED: usize = 10_000;

/// How long a position in the log is kept in memory alone, when no event came of the lines before it, in milliseconds.
/// Lines that are read again after a crash find the accounts as they were before them.
const LAZY: u64 = 1_000;

/// The journal's note with the position in the log, for [`ingest::log::Start::After`].
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

/// What one step brings about.
#[derive(Debug)]
struct Commit {
    batch: Batch,
    pending: Option<hub::Pending>,
    /// When, in milliseconds of Unix time.
    at: u64,
}

#[derive(Debug)]
struct Core {
    reconcile: Reconcile,
    status: Status,
    stream_state: watch::Sender<StreamState>,
    /// Counts the changes of all witnesses' states.
    changes: watch::Sender<u64>,
    api: Api,
    has_api: Arc<AtomicBool>,
    hub: Hub,
    started: Instant,
    /// Events made or taken in this batch, in order.
    events: Vec<Event>,
    /// Events of the stream that wait for what happened while the relay was away. Nobody knows of them yet.
    deferred: VecDeque<Event>,
    /// Somebody followed the events when this was looked up last: with each message and tick, because whoever comes is
    /// announced by [`Passed::InUse`].
    is_listened: bool,
    /// The newest number given.
    newest: u64,
    /// Where the log was read up to.
    position: Option<ingest::log::Position>,
    /// The journal has a file, so that notes outlive the process.
    is_kept: bool,
    /// When the notes have to be kept at the latest, on the steady clock, if they are older than what was read.
    notes_due: Option<u64>,
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
        loop {
            let tick = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            let mut upstream_changed = false;
            // Ranked: a stop is heard before more work, messages come before the clock, because they may answer what
            // the clock would ask for.
            tokio::select! {
                biased;
                () = stop.pulled() => break,
                changed = self.upstream.changed() => upstream_changed = changed.is_ok(),
                count = inbox.recv_many(&mut messages, BATCH) => if count == 0 { break },
                () = sleep_until(tick) => {}
            }
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

impl Core {
    fn now(&self) -> Now {
        Now { steady: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), wall: wall() }
    }

    fn message(&mut self, message: Message, now: Now, asks: &mpsc::Sender<Ask>) {
        match message {
            Message::Log(message) => self.log(message, now, asks),
            Message::Stream(message) => self.stream(message, now, asks),
            Message::State(ingest::state::Message { number, answer }) => {
                let answer = answer.map_err(|error| {
                    self.status.state.failed += 1;
                    match error {
                        AskError::Refused(status) if status.as_u16() == 404 => Failure::Missing,
                        _ => {
                            self.status.state.is_failing = true;
                            self.changed(now, Subject::State, "failing", Some(&error.to_string()));
                            Failure::Unanswered
                        }
                    }
                });
                if !matches!(answer, Err(Failure::Unanswered)) {
                    self.status.state.is_failing = false;
                    self.changed(now, Subject::State, "answering", None);
                }
                self.input(Input::Answer { number, answer }, now, asks);
            }
            Message::Passed(Passed::InUse(directory)) => self.input(Input::InUse(directory), now, asks),
            // Whoever asked may have given up.
            Message::Ping(answer) => drop(answer.send(())),
            Message::Passed(Passed::Write { path, body }) => self.input(Input::Write { path, body }, now, asks),
        }
    }

    fn log(&mut self, message: ingest::log::Message, now: Now, asks: &mpsc::Sender<Ask>) {
        use ingest::log::{Item, Message};
        let log = &mut self.status.log;
        match message {
            Message::Following { source } => {
                log.follow(source);
                self.changed(now, Subject::Log, "following", None);
            }
            Message::Waiting { reason } => {
                log.wait(reason.clone());
                self.changed(now, Subject::Log, "waiting", Some(&reason));
            }
            Message::Ended => {
                log.end();
                self.changed(now, Subject::Log, "ended", None);
            }
            Message::Lines { items, position } => {
                self.position = position.or(self.position.take());
                self.note_later(now);
                for item in items {
                    let log = &mut self.status.log;
                    match item {
                        Item::Notice { kind } => {
                            log.notices += 1;
                            self.input(Input::Notice(kind), now, asks);
                        }
                        Item::Hint { session } => self.input(Input::Hint(session), now, asks),
                        Item::Started => self.input(Input::LogBroke, now, asks),
                        Item::Elsewhere => self.input(Input::Elsewhere, now, asks),
                        Item::Gap { reason } => {
                            log.gaps += 1;
                            tracing::warn!(reason, "part of the bus log could not be read; reading the state instead");
                            self.input(Input::LogBroke, now, asks);
                        }
                    }
                }
            }
        }
    }

    fn stream(&mut self, message: ingest::stream::Message, now: Now, asks: &mpsc::Sender<Ask>) {
        use ingest::stream::Message;
        match message {
            Message::Connected => {
                self.status.stream.connect();
                self.changed(now, Subject::Stream, "connected", None);
                self.input(Input::StreamUp, now, asks);
                self.stream_state.send_replace(StreamState::Connected);
            }
            Message::Alive => self.input(Input::StreamAlive, now, asks),
            Message::Events(events) => {
                self.status.stream.events += events.len() as u64;
                if self.reconcile.is_recovering() {
                    events.iter().for_each(|event| self.reconcile.foresee(event));
                }
                self.deferred.extend(events);
                self.deliver_deferred(now, asks);
            }
            Message::Lost { reason } => {
                self.status.stream.lost += 1;
                tracing::warn!(reason, "a frame of the upstream stream could not be read; reading the state instead");
                self.input(Input::StreamLost, now, asks);
            }
            Message::Down { reason } => {
                self.changed(now, Subject::Stream, "down", Some(&reason));
                self.status.stream.fail(reason);
                for event in std::mem::take(&mut self.deferred) {
                    self.deliver(event, now, asks);
                }
                // The twin that one event still waited for will not come.
                let waiting = self.api.flush();
                self.events.extend(waiting);
                self.input(Input::StreamDown, now, asks);
                self.stream_state.send_replace(StreamState::Down);
            }
        }
    }

    /// The stream's events, unless what happened while the relay was away has to be told before them.
    fn deliver_deferred(&mut self, now: Now, asks: &mpsc::Sender<Ask>) {
        while (!self.reconcile.is_recovering() || self.deferred.len() > DEFERRED)
            && let Some(event) = self.deferred.pop_front()
        {
            self.deliver(event, now, asks);
        }
    }

    /// An event of the stream: shown as it is, and told to `reconcile`.
    fn deliver(&mut self, mut event: Event, now: Now, asks: &mpsc::Sender<Ask>) {
        if self.reconcile.is_told(&event) {
            return;
        }
        if self.has_api.load(Ordering::Relaxed) {
            let waiting = self.api.prepare(&mut event);
            self.events.extend(waiting);
        }
        self.events.push(event.clone());
        self.input(Input::Event(event), now, asks);
    }

    fn input(&mut self, input: Input, now: Now, asks: &mpsc::Sender<Ask>) {
        let mut effects = Vec::new();
        self.reconcile.handle(input, now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Emit(mut event) => {
                    if self.has_api.load(Ordering::Relaxed) {
                        self.api.complete(&mut event);
                    }
                    self.status.made += 1;
                    self.events.push(event);
                }
                Effect::Ask { number, path, directory, body } => {
                    // Never full: `reconcile` has fewer questions in flight. Closed only while stopping.
                    let _ = asks.try_send(Ask { number, path, directory, body });
                }
                Effect::Misshapen(error) => {
                    self.status.state.failed += 1;
                    tracing::warn!("failed to {error}; is this an opencode of a release that the relay knows?");
                }
            }
        }
    }

    /// What has to be kept and shown, if anything.
    fn commit(&mut self, now: Now) -> Option<Commit> {
        let pending = self.reconcile.pending(now).map(|mut pending| {
            if self.has_api.load(Ordering::Relaxed) {
                pending.events.iter_mut().for_each(|event| self.api.complete(event));
            }
            let reconcile::Pending { events, directories, is_complete } = pending;
            hub::Pending { events, directories, is_complete }
        });
        let events = std::mem::take(&mut self.events);
        if pending.is_some() {
            self.note_later(now);
        }
        let is_due = !events.is_empty() || self.notes_due.is_some_and(|due| now.steady >= due);
        let notes = if is_due && self.is_kept { self.notes(events.len()) } else { Vec::new() };
        if events.is_empty() && notes.is_empty() && pending.is_none() {
            return None;
        }
        self.newest += events.len() as u64;
        Some(Commit { batch: Batch { events, notes }, pending, at: now.wall })
    }

    fn changed(&mut self, now: Now, subject: Subject, state: &'static str, reason: Option<&str>) {
        if self.status.history.change(now.wall, subject, state, reason) {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn count(&mut self, now: Now) {
        let Status { log, stream, made, .. } = &self.status;
        let totals = Totals { notices: log.notices, events: stream.events, made: *made, lost: lost(&self.reconcile) };
        self.status.history.count(now.wall, totals);
    }

    /// What was read has to be noted, but not at once.
    fn note_later(&mut self, now: Now) {
        if self.is_kept {
            self.notes_due.get_or_insert(now.steady + LAZY);
        }
    }

    /// What is to be kept together with so many events.
    fn notes(&mut self, events: usize) -> Vec<(&'static str, String)> {
        self.notes_due = None;
        let mut notes = vec![(RECONCILE_NOTE, self.reconcile.snapshot(self.newest + events as u64))];
        notes.extend(self.position.as_ref().map(|position| (LOG_NOTE, position.0.clone())));
        notes
    }

    /// Nothing more will come: what waited is shown, and what the next run needs is kept.
    fn finish(&mut self, asks: &mpsc::Sender<Ask>) -> Option<Commit> {
        let now = self.now();
        for event in std::mem::take(&mut self.deferred) {
            self.deliver(event, now, asks);
        }
        let waiting = self.api.flush();
        self.events.extend(waiting);
        self.notes_due = Some(0);
        self.commit(now)
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

/// Announced events that no witness could tell, ever.
fn lost(reconcile: &Reconcile) -> u64 {
    reconcile.counts().map(|(_, count)| count.overwritten + count.no_source).sum()
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}
