//! `--witness log` in front of real releases: no stream of opencode is ever opened, and still a client that folds the
//! relay's events holds what REST says.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::bounded;
use crate::support::fold::Fold;
use crate::support::journald::{Journalctl, Journald, Tail, UNIT};
use crate::support::ledger::{self, Ledger};
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode};
use crate::support::relay::Relay;
use crate::support::situations::{self, Did, Situation, Stage};
use crate::support::sse::Stream;

/// How long the relay may take until its clients know what REST says.
const CONVERGE_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// No bus line for so long: the situation is over.
const QUIET: Duration = Duration::from_millis(700);

/// Nothing more comes within this.
const SURPLUS_SPAN: Duration = Duration::from_millis(150);

/// A relay that does not converge takes its time; so often is enough to see why.
const MOST_FAILURES: usize = 3;

/// Where opencode writes its log.
#[derive(Clone, Copy)]
enum Log {
    Stderr,
    Folder,
    /// systemd's journal, in which it stands as what a unit wrote.
    Journald,
}

/// A client of the relay in one directory.
struct Client {
    directory: String,
    stream: Stream,
    fold: Fold,
}

/// opencode, the relay that reads its log, and a folding client per directory.
struct Scene {
    clients: Vec<Client>,
    failures: Vec<String>,
    /// Of so many turns that end one right after the other, how many ends a client hears at least.
    least: fn(usize) -> usize,
    stage: Stage,
    relay: Relay,
    opencode: Opencode,
    _model: ScriptedModel,
    _journald: Option<(Journald, Journalctl, Tail)>,
}

impl Scene {
    async fn set(version: &str, log: Log) -> Self {
        let model = ScriptedModel::start().await.unwrap();
        let home = Home::new(version, &model);
        let (home, source) = match log {
            Log::Stderr => (home, Relay::TEE.to_owned()),
            Log::Folder => {
                let source = format!("dir:{}", home.log_folder().display());
                (home.with_log_file(), source)
            }
            Log::Journald => (home, format!("journald:{UNIT}")),
        };
        let opencode = home.start().await;
        let (mut journald, mut env) = (None, opencode.home.env());
        if let Log::Journald = log {
            let running = Journald::start("RateLimitBurst=0").await;
            let (journalctl, tail) = (running.journalctl(), running.tail(&opencode.home.stderr_file(), UNIT));
            // The first that is found.
            env.extend(journalctl.env());
            journald = Some((running, journalctl, tail));
        }
        // journald is heard four times a second; what happened in between is seen at once.
        let least = if journald.is_some() { |turns: usize| turns.min(1) } else { |turns| turns };
        let relay = Relay::beside_in(&env, &opencode, &source, "log", &[]).await;
        let stage = Stage::set(&opencode, &model, &relay.api()).await;
        let mut clients = Vec::new();
        for directory in stage.directories() {
            let stream = Stream::open(&relay.api().within(directory), "/event").await.unwrap();
            clients.push(Client { directory: directory.to_owned(), stream, fold: Fold::default() });
        }
        opencode.settle(QUIET).await;
        Self { clients, failures: Vec::new(), least, stage, relay, opencode, _model: model, _journald: journald }
    }

    /// Drives a situation and waits until every client knows all about it; prints the line of the table.
    async fn play(&mut self, name: &str, situation: Situation) {
        let (begin, log, received) = (Instant::now(), self.opencode.published().len(), self.received());
        let did = situation(&self.stage).await;
        let driven = begin.elapsed();
        self.converge(name, &did).await;
        println!(
            "| {name} | log {} | received {} | driven in {driven:?}, converged and quiet after {:?} |",
            self.opencode.published().len() - log,
            self.received() - received,
            begin.elapsed(),
        );
    }

    /// Waits until every client holds what REST says and was told of the end of every turn, once. What is wrong is
    /// kept: the other situations are worth knowing about too.
    async fn converge(&mut self, name: &str, did: &Did) {
        self.opencode.settle(QUIET).await;
        let deadline = Instant::now() + CONVERGE_LIMIT;
        loop {
            let mut wrong = self.differences(did).await;
            if wrong.is_empty() {
                // And it stays so: nothing is told twice.
                for client in &self.clients {
                    client.stream.settle(SURPLUS_SPAN, CONVERGE_LIMIT).await;
                }
                wrong = self.differences(did).await;
                if wrong.is_empty() {
                    return;
                }
            }
            if Instant::now() > deadline {
                self.failures.push(format!("{name}: {wrong:#?}"));
                break;
            }
            sleep(PAUSE).await;
        }
        if self.failures.len() >= MOST_FAILURES {
            self.finish();
        }
    }

    /// Fails the test if anything was wrong.
    fn finish(&self) {
        assert!(self.failures.is_empty(), "{}\n{}", self.failures.join("\n"), self.relay.output());
    }

