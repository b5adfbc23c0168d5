//! Looking without being told: what another opencode process changes in the shared data no witness of this one announces
//! (FACTS §1), and an opencode whose stream and log are dead announces nothing at all.
//!
//! While somebody listens, the newest sessions are read every few seconds. One that moved without an event is suspected
//! at first, because its event may be on its way, and read when the next look finds it unannounced still; from then on
//! its messages are read with every look, until nothing changes any more or the stream tells of it.
//!
//! The same is done for a session that a client wrote to through the proxy, when the stream does not answer with an event.

use super::aspect::{Aspect, Directory, Group, SessionId};
use super::plan::BURST;
use super::shadow::Session;
use super::{Now, Reconcile, Stream};

/// How many of the newest sessions a look reads.
const LOOK: usize = 10;

/// Least time between two looks, in milliseconds, however much another process writes to its log.
const SPACING: u64 = 500;

/// How long a session is read after it changed last, in milliseconds: a tool may run that long without a word.
const FOLLOW: u64 = 600_000;

/// The same when its newest message is a complete answer.
const REST: u64 = 10_000;

/// How long the stream may take for an event after a write was accepted, in milliseconds.
const ECHO: u64 = 3_000;

/// Most writes whose echo is waited for.
const ECHOES: usize = 64;

/// A session whose changes are found by reading alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    since: u64,
    until: u64,
    /// A client wrote to it through this opencode.
    is_unheard: bool,
}

/// A write that opencode accepted.
#[derive(Debug)]
struct Written {
    session: Option<SessionId>,
    at: u64,
}

/// When to look, and for which writes an event is expected.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Somebody listens.
    is_watched: bool,
    next: u64,
    last: Option<u64>,
    written: std::collections::VecDeque<Written>,
    /// When the stream last brought an event.
    heard: u64,
}

impl Watch {
    /// When something is to be done.
    pub(super) fn due(&self, every: u64) -> Option<u64> {
        let look = (self.is_watched && every > 0).then_some(self.next);
        let echo = self.written.front().map(|written| written.at + ECHO);
        [look, echo].into_iter().flatten().min()
    }

    /// Somebody listens, or nobody any more.
    pub(super) fn listen(&mut self, is_watched: bool, now: u64) {
        if is_watched && !self.is_watched {
            self.hurry(now);
        }
        self.is_watched = is_watched;
    }

    /// Looks sooner.
    pub(super) fn hurry(&mut self, now: u64) {
        let earliest = self.last.map_or(now, |last| last + SPACING);
        self.next = self.next.min((now + BURST).max(earliest));
    }

    /// The stream brought an event.
    pub(super) fn hear(&mut self, session: Option<&SessionId>, now: u64) {
        self.heard = now;
        self.written.retain(|written| written.session.is_some() && written.session.as_ref() != session);
    }
}

impl Reconcile {
    /// A client's write was accepted: something should be heard of it soon.
    pub(super) fn expect_echo(&mut self, path: &str, now: Now) {
        let session = path.strip_prefix("/session/").and_then(|rest| rest.split('/').next());
        let session: Option<SessionId> = session.filter(|id| id.starts_with("ses_") && id.len() <= 64).map(Into::into);
        let heard = match &session {
            Some(id) => self.shadow.sessions.get(id).map_or(0, |session| session.heard),
            None => self.watch.heard,
        };
        // The events may have been faster than the answer.
        if self.stream == Stream::Up && (heard == 0 || heard + ECHO < now.steady) && self.watch.written.len() < ECHOES {
            self.watch.written.push_back(Written { session, at: now.steady });
        } else if self.is_blind() {
            self.watch.hurry(now.steady);
            session.into_iter().for_each(|id| self.follow(&id, true, now));
        }
    }

    /// Neither stream nor log tell anything.
    pub(super) fn is_blind(&self) -> bool {
        self.is_state_driven() && !self.ledger.has_notices()
    }

    /// Whether a session that moved is to be told only when a second look finds it unannounced still.
    pub(super) fn is_patient(&self) -> bool {
        !self.is_blind() && self.unseen_since.is_none()
    }

