//! `--witness log` in front of real releases: no stream of opencode is ever opened, and still a client that folds the
//! relay's events holds what REST says.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::bounded;
use crate::support::fold::Fold;
use crate::support::ledger::{self, Ledger};
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode};
use crate::support::relay::Relay;
use crate::support::situations::{self, Did, Stage};
use crate::support::sse::Stream;

/// How long the relay may take until its clients know what REST says.
const CONVERGE_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// No bus line for so long: the situation is over.
const QUIET: Duration = Duration::from_millis(700);

/// A client of the relay in one directory.
struct Client {
    directory: String,
    stream: Stream,
    fold: Fold,
}

/// opencode, the relay that reads its log, and a folding client per directory.
struct Scene {
    clients: Vec<Client>,
    stage: Stage,
    relay: Relay,
    opencode: Opencode,
    _model: ScriptedModel,
}

impl Scene {
    async fn set(version: &str) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let opencode = Home::new(version, &model).start().await;
        let relay = Relay::beside(&opencode, Relay::TEE, "log", &[]).await;
        let stage = Stage::set(&opencode, &model, &relay.api()).await;
        let mut clients = Vec::new();
        for directory in stage.directories() {
            let stream = Stream::open(&relay.api().within(directory), "/event").await.unwrap();
            clients.push(Client { directory: directory.to_owned(), stream, fold: Fold::default() });
        }
        opencode.settle(QUIET).await;
        Self { clients, stage, relay, opencode, _model: model }
    }

    /// Waits until every client holds what REST says; fails the test with the differences.
    async fn converge(&mut self, name: &str) {
        self.opencode.settle(QUIET).await;
        let deadline = Instant::now() + CONVERGE_LIMIT;
        for client in &mut self.clients {
            loop {
                client.fold.catch_up(&client.stream);
                let differences = client.fold.compare(&self.opencode.api(), &[&client.directory]).await;
                if differences.is_empty() {
                    break;
                }
                assert!(Instant::now() < deadline, "{name}: {differences:#?}\n{}", self.relay.output());
                sleep(PAUSE).await;
            }
            assert_eq!(client.stream.end(), None, "{name}: the stream stays open");
        }
    }

    /// What clients were told of a session, for a failure's message.
    fn told(&self, session: &str) -> Vec<String> {
        let frames = self.clients.iter().flat_map(|client| client.stream.frames());
        let lines = frames.filter(|frame| frame.payload().contains(session));
        lines.map(|frame| frame.payload().chars().take(300).collect()).collect()
    }

    /// Every turn that was driven is told to be over, once.
    fn check_idles(&self, name: &str, did: &Did) {
        for (session, turns) in &did.turns {
            let idles: usize = self.clients.iter().filter_map(|client| client.fold.idles.get(session)).sum();
            // opencode says it twice after an abort, and REST knows of one.
            let most = turns + did.aborted;
            let told = || self.told(session).join("\n");
            assert!(
                (*turns..=most).contains(&idles),
                "{name}: {turns} turns of {session}, {idles} times idle\n{}",
                told()
            );
        }
    }
}

async fn log_converges(version: &'static str) {
    let mut scene = Scene::set(version).await;
    let before = Ledger::read(&scene.relay.api()).await;
    let first_line = scene.opencode.published().len();
    for (name, situation) in situations::ALL {
        let begin = (Instant::now(), scene.opencode.published().len(), received(&scene.clients));
        let did = situation(&scene.stage).await;
        scene.converge(name).await;
        scene.check_idles(name, &did);
        println!(
            "| {version} | {name} | log {} | received {} | converged after {:?} |",
            scene.opencode.published().len() - begin.1,
            received(&scene.clients) - begin.2,
            begin.0.elapsed(),
        );
    }
    for client in &scene.clients {
        let unlike = client.fold.deltas_unlike(&scene.opencode.api().within(&client.directory)).await;
        assert_eq!(unlike, Vec::<String>::new(), "the deltas of a part are its text");
    }
    let published = ledger::count(scene.opencode.published().split_off(first_line));
    let added = Ledger::until(&scene.relay, &before, |ledger| {
        let mut wrong = ledger.differences("published", &published, |counts| counts.published);
        wrong.extend(ledger.differences("delivered", &[].into(), |counts| counts.delivered));
        wrong
    });
    println!("{}", added.await.table());
    let lines = scene.opencode.stderr().from(0);
    let connected = Vec::from_iter(lines.iter().filter(|line| line.text.contains("event connected")));
    assert!(connected.is_empty(), "no stream of opencode is opened: {connected:?}");
}

fn received(clients: &[Client]) -> usize {
    clients
        .iter()
        .map(|client| client.stream.frames().iter().filter(|frame| !frame.is_greeting_or_heartbeat()).count())
        .sum()
}

#[tokio::test]
async fn log_converges_1_14_48() {
    bounded(log_converges("1.14.48")).await;
}

#[tokio::test]
async fn log_converges_1_14_41() {
    bounded(log_converges("1.14.41")).await;
}

#[tokio::test]
async fn log_converges_1_15_0() {
    bounded(log_converges("1.15.0")).await;
}

/// A session's title can print lines that look like the log's. Nothing but a read of the state comes of them.
#[tokio::test]
async fn a_forged_line_makes_no_event() {
    bounded(async {
        let mut scene = Scene::set("1.14.48").await;
        let forged = ["session.deleted", "session.idle", "permission.asked", "todo.updated"];
        let did = situations::forge(&scene.stage, &forged).await;
        scene.converge("forged lines").await;
        let published = scene.opencode.published();
        assert!(published.contains(&"session.deleted".to_owned()), "the forged line is in the log: {published:?}");
        for client in &scene.clients {
            let came = forged.iter().filter(|kind| client.fold.types.contains_key(**kind));
            assert_eq!(Vec::from_iter(came), Vec::<&&str>::new());
        }
        scene.check_idles("forged lines", &did);
        // And what is true is still told.
        let did = situations::text_turn(&scene.stage).await;
        scene.converge("a turn after them").await;
        scene.check_idles("a turn after them", &did);
    })
    .await;
}
