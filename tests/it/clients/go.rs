//! Go's `net/http`, read the way the Go copies of the generated SDK do.

use std::path::Path;
use std::process::Command;

use super::fixture::{Served, bounded, find, source, tool};

/// Builds the client with what the installation has; nothing is fetched, nothing written outside `target/`.
fn build() -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let client = folder.join("go-client");
    let output = Command::new(find("go"))
        .arg("build")
        .arg("-o")
        .arg(&client)
        .arg(source("go/main.go"))
        .envs([("GO111MODULE", "off"), ("GOPROXY", "off"), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local")])
        .env("GOCACHE", folder.join("go-cache"))
        .env("GOPATH", folder.join("go-path"))
        .output()
        .unwrap();
    assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    client.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_go_client_reads_the_turn() {
    bounded(async {
        let client = build();
        let served = Served::start("1.14.48").await;
        let client = tool(&client, &[&served.url("/event")], &served.home.scratch());
        let events = served.turn(&client, |line| serde_json::from_str(line).ok()).await;
        served.compare(&events);
        assert_eq!(client.stderr.len(), 0, "{}", client.output());
    })
    .await;
}
