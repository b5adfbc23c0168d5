//! The official JS SDK, `@opencode-ai/sdk`, of the same release.

use std::path::Path;

use serde_json::Value;

use super::comeback::Beside;
use super::fixture::{Served, bounded, fetched, source, tool};
use crate::support::opencode::Home;
use crate::support::process::Process;

pub(super) fn subscribe(home: &Path, base: &str) -> Process {
    fetched("sdk/node_modules/@opencode-ai/sdk");
    tool("node", &[source("sdk/events.mjs").to_str().unwrap(), base], home)
}

fn see(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

#[tokio::test]
async fn the_sdk_subscribes() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let client = subscribe(&served.home.scratch(), served.relay.base());
        let events = served.turn(&client, see).await;
        served.compare(&events);
        assert_eq!(client.stderr.len(), 0, "{}", client.output());
    })
    .await;
}

/// The SDK has resumed by `Last-Event-ID` all along; opencode gives it no ids, the relay does.
async fn a_kill_is_survived(version: &str) {
    bounded(async {
        let mut beside = Beside::start(|model| Home::new(version, model)).await;
        let client = subscribe(&beside.opencode.home.scratch(), &beside.url(""));
        beside.kill_in_a_turn(&client).await;
        // The connection that broke, and perhaps those that found nobody.
        assert!(client.stderr.len() >= 1, "{}", client.output());
    })
    .await;
}

#[tokio::test]
async fn the_sdk_comes_back_after_a_kill() {
    a_kill_is_survived("1.14.48").await;
}

/// The same SDK at a release whose log says nothing of events.
#[tokio::test]
async fn the_sdk_comes_back_after_a_kill_1_18_34() {
    a_kill_is_survived("1.18.34").await;
}
