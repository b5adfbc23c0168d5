//! The official JS SDK, `@opencode-ai/sdk`, of the same release.

use serde_json::{Value, json};

use super::comeback::Beside;
use super::fixture::{Cutter, Served, bounded, fetched, seen, source, tool};
use crate::support::opencode::Home;
use crate::support::process::Process;

fn subscribe(home: &Home, base: &str) -> Process {
    fetched("sdk/node_modules/@opencode-ai/sdk");
    tool("node", &[source("sdk/events.mjs").to_str().unwrap(), base], &home.scratch())
}

fn see(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

#[tokio::test]
async fn the_sdk_subscribes() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let client = subscribe(&served.home, served.relay.base());
        let events = served.turn(&client, see).await;
        served.compare(&events);
        assert_eq!(client.stderr.len(), 0, "{}", client.output());
    })
    .await;
}

/// The SDK has resumed by `Last-Event-ID` all along; opencode gives it no ids, the relay does.
#[tokio::test]
async fn the_sdk_comes_back_and_misses_nothing() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        // In the middle of frames, wherever that is.
        let cutter = Cutter::start(&served.relay, &[3_000, 2_500]).await;
        let client = subscribe(&served.home, &cutter.base());
        let events = served.turn(&client, see).await;
        let greetings =
            Vec::from_iter(seen(&client.stdout, see).into_iter().filter(|event| event["type"] == "server.connected"));
        served.compare(&events);

        let properties = Vec::from_iter(greetings.iter().map(|greeting| greeting["properties"].clone()));
        assert_eq!(properties, [json!({}), json!({"resumed": true}), json!({"resumed": true})]);
        let heads = cutter.heads.from(0);
        let came_back = |head: &String| head.to_lowercase().contains("\r\nlast-event-id: ");
        assert_eq!(Vec::from_iter(heads.iter().map(came_back)), [false, true, true], "{heads:?}");
        assert_eq!(client.stderr.len(), 2, "broken twice, ended never: {}", client.output());
    })
    .await;
}

#[tokio::test]
async fn the_sdk_comes_back_after_a_kill() {
    bounded(async {
        let mut beside = Beside::start(|model| Home::new("1.14.48", model)).await;
        let client = subscribe(&beside.opencode.home, &beside.url(""));
        beside.kill_in_a_turn(&client).await;
        // The connection that broke, and perhaps those that found nobody.
        assert!(client.stderr.len() >= 1, "{}", client.output());
    })
    .await;
}
