//! What went through the proxy, in numbers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::failure::Failure;

/// The upper bounds of the times until an answer, in milliseconds. A prompt is answered when its turn is over, hence the
/// minutes.
pub const ANSWER_BOUNDS: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 60_000, 600_000];

/// The classes of statuses by their first digit, 1 to 5, and last those who got no answer: they went before it came.
pub const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// What went through the proxy until now.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Requests by what became of them, in the order of [`CODES`].
    pub requests: [u64; CODES.len()],
    /// Answers by the time until their heads were there: up to each of [`ANSWER_BOUNDS`], and last those above.
    pub answers: [u64; ANSWER_BOUNDS.len() + 1],
    /// All those times together.
    pub waited: Duration,
    /// Requests that the proxy answered itself, by the error's name.
    pub failures: BTreeMap<&'static str, u64>,
    /// Requests at opencode now.
    pub in_flight: usize,
    /// Upgraded connections now.
    pub sockets: usize,
    /// Reports to the observer that were lost because its queue was full.
    pub lost_reports: u64,
}

/// Counts; every request adds three to memory and nobody waits.
#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: [AtomicU64; CODES.len()],
    answers: [AtomicU64; ANSWER_BOUNDS.len() + 1],
    /// In microseconds.
    waited: AtomicU64,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// A request that has no answer yet. It counts itself when it is dropped, so that one whose client went is counted too.
#[derive(Debug)]
pub(super) struct Underway<'a> {
    counts: &'a Counts,
    since: Instant,
    status: Option<StatusCode>,
}

impl Counts {
    pub(super) fn begin(&self) -> Underway<'_> {
        Underway { counts: self, since: Instant::now(), status: None }
    }

    pub(super) fn fail(&self, failure: &Failure) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(failure.name()).or_default() += 1;
    }
}

/// What all of these counted together, and what is at opencode now.
pub(super) fn read<'a>(
    all: impl Iterator<Item = &'a Counts>,
    in_flight: usize,
    sockets: usize,
    lost_reports: u64,
) -> Traffic {
    let mut traffic = Traffic {
        requests: Default::default(),
        answers: Default::default(),
        waited: Duration::ZERO,
        failures: BTreeMap::new(),
        in_flight,
        sockets,
        lost_reports,
    };
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    for counts in all {
        let pairs = traffic.requests.iter_mut().zip(&counts.requests);
        for (sum, count) in pairs.chain(traffic.answers.iter_mut().zip(&counts.answers)) {
            *sum += load(count);
        }
        traffic.waited += Duration::from_micros(load(&counts.waited));
        for (name, count) in &*counts.failures.lock().unwrap_or_else(PoisonError::into_inner) {
            *traffic.failures.entry(name).or_default() += count;
        }
    }
    traffic
}

impl Underway<'_> {
    pub(super) fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let add = |count: &AtomicU64, by| count.fetch_add(by, Ordering::Relaxed);
        let none = CODES.len() - 1;
        let Some(status) = self.status else {
            add(&self.counts.requests[none], 1);
            return;
        };
        let class = usize::from(status.as_u16() / 100).checked_sub(1).filter(|class| *class < none).unwrap_or(none);
        add(&self.counts.requests[class], 1);
        let took = self.since.elapsed();
        let above = |bound: &u64| took > Duration::from_millis(*bound);
        add(&self.counts.answers[ANSWER_BOUNDS.partition_point(above)], 1);
        add(&self.counts.waited, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_request_is_counted_once() {
        let (counts, others) = (Counts::default(), Counts::default());
        for (status, wait) in [(200, 5), (204, 6), (101, 0), (404, 700_000), (999, 0)] {
            let underway = counts.begin();
            tokio::time::advance(Duration::from_millis(wait)).await;
            underway.answered(StatusCode::from_u16(status).unwrap());
        }
        drop(others.begin());
        counts.fail(&Failure::Loop);
        others.fail(&Failure::Loop);
        let traffic = read([&counts, &others].into_iter(), 1, 2, 3);
        assert_eq!(traffic.requests, [1, 2, 0, 1, 0, 2]);
        assert_eq!(traffic.answers, [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(traffic.waited, Duration::from_millis(700_011));
        assert_eq!(traffic.failures, BTreeMap::from([("ProxyLoopError", 2)]));
    }
}
