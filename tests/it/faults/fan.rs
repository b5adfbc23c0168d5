//! Many clients, one that never reads, and the v2 stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::faults::relay::Relay;
use crate::faults::resume::numbered;
use crate::standin::capture::{api_frames, original_frames};
use crate::standin::{SOON, StandIn};
use crate::support::bounded;
use crate::support::sse::Stream;

const CLIENTS: usize = 500;
const EVENTS: usize = 2_000;

/// Counts events and nothing else, so that 500 of it fit on a small machine.
async fn count(mut socket: TcpStream, total: Arc<AtomicUsize>) -> usize {
    let (mut number, mut tail, mut bytes) = (0, Vec::new(), vec![0; 64 << 10]);
    while number < EVENTS {
        let read = timeout(SOON * 3, socket.read(&mut bytes)).await.expect("events").expect("no break");
        assert!(read > 0, "the stream ended after {number}");
        tail.extend_from_slice(&bytes[..read]);
        // In order, none missing, none twice: the next number is the only one looked for.
        let mut seen = 0;
        while let Some(at) = memchr::memmem::find(&tail[seen..], b"\"number\":") {
            let start = seen + at + b"\"number\":".len();
            let Some(end) = memchr::memchr(b'}', &tail[start..]) else { break };
            assert_eq!(&tail[start..start + end], number.to_string().as_bytes());
            number += 1;
            total.fetch_add(1, Ordering::Relaxed);
            seen = start + end;
        }
        tail.drain(..seen);
    }
    number
}

async fn connect(relay: &Relay) -> TcpStream {
    let host = relay.base().trim_start_matches("http://");
    let mut socket = TcpStream::connect(host).await.unwrap();
    socket.write_all(format!("GET /event HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_get_everything_beside_one_that_never_reads() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("witness", "stream"), ("journal_bytes", "8MiB")]).await;
        let stuck = connect(&relay).await;
        let mut clients = JoinSet::new();
        let total = Arc::new(AtomicUsize::new(0));
        for _ in 0..CLIENTS {
            let socket = connect(&relay).await;
            clients.spawn(count(socket, total.clone()));
        }
        relay.until("all connected", |status| status["clients"]["event"] == CLIENTS + 1).await;
        for number in 0..EVENTS {
            // Larger than what sockets hold: the stuck client's backlog cannot hide there.
            let event = numbered(number, "ses_a").replacen(
                r#""number""#,
                &format!(r#""pad":"{}","number""#, "x".repeat(3_000)),
                1,
            );
            assert!(standin.send(&event));
            // The journal holds some 1,300 of them; on a slow machine the clients must not fall behind it together.
            if number % 100 == 99 {
                let enough = CLIENTS * number.saturating_sub(500);
                let read = async {
                    while total.load(Ordering::Relaxed) < enough {
                        sleep(Duration::from_millis(5)).await;
                    }
                };
                timeout(SOON, read).await.expect("the clients stopped reading");
            }
        }
        while let Some(number) = clients.join_next().await {
            assert_eq!(number.unwrap(), EVENTS);
        }
        let status = relay.status().await;
        // What is kept for all is all that is kept; the stuck client has a place in it and no queue.
        assert!(status["journal"]["bytes"].as_u64() <= Some(8 << 20), "{}", status["journal"]);
        assert_eq!(status["journal"]["newest"], EVENTS);
        drop(stuck);
        relay.until("all gone", |status| status["clients"]["event"] == 0).await;
        assert_eq!(standin.most_open(), 1);
    })
    .await;
}

/// `/api/event` is what this release itself would have sent, event for event.
async fn api_is_equal(scenario: &str) {
    let standin = StandIn::start("1.17.11").await;
    let relay = Relay::over(&standin, &[("log", "none")]).await;
    let client = Stream::open(&relay.api(), "/api/event").await.unwrap();
    for data in original_frames("1.17.11", scenario) {
        standin.fold(&data);
        assert!(standin.send(&data));
    }
    let expected = api_frames("1.17.11", scenario);
    let mut seen = 0;
    let events = |client: &Stream| -> Vec<Value> {
        let frames = client.frames();
        frames.iter().filter(|frame| frame.data.is_some()).map(|frame| frame.json()).collect()
    };
    client
        .try_wait_from(
            0,
            |frame| {
                seen += usize::from(frame.data.is_some());
                seen > expected.len()
            },
            SOON,
        )
        .await;
    let got = events(&client);
    assert_eq!((&got[0]["type"], &got[0]["data"]), (&json!("server.connected"), &json!({})));
    let ids = |events: &[Value]| events.iter().map(|event| event["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&got[1..]), ids(&expected), "{scenario}");
    for (mut got, expected) in got.into_iter().skip(1).zip(expected) {
        if expected["location"].get("project").is_none() {
            // Only opencode knows whether an event came from a request.
            got["location"].as_object_mut().unwrap().remove("project");
        }
        assert_eq!(got, expected, "{scenario}");
    }
    // Longer than any answer: the stream stays.
    relay.settled(&standin).await;
    assert_eq!(client.end(), None, "{scenario}");
    let heartbeat = client.frames().iter().any(|frame| frame.comments == ["heartbeat"]);
    assert!(heartbeat, "{scenario}: no comment");
    relay.end().await;
}

#[tokio::test]
async fn the_v2_stream_is_rebuilt() {
    bounded(async {
        for scenario in ["d_crud", "a_text", "e_permission"] {
            timeout(Duration::from_secs(60), api_is_equal(scenario)).await.unwrap();
        }
    })
    .await;
}
