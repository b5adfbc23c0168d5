//! A stream that is open and says nothing, not even a heartbeat.

use std::time::Duration;

use opencode_relay::app::Limits;
use opencode_relay::ingest::stream;
use tokio::time::{Instant, sleep, sleep_until};

use crate::faults::cut::converged;
use crate::faults::relay::Relay;
use crate::standin::capture::{frame, frames};
use crate::standin::{SOON, StandIn};
use crate::support::bounded;

/// How long the relay bears it here, instead of 25 s.
const SILENCE: Duration = Duration::from_millis(600);

/// opencode's heartbeat, as much shorter.
const BEAT: Duration = Duration::from_millis(100);

pub(super) fn limits() -> Limits {
    Limits { stream: stream::Options { silence: SILENCE }, heartbeat: BEAT, ..Limits::default() }
}

/// Does something while opencode's heart beats.
async fn beating<T>(standin: &StandIn, does: impl Future<Output = T>) -> T {
    let beats = async {
        loop {
            standin.beat();
            sleep(BEAT).await;
        }
    };
    tokio::select! {
        done = does => done,
        () = beats => unreachable!("it beats for ever"),
    }
}

/// The turn goes on while the stream is silent; `inside` is how much of a frame still comes.
async fn one(inside: usize) {
    let standin = StandIn::start("1.14.48").await;
    let relay = Relay::limited(&standin, &[("grace", "300ms")], limits()).await;
    let run = frames("1.14.48", "a_text");
    let (before, after) = run.split_at(run.len() / 2);
    let client = beating(&standin, async {
        relay.ready(&[]).await;
        let client = relay.open("/event").await;
        for data in before {
            assert!(standin.publish(data));
        }
        // A heart that beats is all it takes: the stream stays.
        sleep_until(Instant::now() + SILENCE * 2).await;
        client
    })
    .await;
    assert_eq!(standin.grants(), 1);
    if inside > 0 {
        // An empty chunk would be the end of the stream.
        standin.send_bytes(&frame(&after[0]).as_bytes()[..inside]);
    }
    for data in after {
        standin.publish_undelivered(data);
    }
    standin.granted(2).await;
    beating(&standin, async {
        let status = relay.until("connected", |status| status["witnesses"]["stream"]["connects"] == 2).await;
        let error = status["witnesses"]["stream"]["error"].as_str().unwrap().to_owned();
        assert!(error.contains("showed nothing for 600ms"), "{error}");
        converged(&client, &standin, "silence").await;
        client.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
        // Clients hear the relay's own heart all the time.
        let frames = client.frames();
        let longest = frames.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
        assert!(longest < SILENCE, "nothing for {longest:?}");
    })
    .await;
    assert_eq!((client.end(), standin.most_open()), (None, 1));
    relay.end().await;
}

#[tokio::test]
async fn a_silent_stream_is_given_up_and_clients_do_not_notice() {
    bounded(async {
        futures_util::future::join(one(0), one(40)).await;
    })
    .await;
}

/// However often it falls silent right after its greeting, it is not asked more and more often.
#[tokio::test]
async fn a_stream_that_is_always_silent_is_asked_for_rarely() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::limited(&standin, &[], limits()).await;
        standin.granted(1).await;
        let start = Instant::now();
        sleep_until(start + Duration::from_secs(5)).await;
        // Each waits 600 ms; between them at least 190 ms, 375, 750 and 1,500.
        let grants = standin.grants();
        assert!((3..=5).contains(&grants), "{grants} streams within 5 s");
        assert_eq!(standin.most_open(), 1);
        relay.end().await;
    })
    .await;
}
