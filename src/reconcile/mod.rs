//! Reconciliation: what the log announced, what the stream delivered and what the state says, made into one sequence of
//! events (DESIGN §1).
//!
//! Pure: time is an argument, reads and emissions are [`Effect`]s that the pipeline performs. While the stream is
//! healthy its events pass through and only leave their trace in the shadow. What the stream does not deliver — because
//! there is none, it broke, or a line of the log stays unanswered — is read from the state and compared with the shadow.

mod answers;
mod aspect;
mod compare;
mod early;
mod history;
mod interface;
mod json;
mod ledger;
mod plan;
mod reads;
mod recovery;
mod settle;
mod shadow;
mod snapshot;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Event, Origin, Place, fresh_id, quote};
use aspect::{Aspect, Directory, Group, SessionId};
use compare::{Draft, Replies};
use early::Early;
use history::History;
use ledger::Ledger;
use plan::{Flight, Plan};
use reads::HEARD;
use recovery::{RECOVERY, Recovery};
use settle::Settle;
use shadow::Shadow;
use watch::Watch;

pub use interface::{Effect, Failure, Input, Now, Options, Pending, Witness};
pub use ledger::Count;
pub use snapshot::{Past, RestoreError};

/// Whether the state can tell the content of an event type, in parts at least (FACTS §3). The README has the table.
#[must_use]
pub fn is_told_by_state(kind: &str) -> bool {
    Group::of(kind).is_some()
}

/// How long an answer waits before it is compared while the stream is up, in milliseconds. An event that the answer
/// already shows may still be on its way in the stream (FACTS §2: up to 263 ms late against the log); it must win.
const HOLD: u64 = 300;

