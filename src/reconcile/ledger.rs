//! The ledger: per event type, what the log announced and what became of it.
//!
//! Both the log and the stream keep the bus's order (FACTS §2), so within a type the first notice belongs to the first
//! event. A notice is *missing* when an event that was announced after it has come, or when so much time has passed and
//! the stream showed life since, that it cannot be on its way any more: TCP does not reorder. So nothing that was read
//! from the state for a missing notice is delivered a second time by the stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::aspect::Group;
use crate::event::Origin;

/// Most types counted under their own name; the log is untrusted and could name any number. The rest is `other`.
const TYPES: usize = 128;

/// The longest name of a type in bytes; longer ones count as `other`. The log's lines have this limit already, and the names
/// in the stream's frames are not opencode's alone: its plugins publish too. Real ones stay under 40.
const TYPE: usize = 64;

/// How long an event waits for a log line that should have come before it, in milliseconds. The worst seen is 8 ms with a
/// file; systemd's journal takes up to half a second, and 2.5 s if it is very large. However many wait, they take no more room than there are milliseconds in this.
const AHEAD: u64 = 5_000;

/// What became of the events of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Announced by the log.
    pub published: u64,
    /// Delivered by the upstream stream.
    pub delivered: u64,
    /// Made from the state.
    pub recovered: u64,
    /// Announced, and the state had already moved on (or said nothing new) when it was read.
    pub overwritten: u64,
    /// Announced, and no witness can tell its content.
    pub no_source: u64,
    /// Announced, and not yet accounted for.
    pub pending: u64,
}

#[derive(Debug, Default)]
struct Account {
    count: Count,
    /// Notices that no event has answered: their place in the log and when they came.
    waiting: VecDeque<(u64, u64)>,
    /// How many of the pending notices the stream will not answer any more: the state has to.
    owed: u64,
    /// When events came whose notice has not come yet, and how many of them at that time.
    ahead: VecDeque<(u64, u64)>,
}

impl Account {
    /// Gives those up that have waited too long.
    fn forget_ahead(&mut self, now: u64) {
        while self.ahead.front().is_some_and(|(came, _)| now.saturating_sub(*came) > AHEAD) {
            self.ahead.pop_front();
        }
    }

    /// Takes one that came before its notice, if there is one.
    fn take_ahead(&mut self) -> bool {
        let Some((_, count)) = self.ahead.front_mut() else { return false };
        *count -= 1;
        if *count == 0 {
            self.ahead.pop_front();
        }
        true
    }

    /// Takes one off what the state owes, if there is any.
    fn settle(&mut self) -> bool {
        let is_owed = self.owed > 0;
        if is_owed {
            self.owed -= 1;
            self.count.pending -= 1;
        }
        is_owed
    }

    fn push_ahead(&mut self, now: u64) {
        match self.ahead.back_mut() {
            Some((came, count)) if *came == now => *count += 1,
            _ => self.ahead.push_back((now, 1)),
        }
    }
}

/// Counts per type.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: BTreeMap<Arc<str>, Account>,
    /// How many notices there were: a notice's place in the log.
    notices: u64,
    /// The latest notice that an event answered.
    answered: u64,
    /// When the stream last showed life.
    alive: u64,
}

impl Ledger {
    /// The log announced an event. Says whether an answer is to be waited for; the stream may have been first.
    pub(super) fn announce(&mut self, kind: &Arc<str>, now: u64) -> bool {
        self.notices += 1;
        let place = self.notices;
        let account = self.account(kind);
        account.count.published += 1;
        account.forget_ahead(now);
        if account.take_ahead() {
            return false;
        }
        account.count.pending += 1;
        account.waiting.push_back((place, now));
        true
    }

    /// The stream delivered an event.
    pub(super) fn deliver(&mut self, kind: &Arc<str>, now: u64, has_log: bool) {
        self.alive = now;
        let account = self.account(kind);
        account.count.delivered += 1;
        if let Some((place, _)) = account.waiting.pop_front() {
            account.count.pending -= 1;
            self.answered = self.answered.max(place);
        } else if has_log {
            account.forget_ahead(now);
            account.push_ahead(now);
        }
    }

    /// The stream showed life without an event.
    pub(super) fn alive(&mut self, now: u64) {
        self.alive = now;
    }

    /// When the stream last showed life.
    pub(super) fn last_alive(&self) -> u64 {
        self.alive
    }

    /// An event was made from the state.
    pub(super) fn recover(&mut self, kind: &str) {
        let account = self.account(&Arc::from(kind));
        account.count.recovered += 1;
        account.settle();
    }

    /// An event was told by an earlier run, after it saved its accounts. Its notice may be in them, or be read again.
    pub(super) fn relive(&mut self, kind: &Arc<str>, origin: Origin, now: u64) {
        let account = self.account(kind);
        match origin {
            Origin::Stream => account.count.delivered += 1,
            Origin::State => account.count.recovered += 1,
            Origin::Bare => account.count.no_source += 1,
        }
        if !account.settle() {
            account.push_ahead(now);
        }
    }

