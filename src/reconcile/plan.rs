//! When to ask: at once, then once more for the rest of a burst of notices, then at a pace; a handful are in flight, none is
//! asked twice at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::aspect::{Aspect, Directory, SessionId};

/// Least time between two reads of the same thing after things were quiet, in milliseconds: the first notice of a burst is
/// asked about at once, the rest of it is one more read.
pub(super) const BURST: u64 = 20;

/// Time between two reads of the same thing on average, in milliseconds, one read aside.
const SPACING: u64 = 60;

/// How many things' paces are remembered before those are forgotten that hold nothing back any more.
const PACED: usize = 1024;

/// Most questions in flight at once. opencode answers on the thread that runs its sessions.
const IN_FLIGHT: usize = 4;

/// First wait after a question that failed, in milliseconds; doubles up to [`RETRY_MOST`].
const RETRY: u64 = 250;
const RETRY_MOST: u64 = 8_000;

/// How often a question may fail in a row before the accounts are closed without its answer: about 20 s.
const PATIENCE: u32 = 6;

/// A question on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) aspect: Aspect,
    /// The shadow's step when it was asked: what the stream told after it is newer than the answer.
    pub(super) began: u64,
    /// Only fill in what clients are supposed to know; tell them nothing.
    pub(super) silent: bool,
    /// Nobody announced anything: what the answer shows as new is only suspected at first.
    pub(super) is_look: bool,
    pub(super) limit: usize,
}

/// A question to be asked now.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) path: String,
    /// Which instance to ask; `None` when any will do.
    pub(super) directory: Option<Directory>,
}

#[derive(Debug)]
struct Due {
    at: u64,
    silent: bool,
    is_look: bool,
    limit: usize,
}

/// Answers to one question that were not usable, in a row.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// When the first came.
    since: u64,
}

/// Which questions are due, and which are on their way.
#[derive(Debug, Default)]
pub(super) struct Plan {
    due: BTreeMap<Aspect, Due>,
    flights: HashMap<u64, Flight>,
    /// Up to when the reads of a thing so far would last at one every [`SPACING`].
    paced: HashMap<Aspect, u64>,
    failures: HashMap<Aspect, Failures>,
    /// Sessions of which nothing is asked for the time being.
    blocked: BTreeSet<SessionId>,
    last: u64,
    /// Questions asked, ever.
    pub(super) reads: u64,
}

impl Plan {
    /// Asks `at` that time, or earlier if the same was due earlier.
    pub(super) fn mark(&mut self, aspect: Aspect, at: u64) {
        let limit = aspect.limit();
        self.add(aspect, Due { at, silent: false, is_look: false, limit });
    }

    /// Asks for so many entries, although nobody announced anything.
    pub(super) fn mark_look(&mut self, aspect: Aspect, at: u64, limit: usize) {
        self.add(aspect, Due { at, silent: false, is_look: true, limit });
    }

    /// Asks only to learn what there is.
    pub(super) fn mark_silent(&mut self, aspect: Aspect, at: u64) {
        let limit = aspect.limit();
        self.add(aspect, Due { at, silent: true, is_look: false, limit });
    }

    /// Asks the same as a question whose answer came, for so many entries.
    pub(super) fn mark_again(&mut self, flight: &Flight, at: u64, limit: usize) {
        let Flight { silent, is_look, .. } = *flight;
        self.add(flight.aspect.clone(), Due { at, silent, is_look, limit });
    }

    fn add(&mut self, aspect: Aspect, new: Due) {
        let earliest = self.paced.get(&aspect).map_or(0, |until| until.saturating_sub(SPACING - BURST));
        let at = new.at.max(earliest);
        let due = self.due.entry(aspect).or_insert(Due { at, ..new });
        due.at = due.at.min(at);
        due.silent &= new.silent;
        due.is_look &= new.is_look;
        due.limit = due.limit.max(new.limit);
    }

    /// What was to be learnt silently has to be told: the stream that would have told it is gone.
    pub(super) fn speak(&mut self) {
        self.due.values_mut().for_each(|due| due.silent = false);
        self.flights.values_mut().for_each(|flight| flight.silent = false);
    }

    /// Asks nothing about a session until [`Plan::unblock`].
    pub(super) fn block(&mut self, session: SessionId) {
        self.blocked.insert(session);
    }

    /// Asks about all sessions again.
    pub(super) fn unblock(&mut self) {
        self.blocked.clear();
    }

    /// The sessions of which nothing is asked.
    pub(super) fn blocked(&self) -> &BTreeSet<SessionId> {
        &self.blocked
    }

    /// Whether this is about one of them.
    pub(super) fn is_blocked(&self, aspect: &Aspect) -> bool {
        aspect.session().is_some_and(|id| self.blocked.contains(id))
    }

    /// Takes the questions to ask now, with their numbers.
    pub(super) fn start(&mut self, now: u64, step: u64) -> Vec<Question> {
        let flying: Vec<Aspect> = self.flights.values().map(|flight| flight.aspect.clone()).collect();
        let ready: Vec<Aspect> = self
            .due
            .iter()
            .filter(|(aspect, due)| due.at <= now && !flying.contains(aspect) && !self.is_blocked(aspect))
            .map(|(aspect, _)| aspect.clone())
            .take(IN_FLIGHT.saturating_sub(flying.len()))
            .collect();
        ready
            .into_iter()
            .filter_map(|aspect| {
                let due = self.due.remove(&aspect)?;
                self.last += 1;
                self.reads += 1;
                if self.paced.len() > PACED {
                    self.paced.retain(|_, until| *until > now);
                }
                let until = self.paced.entry(aspect.clone()).or_default();
                *until = now.max(*until) + SPACING;
                let (path, directory) = (aspect.path(due.limit), aspect.directory().cloned());
                self.flights.insert(
                    self.last,
                    Flight { aspect, began: step, silent: due.silent, is_look: due.is_look, limit: due.limit },
                );
                Some(Question { number: self.last, path, directory })
            })
            .collect()
    }

