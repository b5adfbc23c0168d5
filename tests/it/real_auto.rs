//! `--witness auto` and `stream` in front of real releases: what the relay's streams carry is what opencode published, byte for byte.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::bounded;
use crate::support::ledger::{self, Ledger};
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode};
use crate::support::relay::Relay;
use crate::support::situations::{self, Stage};
use crate::support::sse::{Frame, Stream};

/// How far behind opencode the relay may be in a test.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);
/// Nothing more than expected comes within this.
const SURPLUS_SPAN: Duration = Duration::from_millis(150);

/// A client of the relay beside the recorder at opencode itself.
struct Client {
    name: &'static str,
    stream: Stream,
    /// Up to where its frames were compared, and up to where the recorder's.
    taken: usize,
    direct_taken: usize,
    /// How much later than the recorder it got each frame.
    delays: Vec<Duration>,
    /// Its directory; `None` for the global stream.
    directory: Option<String>,
}

impl Client {
    async fn open(name: &'static str, relay: &Relay, directory: Option<&str>) -> Self {
        let stream = match (name, directory) {
            ("/global/event", _) => Stream::open(&relay.api(), "/global/event").await,
            // The first directory is the server's own: no word about it is needed.
            ("/event", _) | (_, None) => Stream::open(&relay.api(), "/event").await,
            (_, Some(directory)) => Stream::open(&relay.api().within(directory), "/event").await,
        };
        Self {
            name,
            stream: stream.unwrap(),
            taken: 0,
            direct_taken: 0,
            delays: Vec::new(),
            directory: directory.map(str::to_owned),
        }
    }

    /// Whether this client should have got a frame that came at opencode itself.
    fn is_for_me(&self, frame: &Frame) -> bool {
        let in_scope = match &self.directory {
            Some(directory) => frame.kind() != "sync" && frame.directory().as_ref() == Some(directory),
            None => true,
        };
        in_scope && !frame.is_greeting_or_heartbeat()
    }

    /// A frame as it is compared: the event's bytes, on the global stream with what is around them.
    fn shown(&self, frame: &Frame) -> String {
        match self.directory {
            Some(_) => frame.payload().to_owned(),
            None => {
                let data = frame.json();
                format!("{} {} {}", data["directory"], data["project"], frame.payload())
            }
        }
    }

    /// Compares what came since the last time; returns how many frames were equal.
    ///
    /// Both sides may still grow, a busy machine has events come late: unlike frames fail at once, a missing or
    /// surplus one only when the other side does not bring it in time.
    async fn compare(&mut self, direct: &Stream, relay: &Relay) -> usize {
        let deadline = Instant::now() + CATCH_UP_LIMIT;
        loop {
            self.stream.settle(SURPLUS_SPAN, CATCH_UP_LIMIT).await;
            let (all_expected, all_got) = (direct.frames_from(self.direct_taken), self.stream.frames_from(self.taken));
            let expected = Vec::from_iter(all_expected.iter().filter(|frame| self.is_for_me(frame)));
            let got = Vec::from_iter(all_got.iter().filter(|frame| !frame.is_greeting_or_heartbeat()));
            let pairs = || expected.iter().zip(&got);
            let equal = pairs().take_while(|(direct, relayed)| self.shown(direct) == self.shown(relayed)).count();
            if equal == expected.len() && equal == got.len() {
                self.delays.extend(pairs().map(|(direct, relayed)| relayed.at.saturating_duration_since(direct.at)));
                self.direct_taken += all_expected.len();
                self.taken += all_got.len();
                assert_eq!(self.stream.end(), None, "{} stays open", self.name);
                return equal;
            }
            let may_still_come = equal == expected.len().min(got.len()) && Instant::now() < deadline;
            assert!(
                may_still_come,
                "{}: {equal} frames are equal, then of {} at opencode\n  {:?}\nand of {} at the relay\n  {:?}\n{}",
                self.name,
                expected.len(),
                Vec::from_iter(expected.iter().skip(equal).take(3).map(|frame| self.shown(frame))),
                got.len(),
                Vec::from_iter(got.iter().skip(equal).take(3).map(|frame| self.shown(frame))),
                relay.output(),
            );
        }
    }
}

/// opencode with a recorder of its own, the relay beside it, and three clients of the relay.
struct Scene {
    version: &'static str,
    direct: Stream,
    /// Up to where the recorder's frames were compared.
    taken: usize,
    /// Up to where the bus log was counted.
    line: usize,
    clients: Vec<Client>,
    stage: Stage,
    relay: Relay,
    opencode: Opencode,
    _model: ScriptedModel,
}

impl Scene {
    async fn set(version: &'static str, log: &str, witness: &str) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let opencode = Home::new(version, &model).start().await;
        let direct = Stream::open(&opencode.api(), "/global/event").await.unwrap();
        let relay = Relay::beside(&opencode, log, witness, &[]).await;
        let stage = Stage::set(&opencode, &model, &relay.api()).await;
        situations::settle(&direct).await;
        let mut clients = Vec::new();
        let [first, second] = stage.directories();
        for (name, directory) in [("/event", Some(first)), ("/event?directory=", Some(second)), ("/global/event", None)]
        {
            clients.push(Client::open(name, &relay, directory).await);
        }
        situations::settle(&direct).await;
        for client in &mut clients {
            client.stream.settle(SURPLUS_SPAN, CATCH_UP_LIMIT).await;
            (client.taken, client.direct_taken) = (client.stream.len(), direct.len());
        }
        let (taken, line) = (direct.len(), opencode.published().len());
        Self { version, direct, taken, line, clients, stage, relay, opencode, _model: model }
    }

