//! The relay's account of itself, `/_relay/status`, beside what a test counted on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::http::Api;
use super::relay::Relay;

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// opencode never logs these.
const UNLOGGED: &[&str] =
    &["server.connected", "server.heartbeat", "project.updated", "server.instance.disposed", "global.disposed", "sync"];

/// One line of the ledger.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) published: usize,
    pub(crate) delivered: usize,
    pub(crate) recovered: usize,
    pub(crate) pending: usize,
    /// For whatever reason.
    pub(crate) unrecoverable: usize,
}

/// Counts by event type.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger(BTreeMap<String, Counts>);

impl Ledger {
    pub(crate) async fn read(relay: &Api) -> Self {
        let status = relay.get("/_relay/status").await;
        let ledger = status["ledger"].as_object().unwrap_or_else(|| panic!("no ledger in {status}"));
        let number = |value: &Value| value.as_u64().map_or(0, |n| usize::try_from(n).unwrap());
        let counts = |line: &Value| Counts {
            published: number(&line["published"]),
            delivered: number(&line["delivered"]),
            recovered: number(&line["recovered"]),
            pending: number(&line["pending"]),
            unrecoverable: line["unrecoverable"]
                .as_object()
                .into_iter()
                .flat_map(|reasons| reasons.values().map(number))
                .sum(),
        };
        Self(ledger.iter().map(|(kind, line)| (kind.clone(), counts(line))).collect())
    }

    /// What was added since `before`; pending is a level, not a count.
    fn since(&self, before: &Self) -> Self {
        let added = self.0.iter().map(|(kind, now)| {
            let then = before.0.get(kind).copied().unwrap_or_default();
            let counts = Counts {
                published: now.published - then.published,
                delivered: now.delivered - then.delivered,
                recovered: now.recovered - then.recovered,
                pending: now.pending,
                unrecoverable: now.unrecoverable - then.unrecoverable,
            };
            (kind.clone(), counts)
        });
        Self(added.collect())
    }

    /// Where a column is not what the test counted; only for types that opencode logs.
    pub(crate) fn differences(
        &self,
        column: &str,
        counted: &BTreeMap<String, usize>,
        value: impl Fn(&Counts) -> usize,
    ) -> Vec<String> {
        let kinds = BTreeSet::from_iter(self.0.keys().chain(counted.keys()));
        let logged = kinds.into_iter().filter(|kind| !UNLOGGED.contains(&kind.as_str()));
        let differing = logged.filter_map(|kind| {
            let told = self.0.get(kind).map_or(0, &value);
            let counted = counted.get(kind).copied().unwrap_or_default();
            (told != counted).then(|| format!("{kind}: the ledger says {told} {column}, the test counted {counted}"))
        });
        differing.collect()
    }

    /// Waits until what was added since `before` is right; fails the test with what is wrong.
    pub(crate) async fn until(relay: &Relay, before: &Self, wrong: impl Fn(&Self) -> Vec<String>) -> Self {
        let deadline = Instant::now() + LIMIT;
        loop {
            let added = Self::read(&relay.api()).await.since(before);
            let wrong = wrong(&added);
            if wrong.is_empty() {
                return added;
            }
            assert!(Instant::now() < deadline, "the ledger is wrong after {LIMIT:?}: {wrong:#?}\n{}", relay.output());
            sleep(PAUSE).await;
        }
    }

    /// The types of which something was announced and is not accounted for. More can be accounted for than was
    /// announced: what was recovered without a log line.
    pub(crate) fn unaccounted(&self) -> Vec<String> {
        let rows =
            self.0.iter().filter(|(_, c)| c.pending > 0 || c.published > c.delivered + c.recovered + c.unrecoverable);
        rows.map(|(kind, counts)| format!("{kind}: {counts:?}")).collect()
    }

    /// All types together.
    pub(crate) fn total(&self) -> Counts {
        self.0.values().fold(Counts::default(), |sum, c| Counts {
            published: sum.published + c.published,
            delivered: sum.delivered + c.delivered,
            recovered: sum.recovered + c.recovered,
            pending: sum.pending + c.pending,
            unrecoverable: sum.unrecoverable + c.unrecoverable,
        })
    }

    /// The whole table, for a person who runs the test with `--no-capture`.
    pub(crate) fn table(&self) -> String {
        let rows = self.0.iter().map(|(kind, c)| {
            format!("| {kind} | {} | {} | {} | {} |", c.published, c.delivered, c.recovered, c.unrecoverable)
        });
        Vec::from_iter(rows).join("\n")
    }
}

/// How often each type that opencode logs is there.
pub(crate) fn count(kinds: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for kind in kinds.into_iter().filter(|kind| !UNLOGGED.contains(&kind.as_str())) {
        *counts.entry(kind).or_default() += 1;
    }
    counts
}