    /// An answer came.
    pub(super) fn finish(&mut self, number: u64) -> Option<Flight> {
        self.flights.remove(&number)
    }

    /// The answer was usable.
    pub(super) fn succeeded(&mut self, aspect: &Aspect) {
        self.failures.remove(aspect);
    }

    /// Since when the answers are not usable, if they are not.
    pub(super) fn failing_since(&self, aspect: &Aspect) -> Option<u64> {
        self.failures.get(aspect).map(|failures| failures.since)
    }

    /// Whether the answers are not usable, and the next may be.
    pub(super) fn is_failing(&self, aspect: &Aspect) -> bool {
        self.failures.get(aspect).is_some_and(|failures| failures.count <= PATIENCE)
    }

    /// The answer was not usable: asks again later. Says how often it failed in a row.
    pub(super) fn failed(&mut self, flight: &Flight, now: u64) -> u32 {
        let failures = self.failures.entry(flight.aspect.clone()).or_insert(Failures { count: 0, since: now });
        failures.count += 1;
        let failures = failures.count;
        let wait = (RETRY << failures.min(6)).min(RETRY_MOST);
        self.mark_again(flight, now + wait, flight.limit);
        failures
    }

    /// When the next question is due, if one can be asked then.
    pub(super) fn next(&self) -> Option<u64> {
        if self.flights.len() >= IN_FLIGHT {
            return None;
        }
        let flying = |aspect: &Aspect| self.flights.values().any(|flight| flight.aspect == *aspect);
        self.due.iter().filter(|(aspect, _)| !flying(aspect) && !self.is_blocked(aspect)).map(|(_, due)| due.at).min()
    }

    /// Whether nothing is due or on its way, but for questions that are due later than `until` and do not make up for
    /// an answer that failed.
    pub(super) fn is_quiet(&self, until: u64) -> bool {
        self.flights.is_empty() && self.due.iter().all(|(aspect, due)| due.at > until && !self.is_failing(aspect))
    }

    /// Forgets a thing that is gone.
    pub(super) fn forget(&mut self, aspect: &Aspect) {
        self.due.remove(aspect);
        self.failures.remove(aspect);
        self.paced.remove(aspect);
    }

    /// How many questions are on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks whatever is due at each time; says when that was, each answer there after 5 ms.
    fn asked(notices: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut plan = Plan::default();
        let notices: Vec<u64> = notices.into_iter().collect();
        let mut asked = Vec::new();
        let mut flying: Option<(u64, u64)> = None;
        for now in 0..1000 {
            if let Some((_, number)) = flying.take_if(|(until, _)| *until == now) {
                plan.finish(number).unwrap();
            }
            if notices.contains(&now) {
                plan.mark(Aspect::Sessions, now);
            }
            if let Some(question) = plan.start(now, 0).pop() {
                asked.push(now);
                flying = Some((now + 5, question.number));
            }
        }
        asked
    }

    #[test]
    fn the_first_notice_is_asked_about_at_once_and_a_burst_once_more() {
        assert_eq!(asked([7]), [7]);
        assert_eq!(asked(7..17), [7, 7 + BURST]);
        // What comes after a read began is read again, however late in the burst.
        assert_eq!(asked([7, 8, 50]), [7, 7 + BURST, 7 + BURST + SPACING]);
        assert_eq!(asked([7, 40]), [7, 40]);
        assert_eq!(asked([7, 8, 300, 301]), [7, 7 + BURST, 300, 300 + BURST]);
    }

    #[test]
    fn reads_keep_their_pace_however_notices_come() {
        for pause in [1, 5, 30, 45, 59, 90] {
            let asked = asked((0..600).step_by(pause));
            let most = usize::try_from(600 / SPACING.max(pause as u64)).unwrap() + 2;
            assert!(asked.len() <= most, "every {pause} ms: {asked:?}");
            assert!(asked.is_sorted_by(|one, next| one + BURST <= *next), "every {pause} ms: {asked:?}");
        }
    }

    #[test]
    fn a_read_in_flight_is_asked_again_after_it() {
        let mut plan = Plan::default();
        plan.mark(Aspect::Sessions, 0);
        let number = plan.start(0, 0)[0].number;
        plan.mark(Aspect::Sessions, 1);
        assert!(plan.start(1000, 0).is_empty());
        plan.finish(number).unwrap();
        assert_eq!(plan.next(), Some(BURST));
        assert_eq!(plan.start(1000, 0).len(), 1);
    }

    #[test]
    fn a_handful_in_flight_and_content_before_status() {
        let mut plan = Plan::default();
        plan.mark(Aspect::Status("/d".into()), 0);
        for n in 0..10 {
            plan.mark(Aspect::Messages(format!("ses_{n}").into()), 0);
        }
        let started = plan.start(0, 0);
        assert_eq!(started.len(), IN_FLIGHT);
        assert!(started.iter().all(|question| question.path.contains("/message?")));
        assert_eq!(plan.next(), None);
    }

    #[test]
    fn failures_back_off_and_silence_gives_way() {
        let mut plan = Plan::default();
        plan.mark_silent(Aspect::Sessions, 0);
        plan.mark(Aspect::Sessions, 5);
        let number = plan.start(5, 0)[0].number;
        let flight = plan.finish(number).unwrap();
        assert!(!flight.silent);
        assert_eq!(plan.failed(&flight, 10), 1);
        assert_eq!(plan.next(), Some(10 + 2 * RETRY));
    }
}