    /// Takes the notices that the stream will not answer any more; the state owes them from now on.
    ///
    /// `grace` is how long a notice may wait, in milliseconds; `None` when there is no stream to wait for.
    pub(super) fn missing(&mut self, now: u64, grace: Option<u64>) -> Vec<Arc<str>> {
        let (answered, alive) = (self.answered, self.alive);
        let mut kinds = Vec::new();
        for (kind, account) in &mut self.accounts {
            while let Some(&(place, came)) = account.waiting.front() {
                let late = |grace| now >= came + grace && (place < answered || alive >= came + grace);
                if !grace.is_none_or(late) {
                    break;
                }
                account.waiting.pop_front();
                account.owed += 1;
                kinds.push(kind.clone());
            }
        }
        kinds
    }

    /// When [`Ledger::missing`] may next find something, if the stream stays alive.
    pub(super) fn next(&self, grace: u64) -> Option<u64> {
        self.accounts.values().filter_map(|account| account.waiting.front()).map(|(_, came)| came + grace).min()
    }

    /// Whether the log announces anything at all: releases from 1.17 on do not (FACTS §2).
    pub(super) fn has_notices(&self) -> bool {
        self.notices > 0
    }

    /// How many events of this type the state owes.
    pub(super) fn owed(&self, kind: &str) -> u64 {
        self.accounts.get(kind).map_or(0, |account| account.owed)
    }

    /// Whether the state owes events of this type; with `or_waiting`, also whether notices of it wait for the stream.
    pub(super) fn owes_kind(&self, kind: &str, or_waiting: bool) -> bool {
        self.accounts.get(kind).is_some_and(|account| account.owed > 0 || or_waiting && !account.waiting.is_empty())
    }

    /// Whether the state owes anything of a group.
    pub(super) fn owes(&self, group: Group) -> bool {
        self.accounts.iter().any(|(kind, account)| account.owed > 0 && Group::of(kind) == Some(group))
    }

    /// No witness can tell the content of this type: what is owed of it is lost.
    pub(super) fn write_off_unknown(&mut self, kind: &str) {
        if let Some(account) = self.accounts.get_mut(kind) {
            account.count.no_source += account.owed;
            account.count.pending -= account.owed;
            account.owed = 0;
        }
    }

    /// The state was read after all of it: what is still owed was overwritten before it could be read.
    pub(super) fn write_off(&mut self) {
        for account in self.accounts.values_mut() {
            account.count.overwritten += account.owed;
            account.count.pending -= account.owed;
            account.owed = 0;
        }
    }

    /// The accounts as numbers, by type, in the order of [`Count`]'s fields; the last is how many events came before
    /// their notices. The sum of what is owed and waited for is what is pending.
    pub(super) fn save(&self) -> impl Iterator<Item = (&str, [u64; 7])> {
        self.accounts.iter().map(|(kind, Account { count, ahead, .. })| {
            let ahead = ahead.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
            let Count { published, delivered, recovered, overwritten, no_source, pending } = *count;
            (&**kind, [published, delivered, recovered, overwritten, no_source, pending, ahead])
        })
    }

