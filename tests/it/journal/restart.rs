//! The relay as a process: killed, started again, and found by its clients where they left it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::standin::{DIRECTORY, SOON, StandIn};
use crate::support::bounded;
use crate::support::relay::Relay;
use crate::support::sse::{Frame, Stream};

/// How long the text in each event is: enough that thousands do not fit into memory.
const LENGTH: usize = 2_000;

pub(super) fn numbered(number: usize) -> String {
    let text = "y".repeat(LENGTH);
    format!(
        r#"{{"directory":"{DIRECTORY}","project":"p","payload":{{"id":"evt_{number}","type":"test.numbered","properties":{{"sessionID":"ses_a","x":"{text}","number":{number}}}}}}}"#
    )
}

fn numbers(frames: &[Arc<Frame>]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame.payload_json()["properties"]["number"].as_u64()).collect()
}

pub(super) async fn start(standin: &StandIn, state: &Path, more: &[&str]) -> Relay {
    let url = standin.url();
    let mut arguments = vec!["--upstream", &url, "--witness", "stream", "--state-dir", state.to_str().unwrap()];
    arguments.extend(more);
    let relay = Relay::start(&arguments, &[], Path::new("/")).await;
    until(&relay, "connected", |status| status["witnesses"]["stream"]["state"] == "connected").await;
    relay
}

pub(super) async fn until(relay: &Relay, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let status = relay.api().get("/_relay/status").await;
        if fits(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "not {what}: {status:#}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn until_number(stream: &Stream, number: usize) {
    let tail = format!(r#""number":{number}}}"#);
    stream.wait_for(|frame| frame.data.as_deref().is_some_and(|data| data.contains(&tail)), SOON).await;
}

async fn kill(mut relay: Relay) {
    relay.signal(Signal::KILL);
    relay.wait(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_killed_relay_gets_exactly_the_rest() {
    bounded(async {
        let (standin, state) = (StandIn::start("1.14.48").await, tempfile::tempdir().unwrap());
        let relay = start(&standin, state.path(), &[]).await;
        let first = Stream::open_url(&format!("{}/event", relay.base()), &[]).await.unwrap();
        for number in 0..3_000 {
            assert!(standin.send(&numbered(number)));
        }
        until_number(&first, 2_999).await;
        let seen = first.frames();
        let epoch = seen[0].id.as_deref().unwrap().split_once('-').unwrap().0.to_owned();
        kill(relay).await;

        let relay = start(&standin, state.path(), &[]).await;
        let id = seen.iter().find(|frame| numbers(std::slice::from_ref(*frame)) == [500]).unwrap().id.clone().unwrap();
        // Ten thousand events come while the client catches up; those from before do not fit into memory any more.
        let feed = async {
            for number in 3_000..13_000 {
                assert!(standin.send(&numbered(number)));
                if number % 20 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        };
        let catch_up = async {
            let url = |query: &str| format!("{}/event{query}", relay.base());
            let mut streams = Vec::new();
            for (url, headers) in [
                (url(""), vec![("last-event-id", id.as_str())]),
                (url(&format!("?lastEventId={id}")), vec![]),
                (url(&format!("?last_event_id={id}")), vec![]),
                (url(&format!("?since={id}")), vec![]),
            ] {
                let back = Stream::open_url(&url, &headers).await.unwrap();
                assert_eq!(back.head.header("x-relay-resume"), Some("resumed"), "{url}");
                streams.push((url, back));
            }
            for (_, back) in &streams {
                until_number(back, 12_999).await;
            }
            streams
        };
        let ((), streams) = tokio::join!(feed, catch_up);
        let expected: Vec<u64> = (501..13_000).collect();
        for (url, back) in &streams {
            let frames = back.frames();
            assert!(numbers(&frames) == expected, "{url}: {} events", frames.len());
            let ids: BTreeSet<&String> = frames.iter().filter_map(|frame| frame.id.as_ref()).collect();
            assert!(ids.iter().all(|id| id.starts_with(&epoch)), "{url}: the epoch changed");
        }
        drop(streams);
        // Far behind what is in memory, with nothing else going on.
        let since = Instant::now();
        let back = Stream::open_url(&format!("{}/event?since={epoch}-0", relay.base()), &[]).await.unwrap();
        until_number(&back, 12_999).await;
        println!("13,000 events caught up in {:?}", since.elapsed());
        assert!(numbers(&back.frames()) == (0..13_000).collect::<Vec<_>>());

        let newest = back.frames().last().unwrap().id.clone().unwrap();
        let seq: u64 = newest.split_once('-').unwrap().1.parse().unwrap();
        kill(relay).await;
        let mut relay = start(&standin, state.path(), &["--journal-bytes", "1MiB"]).await;
        let status = until(&relay, "trimmed", |status| status["journal"]["bytes"].as_u64() <= Some(1 << 20)).await;
        let journal = &status["journal"];
        assert_eq!(
            (&journal["form"], &journal["state"], &journal["epoch"]),
            (&json!("disk"), &json!("ok"), &json!(epoch))
        );
        for (id, reason, missed) in [
            (id.clone(), "expired", json!(seq - id.split_once('-').unwrap().1.parse::<u64>().unwrap())),
            (format!("{epoch}-{}", seq + 1_000), "unknown", Value::Null),
            ("evt_205d7be8d001PN5A5nol17sKit".to_owned(), "unknown", Value::Null),
            ("00000000000000ff-1".to_owned(), "restarted", Value::Null),
        ] {
            let back = Stream::open_url(&format!("{}/event?since={id}", relay.base()), &[]).await.unwrap();
            let greeting = back.wait_for(|_| true, SOON).await;
            let properties = greeting.payload_json()["properties"].clone();
            assert_eq!(properties, json!({"gap": {"reason": reason, "missed": missed}}), "{id}");
        }
        // A stop in order keeps everything too.
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait(SOON).await.unwrap().code(), Some(0));
        let relay = start(&standin, state.path(), &[]).await;
        let back = Stream::open_url(&format!("{}/event?since={newest}", relay.base()), &[]).await.unwrap();
        assert_eq!(back.head.header("x-relay-resume"), Some("resumed"));
        assert!(standin.send(&numbered(13_000)));
        until_number(&back, 13_000).await;
        assert_eq!(numbers(&back.frames()), [13_000]);
    })
    .await;
}

#[tokio::test]
async fn a_second_relay_is_refused() {
    let (standin, state) = (StandIn::start("1.14.48").await, tempfile::tempdir().unwrap());
    let relay = start(&standin, state.path(), &[]).await;
    let folder = state.path().to_str().unwrap();
    let second = |folder: &str| {
        Command::new(env!("CARGO_BIN_EXE_opencode-relay"))
            .args(["run", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9", "--state-dir", folder])
            .output()
            .unwrap()
    };
    let output = second(folder);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    for word in [folder, &format!("process {}", relay.id()), "--state-dir"] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    let output = second("/dev/null/state");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["/dev/null/state", "--state-dir", "--journal memory"] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}
