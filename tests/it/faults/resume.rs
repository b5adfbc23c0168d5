//! Clients that drop and come back, and the filters of each stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::faults::relay::Relay;
use crate::standin::capture::{frames, kind};
use crate::standin::{DIRECTORY, SOON, StandIn};
use crate::support::bounded;
use crate::support::sse::{Frame, Stream};

/// How many events come while the client is away.
const AWAY: usize = 5_000;

/// An event with a number.
pub(crate) fn numbered(number: usize, session: &str) -> String {
    format!(
        r#"{{"directory":"{DIRECTORY}","project":"p","payload":{{"id":"evt_{number}","type":"test.numbered","properties":{{"sessionID":"{session}","number":{number}}}}}}}"#
    )
}

/// The numbers a stream carried.
fn numbers(frames: &[Arc<Frame>]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame.payload_json()["properties"]["number"].as_u64()).collect()
}

async fn until_number(stream: &Stream, number: usize) {
    let tail = format!(r#""number":{number}}}"#);
    stream.wait_for(|frame| frame.data.as_deref().is_some_and(|data| data.contains(&tail)), SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_gets_exactly_the_rest() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("witness", "stream")]).await;
        let first = relay.open("/event").await;
        for number in 0..100 {
            assert!(standin.send(&numbered(number, "ses_a")));
        }
        until_number(&first, 99).await;
        let seen = first.frames();
        drop(first);
        for number in 100..100 + AWAY {
            assert!(standin.send(&numbered(number, "ses_a")));
        }
        for left_after in [0, 1, 50, 100] {
            let id = seen[left_after].id.clone().unwrap();
            let url = |query: &str| format!("{}/event{query}", relay.base());
            for (url, headers) in [
                (url(""), vec![("last-event-id", id.as_str())]),
                (url(&format!("?lastEventId={id}")), vec![]),
                (url(&format!("?last_event_id={id}")), vec![]),
                (url(&format!("?since={id}")), vec![]),
                // A browser repeats the URL it began with; the header is newer.
                (url("?since=0000000000000000-1"), vec![("last-event-id", id.as_str())]),
            ] {
                let back = Stream::open_url(&url, &headers).await.unwrap();
                assert_eq!(back.head.header("x-relay-resume"), Some("resumed"), "{url}");
                until_number(&back, 99 + AWAY).await;
                let frames = back.frames();
                assert_eq!(frames[0].payload_json()["properties"], json!({"resumed": true}), "{url}");
                assert_eq!(frames[0].id.as_deref(), Some(id.as_str()), "{url}");
                let expected: Vec<u64> = (left_after as u64..(100 + AWAY) as u64).collect();
                assert!(numbers(&frames) == expected, "{url}: {} events", frames.len());
                let ids: BTreeSet<&String> = frames.iter().filter_map(|frame| frame.id.as_ref()).collect();
                assert_eq!(ids.len(), expected.len() + 1, "{url}: an id stands twice");
            }
        }
    })
    .await;
}

/// The same, while the events come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_drops_again_and_again_misses_nothing() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("witness", "stream")]).await;
        let mut id = relay.open("/event").await.wait_for(|_| true, SOON).await.id.clone().unwrap();
        let feed = async {
            for number in 0..AWAY {
                assert!(standin.send(&numbered(number, "ses_a")));
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let client = async {
            let mut got = Vec::new();
            while got.len() < AWAY {
                let stream =
                    Stream::open_url(&format!("{}/event", relay.base()), &[("last-event-id", &id)]).await.unwrap();
                // Takes the greeting and at least one event, then drops.
                stream.wait_from(1, |_| true, SOON).await;
                let frames = stream.frames();
                drop(stream);
                got.extend(numbers(&frames));
                id = frames.last().unwrap().id.clone().unwrap();
            }
            got
        };
        let ((), got) = tokio::join!(feed, client);
        assert!(got == (0..AWAY as u64).collect::<Vec<_>>(), "{} events", got.len());
    })
    .await;
}

