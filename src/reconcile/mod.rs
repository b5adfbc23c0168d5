//! Reconciliation: what the log announced, what the stream delivered and what the state says, made into one sequence of
//! events (DESIGN §1).
//!
//! Pure: time is an argument, reads and emissions are [`Effect`]s that the pipeline performs. While the stream is
//! healthy its events pass through and only leave their trace in the shadow. What the stream does not deliver — because
//! there is none, it broke, or a line of the log stays unanswered — is read from the state and compared with the shadow.

mod aspect;
mod compare;
mod json;
mod ledger;
mod plan;
mod settle;
mod shadow;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Event, Origin, Place, fresh_id, quote};
use aspect::{Aspect, Directory, Group, SessionId};
use compare::{Draft, Facts, Found, Listing, Replies, ShapeError};
use ledger::Ledger;
use plan::{BURST, Flight, Plan};
use settle::Settle;
use shadow::{SessionInfo, Shadow};

pub use ledger::Count;

/// Whether the state can tell the content of an event type, in parts at least (FACTS §3). The README has the table.
#[must_use]
pub fn is_told_by_state(kind: &str) -> bool {
    Group::of(kind).is_some()
}

/// Which witnesses there are (DESIGN §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// All that are there.
    Auto,
    /// The bus log and the state; the upstream's streams are never opened.
    Log,
    /// The stream and the state; no log is read.
    Stream,
}

/// How to reconcile.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which witnesses there are.
    pub witness: Witness,
    /// How long a log line may wait for its event before the state is read, in milliseconds.
    pub grace: u64,
    /// Make events with empty properties for log lines whose content no witness can tell.
    pub emit_bare: bool,
}

/// The time, as the pipeline reads it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds that never go back.
    pub steady: u64,
    /// Unix time in milliseconds.
    pub wall: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The log announced an event.
    Notice(Arc<str>),
    /// The log named a session that this opencode works on.
    Hint(Arc<str>),
    /// The log says that opencode started, or lost lines: what was announced is not known.
    LogBroke,
    /// The upstream stream is connected.
    StreamUp,
    /// It is not any more.
    StreamDown,
    /// It delivered an event. The event is emitted by the caller; it is told here so that the shadow knows.
    Event(Event),
    /// It showed life without an event.
    StreamAlive,
    /// It delivered something that could not be read.
    StreamLost,
    /// Questions can be asked, or not.
    Reachable(bool),
    /// A question was answered.
    Answer {
        /// Which question.
        number: u64,
        /// The body, or why there is none.
        answer: Result<Bytes, Failure>,
    },
    /// A directory is in use: somebody's request for it was answered. `None` is the server's own directory.
    InUse(Option<Arc<str>>),
    /// A client's write was accepted by opencode.
    Write {
        /// The request's path.
        path: String,
        /// The request's body, if it was kept.
        body: Bytes,
    },
    /// Time passed.
    Tick,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 404: there is no such thing.
    Missing,
    /// Anything else; it is asked again.
    Unanswered,
}

/// What the pipeline has to do.
#[derive(Debug)]
pub enum Effect {
    /// Number this event and show it to clients.
    Emit(Event),
    /// Ask the upstream.
    Ask {
        /// Comes back in [`Input::Answer`].
        number: u64,
        /// Path and query of the request.
        path: String,
        /// Which instance to ask, for the header `x-opencode-directory`.
        directory: Option<Arc<str>>,
    },
    /// An answer could not be read: for the log.
    Misshapen(ShapeError),
}

/// How long an answer waits before it is compared while the stream is up, in milliseconds. An event that the answer
/// already shows may still be on its way in the stream (FACTS §2: up to 263 ms late against the log); it must win.
const HOLD: u64 = 300;

/// How long a session counts as active after something about it was seen, in milliseconds.
const ACTIVE: u64 = 10_000;

/// How long a session counts as active after the stream told something about it, in milliseconds. Longer than a stream
/// can be silent (a heartbeat every 10 s) before a lost event is missed.
const HEARD: u64 = 30_000;

/// How often the status of a busy session is read when only the log can tell of its end, in milliseconds.
const POLL: u64 = 5_000;

/// How long a turn without a complete answer must be missing from the status map before its end is believed, in
/// milliseconds, and how many reads must say so. The map may also miss a turn that has only just begun.
const STALE: u64 = 1_500;
const STALE_READS: u32 = 3;

