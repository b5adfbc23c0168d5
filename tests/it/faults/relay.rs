//! A relay in this process, wired as `opencode-relay run` wires it.

use std::time::Duration;

use opencode_relay::app::{self, Limits};
use opencode_relay::config::{Input, load};
use opencode_relay::stop::{Stop, Tasks};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::standin::{SOON, StandIn};
use crate::support::http::Api;
use crate::support::sse::Stream;

/// How often a state that rings no bell is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A running relay; it stops when it is dropped.
pub(crate) struct Relay {
    base: String,
    stop: Stop,
    served: Option<tokio::task::JoinHandle<()>>,
    _state: TempDir,
}

impl Relay {
    /// Over a stand-in, with its bus log, and with more flags; ready when this returns.
    pub(crate) async fn over(standin: &StandIn, flags: &[(&'static str, &str)]) -> Self {
        let relay = Self::start(standin, flags).await;
        relay.ready(flags).await;
        relay
    }

    /// Waits until all its witnesses are there.
    pub(crate) async fn ready(&self, flags: &[(&'static str, &str)]) {
        let has_log = !flags.iter().any(|flag| [("witness", "stream"), ("log", "none")].contains(flag));
        self.until("ready", |status| {
            let follows = status["witnesses"]["log"]["state"] == "following" || !has_log;
            let streams = status["witnesses"]["stream"]["state"] == "connected" || status["witness"] == "log";
            follows && streams && status["upstream"]["version"].is_string()
        })
        .await;
    }

    /// The same, but not waited for.
    pub(crate) async fn start(standin: &StandIn, flags: &[(&'static str, &str)]) -> Self {
        Self::limited(standin, flags, Limits::default()).await
    }

    /// The same, with limits that users have no setting for.
    pub(crate) async fn limited(standin: &StandIn, flags: &[(&'static str, &str)], limits: Limits) -> Self {
        let (url, log) = (standin.url(), standin.log_source());
        let mut all = vec![("listen", "127.0.0.1:0"), ("upstream", url.as_str())];
        if !flags.contains(&("witness", "stream")) && !flags.iter().any(|(key, _)| *key == "log") {
            all.push(("log", log.as_str()));
        }
        let state = tempfile::tempdir().unwrap();
        all.push(("state_dir", state.path().to_str().unwrap()));
        all.extend(flags);
        let flags = all.into_iter().map(|(key, value)| (key, vec![value.to_owned()])).collect();
        let config = load(&Input { flags, ..Input::default() }).unwrap();
        let relay = app::Relay::bind(config).await.unwrap().with_limits(limits);
        let base = relay.endpoints()[0].to_string();
        let stop = Stop::new();
        let watched = stop.clone();
        let served = Tasks::new().spawn("relay", async move {
            relay.run(watched).await.unwrap();
        });
        Self { base, stop, served: Some(served), _state: state }
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(&self.base)
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn open(&self, path: &str) -> Stream {
        Stream::open(&self.api(), path).await.unwrap()
    }

    pub(crate) async fn status(&self) -> Value {
        self.api().get("/_relay/status").await
    }

    /// Waits until the status fits, and gives it.
    pub(crate) async fn until(&self, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.api().send(http::Method::GET, "/_relay/status", None).await;
            let status = match answer {
                Ok(answer) if answer.status.is_success() => answer.json(),
                other => Value::from(format!("{other:?}")),
            };
            if fits(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not {what} within {SOON:?}: {status:#}");
            sleep(LOOK).await;
        }
    }

    /// Waits until everything that was announced is read and accounted for and nothing is being read, and gives the status. The
    /// stream shows life meanwhile: the relay waits for that before it takes an event for lost.
    pub(crate) async fn settled(&self, standin: &StandIn) -> Value {
        let announced = standin.announced();
        self.until("settled", |status| {
            standin.beat();
            let read = status["witnesses"]["log"]["notices"] == announced || status["witness"] == "stream";
            let pending =
                status["ledger"].as_object().is_some_and(|ledger| ledger.values().any(|count| count["pending"] != 0));
            // What is counted is shown only once it is written.
            let written = status["journal"]["waiting"] == 0;
            read && written
                && status["ledger"].is_object()
                && !pending
                && status["witnesses"]["state"]["in_flight"] == 0
        })
        .await
    }

    /// Stops it and waits until it has.
    pub(crate) async fn end(mut self) {
        self.stop.pull();
        tokio::time::timeout(SOON, self.served.take().unwrap()).await.unwrap().unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.pull();
    }
}

/// Adds up one count of the ledger over all types.
pub(crate) fn sum(status: &Value, name: &str) -> u64 {
    status["ledger"].as_object().unwrap().values().map(|count| count[name].as_u64().unwrap()).sum()
}

/// Small numbers that look random and are the same in every run with the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    /// Prints the seed, so that a failure tells it.
    pub(crate) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(seed)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}