    /// Whether a client wrote to the session and the stream did not answer.
    pub(super) fn is_unheard(&self, id: &SessionId) -> bool {
        self.shadow.sessions.get(id).is_some_and(|session| session.followed.is_some_and(|followed| followed.is_unheard))
    }

    /// Reads the session with every look from now on.
    pub(super) fn follow(&mut self, id: &SessionId, is_unheard: bool, now: Now) {
        let session = self.shadow.session(id);
        let followed = session.followed.get_or_insert(Followed { since: now.steady, until: 0, is_unheard });
        followed.until = now.steady + FOLLOW;
        followed.is_unheard |= is_unheard;
        self.read_followed(id, now);
    }

    fn read_followed(&mut self, id: &SessionId, now: Now) {
        if self.history.is_there && self.shadow.sessions.get(id).is_some_and(|session| session.history.is_some()) {
            self.want_history([id.clone()]);
            self.begin_history(now);
        }
        if !self.may_read(id) {
            return;
        }
        let of_session =
            [Group::Messages, Group::Todo, Group::Diff].into_iter().filter_map(|group| group.of_session(id));
        of_session.for_each(|aspect| self.plan.mark(aspect, now.steady));
        let directory = self.shadow.sessions.get(id).and_then(|session| session.place.directory.clone());
        if let Some(directory) = directory.filter(|directory| self.shadow.instances.contains_key(directory)) {
            self.read_instance(&directory, now);
        }
    }

    fn read_instance(&mut self, directory: &Directory, now: Now) {
        let groups = [Group::Status, Group::Permissions, Group::Questions].into_iter();
        groups.filter_map(|group| group.of_directory(directory)).for_each(|aspect| self.plan.mark(aspect, now.steady));
    }

    /// The messages of a followed session were read.
    pub(super) fn followed(&mut self, id: &SessionId, has_changed: bool, now: Now) {
        let Some(session) = self.shadow.sessions.get_mut(id) else { return };
        let is_over = session.busy.is_none() && session.is_answered();
        if let Some(followed) = &mut session.followed {
            if has_changed {
                followed.until = now.steady + FOLLOW;
            } else if is_over {
                followed.until = followed.until.min(now.steady + REST);
            }
        }
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self, now: Now) {
        while self.watch.written.front().is_some_and(|written| written.at + ECHO <= now.steady) {
            let Some(written) = self.watch.written.pop_front() else { break };
            self.plan.mark(Aspect::Sessions, now.steady);
            if let Some(id) = written.session {
                // Nothing was heard of it: what the list shows is no news that comes by itself.
                self.plan.mark(Aspect::Session(id.clone()), now.steady);
                self.follow(&id, true, now);
            }
        }
        let every = self.options.watch;
        if !self.watch.is_watched || every == 0 || self.watch.next > now.steady || !self.reachable {
            return;
        }
        (self.watch.next, self.watch.last) = (now.steady + every, Some(now.steady));
        self.plan.mark_look(Aspect::Sessions, now.steady, LOOK);
        for session in self.shadow.sessions.values_mut() {
            let ends = |followed: Followed| followed.until <= now.steady || session.heard > followed.since;
            if session.followed.is_some_and(ends) {
                session.followed = None;
            }
        }
        let with = |wanted: fn(&Session) -> bool| -> Vec<SessionId> {
            self.shadow.sessions.iter().filter(|(_, session)| wanted(session)).map(|(id, _)| id.clone()).collect()
        };
        let (followed, unread) = (with(|session| session.followed.is_some()), with(|session| session.is_unread));
        followed.iter().for_each(|id| self.read_followed(id, now));
        for id in &unread {
            self.shadow.session(id).is_unread = false;
            self.follow(id, false, now);
        }
        if self.is_blind() {
            let directories: Vec<Directory> = self.shadow.instances.keys().cloned().collect();
            directories.iter().for_each(|directory| self.read_instance(directory, now));
        }
    }
}
