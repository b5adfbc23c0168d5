//! opencode itself as the client: `opencode run --attach`.

use std::path::Path;
use std::time::Duration;

use super::fixture::{Served, bounded};
use crate::support::opencode::{Home, binary};
use crate::support::process::Process;

/// A cold start, a turn and an ending; 1.14.48 against its own server needs 2 s.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// What `opencode run --attach` prints on its standard output in a home, the server's or another one.
async fn run(home: &Home, version: &str, base: &str) -> String {
    let binary = binary(version);
    let command = [binary.to_str().unwrap(), "run", "--attach", base, "WORDS=5 DELAY=20"].map(str::to_owned);
    let mut run = Process::start(&command, &home.env(), Path::new(&home.project()), None).unwrap();
    let status = run.wait(RUN_LIMIT).await;
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", run.output());
    run.stdout.wait_closed(Duration::from_secs(5)).await;
    let lines = run.stdout.from(0).into_iter().map(|line| line.text);
    Vec::from_iter(lines).join("\n").trim().to_owned()
}

const ANSWER: &str = "word0 word1 word2 word3 word4";

/// The bug, and that it is gone.
#[tokio::test]
async fn run_attach_prints_the_answer_of_1_14_48() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        assert_eq!(run(&served.home, "1.14.48", served.relay.upstream().base()).await, "");
        assert_eq!(run(&served.home, "1.14.48", served.relay.base()).await, ANSWER);
    })
    .await;
}

#[tokio::test]
async fn run_attach_prints_the_answer_of_1_18_34() {
    bounded(async {
        let served = Served::start("1.18.34").await;
        assert_eq!(run(&served.home, "1.18.34", served.relay.base()).await, ANSWER);
    })
    .await;
}

/// A newer client, on another machine, at the broken release.
#[tokio::test]
async fn run_attach_of_1_18_34_prints_the_answer_of_1_14_48() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let away = Home::new("1.18.34", &served.model);
        assert_eq!(run(&away, "1.18.34", served.relay.base()).await, ANSWER);
    })
    .await;
}