#[tokio::test]
async fn ids_that_cannot_be_resumed_from_say_so_and_tell_what_is_open() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("witness", "stream"), ("journal_bytes", "64KiB")]).await;
        let first = relay.open("/event").await;
        let greeting = first.wait_for(|_| true, SOON).await.id.clone().unwrap();
        let (epoch, _) = greeting.split_once('-').unwrap();
        let run = frames("1.14.48", "e_permission");
        let asked = run.iter().position(|data| kind(data) == "permission.asked").unwrap();
        for data in &run[..=asked] {
            standin.fold(data);
            assert!(standin.send(data));
        }
        let question = format!(
            r#"{{"directory":"{DIRECTORY}","project":"p","payload":{{"id":"evt_q","type":"question.asked","properties":{{"id":"que_1","sessionID":"ses_q","questions":[]}}}}}}"#
        );
        standin.fold(&question);
        standin.send(&question);
        for number in 0..AWAY {
            assert!(standin.send(&numbered(number, "ses_a")));
            // Not more at once than such a small journal keeps: the first client is not to expire.
            if number % 50 == 0 {
                until_number(&first, number).await;
            }
        }
        until_number(&first, AWAY - 1).await;
        let newest = first.frames().last().unwrap().id.clone().unwrap();
        let seq: u64 = newest.split_once('-').unwrap().1.parse().unwrap();
        let session = serde_json::from_str::<Value>(&run[asked]).unwrap()["payload"]["properties"]["sessionID"].clone();
        for (id, reason, missed) in [
            (greeting.clone(), "expired", json!(seq)),
            (format!("{epoch}-{}", seq + 1_000), "unknown", Value::Null),
            ("evt_205d7be8d001PN5A5nol17sKit".to_owned(), "unknown", Value::Null),
            ("00000000000000ff-1".to_owned(), "restarted", Value::Null),
        ] {
            let url = format!("{}/event?since={id}", relay.base());
            let back = Stream::open_url(&url, &[]).await.unwrap();
            let word = back.head.header("x-relay-resume").unwrap().to_owned();
            assert!(word.starts_with(&format!("gap; reason={reason}")), "{id}: {word}");
            back.wait_from(0, |frame| frame.kind() == "question.asked", SOON).await;
            let frames = back.frames();
            let properties = frames[0].payload_json()["properties"].clone();
            assert_eq!(properties, json!({"gap": {"reason": reason, "missed": missed}}), "{id}");
            let kinds: BTreeSet<String> = frames[1..].iter().map(|frame| frame.kind()).collect();
            let open = ["permission.asked", "question.asked", "session.status"].map(str::to_owned);
            assert_eq!(kinds, BTreeSet::from(open), "{id}");
            let status = frames.iter().find(|frame| frame.kind() == "session.status").unwrap().payload_json();
            assert_eq!(status["properties"]["sessionID"], session, "{id}");
            assert_ne!(status["properties"]["status"]["type"], "idle", "{id}");
            // And from here on, everything.
            let next = numbered(AWAY + frames.len(), "ses_a");
            assert!(standin.send(&next));
            until_number(&back, AWAY + frames.len()).await;
        }
        let fill = relay.status().await["journal"].clone();
        assert!(fill["bytes"].as_u64() <= Some(64 << 10), "{fill}");
        assert!(Some(fill["newest"].as_u64().unwrap()) >= Some(seq), "{fill}");
    })
    .await;
}

#[tokio::test]
async fn filters_and_ids() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("witness", "stream")]).await;
        let run = frames("1.14.48", "a_text");
        let first = serde_json::from_str::<Value>(&run[0]).unwrap();
        let session = first["payload"]["properties"]["sessionID"].as_str().unwrap().to_owned();
        let open = async |path: &str, agent: &str| {
            Stream::open_url(&format!("{}{path}", relay.base()), &[("user-agent", agent)]).await.unwrap()
        };
        let all = open("/event", "Bun/1.3").await;
        let one = open(&format!("/event?session={session}"), "Bun/1.3").await;
        let of_session = open(&format!("/session/{session}/event"), "Bun/1.3").await;
        let idle = open("/event?types=session.idle,message.part.*", "Bun/1.3").await;
        let elsewhere = open("/event?directory=%2Fsrv%2Fdemo%2Fother", "Bun/1.3").await;
        let curl = open("/event", "curl/8.5.0").await;
        let curl_with = open("/event?ids=1", "curl/8.5.0").await;
        let without = open("/event?ids=0", "Bun/1.3").await;
        for (at, data) in run.iter().enumerate() {
            assert!(standin.send(&numbered(at, "ses_other")));
            assert!(standin.send(data));
        }
        assert!(standin.send(&numbered(run.len(), &session)));
        let mine: Vec<&str> =
            run.iter().filter(|data| kind(data) != "sync").map(|data| crate::standin::capture::payload(data)).collect();
        let data = |stream: &Stream| -> Vec<String> {
            let frames = stream.frames();
            let published = frames.iter().filter(|frame| !frame.is_greeting_or_heartbeat());
            published.map(|frame| frame.data.clone().unwrap()).collect()
        };
        for stream in [&all, &one, &of_session, &curl, &curl_with, &without] {
            until_number(stream, run.len()).await;
        }
        for stream in [&one, &of_session] {
            let got = data(stream);
            assert!(got[..got.len() - 1] == mine, "{} of {}", got.len(), mine.len());
        }
        assert_eq!(data(&all).len(), mine.len() + run.len() + 1);
        idle.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
        let kinds: BTreeSet<String> = idle.frames()[1..].iter().map(|frame| frame.kind()).collect();
        let wanted = ["session.idle", "message.part.updated", "message.part.delta"].map(str::to_owned);
        assert_eq!(kinds, BTreeSet::from(wanted));
        assert_eq!(data(&elsewhere).len(), 0);
        for stream in [&curl, &without] {
            let plain = |line: &String| line.starts_with("data: ");
            assert!(stream.frames().iter().all(|frame| frame.lines.iter().all(plain)));
        }
        for stream in [&all, &curl_with] {
            assert!(stream.frames().iter().all(|frame| frame.id.is_some() && frame.data.is_some()));
        }
    })
    .await;
}