/// How often the status of a busy session is read when only the log can tell of its end, in milliseconds.
const POLL: u64 = 5_000;

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
    /// Nobody looked since that time, in milliseconds of Unix time; being mended.
    unseen_since: Option<u64>,
    /// The shadow's step when that was noticed: what the stream told later is newer.
    unseen_step: u64,
    /// Up to when everything was told, in milliseconds of Unix time.
    seen: u64,
    recovery: Recovery,
    early: Early,
    /// Sessions that the waiting events of the stream are about, and whether those tell their status.
    foreseen: BTreeMap<SessionId, bool>,
    hints: VecDeque<SessionId>,
    /// Answers that wait, by the time they are compared.
    held: VecDeque<(u64, Flight, Result<Bytes, Failure>)>,
    next_poll: u64,
    watch: Watch,
    history: History,
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
            unseen_since: None,
            unseen_step: 0,
            seen: now.wall,
            recovery: Recovery::Over,
            early: Early::default(),
            foreseen: BTreeMap::new(),
            hints: VecDeque::new(),
            held: VecDeque::new(),
            next_poll: 0,
            watch: Watch::default(),
            history: History::default(),
            made: 0,
            pending_changed: false,
        }
    }

    /// Takes an input and adds what has to be done, in order. Questions are asked with [`Input::Tick`] only, which follows all
    /// that has arrived: one question is then about all of it.
    pub fn handle(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        let asks = matches!(input, Input::Tick);
        match input {
            Input::Notice(kind) => self.notice(&kind, now, effects),
            Input::Hint(session) => self.hint(&session, now),
            Input::LogBroke if self.is_state_driven() => self.resync(now),
            Input::LogBroke => {}
            Input::StreamUp => {
                if self.recovery == Recovery::Begun {
                    self.recovery = Recovery::Until(now.steady + RECOVERY.min(self.options.grace / 2));
                }
                if std::mem::replace(&mut self.stream, Stream::Up) == Stream::Down {
                    self.revive(self.ledger.last_alive(), now);
                    self.resync(now);
                }
                self.ledger.alive(now.steady);
            }
            Input::StreamDown => {
                self.stream = Stream::Down;
                if matches!(self.recovery, Recovery::Until(_)) || self.history.is_there {
                    self.recovery = Recovery::Begun;
                }
                self.plan.speak();
                self.held.iter_mut().for_each(|(_, flight, _)| flight.silent = false);
                self.revive(self.ledger.last_alive(), now);
                let kinds = self.ledger.missing(now.steady, None);
                self.owe(&kinds, now, effects);
            }
            // A twin is the durable form of the event right before it.
            Input::Event(event) if &*event.kind == "sync" => {
                self.hear_twin(&event);
                self.ledger.alive(now.steady);
            }
            Input::Event(event) => {
                self.ledger.deliver(&event.kind, now.steady, self.options.witness != Witness::Stream);
                self.pending_changed |= self.shadow.observe(&event);
                self.watch.hear(event.session.as_ref(), now.steady);
                if let Some(session) = event.session.as_ref().and_then(|id| self.shadow.sessions.get_mut(id)) {
                    session.active = session.active.max(now.steady + HEARD);
                    session.heard = now.steady.max(1);
                    session.is_unread = false;
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
                    // Lists only lead to other questions; while the stream's events wait, they need not.
                    let is_list = matches!(flight.aspect, Aspect::Sessions | Aspect::Everything | Aspect::History);
                    let holds = self.stream == Stream::Up && !(is_list && self.is_recovering());
                    let hold = if holds { HOLD } else { 0 };
                    self.held.push_back((now.steady + hold, flight, answer));
                }
            }
            Input::InUse(Some(directory)) => self.use_directory(&directory, now),
            Input::InUse(None) => self.use_default(now),
            Input::Write { path, body } => {
                self.replies.see(&path, &body);
                self.expect_echo(&path, now);
            }
            Input::Listened(is_watched) => self.watch.listen(is_watched, now.steady),
            Input::Elsewhere => self.watch.hurry(now.steady),
            Input::Tick => {}
        }
        self.tick(asks, now, effects);
    }

    /// When the next tick is due, on the steady clock.
    #[must_use]
    pub fn next_tick(&self, now: Now) -> Option<u64> {
        let plan = self.plan.next().filter(|_| self.reachable);
        let grace = self.ledger.next(self.options.grace).filter(|at| self.stream == Stream::Up && *at > now.steady);
        let held = self.held.front().map(|(at, ..)| *at);
        let poll = self.polls().then_some(self.next_poll);
        let recovery = if let Recovery::Until(until) = self.recovery { Some(until) } else { None };
        let watch = self.watch.due(self.options.watch).filter(|_| self.reachable);
        let early = self.early.next(now.steady);
        [plan, grace, held, poll, self.settle.next(), recovery, watch, early].into_iter().flatten().min()
    }

    /// What a client has to know after a gap, if it changed since the last call.
    pub fn pending(&mut self, now: Now) -> Option<Pending> {
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
        let known = |instance: &shadow::Instance| aspect::OPEN.iter().all(|group| instance.read.contains(group));
        let instances = self.shadow.instances.iter();
        let directories: BTreeSet<Directory> =
            instances.filter(|(_, instance)| known(instance)).map(|(directory, _)| directory.clone()).collect();
        let is_complete = !directories.is_empty() && directories.len() == self.shadow.instances.len();
        Some(Pending { events, directories, is_complete })
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

    fn tick(&mut self, asks: bool, now: Now, effects: &mut Vec<Effect>) {
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
        if self.settle.is_last()
            && self.held.is_empty()
            && self.plan.is_quiet(now.steady)
            && !self.early.is_waiting(now.steady)
        {
            self.settle.finish();
            self.give_up_waiting(now);
            self.ledger.write_off();
            self.wanted.clear();
            self.expects_gone = false;
            self.unseen_since = None;
        }
        if self.polls() && self.next_poll <= now.steady {
            self.next_poll = now.steady + POLL;
            let directories: Vec<Directory> = self.shadow.instances.keys().cloned().collect();
            directories.into_iter().for_each(|directory| self.plan.mark(Aspect::Status(directory), now.steady));
        }
        self.look(now);
        if asks && self.reachable {
            // Any instance in use can answer for sessions; one that is not in use must not be booted for it.
            let any = self.shadow.instances.keys().next().cloned();
            for question in self.plan.start(now.steady, self.shadow.step) {
                let directory = question.directory.or_else(|| any.clone());
                let body = (question.path == aspect::HISTORY).then(|| self.history.body());
                effects.push(Effect::Ask { number: question.number, path: question.path, directory, body });
            }
        }
        self.take_stock(now);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(steady: u64) -> Now {
        Now { steady, wall: 1_000_000 + steady }
    }

    #[test]
    fn bare_events_are_made_only_for_those_who_want_them() {
        for emit_bare in [false, true] {
            let options = Options { witness: Witness::Log, grace: 2000, watch: 0, emit_bare };
            let mut reconcile = Reconcile::new(options, at(0));
            let mut effects = Vec::new();
            reconcile.handle(Input::InUse(Some("/p".into())), at(0), &mut effects);
            reconcile.handle(Input::Notice("file.edited".into()), at(1), &mut effects);
            // The content of this one can be read, so nothing is made of its line.
            reconcile.handle(Input::Notice("session.idle".into()), at(2), &mut effects);
            let made: Vec<&Event> = effects
                .iter()
                .filter_map(|effect| if let Effect::Emit(event) = effect { Some(event) } else { None })
                .collect();
            assert_eq!(made.len(), usize::from(emit_bare));
            for event in made {
                assert_eq!(
                    (&*event.kind, event.origin, event.directory.as_deref()),
                    ("file.edited", Origin::Bare, Some("/p"))
                );
                assert_eq!(event.parts().unwrap().properties.unwrap().get(), "{}");
            }
            let count = reconcile.counts().find(|(kind, _)| &***kind == "file.edited").unwrap().1;
            assert_eq!((count.published, count.no_source, count.pending), (1, 1, 0));
        }
    }
}
