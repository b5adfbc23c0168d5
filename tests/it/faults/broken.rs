//! An upstream stream that is refused, is none, or carries what cannot be read: clients and requests do not notice.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::faults::cut::converged;
use crate::faults::relay::Relay;
use crate::standin::capture::{frame, frames, kind};
use crate::standin::{DIRECTORY, Mode, SOON, StandIn};
use crate::support::bounded;

/// How long the relay's attempts are counted.
const WATCH: Duration = Duration::from_secs(3);

/// The most attempts in that time: after 190 ms, 570, 1.3 s and 2.8 s at the earliest, and the first.
const ATTEMPTS: usize = 5;

/// A stream that never comes: the state alone leads clients on.
async fn without_a_stream(mode: Mode) {
    let standin = StandIn::start("1.14.48").await;
    standin.set_mode(mode.clone());
    let relay = Relay::start(&standin, &[]).await;
    let client = relay.open("/event").await;
    relay.until("following the log", |status| status["witnesses"]["log"]["state"] == "following").await;
    standin.asked(1).await;
    let (start, asked) = (Instant::now(), standin.requests("/global/event"));
    for data in frames("1.14.48", "a_text") {
        standin.publish_undelivered(&data);
    }
    // Requests go their own way.
    let session = relay.api().within(DIRECTORY).get("/session").await;
    assert_eq!(session.as_array().map(Vec::len), Some(1), "{mode:?}");
    let fold = converged(&client, &standin, &format!("{mode:?}")).await;
    client.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
    assert!(fold.types["message.updated"] >= 2, "{mode:?}");
    sleep_until(start + WATCH).await;
    let attempts = standin.requests("/global/event") - asked;
    assert!(attempts <= ATTEMPTS, "{mode:?}: {attempts} attempts in {WATCH:?}");
    // A server that takes its time is asked again after 3 s, then after 6.
    assert!(if mode == Mode::Mute { attempts <= 1 } else { attempts >= 1 }, "{mode:?}: {attempts} attempts");
    assert_eq!(standin.most_open(), 1, "{mode:?}");
    // As soon as it is well again, it is used.
    if mode != Mode::Mute {
        let grants = standin.grants();
        standin.set_mode(Mode::Healthy);
        standin.granted(grants + 1).await;
        let before = client.len();
        for data in frames("1.14.48", "d_crud") {
            assert!(standin.publish(&data));
        }
        client.wait_from(before, |frame| frame.kind() == "session.deleted", SOON).await;
    }
    assert_eq!(client.end(), None, "{mode:?}");
    if mode == Mode::Html {
        client.wait_for(|frame| frame.kind() == "server.heartbeat", SOON).await;
    }
    relay.end().await;
}

#[tokio::test]
async fn streams_that_are_none() {
    bounded(async {
        let refusals = [Mode::Refuse(401), Mode::Refuse(500), Mode::Refuse(204)];
        let oddities = [Mode::Html, Mode::Nonsense, Mode::CloseAtOnce, Mode::Mute, Mode::EndlessHead];
        let modes = refusals.into_iter().chain(oddities);
        futures_util::future::join_all(modes.map(without_a_stream)).await;
    })
    .await;
}

/// While opencode starts it refuses connections and then takes some that it never answers. However often it refused, an
/// answer is waited for only briefly: the stream is back within [`SOON`], where 30 s would be waited for a slow one.
#[tokio::test]
async fn refusals_do_not_lengthen_the_wait_for_an_answer() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::start(&standin, &[]).await;
        standin.granted(1).await;
        standin.set_mode(Mode::CloseAtOnce);
        let asked = standin.requests("/global/event");
        standin.cut();
        // Four refusals already made the pauses seconds long.
        standin.asked(asked + 4).await;
        standin.set_mode(Mode::Mute);
        standin.asked(asked + 5).await;
        let grants = standin.grants();
        standin.set_mode(Mode::Healthy);
        standin.granted(grants + 1).await;
        relay.end().await;
    })
    .await;
}

#[tokio::test]
async fn garbage_between_frames_costs_nothing_but_a_read() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("grace", "500ms")]).await;
        let client = relay.open("/global/event").await;
        let garbage: [&[u8]; 8] = [
            b"data: <html>\n\n",
            b"data: {\"payload\":1}\n\n",
            b"data: \xff\xfe\n\n",
            b": comment\n\n",
            b"event: x\nid: 1\nretry: 1\n\n",
            b"\n\n\n\r\n\r",
            b"data: {\"directory\":\"/srv/demo/project\",\"payload\":{}}\n\n",
            b"\0\0\0\n",
        ];
        let run = frames("1.14.48", "a_text");
        for (at, data) in run.iter().enumerate() {
            assert!(standin.send_bytes(garbage[at % garbage.len()]));
            assert!(standin.publish(data));
        }
        converged(&client, &standin, "garbage").await;
        let status = relay.settled(&standin).await;
        let got: Vec<String> = client
            .frames()
            .iter()
            .filter(|frame| !frame.is_greeting_or_heartbeat())
            .map(|frame| frame.data.clone().unwrap())
            .collect();
        assert!(got == run, "{} frames of {}", got.len(), run.len());
        assert!(status["witnesses"]["stream"]["lost"].as_u64() > Some(20));
        assert_eq!(standin.grants(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_frame_of_40_mib_is_skipped_and_the_next_are_read() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("grace", "500ms")]).await;
        let client = relay.open("/event").await;
        let run = frames("1.14.48", "a_text");
        let middle = run.iter().position(|data| kind(data) == "session.idle").unwrap();
        for data in &run[..middle] {
            assert!(standin.publish(data));
        }
        // The end of the turn is what gets lost inside it.
        standin.log(&run[middle]);
        standin.fold(&run[middle]);
        standin.send_bytes(b"data: ");
        for _ in 0..40 {
            standin.send_bytes(&vec![b'x'; 1 << 20]);
        }
        standin.send_bytes(b"\n\n");
        for data in &run[middle + 1..] {
            assert!(standin.publish(data));
        }
        client.wait_for(|frame| frame.kind() == "session.diff", SOON).await;
        let status = relay.settled(&standin).await;
        converged(&client, &standin, "40 MiB").await;
        assert_eq!(status["witnesses"]["stream"]["lost"], 1);
        assert_eq!((standin.grants(), client.end()), (1, None));
    })
    .await;
}

/// Half a frame and then nothing: requests and clients do not wait for the rest.
#[tokio::test]
async fn a_stream_that_stalls_inside_a_frame_holds_nobody_up() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[]).await;
        let client = relay.open("/global/event").await;
        let run = frames("1.14.48", "d_crud");
        assert!(standin.publish(&run[0]));
        let text = frame(&run[1]);
        let (first, rest) = text.as_bytes().split_at(40);
        assert!(standin.send_bytes(first));
        client.wait_for(|frame| frame.kind() == "session.created", SOON).await;
        let other = relay.open("/event").await;
        assert!(relay.api().get("/session").await.is_array());
        assert_eq!(other.end(), None);
        assert!(standin.send_bytes(rest));
        client.wait_from(2, |frame| frame.data.as_deref() == Some(&*run[1]), SOON).await;
        assert_eq!(standin.grants(), 1);
    })
    .await;
}