/// The same for a turn whose answer is complete, but whose end was not announced, or whose answer called tools, so that
/// a next step may follow.
const PAUSE: u64 = 250;
const PAUSE_READS: u32 = 2;

/// Most sessions remembered because the log named them.
const HINTS: usize = 64;

/// The upstream stream, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// Not connected yet, but nothing says that it will not be: its events are waited for.
    Awaited,
    Up,
    Down,
}

/// The state of reconciliation.
#[derive(Debug)]
pub struct Reconcile {
    options: Options,
    ledger: Ledger,
    shadow: Shadow,
    plan: Plan,
    settle: Settle,
    replies: Replies,
    /// Unix time in milliseconds when watching began. What is older was told to nobody and is no news.
    since: u64,
    stream: Stream,
    reachable: bool,
    /// The server's own directory was asked for or is known.
    default_known: bool,
    /// Groups of notices that are being read; a session that turns out to have changed is read for these.
    wanted: BTreeSet<Group>,
    /// A deleted session may have to be found.
    expects_gone: bool,
    hints: VecDeque<SessionId>,
    /// Answers that wait, by the time they are compared.
    held: VecDeque<(u64, Flight, Result<Bytes, Failure>)>,
    next_poll: u64,
    /// How many events were made; makes their ids differ.
    made: u64,
    pending_changed: bool,
}

impl Reconcile {
    /// Begins to watch.
    #[must_use]
    pub fn new(options: Options, now: Now) -> Self {
        Self {
            options,
            ledger: Ledger::default(),
            shadow: Shadow::default(),
            plan: Plan::default(),
            settle: Settle::default(),
            replies: Replies::default(),
            since: now.wall,
            stream: Stream::Awaited,
            reachable: false,
            default_known: false,
            wanted: BTreeSet::new(),
            expects_gone: false,
            hints: VecDeque::new(),
            held: VecDeque::new(),
            next_poll: 0,
            made: 0,
            pending_changed: false,
        }
    }

    /// Takes an input and adds what has to be done, in order.
    pub fn handle(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        match input {
            Input::Notice(kind) => self.notice(&kind, now, effects),
            Input::Hint(session) => self.hint(&session, now),
            Input::LogBroke if self.is_state_driven() => self.resync(now),
            Input::LogBroke => {}
            Input::StreamUp => {
                if std::mem::replace(&mut self.stream, Stream::Up) == Stream::Down {
                    self.revive(self.ledger.last_alive(), now);
                    self.resync(now);
                }
                self.ledger.alive(now.steady);
            }
            Input::StreamDown => {
                self.stream = Stream::Down;
                self.plan.speak();
                self.held.iter_mut().for_each(|(_, flight, _)| flight.silent = false);
                self.revive(self.ledger.last_alive(), now);
                let kinds = self.ledger.missing(now.steady, None);
                self.owe(&kinds, now, effects);
            }
            Input::Event(event) => {
                self.ledger.deliver(&event.kind, now.steady, self.options.witness != Witness::Stream);
                self.pending_changed |= self.shadow.observe(&event);
                if let Some(session) = event.session.as_ref().and_then(|id| self.shadow.sessions.get_mut(id)) {
                    session.active = session.active.max(now.steady + HEARD);
                }
                if let Some(directory) = event.directory.filter(|directory| &**directory != "global") {
                    self.use_directory(&directory, now);
                }
            }
            Input::StreamLost => self.resync(now),
            Input::StreamAlive => self.ledger.alive(now.steady),
            Input::Reachable(reachable) => self.reachable = reachable,
            Input::Answer { number, answer } => {
                if let Some(flight) = self.plan.finish(number) {
                    let hold = if self.stream == Stream::Up { HOLD } else { 0 };
                    self.held.push_back((now.steady + hold, flight, answer));
                }
            }
            Input::InUse(Some(directory)) => self.use_directory(&directory, now),
            Input::InUse(None) => self.use_default(now),
            Input::Write { path, body } => {
                self.replies.see(&path, &body);
            }
            Input::Tick => {}
        }
        self.tick(now, effects);
    }

    /// When the next tick is due, on the steady clock.
    #[must_use]
    pub fn next_tick(&self, now: Now) -> Option<u64> {
        let plan = self.plan.next().filter(|_| self.reachable);
        let grace = self.ledger.next(self.options.grace).filter(|at| self.stream == Stream::Up && *at > now.steady);
        let held = self.held.front().map(|(at, ..)| *at);
        let poll = self.polls().then_some(self.next_poll);
        [plan, grace, held, poll, self.settle.next()].into_iter().flatten().min()
    }

