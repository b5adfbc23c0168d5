//! What no stream tells: a turn that another opencode process runs on the same data, and one that was run while the relay
//! was down.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::support::bounded;
use crate::support::fold::Fold;
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode, binary, free_port};
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::support::situations::{create, turn};
use crate::support::sse::{Frame, Stream};

const RUN_LIMIT: Duration = Duration::from_secs(40);
const CONVERGE_LIMIT: Duration = Duration::from_secs(25);
const PAUSE: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_millis(700);

/// Waits until the client holds what opencode does; says how long that took.
async fn converge(fold: &mut Fold, client: &Stream, opencode: &Opencode, relay: &Relay) -> Duration {
    let began = Instant::now();
    loop {
        fold.catch_up(client);
        let wrong = fold.compare(&opencode.api(), &[&opencode.home.project()]).await;
        if wrong.is_empty() {
            return began.elapsed();
        }
        assert!(began.elapsed() < CONVERGE_LIMIT, "{wrong:#?}\n{}", relay.output());
        sleep(PAUSE).await;
    }
}

fn id(frame: &Frame) -> Option<String> {
    frame.payload_json()["id"].as_str().map(str::to_owned)
}

/// No event came twice.
fn once(frames: &[std::sync::Arc<Frame>]) {
    let mut seen = BTreeSet::new();
    for frame in frames.iter().filter(|frame| frame.kind() != "sync") {
        assert!(id(frame).is_none_or(|id| seen.insert(id)), "twice: {}", frame.payload());
    }
}

async fn another_process_is_followed(version: &str, home: Home, log: &str) {
    let opencode = home.start().await;
    let relay = Relay::beside(&opencode, log, "auto", &[]).await;
    let client = Stream::open(&relay.api(), "/event").await.unwrap();
    let mut fold = Fold::default();
    let own = create(&relay.api(), "own").await;
    turn(&relay.api(), &own, "WORDS=5 DELAY=10").await;
    converge(&mut fold, &client, &opencode, &relay).await;

    let command = [binary(version).to_str().unwrap(), "run", "WORDS=20 DELAY=60"].map(str::to_owned);
    let home = &opencode.home;
    let mut run = Process::start(&command, &home.env(), Path::new(&home.project()), None).unwrap();
    let before = client.len();
    // While it runs, the server's own session goes on.
    turn(&relay.api(), &own, "WORDS=5 DELAY=10").await;
    let status = run.wait(RUN_LIMIT).await;
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", run.output());
    let late = converge(&mut fold, &client, &opencode, &relay).await;

    let frames = client.frames_from(before);
    let of = |frame: &Frame| frame.payload_json()["properties"]["sessionID"].as_str().map(str::to_owned);
    let kinds: Vec<String> =
        frames.iter().filter(|frame| of(frame).is_some_and(|id| id != own)).map(|frame| frame.kind()).collect();
    println!("{version} {log}: {late:?} after the end; {kinds:?}");
    for kind in ["session.created", "message.updated", "message.part.updated"] {
        assert!(kinds.iter().any(|seen| seen == kind), "no {kind} in {kinds:?}");
    }
    once(&client.frames());
}

#[tokio::test]
async fn another_process_is_followed_1_14_48() {
    bounded(async {
        let model = ScriptedModel::start().await.unwrap();
        let home = Home::new("1.14.48", &model).with_log_file();
        let log = format!("dir:{}", home.log_folder().display());
        another_process_is_followed("1.14.48", home, &log).await;
    })
    .await;
}

#[tokio::test]
async fn another_process_is_followed_1_18_34() {
    bounded(async {
        let model = ScriptedModel::start().await.unwrap();
        another_process_is_followed("1.18.34", Home::new("1.18.34", &model), "none").await;
    })
    .await;
}

/// What clients are told after a restart of the relay, in order; the recorder stood at opencode's own stream meanwhile.
async fn a_turn_without_the_relay(version: &str, log: &str) -> (Vec<String>, Vec<String>) {
    let model = ScriptedModel::start().await.unwrap();
    let opencode = Home::new(version, &model).start().await;
    let tee = format!("file:{}", opencode.home.stderr_file().display());
    let log = if log == Relay::TEE { tee.as_str() } else { log };
    let state = opencode.home.scratch().join("state");
    let arguments = ["--upstream", opencode.base(), "--log", log, "--state-dir", state.to_str().unwrap()];
    let (port, env, scratch) = (free_port(), opencode.home.env(), opencode.home.scratch());
    let mut relay = Relay::start_at(port, &arguments, &env, &scratch).await;
    let client = Stream::open(&relay.api(), "/event").await.unwrap();
    let mut fold = Fold::default();
    let known = create(&relay.api(), "known").await;
    turn(&relay.api(), &known, "WORDS=5 DELAY=10").await;
    converge(&mut fold, &client, &opencode, &relay).await;
    client.settle(QUIET, CONVERGE_LIMIT).await;
    fold.catch_up(&client);

    relay.signal(Signal::KILL);
    relay.wait(Duration::from_secs(5)).await;
    let last = client.frames().iter().rev().find_map(|frame| frame.id.clone()).unwrap();
    let recorder = Stream::open(&opencode.api(), "/global/event").await.unwrap();
    turn(&opencode.api(), &known, "WORDS=6 DELAY=10").await;
    let begun = create(&opencode.api(), "begun meanwhile").await;
    turn(&opencode.api(), &begun, "WORDS=4 DELAY=10").await;
    recorder.settle(QUIET, CONVERGE_LIMIT).await;
    let missed = recorder.len();

    let relay = Relay::start_at(port, &arguments, &env, &scratch).await;
    let client = Stream::open_url(&relay.api().url("/event"), &[("Last-Event-ID", &last)]).await.unwrap();
    let greeting = client.wait_for(|frame| frame.kind() == "server.connected", RUN_LIMIT).await;
    assert_eq!(greeting.payload_json()["properties"]["resumed"], true, "{}", greeting.payload());
    // The stream's new events come after what was missed.
    turn(&relay.api(), &known, "WORDS=3 DELAY=10").await;
    fold.go_on_with_another_stream();
    converge(&mut fold, &client, &opencode, &relay).await;
    client.settle(QUIET, CONVERGE_LIMIT).await;
    once(&client.frames());
    let told: Vec<String> = client.frames().iter().filter_map(|frame| id(frame)).collect();
    let durable = |frame: &Frame| frame.kind() == "sync";
    let missed = recorder.frames().into_iter().take(missed).filter(|frame| durable(frame));
    let missed =
        missed.filter_map(|frame| frame.payload_json()["syncEvent"]["id"].as_str().map(str::to_owned)).collect();
    (told, missed)
}

/// The bus log was read from where it was left; the last state of everything is told.
#[tokio::test]
async fn a_turn_without_the_relay_is_told_1_14_48() {
    bounded(async {
        a_turn_without_the_relay("1.14.48", Relay::TEE).await;
    })
    .await;
}

/// opencode's own record tells every durable event, by its own id.
#[tokio::test]
async fn a_turn_without_the_relay_is_told_word_by_word_1_18_34() {
    bounded(async {
        let (told, missed) = a_turn_without_the_relay("1.18.34", "none").await;
        let lost: Vec<&String> = missed.iter().filter(|id| !told.contains(id)).collect();
        println!(
            "{} durable events while the relay was down, {} of them told",
            missed.len(),
            missed.len() - lost.len()
        );
        assert!(missed.len() > 20, "{missed:?}");
        assert!(lost.is_empty(), "{lost:?}");
    })
    .await;
}
