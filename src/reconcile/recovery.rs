//! What happened while the relay was away is told before the stream's new events: those wait until it was read.

use super::aspect::Group;
use super::plan::BURST;
use super::{Now, Reconcile, Stream};
use crate::event::Event;

/// How long the stream's events wait at most for what happened while the relay was away, in milliseconds. Never as long as
/// a log line waits for its event.
pub(super) const RECOVERY: u64 = 1_500;

/// Whether what happened while the relay was away is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// The stream is not connected yet.
    Begun,
    /// The stream's events wait until then at most, on the steady clock.
    Until(u64),
    Over,
}

impl Reconcile {
    /// Whether the stream's events have to wait, in their order and also with [`Input::Event`](super::Input::Event): what happened while the
    /// relay was away is told first. To be asked after each input; nothing waits longer than 1.5 s.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        matches!(self.recovery, Recovery::Until(_))
    }

    /// The stream brought an event that has to wait. Whether its session is busy or idle, or gone, is for it to tell.
    pub fn foresee(&mut self, event: &Event) {
        if let Some(session) = &event.session {
            *self.foreseen.entry(session.clone()).or_default() |= Group::of(&event.kind) == Some(Group::Status);
        }
    }

    /// Whether a session's status is told by an event that waits.
    pub(super) fn is_status_foreseen(&self, session: &str) -> bool {
        self.foreseen.get(session).is_some_and(|tells_status| *tells_status)
    }

    /// Notes up to when everything was told, and ends the recovery when what it asked for was answered.
    pub(super) fn take_stock(&mut self, now: Now) {
        self.history.forget(now.steady);
        let is_waiting = !self.held.is_empty() || self.early.is_waiting(now.steady);
        let is_quiet = !is_waiting && self.plan.is_quiet(now.steady + BURST);
        if let Recovery::Until(until) = self.recovery
            && (is_quiet || until <= now.steady)
        {
            self.recovery = Recovery::Over;
        }
        if !self.is_recovering() {
            self.foreseen.clear();
        }
        if self.unseen_since.is_some() {
            return;
        }
        if self.stream == Stream::Up {
            // What the stream has not shown by now may still be on its way.
            self.seen = now.wall.saturating_sub(now.steady.saturating_sub(self.ledger.last_alive()));
        } else if self.is_state_driven() && !self.is_blind() && is_quiet && self.settle.next().is_none() {
            // The log would have announced more.
            self.seen = now.wall;
        }
    }
}
