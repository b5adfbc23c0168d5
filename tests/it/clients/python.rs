//! Python's `httpx` with `httpx-sse`, in the loop that `docs/clients.md` shows.

use std::path::Path;

use super::comeback::Beside;
use super::fixture::{bounded, fetched, source, tool};
use crate::support::opencode::Home;
use crate::support::process::Process;

pub(super) fn follow(url: &str, home: &Path) -> Process {
    let python = fetched("python/.venv/bin/python");
    tool(python.to_str().unwrap(), &[source("python/follow.py").to_str().unwrap(), url], home)
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
