//! Python's `httpx` with `httpx-sse`, in the loop that `docs/clients.md` shows.

use std::path::Path;

use super::comeback::Beside;
use super::fixture::{Cutter, Served, bounded, fetched, source, tool};
use crate::support::opencode::Home;
use crate::support::process::Process;

fn follow(url: &str, home: &Path) -> Process {
    let python = fetched("python/.venv/bin/python");
    tool(python.to_str().unwrap(), &[source("python/follow.py").to_str().unwrap(), url], home)
}

#[tokio::test]
async fn httpx_sse_misses_nothing_over_cut_connections() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let cutter = Cutter::start(&served.relay, &[3_000, 2_500]).await;
        let client = follow(&format!("{}/event", cutter.base()), &served.home.scratch());
        let events = served.turn(&client, |line| serde_json::from_str(line).ok()).await;
        served.compare(&events);
        assert_eq!(client.stderr.len(), 2, "{}", client.output());
    })
    .await;
}

#[tokio::test]
async fn httpx_sse_comes_back_after_a_kill() {
    bounded(async {
        let mut beside = Beside::start(|model| Home::new("1.14.48", model)).await;
        let client = follow(&beside.url("/event"), &beside.opencode.home.scratch());
        beside.kill_in_a_turn(&client).await;
    })
    .await;
}
