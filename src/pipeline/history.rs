//! What happened to the witnesses within the last hour, for those who look at a chart.
//!
//! It is written by whoever handles messages, never by a timer: an idle relay does not wake for it.

use std::collections::VecDeque;
use std::sync::Arc;

/// How long a bucket is, in milliseconds.
pub const BUCKET: u64 = 10_000;

/// How far the buckets reach back, in milliseconds.
const REACH: u64 = 60 * 60 * 1000;

/// Most changes that are kept; the oldest go first.
const CHANGES: usize = 256;

/// The longest reason that is kept, in bytes.
const REASON: usize = 256;

/// The last hour.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Changes of state, oldest first.
    pub changes: VecDeque<Change>,
    /// What was counted, oldest first; times in which nothing was have no bucket.
    pub buckets: VecDeque<Bucket>,
    /// The totals at the end of the newest bucket.
    totals: Totals,
}

/// Who changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// opencode itself.
    Opencode,
    /// The log witness.
    Log,
    /// The stream witness.
    Stream,
    /// The state witness.
    State,
}

impl Subject {
    /// The word that status uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opencode => "opencode",
            Self::Log => "log",
            Self::Stream => "stream",
            Self::State => "state",
        }
    }
}

/// A change of state.
#[derive(Clone, Debug)]
pub struct Change {
    /// When, in milliseconds of Unix time.
    pub at: u64,
    /// Whose.
    pub subject: Subject,
    /// What it is since.
    pub state: &'static str,
    /// Why, for people.
    pub reason: Option<Arc<str>>,
}

/// What was counted within [`BUCKET`] milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it began, in milliseconds of Unix time; a multiple of [`BUCKET`].
    pub at: u64,
    /// What was counted.
    pub counted: Totals,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events announced by the log.
    pub notices: u64,
    /// Events delivered by the stream.
    pub events: u64,
    /// Events made from the state.
    pub made: u64,
    /// Announced events that no witness could tell.
    pub lost: u64,
}

impl Totals {
    fn since(self, earlier: Self) -> Self {
        Self {
            notices: self.notices.saturating_sub(earlier.notices),
            events: self.events.saturating_sub(earlier.events),
            made: self.made.saturating_sub(earlier.made),
            lost: self.lost.saturating_sub(earlier.lost),
        }
    }

    fn add(&mut self, more: Self) {
        self.notices += more.notices;
        self.events += more.events;
        self.made += more.made;
        self.lost += more.lost;
    }
}

impl History {
    /// Begins with what an earlier run counted already.
    pub(super) fn new(totals: Totals) -> Self {
        Self { totals, ..Self::default() }
    }

    /// What somebody does since the last change.
    pub(super) fn state(&self, subject: Subject) -> Option<&'static str> {
        self.changes.iter().rfind(|change| change.subject == subject).map(|change| change.state)
    }

    /// Notes a change; says whether it was one.
    pub(super) fn change(&mut self, at: u64, subject: Subject, state: &'static str, reason: Option<&str>) -> bool {
        let last = self.changes.iter().rfind(|change| change.subject == subject);
        let reason = reason.map(|reason| &reason[..reason.floor_char_boundary(REASON)]);
        if last.is_some_and(|last| last.state == state && last.reason.as_deref() == reason) {
            return false;
        }
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { at, subject, state, reason: reason.map(Into::into) });
        true
    }

    /// Counts what came since the last call.
    pub(super) fn count(&mut self, now: u64, totals: Totals) {
        if totals == self.totals {
            return;
        }
        let more = totals.since(std::mem::replace(&mut self.totals, totals));
        let at = now / BUCKET * BUCKET;
        match self.buckets.back_mut() {
            // A clock that was set back goes on with the newest bucket.
            Some(newest) if newest.at >= at => newest.counted.add(more),
            _ => self.buckets.push_back(Bucket { at, counted: more }),
        }
        while self.buckets.front().is_some_and(|oldest| oldest.at + REACH < at) {
            self.buckets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_time_and_forgets_after_an_hour() {
        let events = |events| Totals { events, ..Totals::default() };
        let mut history = History::new(events(5));
        history.count(1_000_000, events(5));
        assert!(history.buckets.is_empty(), "what an earlier run counted is no news");
        history.count(1_003_000, events(6));
        history.count(1_009_999, events(8));
        history.count(1_010_000, events(9));
        history.count(900_000, events(10));
        let seen: Vec<_> = history.buckets.iter().map(|bucket| (bucket.at, bucket.counted.events)).collect();
        assert_eq!(seen, [(1_000_000, 3), (1_010_000, 2)]);
        history.count(1_005_000 + REACH, events(11));
        assert_eq!(history.buckets.len(), 3, "not older than an hour");
        history.count(1_010_000 + REACH + BUCKET, events(12));
        assert_eq!(history.buckets.front().map(|bucket| bucket.at), Some(1_000_000 + REACH));
    }

    #[test]
    fn changes_are_those_of_one_subject_and_bounded() {
        let mut history = History::default();
        for _ in 0..2 {
            history.change(1, Subject::Stream, "connected", None);
            history.change(1, Subject::Log, "following", Some("a"));
        }
        assert_eq!(history.changes.len(), 2);
        let long = "ä".repeat(REASON);
        for at in 0..1000 {
            history.change(at, Subject::Stream, if at % 2 == 0 { "down" } else { "connected" }, Some(&long));
        }
        assert_eq!(history.changes.len(), CHANGES);
        assert!(
            history.changes.iter().all(|change| change.reason.as_ref().is_some_and(|reason| reason.len() <= REASON))
        );
    }
}
