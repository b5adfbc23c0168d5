//! A healthy stream passes through byte for byte, however its bytes are cut.

use crate::faults::relay::Relay;
use crate::standin::capture::{self, frame, frames, payload};
use crate::standin::{SOON, StandIn};
use crate::support::bounded;
use crate::support::sse::Stream;

/// What `/event` and `/global/event` have to carry for these frames.
fn expected(frames: &[String]) -> (Vec<&str>, Vec<&str>) {
    let on_event = |data: &&String| {
        let directory = data.starts_with(r#"{"directory":"#) && !data.starts_with(r#"{"directory":"global""#);
        directory && capture::kind(data) != "sync"
    };
    let event = frames.iter().filter(on_event).map(|data| payload(data)).collect();
    (event, frames.iter().map(String::as_str).collect())
}

/// The data of the published events on a stream.
fn published(stream: &Stream) -> Vec<String> {
    let frames = stream.frames();
    let published = frames.iter().filter(|frame| !frame.is_greeting_or_heartbeat());
    published.map(|frame| frame.data.clone().unwrap()).collect()
}

async fn equal(stream: &Stream, expected: &[&str]) {
    let all = expected.len() + 1;
    let mut seen = 0;
    stream
        .try_wait_from(
            0,
            |_| {
                seen += 1;
                seen == all
            },
            SOON,
        )
        .await;
    let got = published(stream);
    let differs = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert_eq!((differs, got.len()), (None, expected.len()));
}

#[tokio::test]
async fn every_chunking_gives_the_same_bytes() {
    bounded(async {
        for size in [1, 7, usize::MAX, 0] {
            let standin = StandIn::start("1.14.48").await;
            let relay = Relay::over(&standin, &[]).await;
            let (event, global) = (relay.open("/event").await, relay.open("/global/event").await);
            let all = ["a_text", "d_crud"].map(|scenario| frames("1.14.48", scenario)).concat();
            for data in &all {
                standin.log(data);
                standin.fold(data);
            }
            let whole = all.iter().map(|data| frame(data)).collect::<Vec<_>>();
            match size {
                0 => assert!(whole.iter().all(|frame| standin.send_bytes(frame.as_bytes()))),
                _ => assert!(whole.concat().as_bytes().chunks(size).all(|bytes| standin.send_bytes(bytes))),
            }
            let (on_event, on_global) = expected(&all);
            equal(&event, &on_event).await;
            equal(&global, &on_global).await;
            let status = relay.settled(&standin).await;
            assert_eq!(status["witnesses"]["state"]["events"], 0, "chunks of {size}");
            assert_eq!(status["witnesses"]["stream"]["events"], all.len(), "chunks of {size}");
        }
    })
    .await;
}

/// One stream, in which run after run is cut in two at the next byte.
#[tokio::test]
async fn a_cut_at_every_byte_gives_the_same_bytes() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("witness", "stream")]).await;
        let global = relay.open("/global/event").await;
        let run = &frames("1.14.48", "a_text")[13..21];
        let bytes = run.iter().map(|data| frame(data)).collect::<String>().into_bytes();
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            // An empty chunk would end the body.
            for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
                assert!(standin.send_bytes(part));
            }
        }
        let expected: Vec<&str> = run.iter().map(String::as_str).collect();
        equal(&global, &expected.repeat(bytes.len() + 1)).await;
    })
    .await;
}
