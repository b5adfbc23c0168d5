//! npm `eventsource`: the newest that runs on Node.js 20, and version 2, which others are still built on.

use std::path::Path;

use super::comeback::Beside;
use super::fixture::{bounded, fetched, source, tool};
use crate::support::opencode::Home;
use crate::support::process::Process;

pub(super) const SCRIPTS: [&str; 2] = ["follow.mjs", "follow-2.mjs"];

pub(super) fn follow(script: &str, url: &str, home: &Path) -> Process {
    fetched("eventsource/node_modules/eventsource");
    tool("node", &[source("eventsource").join(script).to_str().unwrap(), url], home)
}

async fn a_kill_is_survived(script: &str) {
    bounded(async {
        let mut beside = Beside::start(|model| Home::new("1.14.48", model)).await;
        let client = follow(script, &beside.url("/event"), &beside.opencode.home.scratch());
        beside.kill_in_a_turn(&client).await;
    })
    .await;
}

#[tokio::test]
async fn version_4_comes_back_after_a_kill() {
    a_kill_is_survived(SCRIPTS[0]).await;
}

#[tokio::test]
async fn version_2_comes_back_after_a_kill() {
    a_kill_is_survived(SCRIPTS[1]).await;
}
