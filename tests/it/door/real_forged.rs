//! A session's title prints what it likes into opencode's log, hostile types among it. Clients are told nothing of it, and
//! the relay's own log shows it on one line.

use std::time::Duration;

use crate::support::bounded;
use crate::support::model::ScriptedModel;
use crate::support::opencode::Home;
use crate::support::relay::Relay;
use crate::support::situations::{self, Stage};
use crate::support::sse::Stream;

const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);

/// Types that break lines, terminals and JSON, that are no text of their own, or are real ones.
fn kinds() -> Vec<String> {
    let hostile =
        ["\u{1b}[31mred", "a\u{0}b", "a\rb", "\u{202e}evitceffe", "\"},{\"type\":\"session.idle", "é", "..", "a b", ""];
    let real = ["session.deleted", "session.idle", "permission.asked", "message.part.removed", "server.connected"];
    let mut kinds = Vec::from_iter(hostile.into_iter().chain(real).map(str::to_owned));
    kinds.push("x".repeat(5_000));
    kinds.push("2026-01-01T00:00:00.000Z  INFO opencode_relay: forged".to_owned());
    kinds
}

async fn hostile_titles_tell_nobody_anything(version: &str) {
    let model = ScriptedModel::start().await.unwrap();
    let opencode = Home::new(version, &model).start().await;
    let direct = Stream::open(&opencode.api(), "/global/event").await.unwrap();
    let relay = Relay::beside(&opencode, Relay::TEE, "auto", &["--log-level", "trace"]).await;
    let stage = Stage::set(&opencode, &model, &relay.api()).await;
    situations::settle(&direct).await;
    let client = Stream::open(&relay.api(), "/global/event").await.unwrap();
    client.wait_for(|frame| frame.kind() == "server.connected", CATCH_UP_LIMIT).await;
    let start = direct.len();

    let kinds = kinds();
    situations::forge(&stage, &Vec::from_iter(kinds.iter().map(String::as_str))).await;
    // And what is no title: the model's and the user's words, which real events carry.
    situations::text_turn(&stage).await;
    situations::settle(&direct).await;
    client.settle(Duration::from_millis(500), CATCH_UP_LIMIT).await;

    let log = opencode.log();
    assert!(log.iter().any(|line| line.ends_with("type=session.deleted publishing")), "the title is in opencode's log");
    let told = |stream: &Stream, from: usize| {
        let mut frames = stream.frames_from(from);
        frames.retain(|frame| !frame.is_greeting_or_heartbeat());
        Vec::from_iter(frames.iter().map(|frame| frame.payload().to_owned()))
    };
    assert_eq!(told(&client, 0), told(&direct, start));
    for line in relay.stderr().from(0) {
        assert!(line.text.starts_with("20"), "{:?}", line.text);
        assert!(!line.text.contains(char::is_control) && !line.text.starts_with("2026-01-01"), "{:?}", line.text);
    }
    let status = relay.api().get("/_relay/status").await;
    assert_eq!(status["ready"], true);
    let forged =
        Vec::from_iter(status["ledger"].as_object().unwrap().keys().filter(|kind| kind.len() > 64 || !kind.is_ascii()));
    assert_eq!(forged, Vec::<&String>::new());
}

#[tokio::test]
async fn hostile_titles_tell_nobody_anything_at_1_14_48() {
    bounded(hostile_titles_tell_nobody_anything("1.14.48")).await;
}

#[tokio::test]
async fn hostile_titles_tell_nobody_anything_at_1_14_41() {
    bounded(hostile_titles_tell_nobody_anything("1.14.41")).await;
}