    async fn differences(&mut self, did: &Did) -> Vec<String> {
        let mut wrong = Vec::new();
        for client in &mut self.clients {
            client.fold.catch_up(&client.stream);
            wrong.extend(client.fold.compare(&self.opencode.api(), &[&client.directory]).await);
            wrong.extend(client.stream.end().map(|end| format!("the stream of {} ended: {end:?}", client.directory)));
        }
        for (session, turns) in &did.turns {
            let idles: usize = self.clients.iter().filter_map(|client| client.fold.idles.get(session)).sum();
            // opencode says it twice after an abort, and REST knows of one.
            let most = turns + did.aborted;
            if !((self.least)(*turns)..=most).contains(&idles) {
                wrong.push(format!("{turns} turns of {session}, {idles} times idle"));
            }
        }
        wrong
    }

    fn received(&self) -> usize {
        let received =
            |client: &Client| client.stream.frames().iter().filter(|frame| !frame.is_greeting_or_heartbeat()).count();
        self.clients.iter().map(received).sum()
    }

    /// The relay opened no stream: opencode logs each.
    fn check_no_stream(&self) {
        let connected = Vec::from_iter(self.opencode.log().into_iter().filter(|line| line.contains("event connected")));
        assert_eq!(connected, Vec::<String>::new(), "no stream of opencode is opened");
    }
}

async fn log_converges(version: &'static str, log: Log) {
    let mut scene = Scene::set(version, log).await;
    let before = Ledger::read(&scene.relay.api()).await;
    let first_line = scene.opencode.published().len();
    for (name, situation) in situations::ALL {
        scene.play(&format!("{version} | {name}"), *situation).await;
    }
    for client in &scene.clients {
        let unlike = client.fold.deltas_unlike(&scene.opencode.api().within(&client.directory)).await;
        scene.failures.extend(unlike.iter().map(|unlike| format!("the deltas of a part are not its text: {unlike}")));
        println!("| {version} | deltas ahead of their part in {}: {} |", client.directory, client.fold.orphans.len());
    }
    scene.finish();
    let added = Ledger::until(&scene.relay, &before, |ledger| {
        // Counted anew each time: both sides may still grow.
        let published = ledger::count(scene.opencode.published().split_off(first_line));
        let mut wrong = ledger.differences("published", &published, |counts| counts.published);
        wrong.extend(ledger.differences("delivered", &[].into(), |counts| counts.delivered));
        wrong
    });
    println!("{}", added.await.table());
    scene.check_no_stream();
}

#[tokio::test]
async fn log_converges_1_14_48() {
    bounded(log_converges("1.14.48", Log::Stderr)).await;
}

#[tokio::test]
async fn log_converges_1_14_41() {
    bounded(log_converges("1.14.41", Log::Stderr)).await;
}

#[tokio::test]
async fn log_converges_1_15_0() {
    bounded(log_converges("1.15.0", Log::Stderr)).await;
}

#[tokio::test]
async fn log_converges_by_the_journal_of_systemd() {
    bounded(log_converges("1.14.48", Log::Journald)).await;
}

/// opencode logs into a folder, a new file per start.
#[tokio::test]
async fn a_log_folder_is_followed_through_a_restart() {
    bounded(async {
        let mut scene = Scene::set("1.14.48", Log::Folder).await;
        for start in ["before", "after"] {
            scene.play(&format!("text turn, {start}"), |stage| Box::pin(situations::text_turn(stage))).await;
            scene.play(&format!("three sessions, {start}"), |stage| Box::pin(situations::three_sessions(stage))).await;
            scene.finish();
            scene.check_no_stream();
            if start == "before" {
                scene.opencode.restart().await;
            }
        }
    })
    .await;
}

/// A session's title can print lines that look like the log's. Nothing but a read of the state comes of them.
#[tokio::test]
async fn a_forged_line_makes_no_event() {
    bounded(async {
        let mut scene = Scene::set("1.14.48", Log::Stderr).await;
        let forged = ["session.deleted", "session.idle", "permission.asked", "todo.updated"];
        let did = situations::forge(&scene.stage, &forged).await;
        scene.converge("forged lines", &did).await;
        scene.finish();
        let published = scene.opencode.published();
        assert!(
            forged.iter().all(|kind| published.iter().any(|line| line == kind)),
            "they are in the log: {published:?}"
        );
        for client in &scene.clients {
            let came = forged.iter().filter(|kind| client.fold.types.contains_key(**kind));
            assert_eq!(Vec::from_iter(came), Vec::<&&str>::new());
        }
        // And what is true is still told.
        scene.play("a turn after them", |stage| Box::pin(situations::text_turn(stage))).await;
        scene.finish();
    })
    .await;
}
