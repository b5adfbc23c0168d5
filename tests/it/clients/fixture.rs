//! What every client here meets: a release that the relay started, a recorder at opencode itself, and one turn.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::http::Api;
use crate::support::model::ScriptedModel;
use crate::support::opencode::Home;
use crate::support::process::{Lines, Process};
pub(super) use crate::support::programs::{fetched, find, source, tool};
use crate::support::record::Record;
use crate::support::relay::Relay;
use crate::support::situations;
use crate::support::sse::Stream;

/// What any test here may take.
const TEST_LIMIT: Duration = Duration::from_secs(58);
/// How long a client may take for its next step; a cold start is in it.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// Nothing more than expected comes within this.
const SURPLUS_SPAN: Duration = Duration::from_millis(200);

/// The turn of [`Served::turn`]: long enough that its first word cannot be mistaken for its end.
const WORDS: usize = 25;
const PROMPT: &str = "say hello WORDS=25 DELAY=100";

/// What a turn cannot be followed without.
pub(super) const TURN: [&str; 5] =
    ["message.updated", "message.part.updated", "message.part.delta", "session.status", "session.idle"];

/// Runs a test of this module, but not forever.
pub(super) async fn bounded(test: impl Future<Output = ()>) {
    timeout(TEST_LIMIT, Box::pin(test)).await.expect("the test takes too long");
}

/// A release behind the relay that started it.
pub(super) struct Served {
    /// What opencode publishes on the stream that is whole also where `/event` is broken.
    pub(super) recorder: Stream,
    pub(super) relay: Relay,
    // After the relay: its folders must outlive opencode.
    pub(super) home: Home,
    pub(super) model: ScriptedModel,
}

impl Served {
    pub(super) async fn start(version: &str) -> Self {
        Self::start_with(|model| Home::new(version, model), &[]).await
    }

    pub(super) async fn start_with(home: impl FnOnce(&ScriptedModel) -> Home, more: &[&str]) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let home = home(&model);
        let relay = Relay::parent(&home, "auto", more).await;
        // The relay listens at once and holds requests until opencode does; nobody else would wait for it.
        relay.api().get("/path").await;
        let recorder = Stream::open(&relay.upstream(), "/global/event").await.unwrap();
        Self { recorder, relay, home, model }
    }

    /// The URL of a path at the relay.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.relay.base())
    }

    /// Starts one of the programs that `scripts/fetch-clients` installs.
    pub(super) fn tool(&self, program: &str, arguments: &[&str]) -> Process {
        tool(program, arguments, &self.home.scratch())
    }

    /// The steps of the bug report, watched through a client that prints a line per event, until the turn is over.
    /// Returns what the client saw from the session's beginning on.
    pub(super) async fn turn(&self, client: &Process, see: impl Fn(&str) -> Option<Value>) -> Vec<Value> {
        let lines = &client.stdout;
        let wait = async |kind: &'static str| {
            let found = lines.wait(0, SOON, |line| see(&line.text).filter(|event| event["type"] == kind)).await;
            found.unwrap_or_else(|| panic!("no {kind} within {SOON:?}\n{}\n{}", client.output(), self.relay.output()));
        };
        wait("server.connected").await;
        assert_eq!(seen(lines, &see)[0]["type"], "server.connected", "it comes first");

        let session = create(&self.relay.api()).await;
        assert_eq!(prompt(&self.relay.api(), &session, PROMPT).await, StatusCode::NO_CONTENT);
        wait("message.part.delta").await;
        let words = self.model.words_sent().load(Ordering::Relaxed);
        assert!(words < WORDS, "the first delta came only after the whole answer");
        wait("session.idle").await;

        situations::settle(&self.recorder).await;
        let published = self.published().len();
        situations::until("the client to catch up", || async {
            (since_session(seen(lines, &see), event_type).len() >= published).then_some(())
        })
        .await;
        assert!(lines.quiet(SURPLUS_SPAN, SOON).await, "the client prints without end");
        since_session(seen(lines, &see), event_type)
    }

    /// What opencode published for its own directory from the session's beginning on, as `/event` tells it: bytes.
    pub(super) fn published(&self) -> Vec<String> {
        let project = self.home.project();
        let mut frames = self.recorder.frames();
        frames.retain(|frame| frame.kind() != "sync" && frame.directory().as_ref() == Some(&project));
        since_session(frames, |frame| frame.kind()).iter().map(|frame| frame.payload().to_owned()).collect()
    }

    /// The turn as a client saw it is the turn as opencode published it, and it can be followed.
    pub(super) fn compare(&self, seen: &[Value]) {
        let published =
            Vec::from_iter(self.published().iter().map(|text| serde_json::from_str::<Value>(text).unwrap()));
        assert_eq!(names(seen), names(&published));
        assert_eq!(seen, published);
        for kind in TURN {
            let mut of_kind = seen.iter().filter(|event| event["type"] == kind).peekable();
            assert!(of_kind.peek().is_some(), "no {kind}: {:?}", names(seen));
            assert!(
                of_kind.all(|event| event["properties"].as_object().is_some_and(|properties| !properties.is_empty()))
            );
        }
    }
}

