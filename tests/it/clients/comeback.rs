//! The relay is killed in the middle of a turn and started again, and the client comes back by its own means.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::fixture::{SOON, create, names, prompt, seen, since_session};
use crate::support::fold::Fold;
use crate::support::http::Api;
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode, free_port};
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::support::situations;
use crate::support::sse::Stream;

/// Long enough that it goes on while no relay is there, and after.
const PROMPT: &str = "say hello WORDS=80 DELAY=60";
/// How many words come before the relay is killed, and how many while it is gone.
const WORDS: usize = 5;
/// Between two looks at the state.
const PAUSE: Duration = Duration::from_millis(100);

/// A release, and beside it a relay that can be killed without it.
pub(super) struct Beside {
    relay: Option<Relay>,
    port: u16,
    arguments: Vec<String>,
    /// What opencode publishes on the stream that is whole also where `/event` is broken.
    recorder: Stream,
    pub(super) opencode: Opencode,
    model: ScriptedModel,
}

impl Beside {
    pub(super) async fn start(home: impl FnOnce(&ScriptedModel) -> Home) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let opencode = home(&model).start().await;
        let state = opencode.home.scratch().join("relay-state");
        let log = format!("file:{}", opencode.home.stderr_file().display());
        let arguments = ["--upstream", opencode.base(), "--log", &log, "--state-dir", state.to_str().unwrap()];
        let arguments = arguments.map(str::to_owned).to_vec();
        // Boots the instance: what comes later is about the turn alone.
        opencode.api().get("/session").await;
        let recorder = Stream::open(&opencode.api(), "/global/event").await.unwrap();
        let mut beside = Self { relay: None, port: free_port(), arguments, recorder, opencode, model };
        beside.start_relay().await;
        // What is published before the relay reads opencode's stream is told by its result alone.
        situations::until("the relay to read opencode's stream", || async {
            let status = beside.relay.as_ref()?.api().get("/_relay/status").await;
            (status["witnesses"]["stream"]["state"] == "connected").then_some(())
        })
        .await;
        beside
    }

    /// The URL of a path at the relay.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// opencode itself: it is there all the time.
    pub(super) fn api(&self) -> Api {
        self.opencode.api()
    }

    pub(super) async fn start_relay(&mut self) {
        let arguments = Vec::from_iter(self.arguments.iter().map(String::as_str));
        let home = &self.opencode.home;
        self.relay = Some(Relay::start_at(self.port, &arguments, &home.env(), &home.scratch()).await);
    }

    pub(super) async fn kill_relay(&mut self) {
        let mut relay = self.relay.take().unwrap();
        relay.signal(Signal::KILL);
        assert!(relay.wait(SOON).await.is_some(), "it outlives SIGKILL");
    }

    /// Begins a turn; the client sees its first words.
    pub(super) async fn begin_turn(&self) -> String {
        let session = create(&self.api()).await;
        prompt(&self.api(), &session, PROMPT).await;
        self.words(WORDS).await;
        session
    }

    /// Waits until opencode published so many words that the model had not said before.
    pub(super) async fn words(&self, count: usize) {
        let (mut said, goal) = (0, self.model.words_sent().load(Ordering::Relaxed) + count);
        let mut is_last = |kind: String| {
            said += usize::from(kind == "message.part.delta");
            said >= goal
        };
        self.recorder.wait_from(0, |frame| is_last(frame.kind()), SOON).await;
    }

    /// Kills the relay in the middle of a turn that a client follows, and starts it again. The client prints an event a
    /// line. Fails where it was told anything twice, out of order or not at all.
    pub(super) async fn kill_in_a_turn(&mut self, client: &Process) {
        let see = |line: &str| serde_json::from_str::<Value>(line).ok();
        self.wait(client, "server.connected").await;
        let session = self.begin_turn().await;
        self.wait(client, "message.part.delta").await;

        self.kill_relay().await;
        self.words(WORDS).await;
        self.start_relay().await;

        self.wait(client, "session.idle").await;
        situations::until_idle(&self.api(), &session, 1).await;
        situations::settle(&self.recorder).await;
        let project = self.opencode.home.project();
        let deadline = Instant::now() + SOON;
        let fold = loop {
            let fold = fold(&seen(&client.stdout, see));
            let wrong = fold.compare(&self.api(), &[&project]).await;
            if wrong.is_empty() {
                break fold;
            }
            assert!(Instant::now() < deadline, "{wrong:#?}\n{}\n{}", client.output(), self.told());
            sleep(PAUSE).await;
        };
        assert_eq!(fold.idles.get(&session), Some(&1), "the turn ended once");
        self.judge(&seen(&client.stdout, see));
    }

    async fn wait(&self, client: &Process, kind: &str) {
        let of_kind = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|event| event["type"] == kind);
        let found = client.stdout.wait(0, SOON, |line| of_kind(&line.text).then_some(())).await;
        assert!(found.is_some(), "no {kind} within {SOON:?}\n{}\n{}", client.output(), self.told());
    }

    fn told(&self) -> String {
        self.relay.as_ref().map(Relay::output).unwrap_or_default()
    }

    /// What was published while a relay was there came as it was published, once; what is missing is one stretch, and
    /// the state has made up for it: the words in it come with the whole text at its end.
    fn judge(&self, seen: &[Value]) {
        let greetings = seen.iter().filter(|event| event["type"] == "server.connected");
        let greetings = Vec::from_iter(greetings.map(|greeting| greeting["properties"].clone()));
        assert_eq!(greetings, [json!({}), json!({"resumed": true})]);

        let seen = since_session(seen.to_vec(), |event| event["type"].as_str().unwrap().to_owned());
        let ids = Vec::from_iter(seen.iter().map(|event| event["id"].as_str().unwrap()));
        let known = BTreeSet::from_iter(&ids);
        assert_eq!(known.len(), ids.len(), "an id came twice: {:?}", names(&seen));

        let published = self.published();
        let delivered = Vec::from_iter(published.iter().filter(|event| known.contains(&event["id"].as_str().unwrap())));
        let own = seen.iter().filter(|event| published.iter().any(|other| other["id"] == event["id"]));
        assert_eq!(Vec::from_iter(own), delivered, "opencode's own frames, in its order and to the byte");

        let missing = |event: &Value| !known.contains(&event["id"].as_str().unwrap());
        let first = published.iter().position(missing).expect("something was published while no relay was there");
        let last = published.iter().rposition(missing).unwrap();
        assert!(first > 0 && last + 1 < published.len(), "{first} to {last} of {}", published.len());
        assert!(published[first..=last].iter().all(missing), "one stretch: {:?}", names(&published[first..=last]));
    }

    fn published(&self) -> Vec<Value> {
        let project = self.opencode.home.project();
        let mut frames = self.recorder.frames();
        frames.retain(|frame| frame.kind() != "sync" && frame.directory().as_ref() == Some(&project));
        since_session(frames, |frame| frame.kind()).iter().map(|frame| frame.payload_json()).collect()
    }
}

fn fold(events: &[Value]) -> Fold {
    let mut fold = Fold::default();
    events.iter().for_each(|event| fold.apply(event));
    fold
}
