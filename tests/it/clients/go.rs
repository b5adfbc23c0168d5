//! Go's `net/http`, read the way the Go copies of the generated SDK do.

use std::path::Path;
use std::time::Duration;

use super::comeback::Beside;
use super::fixture::{Served, bounded, find, source, tool};
use crate::support::opencode::Home;
use crate::support::process::Process;

/// Newer installations bring no compiled standard library: the first build makes it, on a busy machine in a minute.
const BUILD_LIMIT: Duration = Duration::from_secs(120);

/// Builds the client with what the installation has; nothing is fetched, nothing written outside `target/`.
pub(super) async fn build(name: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [client, cache, path] =
        [&format!("go-{name}"), "go-cache", "go-path"].map(|name| folder.join(name).display().to_string());
    let (go, main) = (find("go"), source(&format!("go/{name}.go")));
    let command = [go.to_str().unwrap(), "build", "-o", &client, main.to_str().unwrap()].map(str::to_owned);
    let search = std::env::var("PATH").unwrap();
    let env = [
        ("PATH", search.as_str()),
        ("HOME", &path),
        ("GOPATH", &path),
        ("GOCACHE", &cache),
        ("GO111MODULE", "off"),
        ("GOPROXY", "off"),
        ("GOTOOLCHAIN", "local"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut build = Process::start(&command, &env, folder, None).unwrap();
    let status = build.wait(BUILD_LIMIT).await;
    assert!(status.is_some_and(|status| status.success()), "go build: {status:?}\n{}", build.output());
    client
}

#[tokio::test]
async fn a_go_client_reads_the_turn() {
    let client = build("main").await;
    bounded(async {
        let served = Served::start("1.14.48").await;
        let client = tool(&client, &[&served.url("/event")], &served.home.scratch());
        let events = served.turn(&client, |line| serde_json::from_str(line).ok()).await;
        served.compare(&events);
        assert_eq!(client.stderr.len(), 0, "{}", client.output());
    })
    .await;
}

/// The loop that `docs/clients.md` shows.
#[tokio::test]
async fn a_go_client_comes_back_after_a_kill() {
    let client = build("follow").await;
    bounded(async {
        let mut beside = Beside::start(|model| Home::new("1.14.48", model)).await;
        let client = tool(&client, &[&beside.url("/event")], &beside.opencode.home.scratch());
        beside.kill_in_a_turn(&client).await;
    })
    .await;
}
