//! What the pipeline knows, and what it makes of each message. It waits for nothing: what has to be written is handed back as a
//! [`Commit`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::api::Api;
use super::history::{Subject, Totals};
use super::status::{Status, StreamState};
use super::{LOG_NOTE, RECONCILE_NOTE};
use crate::event::Event;
use crate::hub::{self, Hub};
use crate::ingest::state::{Ask, AskError};
use crate::ingest::{self, Message, Passed};
use crate::journal::Batch;
use crate::reconcile::{self, Effect, Failure, Input, Now, Reconcile};

/// Most events of the stream that wait for what happened while the relay was away. More are not held back.
const DEFERRED: usize = 10_000;

/// How long what the next run needs besides the events is kept in memory alone: in milliseconds, and in bytes of events. They are
/// much less than a start reads again ([`crate::journal::Restored`]), and lines of the log that are read again after a crash find
/// the accounts as they were before them.
const LAZY: u64 = 1_000;
const LAZY_BYTES: usize = 1 << 20;

/// What one step brings about.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) batch: Batch,
    pub(super) pending: Option<hub::Pending>,
    /// When, in milliseconds of Unix time.
    pub(super) at: u64,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) reconcile: Reconcile,
    pub(super) status: Status,
    pub(super) stream_state: watch::Sender<StreamState>,
    /// Counts the changes of all witnesses' states.
    pub(super) changes: watch::Sender<u64>,
    pub(super) api: Api,
    pub(super) has_api: Arc<AtomicBool>,
    pub(super) hub: Hub,
    pub(super) started: Instant,
    /// Events made or taken in this batch, in order.
    pub(super) events: Vec<Event>,
    /// Events of the stream that wait for what happened while the relay was away. Nobody knows of them yet.
    pub(super) deferred: VecDeque<Event>,
    /// Somebody followed the events when this was looked up last: with each message and tick, because whoever comes is
    /// announced by [`Passed::InUse`].
    pub(super) is_listened: bool,
    /// The newest number given.
    pub(super) newest: u64,
    /// Where the log was read up to.
    pub(super) position: Option<ingest::log::Position>,
    /// The journal has a file, so that notes outlive the process.
    pub(super) is_kept: bool,
    /// When the notes have to be kept at the latest, on the steady clock, if they are older than what was read.
    pub(super) notes_due: Option<u64>,
    /// Bytes of events since the notes were kept.
    pub(super) unnoted: usize,
}

impl Core {
    pub(super) fn now(&self) -> Now {
        Now { steady: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), wall: wall() }
    }

    pub(super) fn message(&mut self, message: Message, now: Now, asks: &mpsc::Sender<Ask>) {
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
    pub(super) fn deliver_deferred(&mut self, now: Now, asks: &mpsc::Sender<Ask>) {
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

    pub(super) fn input(&mut self, input: Input, now: Now, asks: &mpsc::Sender<Ask>) {
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
    pub(super) fn commit(&mut self, now: Now) -> Option<Commit> {
        let pending = self.reconcile.pending(now).map(|mut pending| {
            if self.has_api.load(Ordering::Relaxed) {
                pending.events.iter_mut().for_each(|event| self.api.complete(event));
            }
            let reconcile::Pending { events, directories, is_complete } = pending;
            hub::Pending { events, directories, is_complete }
        });
        let events = std::mem::take(&mut self.events);
        if pending.is_some() || !events.is_empty() {
            self.note_later(now);
        }
        self.unnoted += events.iter().map(|event| event.global.len()).sum::<usize>();
        let is_due = self.unnoted >= LAZY_BYTES || self.notes_due.is_some_and(|due| now.steady >= due);
        let notes = if is_due && self.is_kept { self.notes(events.len()) } else { Vec::new() };
        if events.is_empty() && notes.is_empty() && pending.is_none() {
            return None;
        }
        self.newest += events.len() as u64;
        Some(Commit { batch: Batch { events, notes }, pending, at: now.wall })
    }

    pub(super) fn changed(&mut self, now: Now, subject: Subject, state: &'static str, reason: Option<&str>) {
        if self.status.history.change(now.wall, subject, state, reason) {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    pub(super) fn count(&mut self, now: Now) {
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
        (self.notes_due, self.unnoted) = (None, 0);
        let mut notes = vec![(RECONCILE_NOTE, self.reconcile.snapshot(self.newest + events as u64))];
        notes.extend(self.position.as_ref().map(|position| (LOG_NOTE, position.0.clone())));
        notes
    }

    /// Nothing more will come: what waited is shown, and what the next run needs is kept.
    pub(super) fn finish(&mut self, asks: &mpsc::Sender<Ask>) -> Option<Commit> {
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

/// Announced events that no witness could tell, ever.
pub(super) fn lost(reconcile: &Reconcile) -> u64 {
    reconcile.counts().map(|(_, count)| count.overwritten + count.no_source).sum()
}

pub(super) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