    /// Goes on with saved accounts. No stream will answer what was waited for: the state owes it.
    pub(super) fn load<'a>(saved: impl Iterator<Item = (&'a str, [u64; 7])>, now: u64) -> Self {
        let account = |[published, delivered, recovered, overwritten, no_source, pending, ahead]: [u64; 7]| Account {
            count: Count { published, delivered, recovered, overwritten, no_source, pending },
            waiting: VecDeque::new(),
            owed: pending,
            ahead: (ahead > 0).then_some((now, ahead)).into_iter().collect(),
        };
        let accounts: BTreeMap<Arc<str>, Account> =
            saved.take(TYPES + 1).map(|(kind, numbers)| (Arc::from(kind), account(numbers))).collect();
        let notices = accounts.values().map(|account| account.count.published).sum();
        Self { accounts, notices, answered: 0, alive: now }
    }

    /// The counts, by type.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&Arc<str>, &Count)> {
        self.accounts.iter().map(|(kind, account)| (kind, &account.count))
    }

    fn account(&mut self, kind: &Arc<str>) -> &mut Account {
        let has_room = self.accounts.len() < TYPES && kind.len() <= TYPE;
        let kind = if has_room || self.accounts.contains_key(kind) { kind.clone() } else { Arc::from("other") };
        self.accounts.entry(kind).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Arc<str> {
        name.into()
    }

    fn count(ledger: &Ledger, name: &str) -> Count {
        ledger.counts().find(|(kind, _)| ***kind == *name).unwrap().1.clone()
    }

    #[test]
    fn what_an_earlier_run_told_answers_lines_that_it_kept_and_lines_that_are_read_again() {
        let mut earlier = Ledger::default();
        earlier.announce(&kind("a"), 0);
        let mut ledger = Ledger::load(earlier.save(), 10);
        ledger.relive(&kind("a"), Origin::State, 10);
        assert_eq!((count(&ledger, "a").pending, ledger.owed("a")), (0, 0));
        ledger.relive(&kind("a"), Origin::Stream, 10);
        ledger.relive(&kind("bare"), Origin::Bare, 10);
        assert!(!ledger.announce(&kind("a"), 11) && !ledger.announce(&kind("bare"), 11));
        assert!(ledger.announce(&kind("a"), 12), "a new one");
        let Count { published, delivered, recovered, pending, .. } = count(&ledger, "a");
        assert_eq!((published, delivered, recovered, pending), (3, 1, 1, 1));
        assert_eq!(count(&ledger, "bare").no_source, 1);
    }

    #[test]
    fn an_event_answers_its_line_in_either_order() {
        let mut ledger = Ledger::default();
        assert!(ledger.announce(&kind("a"), 0));
        ledger.deliver(&kind("a"), 3, true);
        ledger.deliver(&kind("a"), 4, true);
        assert!(!ledger.announce(&kind("a"), 12));
        assert_eq!(count(&ledger, "a"), Count { published: 2, delivered: 2, ..Count::default() });
        assert_eq!(ledger.missing(100_000, Some(2000)), [] as [Arc<str>; 0]);
    }

    #[test]
    fn a_line_is_missing_only_when_its_event_cannot_come_any_more() {
        let mut ledger = Ledger::default();
        ledger.announce(&kind("a"), 0);
        ledger.announce(&kind("b"), 1);
        // A stalled stream delivers late, so time alone proves nothing.
        assert!(ledger.missing(10_000, Some(2000)).is_empty());
        ledger.deliver(&kind("b"), 10_001, true);
        assert_eq!(ledger.missing(10_002, Some(2000)), [kind("a")]);
        assert_eq!(ledger.owed("a"), 1);
        ledger.recover("a");
        assert_eq!(count(&ledger, "a"), Count { published: 1, recovered: 1, ..Count::default() });
    }

    #[test]
    fn life_after_the_grace_proves_it_too_and_no_stream_needs_no_proof() {
        let mut ledger = Ledger::default();
        ledger.announce(&kind("a"), 0);
        ledger.alive(1999);
        assert!(ledger.missing(5000, Some(2000)).is_empty());
        ledger.alive(2000);
        assert_eq!(ledger.missing(5000, Some(2000)).len(), 1);
        ledger.announce(&kind("a"), 6000);
        assert_eq!(ledger.missing(6000, None).len(), 1);
        ledger.recover("a");
        ledger.write_off();
        assert_eq!(count(&ledger, "a"), Count { published: 2, recovered: 1, overwritten: 1, ..Count::default() });
    }

    #[test]
    fn a_lost_line_does_not_hide_a_lost_event_for_ever() {
        let mut ledger = Ledger::default();
        ledger.deliver(&kind("a"), 0, true);
        assert!(ledger.announce(&kind("a"), AHEAD + 1));
        assert_eq!(ledger.missing(AHEAD + 1, None).len(), 1);
    }

    #[test]
    fn however_many_events_are_ahead_of_their_lines_none_is_missing() {
        let mut ledger = Ledger::default();
        for n in 0..10_000 {
            ledger.deliver(&kind("a"), n / 100, true);
        }
        for _ in 0..10_000 {
            assert!(!ledger.announce(&kind("a"), AHEAD));
        }
        assert!(ledger.announce(&kind("a"), AHEAD), "there was one line more than events");
        for n in 0..20_000 {
            ledger.deliver(&kind("b"), n, true);
        }
        assert!(ledger.accounts["b"].ahead.len() <= AHEAD as usize + 1);
    }

    #[test]
    fn a_long_type_has_no_account_of_its_own() {
        let mut ledger = Ledger::default();
        ledger.deliver(&kind(&"x".repeat(TYPE + 1)), 0, false);
        ledger.deliver(&kind(&"x".repeat(TYPE)), 0, false);
        assert_eq!(ledger.counts().map(|(kind, _)| kind.len()).collect::<Vec<_>>(), ["other".len(), TYPE]);
    }

    #[test]
    fn a_flood_of_invented_types_is_bounded() {
        let mut ledger = Ledger::default();
        for n in 0..1000 {
            ledger.announce(&kind(&format!("t{n}")), 0);
        }
        assert_eq!(ledger.counts().count(), TYPES + 1);
        assert_eq!(ledger.counts().map(|(_, count)| count.published).sum::<u64>(), 1000);
    }
}