/// Makes a session and returns its id.
pub(super) async fn create(api: &Api) -> String {
    api.post("/session", &json!({})).await["id"].as_str().unwrap().to_owned()
}

/// Sends a prompt without waiting for the answer; returns the status.
pub(super) async fn prompt(api: &Api, session: &str, text: &str) -> StatusCode {
    let body = json!({"parts": [{"type": "text", "text": text}]});
    api.send(Method::POST, &format!("/session/{session}/prompt_async"), Some(&body)).await.unwrap().status
}

/// The events that a client printed so far.
pub(super) fn seen(lines: &Lines, see: impl Fn(&str) -> Option<Value>) -> Vec<Value> {
    lines.from(0).iter().filter_map(|line| see(&line.text)).collect()
}

/// Only what opencode published from the session's beginning on: booting the instance publishes things too, some before
/// a client is there, and greetings and heartbeats are each connection's own.
pub(super) fn since_session<T>(mut events: Vec<T>, kind: impl Fn(&T) -> String) -> Vec<T> {
    let start = events.iter().position(|event| kind(event) == "session.created");
    events.drain(..start.unwrap_or(events.len()));
    events.retain(|event| !matches!(kind(event).as_str(), "server.connected" | "server.heartbeat"));
    events
}

/// The type of an event as a client shows it.
pub(super) fn event_type(event: &Value) -> String {
    event["type"].as_str().unwrap_or_default().to_owned()
}

/// What they are, for a failure's message.
pub(super) fn names(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", event["type"], event["id"])).collect()
}

/// Stands before the relay and breaks connections off in the middle of what they carry.
pub(super) struct Cutter {
    address: SocketAddr,
    /// The head of the request on each connection.
    pub(super) heads: Arc<Record<String>>,
    broken: watch::Sender<()>,
    _server: JoinSet<()>,
}

impl Cutter {
    /// The n-th connection with an answer carries `budgets[n]` bytes towards the client; all after them are left alone.
    pub(super) async fn start(relay: &Relay, budgets: &[usize]) -> Self {
        let target = relay.base().strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Record::new());
        let (budgets, heads_in, broken) = (budgets.to_vec(), Arc::clone(&heads), watch::Sender::new(()));
        let breaks = broken.subscribe();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            let budgets = Arc::new(Mutex::new(budgets.into_iter()));
            while let Ok((client, _)) = listener.accept().await {
                let (target, heads, mut breaks) = (target.clone(), Arc::clone(&heads_in), breaks.clone());
                let budgets = Arc::clone(&budgets);
                breaks.mark_unchanged();
                connections.spawn(async move {
                    let Ok(relay) = TcpStream::connect(target).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_relay, to_relay) = relay.into_split();
                    // Whatever ends first takes the other way, and so both sockets, with it.
                    tokio::select! {
                        () = ask(from_client, to_relay, &heads) => {}
                        () = carry(from_relay, to_client, &budgets) => {}
                        _ = breaks.changed() => {}
                    }
                });
            }
        });
        Self { address, heads, broken, _server: server }
    }

    /// Breaks off what is open now.
    pub(super) fn cut(&self) {
        self.broken.send_replace(());
    }

    pub(super) fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Passes what the client sends, and writes its request's head down.
async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, heads: &Record<String>) {
    let mut head = Some(Vec::new());
    let mut bytes = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if let Some(begun) = &mut head {
            begun.extend_from_slice(&bytes[..read]);
            if begun.windows(4).any(|window| window == b"\r\n\r\n") {
                heads.push(String::from_utf8_lossy(begun).into_owned());
                head = None;
            }
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Passes so many bytes of the answer as the next budget has, and no more.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, budgets: &Mutex<vec::IntoIter<usize>>) {
    // None until it answers: browsers open connections to spare, and end them.
    let mut left = None;
    let mut bytes = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let left = left.get_or_insert_with(|| budgets.lock().unwrap().next().unwrap_or(usize::MAX));
        let passed = read.min(*left);
        *left -= passed;
        if to.write_all(&bytes[..passed]).await.is_err() || *left == 0 {
            return;
        }
    }
}
