//! A relay's front on a free port, over a stand-in or any other target.

#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot do its work shall panic; clippy knows only test functions"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use opencode_relay::event::{Epoch, Event, Origin, Place};
use opencode_relay::http::{self, Clients, Connections, Parts};
use opencode_relay::hub::Hub;
use opencode_relay::journal::{self, Journal};
use opencode_relay::proxy::{self, Proxy, Target};
use opencode_relay::stop::{Stop, Tasks};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::upstream::{Head, Upstream, Wire, within};

/// A running front; it stops when it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) target: watch::Sender<Target>,
    pub(crate) clients: Clients,
    pub(crate) connections: Connections,
    pub(crate) stop: Stop,
    journal: Arc<Journal>,
    pub(crate) hub: Hub,
    pub(crate) tasks: Tasks,
    served: Option<tokio::task::JoinHandle<()>>,
}

/// What a test may change.
pub(crate) struct Settings {
    pub(crate) proxy: proxy::Options,
    pub(crate) http: http::Options,
    pub(crate) ready: Result<(), String>,
    pub(crate) api: bool,
    /// Where clients are served; without threads, where the test runs.
    pub(crate) threads: Arc<http::Threads>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy: proxy::Options { start_timeout: Duration::from_millis(100), ..proxy::Options::default() },
            http: http::Options {
                grace: Duration::from_millis(100),
                // What `get` asks for; tests about names take it away.
                allowed_hosts: vec!["relay".to_owned()],
                ..http::Options::default()
            },
            ready: Ok(()),
            api: true,
            threads: Arc::default(),
        }
    }
}

impl Relay {
    pub(crate) async fn over(upstream: &Upstream) -> Self {
        Self::start(up(upstream), Settings::default()).await
    }

    pub(crate) async fn start(target: Target, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::start_on(listener.into(), address, target, settings)
    }

    /// On a listener of the test's own.
    pub(crate) fn start_on(listener: http::Listener, address: SocketAddr, target: Target, settings: Settings) -> Self {
        let (target, watched) = watch::channel(target);
        let (stop, last, tasks) = (Stop::new(), Stop::new(), Tasks::new());
        let journal = Arc::new(Journal::new(Epoch::new(7), journal::Options::default()));
        let hub = Hub::new(journal.clone(), tasks.clone());
        let (clients, connections) = (Clients::default(), Connections::default());
        let proxy = Proxy::new(settings.proxy, watched, tasks.clone(), last.clone());
        let parts = Parts {
            hub: hub.clone(),
            proxy,
            api_event: Arc::new(AtomicBool::new(settings.api)),
            clients: clients.clone(),
            connections: connections.clone(),
            admitted: Arc::new(|_| ()),
            status: Arc::new(|| serde_json::json!({ "clients": 1 })),
            ready: Arc::new(move || settings.ready.clone()),
            metrics: Arc::new(|_| String::new()),
            options: settings.http,
        };
        let front = http::serve(vec![listener], settings.threads, parts, tasks.clone(), stop.clone());
        let served = tasks.spawn("front", async move {
            front.await;
            last.pull();
        });
        Self { address, target, clients, connections, stop, journal, hub, tasks, served: Some(served) }
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Sends a request without a body on a new connection and reads the head of the answer.
    pub(crate) async fn get(&self, target: &str, fields: &str) -> (Head, Wire) {
        let mut wire = self.connect().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nhost: relay\r\n{fields}\r\n")).await;
        (wire.answer().await, wire)
    }

    /// The same, with the whole body.
    pub(crate) async fn get_text(&self, target: &str, fields: &str) -> (Head, String) {
        let (head, mut wire) = self.get(target, fields).await;
        let body = wire.body(&head).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Publishes an event of a directory.
    pub(crate) fn publish(&self, directory: &str, kind: &str, session: &str) {
        let place = Place { directory: Some(directory.into()), project: None };
        let mut event = Event::made(Origin::State, kind, &place, Some(session), "evt_1", r#"{"x":1}"#);
        event.api = Some(event.payload());
        let records = self.journal.append(journal::Batch { events: vec![event], ..journal::Batch::default() }, 0);
        self.hub.publish(records, None);
    }

    /// Stops the front and waits until it has.
    pub(crate) async fn end(&mut self) {
        self.stop.pull();
        let served = self.served.take().unwrap();
        within("the front to end", served).await.unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.pull();
    }
}

pub(crate) fn up(upstream: &Upstream) -> Target {
    Target::Up(upstream.address().into())
}

/// The message of an answer in opencode's error shape.
pub(crate) fn message(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(value["name"].is_string());
    value["data"]["message"].as_str().unwrap().to_owned()
}
