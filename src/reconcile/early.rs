//! Answers that are ahead of the log: they show a turn of which no line has come yet.
//!
//! A line may come later than what it announces can be read: by some milliseconds from a file, by half a second through
//! systemd's journal, by more on a busy machine. Once such an answer is told, nothing ties the lines to it any more, and
//! clients would never hear that the turn ended. So it is not told but asked for again until a line of a turn has come. It
//! does not wait for ever, since the turn may be another process's, which this log never announces.

use super::aspect::{Aspect, SessionId};
use super::{Now, Reconcile, Stream};

/// How long an answer waits for a line, in milliseconds: systemd's journal takes up to 2.5 s if it is very large.
const PATIENCE: u64 = 2_500;

/// When to ask again meanwhile, in milliseconds.
pub(super) const AGAIN: u64 = 50;

/// How long it is remembered that nothing came, in milliseconds: the next answers of another process's session are told
/// at once.
const MEMORY: u64 = 30_000;

/// What it means that an idle session has a new answer of the assistant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// A turn, also when the status map never showed it: short ones are over before they can be read.
    Turn,
    /// Probably a turn; the lines that say so may be on their way.
    Early,
    /// No turn of this opencode that clients were not told of.
    Nothing,
}

/// Since when the answers about sessions wait, in milliseconds. A handful: what is older than [`MEMORY`] is forgotten.
#[derive(Debug, Default)]
pub(super) struct Early(Vec<(SessionId, u64)>);

impl Early {
    /// Whether an answer still waits.
    pub(super) fn is_waiting(&self, now: u64) -> bool {
        self.0.iter().any(|(_, since)| since + PATIENCE > now)
    }

    /// When the next one is told, whatever has come.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        self.0.iter().map(|(_, since)| since + PATIENCE).filter(|until| *until > now).min()
    }

    /// The session's answer waits from now on, if it does not already.
    pub(super) fn wait(&mut self, id: &SessionId, now: u64) {
        self.0.retain(|(_, since)| *since + MEMORY > now);
        if self.since(id).is_none() {
            self.0.push((id.clone(), now));
        }
    }

    /// The session's answer was told.
    pub(super) fn told(&mut self, id: &SessionId, now: u64) {
        self.0.retain(|(waiting, since)| waiting != id || *since + PATIENCE <= now);
    }

    fn may_wait(&self, id: &SessionId, now: u64) -> bool {
        self.since(id).is_none_or(|since| since + PATIENCE > now || since + MEMORY <= now)
    }

    fn since(&self, id: &SessionId) -> Option<u64> {
        self.0.iter().find(|(waiting, _)| waiting == id).map(|(_, since)| *since)
    }
}

impl Reconcile {
    /// What a new answer of the assistant in an idle session is good for.
    pub(super) fn evidence(&self, aspect: &Aspect, now: Now) -> Evidence {
        let Aspect::Messages(id) = aspect else { return Evidence::Nothing };
        let session = self.shadow.sessions.get(id);
        let place = session.and_then(|session| session.place.directory.as_ref());
        // Otherwise its status map cannot tell the turn's end.
        let runs_here = place.is_some_and(|directory| self.shadow.instances.contains_key(directory));
        // A healthy stream would have told of it: the turn is another process's.
        let is_mute = self.stream != Stream::Up || self.unseen_since.is_some();
        let is_owed = ["session.status", "session.idle"].into_iter().any(|kind| self.ledger.owes_kind(kind, is_mute));
        let is_told_of = is_owed || !self.ledger.has_notices() && (is_mute || self.is_unheard(id));
        // After a break the stream told that the turn is over.
        let is_over = self.stream == Stream::Up
            && self.unseen_since.is_some()
            && session.is_some_and(|session| session.stepped.status > self.unseen_step);
        match () {
            () if is_over => Evidence::Nothing,
            () if is_told_of && runs_here => Evidence::Turn,
            () if is_mute && self.early.may_wait(id, now.steady) => Evidence::Early,
            () => Evidence::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_waits_once_and_not_for_ever() {
        let (ours, other): (SessionId, SessionId) = ("ses_1".into(), "ses_2".into());
        let mut early = Early::default();
        assert!(early.may_wait(&ours, 0) && !early.is_waiting(0) && early.next(0).is_none());
        early.wait(&ours, 0);
        early.wait(&ours, 400);
        assert!(early.may_wait(&ours, PATIENCE - 1) && early.is_waiting(PATIENCE - 1));
        assert_eq!(early.next(400), Some(PATIENCE));
        // Nothing came, so it was told as another process's, and the next answers are told at once for some time.
        assert!(!early.may_wait(&ours, PATIENCE) && !early.is_waiting(PATIENCE) && early.next(PATIENCE).is_none());
        early.told(&ours, PATIENCE);
        assert!(!early.may_wait(&ours, MEMORY - 1) && early.may_wait(&other, PATIENCE));
        early.wait(&ours, MEMORY);
        assert!(early.may_wait(&ours, MEMORY + 1));
        // A line came: it is over.
        early.told(&ours, MEMORY + 2);
        assert!(!early.is_waiting(MEMORY + 2) && early.may_wait(&ours, MEMORY + 2));
    }
}
