//! What follows from an answer: comparisons, further reads, and the ends of turns.

use bytes::Bytes;

use super::aspect::{Aspect, Directory, Group, SessionId};
use super::compare::{Draft, Facts, Found, Listed, Listing, Moved, ShapeError};
use super::early::AGAIN;
use super::plan::{BURST, Flight};
use super::reads::ACTIVE;
use super::shadow::SessionInfo;
use super::{Effect, Failure, Now, POLL, Reconcile, Stream};

/// How long a turn without a complete answer must be missing from the status map before its end is believed, in
/// milliseconds, and how many reads must say so. The map may also miss a turn that has only just begun.
const STALE: u64 = 1_500;
const STALE_READS: u32 = 3;

/// The same for a turn whose answer is complete, but whose end was not announced, or whose answer called tools, so that
/// a next step may follow.
const PAUSE: u64 = 250;
pub(super) const PAUSE_READS: u32 = 2;

impl Reconcile {
    pub(super) fn answer(
        &mut self,
        flight: Flight,
        answer: Result<Bytes, Failure>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.plan.is_blocked(&flight.aspect) {
            // opencode's record of the session is on its way and tells more; the state is asked for the rest afterwards.
            self.plan.mark_again(&flight, now.steady, flight.limit);
            return;
        }
        let mut drafts = Vec::new();
        let aspect = flight.aspect.clone();
        let text = match &answer {
            Ok(body) => std::str::from_utf8(body).map_err(|_| Failure::Unanswered),
            Err(failure) => Err(*failure),
        };
        match text {
            Ok(text) if aspect == Aspect::History => match self.tell_history(text, now, effects) {
                Ok(()) => self.plan.succeeded(&aspect),
                Err(error) => {
                    effects.push(Effect::Misshapen(error));
                    self.give_up_history(now);
                }
            },
            Ok(text) => match self.compare(text, &flight, now, &mut drafts) {
                Ok(()) => self.plan.succeeded(&aspect),
                Err(error) if aspect == Aspect::Everything => {
                    effects.push(Effect::Misshapen(error));
                    self.give_up_history(now);
                }
                Err(error) => {
                    effects.push(Effect::Misshapen(error));
                    self.plan.failed(&flight, now.steady);
                }
            },
            // It is one of two ways.
            Err(_) if matches!(aspect, Aspect::History | Aspect::Everything) => self.give_up_history(now),
            Err(Failure::Missing) => self.missing(flight, now, &mut drafts),
            Err(Failure::Unanswered) => {
                self.plan.failed(&flight, now.steady);
            }
        }
        // A question that failed says nothing about a turn's messages, unless it fails for good.
        if !self.plan.is_failing(&aspect) {
            self.confirm_ends(&aspect, now, &mut drafts);
        }
        if let Aspect::Messages(id) = &aspect {
            self.followed(id, !drafts.is_empty(), now);
        }
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
        let facts = Facts {
            since: self.since,
            evidence: self.evidence(&flight.aspect, now),
            ends_announced: self.ledger.owed("session.idle"),
            unseen_since: self.unseen_since,
            is_announced: self.stream != Stream::Up || self.unseen_since.is_some() || self.ledger.owes(Group::Messages),
            is_end_foreseen: flight.aspect.session().is_some_and(|id| self.is_status_foreseen(id)),
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
                    self.unseen(since, now);
                    // The accounts may have been closed meanwhile, but what was announced still has to be read.
                    Group::ALL.into_iter().for_each(|group| self.want(group, now));
                }
                let listing = self.listing(flight);
                let listed = self.shadow.compare_sessions(text, flight, listing, self.plan.blocked(), out)?;
                self.listed(listed, flight, now);
            }
            Aspect::Everything => self.name_others(text, now)?,
            // Told elsewhere: it gives whole events.
            Aspect::History => {}
            Aspect::Session(id) => {
                let listing = Listing { has_history: false, ..self.listing(flight) };
                if let Ok(info) = serde_json::from_str::<SessionInfo>(text)
                    && self.shadow.compare_session(text, &info, flight, listing, out) != Moved::No
                {
                    self.moved(id, now);
                }
            }
            Aspect::Messages(id) => match shadow.compare_messages(id, text, flight, facts, out)? {
                Found::Told => {
                    self.early.told(id, now.steady);
                    self.watch_turn(id, now);
                }
                Found::Early => {
                    self.early.wait(id, now.steady);
                    self.plan.mark_again(flight, now.steady + AGAIN, flight.limit);
                }
                Found::Ask(limit) => {
                    self.plan.mark_again(flight, now.steady, limit);
                }
            },
            Aspect::Todo(id) => shadow.compare_todo(id, text, flight, out),
            Aspect::Diff(id) => shadow.compare_diff(id, text, flight, out),
            Aspect::Permissions(directory) => {
                shadow.compare_permissions(directory, text, flight, &mut self.replies, out)?;
                self.open_is_read(directory, Group::Permissions);
            }
            Aspect::Questions(directory) => {
                shadow.compare_questions(directory, text, flight, &mut self.replies, out)?;
                self.open_is_read(directory, Group::Questions);
            }
            Aspect::Terminals(directory) => shadow.compare_terminals(directory, text, flight, out)?,
            Aspect::Branch(directory) => shadow.compare_branch(directory, text, flight, out)?,
            Aspect::Servers(directory) => shadow.compare_servers(directory, text, flight, out),
            Aspect::Status(directory) => {
                for session in shadow.compare_status(directory, text, flight, now.steady, out)? {
                    self.plan.mark(Aspect::Messages(session), now.steady);
                }
                self.open_is_read(directory, Group::Status);
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

    fn open_is_read(&mut self, directory: &Directory, group: Group) {
        self.shadow.instance(directory).read.insert(group);
        self.pending_changed = true;
    }

    fn listing(&self, flight: &Flight) -> Listing {
        Listing {
            has_history: self.history.is_there && !flight.silent,
            is_patient: flight.is_look && self.is_patient(),
            since: self.since,
            expects_new: self.ledger.owed("session.created") > 0 && !self.shadow.sessions.is_empty(),
            expects_gone: self.expects_gone || flight.is_look,
            unseen_since: self.unseen_since,
        }
    }

    fn listed(&mut self, listed: Listed, flight: &Flight, now: Now) {
        for id in &listed.moved {
            self.moved(id, now);
            if flight.is_look {
                self.follow(id, false, now);
            } else if !self.hints.contains(id) {
                // What else changed in it is announced, unless it is another process's: the next look will tell.
                self.shadow.session(id).is_unread = true;
            }
        }
        self.want_history(listed.recorded);
        self.begin_history(now);
        for id in listed.absent {
            self.plan.mark(Aspect::Session(id), now.steady);
        }
        if listed.cut && !flight.is_look && flight.limit < 800 {
            self.plan.mark_again(flight, now.steady, flight.limit * 4);
        }
    }

    /// A session changed: what was announced may be about it.
    pub(super) fn moved(&mut self, id: &SessionId, now: Now) {
        let session = self.shadow.session(id);
        session.active = session.active.max(now.steady + ACTIVE);
        let directory = session.place.directory.clone();
        if let Some(directory) = directory.filter(|_| self.hints.contains(id)) {
            self.use_directory(&directory, now);
        }
        if !self.may_read(id) {
            return;
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
            // It went away after what the stream is about to tell.
            Aspect::Session(id) if self.foreseen.contains_key(&id) => {
                self.plan.mark(Aspect::Session(id), now.steady + POLL);
            }
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
        let is_status_foreseen = self.is_status_foreseen(id);
        let Some(session) = self.shadow.sessions.get_mut(id) else { return };
        let Some(ending) = &mut session.ending else { return };
        // The map also misses a turn that has only just begun, and short answers are complete by then.
        let is_announced = !self.ledger.has_notices() || self.ledger.owed("session.idle") > 0;
        let is_fresh = std::mem::take(&mut ending.is_fresh);
        let ending = *ending;
        let lasts = |reads, time| is_fresh && ending.reads >= reads && now.steady >= ending.since + time;
        let is_paused = session.answered().is_some() && lasts(PAUSE_READS, PAUSE);
        if is_status_foreseen {
            // Left to the stream, whose word is waiting.
        } else if is_fresh && session.is_answered() && is_announced || is_paused || lasts(STALE_READS, STALE) {
            session.end(id, out);
            // An answer of the map that was asked for before would begin the turn again.
            self.shadow.step += 1;
            session.stepped.status = self.shadow.step;
            self.pending_changed = true;
        } else if let Some(directory) = session.place.directory.clone() {
            let wait = if session.is_answered() { PAUSE } else { STALE / 3 };
            self.plan.mark(Aspect::Status(directory), now.steady + wait);
        }
    }
}
