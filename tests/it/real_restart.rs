//! opencode dies and comes back under a relay beside it: streams stay open, clients end up with what REST says, and
//! opencode's own stream is read again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::bounded;
use crate::support::fold::Fold;
use crate::support::model::ScriptedModel;
use crate::support::opencode::Home;
use crate::support::relay::Relay;
use crate::support::situations::{self, Stage};
use crate::support::sse::Stream;

const CONVERGE_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// A request that reaches a starting opencode before it says that it listens is accepted and never answered (1.14.48
/// to 1.18.34; up to a second long): whoever reconnects at once and waits without a limit waits forever.
async fn a_restart_is_survived(version: &str, log: &str) {
    let model = ScriptedModel::start().await.unwrap();
    let mut opencode = Home::new(version, &model).start().await;
    let relay = Relay::beside(&opencode, log, "auto", &[]).await;
    let stage = Stage::set(&opencode, &model, &relay.api()).await;
    let client = Stream::open(&relay.api(), "/event").await.unwrap();
    let mut fold = Fold::default();
    for _ in 0..2 {
        situations::text_turn(&stage).await;
        let deadline = Instant::now() + CONVERGE_LIMIT;
        loop {
            fold.catch_up(&client);
            let wrong = fold.compare(&opencode.api(), &[&stage.first_directory]).await;
            if wrong.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{wrong:#?}\n{}", relay.output());
            sleep(PAUSE).await;
        }
        let deadline = Instant::now() + CONVERGE_LIMIT;
        // Word by word: that only the stream can tell.
        while !streams_words(&client, &stage).await {
            assert!(Instant::now() < deadline, "opencode's stream is not read again\n{}", relay.output());
        }
        fold.catch_up(&client);
        assert_eq!(client.end(), None);
        opencode.restart().await;
    }
}

/// Whether a turn's words come one by one.
async fn streams_words(client: &Stream, stage: &Stage) -> bool {
    let before = client.len();
    let session = situations::create(&stage.first, "word by word").await;
    situations::turn(&stage.first, &session, "WORDS=8 DELAY=10").await;
    client.settle(Duration::from_millis(300), CONVERGE_LIMIT).await;
    client.frames_from(before).iter().filter(|frame| frame.kind() == "message.part.delta").count() >= 8
}

#[tokio::test]
async fn a_restart_is_survived_1_14_48() {
    bounded(a_restart_is_survived("1.14.48", Relay::TEE)).await;
}

#[tokio::test]
async fn a_restart_is_survived_1_18_34() {
    bounded(a_restart_is_survived("1.18.34", "none")).await;
}
