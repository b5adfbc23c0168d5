//! What the tests here meet: a release with or without a password, relays before it, and raw requests to either.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, free_port};
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::upstream::Wire;

const START_LIMIT: Duration = Duration::from_secs(30);
const START_ATTEMPTS: usize = 3;

/// The origin that the servers here allow besides opencode's own.
pub(super) const ALLOWED_ORIGIN: &str = "https://mine.example";

/// A running release.
pub(super) struct Server {
    process: Process,
    pub(super) address: SocketAddr,
    // After the process: its folders must outlive it.
    pub(super) home: Home,
    _model: ScriptedModel,
}

impl Server {
    /// `env` comes on top of a home's.
    pub(super) async fn start(version: &str, env: &[(&str, &str)]) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let home = Home::new(version, &model);
        let mut all = home.env();
        all.extend(env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let mut outputs = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let mut command = home.command(port);
            command.extend(["--cors", ALLOWED_ORIGIN].map(str::to_owned));
            let process = Process::start(&command, &all, Path::new(&home.project()), None).unwrap();
            let listens = |line: &str| line.contains("opencode server listening on ").then_some(());
            if process.stdout.wait(0, START_LIMIT, |line| listens(&line.text)).await.is_some() {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                return Self { process, address, home, _model: model };
            }
            outputs = process.output();
        }
        panic!("opencode {version} did not listen: {outputs}");
    }

    /// A relay before it that has the home's environment and `env`.
    pub(super) async fn relay(&self, name: &str, env: &[(&str, &str)]) -> Front {
        let mut all = self.home.env();
        all.extend(env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let (url, state) = (format!("http://{}", self.address), self.home.scratch().join(name));
        let arguments = ["--upstream", &url, "--log", "none", "--state-dir", state.to_str().unwrap()];
        let relay = Relay::start(&arguments, &all, &self.home.scratch()).await;
        let address = relay.base().strip_prefix("http://").unwrap().parse().unwrap();
        Front { address, relay }
    }

    /// Ends it, and waits until it is gone.
    pub(super) async fn end(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.wait(START_LIMIT).await.expect("a killed process ends");
    }
}

/// A relay and where it listens.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    pub(super) relay: Relay,
}

/// An answer, as far as two of them are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: String,
    pub(super) fields: BTreeMap<String, String>,
    /// Empty for an event stream, whose body does not end.
    pub(super) body: String,
}

impl Said {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The fields that say who may read an answer, and how to be admitted.
    pub(super) fn door(&self) -> BTreeMap<&str, &str> {
        let is_door = |name: &str| {
            name.starts_with("access-control-") || name.starts_with("www-") || matches!(name, "vary" | "allow")
        };
        self.fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| is_door(name))
            .collect()
    }
}

/// Sends a request's first line (without the version) and more fields, each with its line end, on a new connection. A
/// body stands behind an empty line in `fields`.
pub(super) async fn say(address: SocketAddr, start: &str, fields: &str) -> Said {
    let mut wire = Wire::connect(address).await;
    // The last chunk, too, ends with an empty line; behind a body with a length two more bytes are nothing.
    wire.send(format!("{start} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
    let head = wire.answer().await;
    let is_stream = head.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let has_no_body = is_stream || start.starts_with("HEAD ") || matches!(head.second(), "204" | "304" | "101");
    let body = match has_no_body {
        true => Vec::new(),
        false => wire.body(&head).await.unwrap(),
    };
    let mut fields = BTreeMap::new();
    for (name, _) in &head.fields {
        fields.insert(name.clone(), head.get(name).unwrap());
    }
    Said { status: head.second().to_owned(), fields, body: String::from_utf8_lossy(&body).into_owned() }
}