    /// Compares what happened since the last time and prints the line of the table.
    async fn compare(&mut self, name: &str) {
        situations::settle(&self.direct).await;
        let published = self.opencode.published().len() - self.line;
        self.line += published;
        let fresh = self.direct.frames_from(self.taken);
        self.taken += fresh.len();
        let mut equal = Vec::new();
        for client in &mut self.clients {
            equal.push(client.compare(&self.direct, &self.relay).await);
        }
        let delivered = ledger::count(fresh.iter().map(|frame| frame.kind())).values().sum::<usize>();
        let [first, second, global] = equal[..] else { unreachable!("three clients") };
        println!(
            "| {} | {name} | log {published} | stream {delivered} | equal {first} + {second}, global {global} |",
            self.version
        );
    }
}

/// All situations, driven through the relay.
async fn auto_equals_global_event(version: &'static str, log: &str) {
    let mut scene = Scene::set(version, log, "auto").await;
    let has_log = log != "none";
    let before = if has_log { Ledger::read(&scene.relay.api()).await } else { Ledger::default() };
    let (first_line, first_frame) = (scene.line, scene.taken);
    for (name, situation) in situations::ALL {
        situation(&scene.stage).await;
        scene.compare(name).await;
    }
    if has_log {
        Ledger::until(&scene.relay, &before, |ledger| {
            // Counted anew each time: both sides may still grow.
            let published = ledger::count(scene.opencode.published().split_off(first_line));
            let delivered = ledger::count(scene.direct.frames_from(first_frame).iter().map(|frame| frame.kind()));
            let mut wrong = ledger.differences("published", &published, |counts| counts.published);
            wrong.extend(ledger.differences("delivered", &delivered, |counts| counts.delivered));
            wrong.extend(ledger.differences("unrecoverable", &BTreeMap::new(), |counts| counts.unrecoverable));
            wrong.extend(ledger.differences("pending", &BTreeMap::new(), |counts| counts.pending));
            wrong
        })
        .await;
    }
    for client in &mut scene.clients {
        client.delays.sort();
        let at = |percent: usize| client.delays[(client.delays.len() - 1) * percent / 100];
        println!(
            "| {version} | {} behind the recorder | p50 {:?} | p99 {:?} | of {} |",
            client.name,
            at(50),
            at(99),
            client.delays.len()
        );
    }
    // However many clients the relay has, it is one to opencode.
    let connected = |line: &str| line.contains("event connected");
    let upstream = scene.opencode.stderr().from(0).iter().filter(|line| connected(&line.text)).count();
    assert!(upstream <= 2, "the recorder's stream and the relay's, but {upstream} were opened");
}

#[tokio::test]
async fn auto_equals_global_event_1_14_48() {
    bounded(auto_equals_global_event("1.14.48", Relay::TEE)).await;
}

#[tokio::test]
async fn auto_equals_global_event_1_14_41() {
    bounded(auto_equals_global_event("1.14.41", Relay::TEE)).await;
}

#[tokio::test]
async fn auto_equals_global_event_1_15_0() {
    bounded(auto_equals_global_event("1.15.0", Relay::TEE)).await;
}

#[tokio::test]
async fn auto_equals_global_event_1_17_11() {
    bounded(auto_equals_global_event("1.17.11", "none")).await;
}

#[tokio::test]
async fn auto_equals_global_event_1_18_34() {
    bounded(auto_equals_global_event("1.18.34", "none")).await;
}

/// `--witness stream` reads no log, and tells the same.
#[tokio::test]
async fn stream_equals_global_event_1_14_48() {
    bounded(async {
        let mut scene = Scene::set("1.14.48", "none", "stream").await;
        for name in ["text turn", "permission asked", "instance disposed"] {
            let (_, situation) = situations::ALL.iter().find(|(known, _)| *known == name).unwrap();
            situation(&scene.stage).await;
            scene.compare(name).await;
        }
        let status = scene.relay.api().get("/_relay/status").await;
        assert_eq!(status["witnesses"]["log"]["state"], "none");
        assert_eq!(status["witnesses"]["state"]["events"], 0);
    })
    .await;
}

/// A session's title can print lines that look like the log's. Nothing comes of them.
#[tokio::test]
async fn a_forged_line_makes_no_event() {
    bounded(async {
        let mut scene = Scene::set("1.14.48", Relay::TEE, "auto").await;
        let before = scene.opencode.published().len();
        situations::forge(&scene.stage, &["session.deleted", "session.idle", "permission.asked"]).await;
        situations::settle(&scene.direct).await;
        let published = scene.opencode.published().split_off(before);
        assert!(published.contains(&"session.deleted".to_owned()), "the forged line is in the log: {published:?}");
        scene.compare("forged lines").await;
        // A real event after it is still told, once.
        situations::text_turn(&scene.stage).await;
        scene.compare("a turn after them").await;
    })
    .await;
}
