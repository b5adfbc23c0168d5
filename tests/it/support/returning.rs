//! A client that comes back for ever with the last id it saw, as EventSource and the official SDK do, and a judge of
//! everything it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::fold::Fold;
use super::record::Record;
use super::sse::{Frame, Stream};

/// Between two attempts. Shorter than any client's, so that it also meets a relay that has only just begun to listen.
const RETRY: Duration = Duration::from_millis(30);
/// A stream that shows no frame for so long is dead: the heartbeat comes every 10 s.
const SILENCE: Duration = Duration::from_secs(30);

/// One frame and the connection it came on.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) connection: usize,
    pub(crate) frame: Arc<Frame>,
}

/// The client; it gives up when dropped.
pub(crate) struct Returning {
    taken: Arc<Record<Taken>>,
    _task: JoinSet<()>,
}

impl Returning {
    /// Opens the stream at `url`, now or as soon as somebody answers there. Whoever does not within `patience` is asked
    /// again: while it starts, opencode takes connections that it never answers.
    pub(crate) fn start(url: String, patience: Duration) -> Self {
        let taken = Arc::new(Record::new());
        let mut task = JoinSet::new();
        task.spawn(come_back(url, patience, Arc::clone(&taken)));
        Self { taken, _task: task }
    }

    /// Waits until it is connected.
    pub(crate) async fn connected(&self, limit: Duration) {
        let first = self.taken.wait(0, limit, |_| Some(())).await;
        assert!(first.is_some(), "no stream within {limit:?}");
    }

    /// Waits until no frame came for `span`.
    pub(crate) async fn settle(&self, span: Duration, limit: Duration) -> bool {
        self.taken.quiet(span, limit).await
    }

    pub(crate) fn from(&self, start: usize) -> Vec<Taken> {
        self.taken.from(start)
    }
}

async fn come_back(url: String, patience: Duration, taken: Arc<Record<Taken>>) {
    let (mut connection, mut last_id) = (0, None::<String>);
    loop {
        let headers = last_id.as_deref().map(|id| ("last-event-id", id));
        if let Ok(Ok(stream)) = timeout(patience, Stream::open_url(&url, &Vec::from_iter(headers))).await {
            connection += 1;
            let mut seen = 0;
            while stream.try_wait_from(seen, |_| true, SILENCE).await.is_some() {
                for frame in stream.frames_from(seen) {
                    seen += 1;
                    last_id = frame.id.clone().or(last_id);
                    taken.push(Taken { connection, frame });
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// What a client was told, and everything about it that may not be.
#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) fold: Fold,
    seen: usize,
    connection: usize,
    /// The last id of an event: its epoch and number.
    last: Option<(String, u64)>,
    /// opencode's own ids of the events; of the twins, which share them, not.
    ids: BTreeSet<String>,
    /// The sessions whose turn began, and which of the two words about its end has not come since.
    running: BTreeMap<String, BTreeSet<&'static str>>,
    /// How many events of each type came in opencode's own frames, and in the relay's.
    pub(crate) delivered: BTreeMap<String, usize>,
    pub(crate) recovered: BTreeMap<String, usize>,
    pub(crate) wrong: Vec<String>,
}

impl Judge {
    /// Takes what came since the last time.
    pub(crate) fn catch_up(&mut self, client: &Returning) {
        for taken in client.from(self.seen) {
            self.seen += 1;
            self.take(&taken);
        }
    }

    /// How often it was connected.
    pub(crate) fn connections(&self) -> usize {
        self.connection
    }

    /// The sessions that were busy and were not said to be idle in both words.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let open = self.running.iter().filter(|(_, missing)| !missing.is_empty());
        open.map(|(session, missing)| format!("{session} was busy, and then there was no {missing:?}")).collect()
    }

    fn take(&mut self, taken: &Taken) {
        let frame = &taken.frame;
        let event = frame.payload_json();
        if std::mem::replace(&mut self.connection, taken.connection) != taken.connection {
            self.greeting(frame, &event);
        }
        self.number(frame);
        if frame.is_greeting_or_heartbeat() {
            return;
        }
        let (kind, id) = (frame.kind(), event["id"].as_str().unwrap_or_default());
        if kind != "sync" {
            if !self.ids.insert(id.to_owned()) {
                self.wrong.push(format!("{kind} {id} came twice, the second time as {:?}", frame.id));
            }
            let by_relay = id.get("evt_".len() + 12..).is_some_and(|letters| letters.starts_with("relay"));
            let counts = if by_relay { &mut self.recovered } else { &mut self.delivered };
            *counts.entry(kind.clone()).or_default() += 1;
        }
        self.turn(&kind, &event["properties"]);
        self.fold.apply(&event);
    }

    /// The first frame of a connection.
    fn greeting(&mut self, frame: &Frame, event: &Value) {
        if frame.kind() != "server.connected" {
            self.wrong.push(format!("connection {} began with {}", self.connection, frame.kind()));
        }
        let expected = if self.connection == 1 { serde_json::json!({}) } else { serde_json::json!({"resumed": true}) };
        if event["properties"] != expected {
            self.wrong.push(format!(
                "connection {} after {:?} was greeted with {}",
                self.connection, self.last, event["properties"]
            ));
        }
    }

    /// Numbers of events increase, whatever happens; greetings and heartbeats repeat the last one.
    fn number(&mut self, frame: &Frame) {
        let repeats = frame.is_greeting_or_heartbeat();
        let position = frame.id.as_deref().and_then(|id| id.rsplit_once('-'));
        let Some((epoch, Ok(number))) = position.map(|(epoch, number)| (epoch, number.parse::<u64>())) else {
            self.wrong.push(format!("{} has the id {:?}", frame.kind(), frame.id));
            return;
        };
        if let Some((last_epoch, last)) = &self.last {
            let fits = last_epoch == epoch && if repeats { *last <= number } else { *last < number };
            if !fits {
                self.wrong.push(format!("{} {epoch}-{number} after {last_epoch}-{last}", frame.kind()));
            }
        }
        // A client comes back with the id of a heartbeat too: what follows is above it.
        self.last = Some((epoch.to_owned(), number));
    }

    fn turn(&mut self, kind: &str, properties: &Value) {
        let session = || properties["sessionID"].as_str().unwrap_or_default().to_owned();
        let mut ended = |word| {
            if let Some(missing) = self.running.get_mut(&session()) {
                missing.remove(word);
            }
        };
        match (kind, properties["status"]["type"].as_str()) {
            ("session.status", Some("idle")) => ended("session.status idle"),
            ("session.idle", _) => ended("session.idle"),
            ("session.status", Some(_)) => {
                self.running.insert(session(), BTreeSet::from(["session.status idle", "session.idle"]));
            }
            _ => {}
        }
    }
}
