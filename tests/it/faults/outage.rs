//! opencode is killed, comes back, comes back as another release, or hangs.

use std::time::Duration;

use http::Method;
use opencode_relay::app::Limits;
use tokio::time::{Instant, sleep};

use crate::faults::cut::converged;
use crate::faults::relay::Relay;
use crate::standin::capture::{frames, kind};
use crate::standin::{Mode, Rest, SOON, StandIn};
use crate::support::bounded;
use crate::support::http::Answer;
use crate::support::sse::Stream;

const BEAT: Duration = Duration::from_millis(100);

fn limits() -> Limits {
    Limits { heartbeat: BEAT, identify: Duration::from_millis(200), ..Limits::default() }
}

/// Waits for so many heartbeats from now on.
async fn beats(client: &Stream, count: usize) {
    let mut left = count;
    client
        .wait_from(
            client.len(),
            |frame| {
                left -= usize::from(frame.kind() == "server.heartbeat");
                left == 0
            },
            SOON,
        )
        .await;
}

/// An answer of the relay's own, in opencode's error shape.
fn assert_reason(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    let error = answer.json();
    assert!(error["name"].is_string(), "{error}");
    assert!(error["data"]["message"].as_str().is_some_and(|message| message.contains(words)), "{error}");
}

/// Dies in the middle of a turn, with a permission open, and comes back as another release.
async fn comes_back_as(before: &str, after: &str, flags: &[(&'static str, &str)]) {
    let what = format!("{before} to {after}, {flags:?}");
    let standin = StandIn::start(before).await;
    let relay = Relay::limited(&standin, flags, limits()).await;
    relay.ready(flags).await;
    let client = relay.open("/event").await;
    let global = relay.open("/global/event").await;
    let session = relay.open("/session/ses_any/event").await;
    let run = frames("1.14.48", "e_permission");
    let asked = run.iter().position(|data| kind(data) == "permission.asked").unwrap();
    for data in &run[..=asked] {
        standin.publish(data);
    }
    client.wait_for(|frame| frame.kind() == "permission.asked", SOON).await;
    assert_eq!(has_api(&relay).await, before >= "1.17", "{what}");
    // A request that is being answered breaks off; one that comes later is told why.
    let api = relay.api();
    let (silent, ()) = tokio::join!(api.send(Method::POST, "/test/silent", None), async {
        while standin.requests("/test/silent") == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        standin.kill().await;
    });
    assert_reason(&silent.unwrap(), 502, "broke off before it answered");
    for method in [Method::GET, Method::POST] {
        let answer = relay.api().send(method, "/session", None).await.unwrap();
        assert_reason(&answer, 502, "nothing accepts connections");
    }
    let refused = relay.api().send(Method::GET, "/event", None).await.unwrap();
    assert_reason(&refused, 503, "nothing accepts connections");
    assert_eq!(refused.headers["retry-after"], "1", "{what}");
    ready_is(&relay, 503, &what).await;
    for stream in [&client, &global, &session] {
        beats(stream, 3).await;
    }

    standin.revive(after).await;
    relay.until("another release", |status| status["upstream"]["version"] == after).await;
    ready_is(&relay, 200, &what).await;
    assert_eq!(has_api(&relay).await, after >= "1.17", "{what}");
    // The turn died, and with it the question that nobody can answer any more.
    client.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
    let fold = converged(&client, &standin, &what).await;
    assert_eq!(fold.idles.len(), 1, "{what}: {:?}", fold.idles);
    let kinds: Vec<String> = client.frames().iter().map(|frame| frame.kind()).collect();
    let place = |kind: &str| kinds.iter().rposition(|seen| seen == kind).unwrap();
    assert!(place("session.status") < place("session.idle"), "{what}: {kinds:?}");
    // And everything goes on. A session that is gone before the state is read is nothing the log alone could tell of.
    if !flags.contains(&("witness", "log")) {
        standin.granted(2).await;
        for data in frames("1.14.48", "d_crud") {
            assert!(standin.publish(&data));
        }
        client.wait_for(|frame| frame.kind() == "session.deleted", SOON).await;
    } else {
        let (at, run) = (client.len(), frames("1.14.48", "a_text"));
        run.iter().for_each(|data| standin.publish_undelivered(data));
        client.wait_from(at, |frame| frame.kind() == "session.idle", SOON).await;
    }
    converged(&client, &standin, &what).await;
    for stream in [&client, &global, &session] {
        assert_eq!(stream.end(), None, "{what}");
        let greetings = stream.frames().iter().filter(|frame| frame.kind() == "server.connected").count();
        assert_eq!(greetings, 1, "{what}");
    }
    assert!(standin.most_open() <= 1, "{what}");
    relay.end().await;
}

/// Waits until `/_relay/ready` answers so.
async fn ready_is(relay: &Relay, status: u16, what: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let ready = relay.api().send(Method::GET, "/_relay/ready", None).await.unwrap();
        if ready.status.as_u16() == status {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {}", ready.text());
        sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the relay serves `/api/event`; opencode answers with its web page where it has no such path.
async fn has_api(relay: &Relay) -> bool {
    let stream = relay.open("/api/event").await;
    stream.head.header("content-type") == Some("text/event-stream")
}

#[tokio::test]
async fn another_release_comes_back() {
    bounded(async {
        futures_util::future::join4(
            comes_back_as("1.14.48", "1.18.34", &[("grace", "300ms")]),
            comes_back_as("1.18.34", "1.14.48", &[("grace", "300ms")]),
            comes_back_as("1.14.48", "1.14.41", &[("witness", "stream")]),
            comes_back_as("1.14.48", "1.17.11", &[("witness", "log")]),
        )
        .await;
    })
    .await;
}

/// It takes connections and answers nothing, and then it does again.
#[tokio::test]
async fn a_hang_is_waited_out() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::limited(&standin, &[], limits()).await;
        relay.ready(&[]).await;
        let client = relay.open("/event").await;
        let run = frames("1.14.48", "a_text");
        let (before, after) = run.split_at(run.len() / 2);
        for data in before {
            assert!(standin.publish(data));
        }
        standin.set_mode(Mode::Mute);
        standin.set_rest(Rest::Mute);
        standin.cut();
        for data in after {
            standin.publish_undelivered(data);
        }
        standin.asked(3).await;
        beats(&client, 3).await;
        assert!(standin.most_asking() <= 5, "{} questions at a time", standin.most_asking());
        standin.set_rest(Rest::Healthy);
        standin.set_mode(Mode::Healthy);
        converged(&client, &standin, "after a hang").await;
        client.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
        standin.granted(2).await;
        assert_eq!((client.end(), standin.most_open()), (None, 1));
        relay.end().await;
    })
    .await;
}

/// Whoever prompts as soon as the relay is ready misses nothing of what follows.
#[tokio::test]
async fn ready_waits_for_the_streams_first_answer() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        standin.set_mode(Mode::Mute);
        let relay = Relay::limited(&standin, &[], limits()).await;
        standin.asked(1).await;
        let early = relay.api().send(Method::GET, "/_relay/ready", None).await.unwrap();
        assert_eq!(early.status.as_u16(), 503, "{}", early.text());
        let reason = early.json()["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("event stream") && reason.contains(&standin.url()), "{reason}");
        // A stream that never answers holds nobody back for ever.
        ready_is(&relay, 200, "without a stream").await;
        assert_ne!(relay.status().await["witnesses"]["stream"]["state"], "connected");
        relay.end().await;
    })
    .await;
}
