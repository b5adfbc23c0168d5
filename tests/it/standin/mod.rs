//! A stand-in for opencode that publishes what a test tells it to, and fails where a test wants it to.
//!
//! One event is published in three steps that a test can take apart: its line goes into the bus log, its effect into the
//! state that REST shows, its frame into `/global/event`. [`StandIn::publish`] takes all three.

#![allow(dead_code, reason = "a kit: each release of the tests uses most of it, never all")]

pub(crate) mod capture;
mod server;
mod state;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opencode_relay::ingest::log::{Decoder, Item};
use opencode_relay::stop::{Stop, Tasks};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::state::State;
use crate::support::http::Api;

/// Where opencode says it runs.
pub(crate) const DIRECTORY: &str = "/srv/demo/project";

/// How long anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What may wait to be written to the stream; more is a mistake of the test.
const QUEUE: usize = 1 << 16;

/// The bytes of a stream before its first event: head and greeting.
pub(crate) fn opening() -> usize {
    server::opening().len()
}

/// How `GET /global/event` is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Healthy,
    /// With this status and no body.
    Refuse(u16),
    /// 200 and a web page.
    Html,
    /// Not at all; the connection stays open.
    Mute,
    /// A stream that ends properly right after its greeting, as `/event` of 1.14.48 does.
    CloseAtOnce,
    /// Bytes that are no HTTP.
    Nonsense,
    /// A head without end, as fast as it is taken.
    EndlessHead,
}

/// How everything but the stream is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rest {
    #[default]
    Healthy,
    /// With this status and opencode's error shape.
    Status(u16),
    /// Not at all; the connection stays open.
    Mute,
    /// A reset in the middle of the body.
    HalfBody,
    /// 200, and a web page.
    Page,
    /// 200, `application/json`, and the first half of the JSON as if it were the whole.
    HalfJson,
}

/// What the connection of the stream is told.
enum Order {
    /// One chunk of the body.
    Chunk(Vec<u8>),
    /// The connection is dropped inside the body.
    Cut,
    /// The body ends properly.
    Finish,
}

#[derive(Default)]
struct Inner {
    state: State,
    version: String,
    mode: Mode,
    rest: Rest,
    /// The next stream that is granted breaks after so many bytes, head included.
    break_after: Option<usize>,
    /// Questions of the relay's own that are being answered, now and at most.
    asking: usize,
    most_asking: usize,
    stream: Option<mpsc::Sender<Order>>,
    requests: HashMap<String, usize>,
    open: usize,
    most_open: usize,
    is_nameless: bool,
    /// How long an answer about the state is on its way, in milliseconds: from none up to this, by turns.
    slowness: u64,
    answers: u64,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Lets the bodies of `/test/half` go on.
    bodies: Stop,
    /// How many streams were asked for, and how many were granted.
    asked: watch::Sender<usize>,
    granted: watch::Sender<usize>,
}

/// The stand-in; it stops when it is dropped.
pub(crate) struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    folder: TempDir,
    process: Mutex<Process>,
}

/// What dies with the process.
#[derive(Default)]
struct Process {
    stop: Stop,
    tasks: Tasks,
}

