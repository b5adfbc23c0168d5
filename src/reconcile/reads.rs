//! Which reads follow from what was announced, and where reading is allowed.

use std::sync::Arc;

use super::aspect::{Aspect, Directory, Group, SessionId};
use super::plan::BURST;
use super::{Effect, Now, Reconcile, shadow};

/// How long a session counts as active after something about it was seen, in milliseconds.
pub(super) const ACTIVE: u64 = 10_000;

/// How long a session counts as active after the stream told something about it, in milliseconds. Longer than a stream
/// can be silent (a heartbeat every 10 s) before a lost event is missed.
pub(super) const HEARD: u64 = 30_000;

/// How long the status map may take to show what was announced, in milliseconds; what takes longer is read once things are
/// quiet.
const LAG: u64 = 20;

/// Most sessions remembered because the log named them.
const HINTS: usize = 64;

/// How much opencode's clock and the time of a lost event may be off, in milliseconds.
pub(super) const SLACK: u64 = 1_000;

impl Reconcile {
    pub(super) fn hint(&mut self, session: &SessionId, now: Now) {
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
    pub(super) fn owe(&mut self, kinds: &[Arc<str>], now: Now, effects: &mut Vec<Effect>) {
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
    pub(super) fn want(&mut self, group: Group, now: Now) {
        self.wanted.insert(group);
        self.settle.restart(now.steady);
        // The map of turns changes after its event was published (FACTS §3): at once it would show the old state.
        let at = now.steady + if group == Group::Status { LAG } else { 0 };
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

    /// Whether reading a session boots no instance. The releases that keep a record of their events boot one for any
    /// request that names a session, wherever that is (measured on 1.18.34); the older ones do not.
    pub(super) fn may_read(&self, id: &SessionId) -> bool {
        let place = self.shadow.sessions.get(id).and_then(|session| session.place.directory.as_ref());
        !self.history.is_there || place.is_none_or(|directory| self.shadow.instances.contains_key(directory))
    }

    /// Nobody could look since that time: what was active then may have changed unseen.
    pub(super) fn revive(&mut self, since: u64, now: Now) {
        for session in self.shadow.sessions.values_mut().filter(|session| session.active > since) {
            session.active = session.active.max(now.steady + ACTIVE);
        }
    }

    /// Nobody looked since that time, on the steady clock.
    pub(super) fn unseen(&mut self, since: u64, now: Now) {
        let since = now.wall.saturating_sub(now.steady.saturating_sub(since) + SLACK);
        self.unseen_since = Some(self.unseen_since.map_or(since, |before| before.min(since)));
    }

    /// Reads everything that may have changed while nobody looked.
    pub(super) fn resync(&mut self, now: Now) {
        self.expects_gone = true;
        self.unseen(self.ledger.last_alive(), now);
        self.unseen_step = self.shadow.step;
        let active: Vec<SessionId> = self.active(now).cloned().collect();
        let is_counted = |id: &SessionId| self.shadow.sessions.get(id).is_some_and(|session| session.history.is_some());
        let counted: Vec<SessionId> = active.into_iter().filter(is_counted).collect();
        self.want_history(counted);
        for group in Group::ALL {
            self.want(group, now);
        }
    }

    /// The server's own directory is in use, whichever that is.
    pub(super) fn use_default(&mut self, now: Now) {
        if !std::mem::replace(&mut self.default_known, true) {
            self.plan.mark(Aspect::Path, now.steady);
        }
    }

    /// An instance runs there, so asking it boots nothing.
    pub(super) fn use_directory(&mut self, directory: &Directory, now: Now) {
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
}