    /// What a client has to know after a gap, if it changed since the last call: open permissions and questions, busy
    /// sessions.
    pub fn pending(&mut self, now: Now) -> Option<Vec<Event>> {
        if !std::mem::take(&mut self.pending_changed) {
            return None;
        }
        let mut events = Vec::new();
        for (id, session) in &self.shadow.sessions {
            if let Some(status) = &session.busy {
                let properties = format!(r#"{{"sessionID":{},"status":{status}}}"#, quote(id));
                events.push(self.event(events.len(), "session.status", &session.place, Some(id), &properties, now));
            }
        }
        for (directory, instance) in &self.shadow.instances {
            let place = self.shadow.place(directory);
            let permissions = instance.permissions.values().map(|ask| ("permission.asked", ask));
            for (kind, ask) in permissions.chain(instance.questions.values().map(|ask| ("question.asked", ask))) {
                events.push(self.event(events.len(), kind, &place, ask.session.as_deref(), &ask.text, now));
            }
        }
        self.made += events.len() as u64;
        Some(events)
    }

    /// The ledger's counts by type.
    pub fn counts(&self) -> impl Iterator<Item = (&Arc<str>, &Count)> {
        self.ledger.counts()
    }

    /// Questions asked, ever, and in flight.
    #[must_use]
    pub fn reads(&self) -> (u64, usize) {
        (self.plan.reads, self.plan.in_flight())
    }

    /// Directories in use.
    pub fn directories(&self) -> impl Iterator<Item = &Arc<str>> {
        self.shadow.instances.keys()
    }

    /// Whether events have to be made from the state because no stream brings them.
    fn is_state_driven(&self) -> bool {
        self.options.witness == Witness::Log || self.stream == Stream::Down
    }

    fn polls(&self) -> bool {
        self.is_state_driven() && self.shadow.sessions.values().any(|session| session.busy.is_some())
    }

    fn notice(&mut self, kind: &Arc<str>, now: Now, effects: &mut Vec<Effect>) {
        if self.ledger.announce(kind, now.steady) && self.is_state_driven() {
            let kinds = self.ledger.missing(now.steady, None);
            self.owe(&kinds, now, effects);
        }
    }

    fn hint(&mut self, session: &SessionId, now: Now) {
        if !self.hints.contains(session) {
            self.hints.push_back(session.clone());
            if self.hints.len() > HINTS {
                self.hints.pop_front();
            }
        }
        // The id may be forged: it makes nothing but a read of what is known already.
        if let Some(known) = self.shadow.sessions.get_mut(session) {
            known.active = known.active.max(now.steady + ACTIVE);
            // The list may have shown before the log which session moved.
            let has_moved = known.updated >= self.since;
            if let Some(directory) = known.place.directory.clone().filter(|_| has_moved) {
                self.use_directory(&directory, now);
            }
        } else if self.is_state_driven() {
            self.plan.mark(Aspect::Sessions, now.steady + BURST);
        }
    }

    /// The stream will not bring events of these types: the state has to.
    fn owe(&mut self, kinds: &[Arc<str>], now: Now, effects: &mut Vec<Effect>) {
        for kind in kinds {
            let Some(group) = Group::of(kind) else {
                self.ledger.write_off_unknown(kind);
                if self.options.emit_bare {
                    self.emit_bare(kind, now, effects);
                }
                continue;
            };
            // The text is not in the state before its part ends, and that has a notice of its own (FACTS §3).
            if &**kind == "message.part.delta" {
                self.settle.expect(now.steady);
                continue;
            }
            self.expects_gone |= &**kind == "session.deleted";
            self.want(group, now);
        }
    }

    /// Reads what a group of notices is about.
    fn want(&mut self, group: Group, now: Now) {
        self.wanted.insert(group);
        self.settle.restart(now.steady);
        let at = now.steady + BURST;
        if self.shadow.instances.is_empty() {
            self.use_default(now);
        }
        let directories: Vec<Aspect> =
            self.shadow.instances.keys().filter_map(|directory| group.of_directory(directory)).collect();
        let sessions: Vec<Aspect> = self.active(now).filter_map(|session| group.of_session(session)).collect();
        // Nobody knows whose notice it is: the list of sessions tells which moved.
        let unclear = group == Group::Sessions || (directories.is_empty() && sessions.is_empty());
        for aspect in directories.into_iter().chain(sessions).chain(unclear.then_some(Aspect::Sessions)) {
            self.settle.touch(&aspect);
            self.plan.mark(aspect, at);
        }
    }

    /// Sessions that a notice could be about.
    fn active(&self, now: Now) -> impl Iterator<Item = &SessionId> {
        let active = move |session: &shadow::Session| session.busy.is_some() || session.active > now.steady;
        self.shadow.sessions.iter().filter(move |(_, session)| active(session)).map(|(id, _)| id)
    }

    /// Nobody could look since that time: what was active then may have changed unseen.
    fn revive(&mut self, since: u64, now: Now) {
        for session in self.shadow.sessions.values_mut().filter(|session| session.active > since) {
            session.active = session.active.max(now.steady + ACTIVE);
        }
    }

    /// Reads everything that may have changed while nobody looked.
    fn resync(&mut self, now: Now) {
        self.expects_gone = true;
        for group in Group::ALL {
            self.want(group, now);
        }
    }

    /// The server's own directory is in use, whichever that is.
    fn use_default(&mut self, now: Now) {
        if !std::mem::replace(&mut self.default_known, true) {
            self.plan.mark(Aspect::Path, now.steady);
        }
    }

    /// An instance runs there, so asking it boots nothing.
    fn use_directory(&mut self, directory: &Directory, now: Now) {
        if self.shadow.instances.contains_key(directory) {
            return;
        }
        self.shadow.instance(directory);
        if self.is_state_driven() {
            self.settle.restart(now.steady);
            self.plan.mark(Aspect::Sessions, now.steady);
        }
        for group in [Group::Status, Group::Permissions, Group::Questions, Group::Terminals, Group::Branch] {
            let Some(aspect) = group.of_directory(directory) else { continue };
            if self.is_state_driven() {
                self.settle.touch(&aspect);
                self.plan.mark(aspect, now.steady);
            } else if matches!(group, Group::Status | Group::Permissions | Group::Questions) {
                // Only so that a client with a gap can be told what is open: the stream brings everything else.
                self.plan.mark_silent(aspect, now.steady);
            }
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.held.front().is_some_and(|(at, ..)| *at <= now.steady || self.stream != Stream::Up) {
            if let Some((_, flight, answer)) = self.held.pop_front() {
                self.answer(flight, answer, now, effects);
            }
        }
        if !self.is_state_driven() {
            let kinds = self.ledger.missing(now.steady, Some(self.options.grace));
            self.owe(&kinds, now, effects);
        }
        for aspect in self.settle.due(now.steady) {
            self.plan.mark(aspect, now.steady);
        }
        if self.settle.is_last() && self.held.is_empty() && self.plan.is_quiet(now.steady) {
            self.settle.finish();
            self.ledger.write_off();
            self.wanted.clear();
            self.expects_gone = false;
        }
        if self.polls() && self.next_poll <= now.steady {
            self.next_poll = now.steady + POLL;
            let directories: Vec<Directory> = self.shadow.instances.keys().cloned().collect();
            directories.into_iter().for_each(|directory| self.plan.mark(Aspect::Status(directory), now.steady));
        }
        if self.reachable {
            // Any instance in use can answer for sessions; one that is not in use must not be booted for it.
            let any = self.shadow.instances.keys().next().cloned();
            for question in self.plan.start(now.steady, self.shadow.step) {
                let directory = question.directory.or_else(|| any.clone());
                effects.push(Effect::Ask { number: question.number, path: question.path, directory });
            }
        }
    }

    fn answer(&mut self, flight: Flight, answer: Result<Bytes, Failure>, now: Now, effects: &mut Vec<Effect>) {
        let mut drafts = Vec::new();
        let aspect = flight.aspect.clone();
        let text = match &answer {
            Ok(body) => std::str::from_utf8(body).map_err(|_| Failure::Unanswered),
            Err(failure) => Err(*failure),
        };
        match text {
            Ok(text) => match self.compare(text, &flight, now, &mut drafts) {
                Ok(()) => self.plan.succeeded(&aspect),
                Err(error) => {
                    effects.push(Effect::Misshapen(error));
                    self.plan.failed(flight, now.steady);
                }
            },
            Err(Failure::Missing) => self.missing(flight, now, &mut drafts),
            Err(Failure::Unanswered) => {
                self.plan.failed(flight, now.steady);
            }
        }
        self.confirm_ends(&aspect, now, &mut drafts);
        self.emit(drafts, now, effects);
    }

    fn compare(&mut self, text: &str, flight: &Flight, now: Now, out: &mut Vec<Draft>) -> Result<(), ShapeError> {
        if flight.aspect.session().is_some_and(|id| self.shadow.gone.since(id, flight.began)) {
            return Ok(());
        }
        if let Aspect::Messages(id) | Aspect::Todo(id) | Aspect::Diff(id) = &flight.aspect
            && self.shadow.sessions.get(id).is_none_or(|known| known.info.is_none() || known.place.directory.is_none())
        {
            // Clients were not told of the session, or nobody knows its directory: it has to be read first.
            let session = Aspect::Session(id.clone());
            let wait = if self.plan.failing_since(&session).is_some() { POLL } else { BURST };
            self.plan.mark(session, now.steady);
            self.plan.mark(flight.aspect.clone(), now.steady + wait);
            return Ok(());
        }
        let runs = |id: &SessionId| {
            let place = self.shadow.sessions.get(id).and_then(|session| session.place.directory.as_ref());
            place.is_some_and(|directory| self.shadow.instances.contains_key(directory))
        };
        let facts = Facts {
            since: self.since,
            runs_here: matches!(&flight.aspect, Aspect::Messages(id) if runs(id)),
            proves_turn: !self.ledger.has_notices()
                || self.ledger.owed("session.status") > 0
                || self.ledger.owed("session.idle") > 0,
            ends_announced: self.ledger.owed("session.idle"),
            wall: now.wall,
        };
        let shadow = &mut self.shadow;
        match &flight.aspect {
            Aspect::Path => {
                #[derive(serde::Deserialize)]
                struct Paths {
                    directory: String,
                }
                if let Ok(paths) = serde_json::from_str::<Paths>(text) {
                    self.use_directory(&paths.directory.into(), now);
                }
            }
            Aspect::Sessions => {
                if let Some(since) = self.plan.failing_since(&flight.aspect).filter(|_| !flight.silent) {
                    self.revive(since, now);
                    // The accounts may have been closed meanwhile, but what was announced still has to be read.
                    Group::ALL.into_iter().for_each(|group| self.want(group, now));
                }
                let listing = self.listing();
                let listed = self.shadow.compare_sessions(text, flight, listing, out)?;
                self.listed(listed, flight, now);
            }
            Aspect::Session(id) => {
                let listing = self.listing();
                if let Ok(info) = serde_json::from_str::<SessionInfo>(text)
                    && self.shadow.compare_session(text, &info, flight, listing, out)
                {
                    self.moved(id, now);
                }
            }
            Aspect::Messages(id) => match shadow.compare_messages(id, text, flight, facts, out)? {
                Found::Told => self.watch_turn(id, now),
                Found::Ask(limit) => {
                    self.plan.mark_more(flight.aspect.clone(), now.steady, limit, flight.silent);
                }
            },
            Aspect::Todo(id) => shadow.compare_todo(id, text, flight, out),
            Aspect::Diff(id) => shadow.compare_diff(id, text, flight, out),
            Aspect::Permissions(directory) => {
                shadow.compare_permissions(directory, text, flight, &mut self.replies, out)?;
                self.pending_changed = true;
            }
            Aspect::Questions(directory) => {
                shadow.compare_questions(directory, text, flight, &mut self.replies, out)?;
                self.pending_changed = true;
            }
            Aspect::Terminals(directory) => shadow.compare_terminals(directory, text, flight, out)?,
            Aspect::Branch(directory) => shadow.compare_branch(directory, text, flight, out)?,
            Aspect::Servers(directory) => shadow.compare_servers(directory, text, flight, out),
            Aspect::Status(directory) => {
                for session in shadow.compare_status(directory, text, flight, now.steady, out)? {
                    self.plan.mark(Aspect::Messages(session), now.steady);
                }
                self.pending_changed = true;
            }
        }
        Ok(())
    }

    /// A turn that the messages proved ends by the status map, and nothing else may ever be announced of it.
    fn watch_turn(&mut self, id: &SessionId, now: Now) {
        let Some(session) = self.shadow.sessions.get_mut(id) else { return };
        if session.busy.is_some()
            && std::mem::take(&mut session.was_proved)
            && let Some(directory) = session.place.directory.clone()
        {
            self.plan.mark(Aspect::Status(directory), now.steady);
            self.pending_changed = true;
        }
    }

    fn listing(&self) -> Listing {
        Listing {
            since: self.since,
            expects_new: self.ledger.owed("session.created") > 0 && !self.shadow.sessions.is_empty(),
            expects_gone: self.expects_gone,
        }
    }

    fn listed(&mut self, listed: compare::Listed, flight: &Flight, now: Now) {
        for id in &listed.moved {
            self.moved(id, now);
        }
        for id in listed.absent {
            self.plan.mark(Aspect::Session(id), now.steady);
        }
        if listed.cut && flight.limit < 800 {
            self.plan.mark_more(Aspect::Sessions, now.steady, flight.limit * 4, flight.silent);
        }
    }

    /// A session changed: what was announced may be about it.
    fn moved(&mut self, id: &SessionId, now: Now) {
        let session = self.shadow.session(id);
        session.active = session.active.max(now.steady + ACTIVE);
        let directory = session.place.directory.clone();
        if let Some(directory) = directory.filter(|_| self.hints.contains(id)) {
            self.use_directory(&directory, now);
        }
        for group in self.wanted.clone() {
            if let Some(aspect) = group.of_session(id) {
                self.settle.touch(&aspect);
                self.plan.mark(aspect, now.steady);
            }
        }
    }

    /// 404.
    fn missing(&mut self, flight: Flight, now: Now, out: &mut Vec<Draft>) {
        match flight.aspect {
            Aspect::Session(id) => {
                let of_session = [Group::Messages, Group::Todo, Group::Diff];
                of_session
                    .into_iter()
                    .filter_map(|group| group.of_session(&id))
                    .for_each(|aspect| self.forget(&aspect));
                self.forget(&Aspect::Session(id.clone()));
                self.shadow.compare_gone(&id, out);
                self.pending_changed = true;
            }
            Aspect::Messages(id) | Aspect::Todo(id) | Aspect::Diff(id) => {
                self.plan.mark(Aspect::Session(id), now.steady);
            }
            // A release without this question: nothing to learn there.
            aspect => self.forget(&aspect),
        }
    }

    fn forget(&mut self, aspect: &Aspect) {
        self.plan.forget(aspect);
        self.settle.forget(aspect);
    }

    /// Turns that the status map does not show any more end once their messages were read, or once it is clear that
    /// they will never be complete.
    fn confirm_ends(&mut self, aspect: &Aspect, now: Now, out: &mut Vec<Draft>) {
        let Aspect::Messages(id) = aspect else { return };
        let Some(session) = self.shadow.sessions.get_mut(id) else { return };
        let Some(ending) = &mut session.ending else { return };
        // The map also misses a turn that has only just begun, and short answers are complete by then.
        let is_announced = !self.ledger.has_notices() || self.ledger.owed("session.idle") > 0;
        let is_fresh = std::mem::take(&mut ending.is_fresh);
        let ending = *ending;
        let lasts = |reads, time| is_fresh && ending.reads >= reads && now.steady >= ending.since + time;
        let is_paused = session.answered().is_some() && lasts(PAUSE_READS, PAUSE);
        if is_fresh && session.is_answered() && is_announced || is_paused || lasts(STALE_READS, STALE) {
            session.end(id, out);
            self.pending_changed = true;
        } else if let Some(directory) = session.place.directory.clone() {
            let wait = if session.is_answered() { PAUSE } else { STALE / 3 };
            self.plan.mark(Aspect::Status(directory), now.steady + wait);
        }
    }

    fn emit(&mut self, drafts: Vec<Draft>, now: Now, effects: &mut Vec<Effect>) {
        for draft in drafts {
            self.ledger.recover(draft.kind);
            let event = self.event(0, draft.kind, &draft.place, draft.session.as_deref(), &draft.properties, now);
            self.made += 1;
            self.pending_changed |=
                matches!(Group::of(draft.kind), Some(Group::Status | Group::Permissions | Group::Questions));
            effects.push(Effect::Emit(event));
        }
    }

    /// An event of ours; `ahead` others were made with this call.
    fn event(
        &self,
        ahead: usize,
        kind: &str,
        place: &Place,
        session: Option<&str>,
        properties: &str,
        now: Now,
    ) -> Event {
        let id = fresh_id(now.wall, self.made + ahead as u64);
        Event::made(Origin::State, kind, place, session, &id, properties)
    }

    fn emit_bare(&mut self, kind: &str, now: Now, effects: &mut Vec<Effect>) {
        let Some(directory) = self.shadow.instances.keys().next() else { return };
        let id = fresh_id(now.wall, self.made);
        self.made += 1;
        effects.push(Effect::Emit(Event::made(Origin::Bare, kind, &self.shadow.place(directory), None, &id, "{}")));
    }
}