impl StandIn {
    /// Starts on a free port, with an empty bus log.
    pub(crate) async fn start(version: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { version: version.to_owned(), ..Inner::default() }),
            bodies: Stop::new(),
            asked: watch::Sender::new(0),
            granted: watch::Sender::new(0),
        });
        let standin = Self {
            address: listener.local_addr().unwrap(),
            shared: shared.clone(),
            folder: tempfile::tempdir().unwrap(),
            process: Mutex::default(),
        };
        standin.log_bytes(b"");
        standin.run(listener);
        standin
    }

    fn run(&self, listener: TcpListener) {
        let process = Process::default();
        let (stop, tasks) = (process.stop.clone(), process.tasks.clone());
        tasks.clone().spawn("stand-in", server::run(listener, self.shared.clone(), tasks, stop));
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    /// Dies: nobody listens, every connection is gone, and so is what opencode keeps in memory: the turns that ran, the
    /// permissions and questions that were open, the terminals.
    pub(crate) async fn kill(&self) {
        let process = std::mem::take(&mut *self.process.lock().unwrap_or_else(PoisonError::into_inner));
        process.stop.pull();
        process.tasks.finish(SOON).await.unwrap();
        let mut inner = self.inner();
        inner.stream = None;
        inner.state.crash();
    }

    /// Listens again at the same address, perhaps as another release.
    pub(crate) async fn revive(&self, version: &str) {
        self.inner().version = version.to_owned();
        self.run(TcpListener::bind(self.address).await.unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(self.url())
    }

    /// The bus log, as `--log` takes it.
    pub(crate) fn log_source(&self) -> String {
        format!("file:{}", self.log_path().display())
    }

    /// A folder for the journal of a relay beside it.
    pub(crate) fn state_dir(&self) -> String {
        self.folder.path().join("relay").display().to_string()
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.folder.path().join("bus.log")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner()
    }

    /// From the next connection on.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.inner().mode = mode;
    }

    /// From now on.
    pub(crate) fn set_rest(&self, rest: Rest) {
        self.inner().rest = rest;
    }

    /// The next stream breaks after so many bytes on the wire, head and chunk sizes included.
    pub(crate) fn break_after(&self, bytes: usize) {
        self.inner().break_after = Some(bytes);
    }

    /// Lets the bodies of `/test/half` go on to their end.
    pub(crate) fn finish_bodies(&self) {
        self.shared.bodies.pull();
    }

    /// How many questions of the relay's own were being answered at the same time, at most.
    pub(crate) fn most_asking(&self) -> usize {
        self.inner().most_asking
    }

    /// From now on answers about the state are old when they arrive, by up to this much.
    pub(crate) fn answer_late(&self, by: Duration) {
        self.inner().slowness = u64::try_from(by.as_millis()).unwrap();
    }

    /// Publishes an event on all three ways. Says whether the stream took it.
    pub(crate) fn publish(&self, data: &str) -> bool {
        self.log(data);
        self.fold(data);
        self.send(data)
    }

    /// The state changes and the log says so, but the stream never carries the frame.
    pub(crate) fn publish_undelivered(&self, data: &str) {
        self.log(data);
        self.fold(data);
    }

    /// From now on the bus log names no sessions.
    pub(crate) fn name_no_sessions(&self) {
        self.inner().is_nameless = true;
    }

    /// Only the event's lines in the bus log, if opencode writes any.
    pub(crate) fn log(&self, data: &str) {
        let hint = capture::hint_line(data).filter(|_| !self.inner().is_nameless);
        let lines = capture::log_line(data).into_iter().chain(hint).collect::<String>();
        if !lines.is_empty() {
            self.log_bytes(lines.as_bytes());
        }
    }

    /// These bytes at the end of the bus log, in one write.
    pub(crate) fn log_bytes(&self, bytes: &[u8]) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        file.write_all(bytes).unwrap();
    }

    /// How many events the bus log announces, read the way the relay reads it.
    pub(crate) fn announced(&self) -> usize {
        let mut items = Vec::new();
        Decoder::new().push(&std::fs::read(self.log_path()).unwrap(), &mut items);
        items.iter().filter(|item| matches!(item, Item::Notice { .. })).count()
    }

    /// Only the event's effect on the state.
    pub(crate) fn fold(&self, data: &str) {
        self.inner().state.fold(&serde_json::from_str(data).unwrap());
    }

    /// Only the event's frame.
    pub(crate) fn send(&self, data: &str) -> bool {
        self.send_bytes(capture::frame(data).as_bytes())
    }

    /// These bytes of the stream's body, in one chunk. Says whether there is a stream.
    pub(crate) fn send_bytes(&self, bytes: &[u8]) -> bool {
        self.order(Order::Chunk(bytes.to_vec()))
    }

    fn order(&self, order: Order) -> bool {
        let inner = self.inner();
        let Some(stream) = &inner.stream else { return false };
        match stream.try_send(order) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => panic!("more than {QUEUE} chunks wait"),
        }
    }

    /// Drops the stream's connection inside its body; what is published from now on does not reach it.
    pub(crate) fn cut(&self) {
        self.end(Order::Cut);
    }

    /// Ends the stream properly.
    pub(crate) fn finish(&self) {
        self.end(Order::Finish);
    }

    fn end(&self, order: Order) {
        self.order(order);
        self.inner().stream = None;
    }

    /// A heartbeat, as opencode sends one every 10 s.
    pub(crate) fn beat(&self) {
        self.send(r#"{"payload":{"id":"evt_beat","type":"server.heartbeat","properties":{}}}"#);
    }

    /// Whether a stream is connected now.
    pub(crate) fn has_stream(&self) -> bool {
        self.inner().stream.as_ref().is_some_and(|stream| !stream.is_closed())
    }

    /// Waits until so many streams were granted, ever.
    pub(crate) async fn granted(&self, count: usize) {
        reach(&self.shared.granted, count, "granted").await;
    }

    /// Waits until so many streams were asked for, ever.
    pub(crate) async fn asked(&self, count: usize) {
        reach(&self.shared.asked, count, "asked for").await;
    }

    /// How many streams were granted so far.
    pub(crate) fn grants(&self) -> usize {
        *self.shared.granted.borrow()
    }

    /// How many requests came for a path.
    pub(crate) fn requests(&self, path: &str) -> usize {
        self.inner().requests.get(path).copied().unwrap_or_default()
    }

    /// How many streams were open at the same time, at most.
    pub(crate) fn most_open(&self) -> usize {
        self.inner().most_open
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.process.get_mut().unwrap_or_else(PoisonError::into_inner).stop.pull();
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn reach(counter: &watch::Sender<usize>, count: usize, what: &str) {
    let mut seen = counter.subscribe();
    let waited = tokio::time::timeout(SOON, seen.wait_for(|seen| *seen >= count)).await;
    assert!(waited.is_ok(), "only {} streams were {what} within {SOON:?}, not {count}", *counter.borrow());
}
