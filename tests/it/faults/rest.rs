//! Opencode's REST answers are wrong in every way while the stream is broken too: what happened meanwhile has to wait for
//! a usable answer, and nothing else does.

use std::time::Duration;

use http::Method;
use opencode_relay::app::Limits;
use tokio::time::{Instant, sleep};

use crate::faults::cut::converged;
use crate::faults::relay::Relay;
use crate::standin::capture::{frames, kind};
use crate::standin::{Mode, Rest, SOON, StandIn};
use crate::support::bounded;
use crate::support::sse::Stream;

/// Most questions of the relay's own at the same time: four about the state, one for the release.
const QUESTIONS: usize = 5;

/// How often a question fails before the answers become right again.
const FAILURES: usize = 3;

async fn asked_again(standin: &StandIn, path: &str, count: usize, what: &str) {
    let deadline = Instant::now() + SOON;
    while standin.requests(path) < count {
        assert!(Instant::now() < deadline, "{what}: {path} was asked {} times", standin.requests(path));
        sleep(Duration::from_millis(20)).await;
    }
}

async fn one(rest: Rest) {
    let what = format!("{rest:?}");
    let standin = StandIn::start("1.14.48").await;
    let relay =
        Relay::limited(&standin, &[], Limits { heartbeat: Duration::from_millis(100), ..Limits::default() }).await;
    relay.ready(&[]).await;
    let client = relay.open("/event").await;
    let run = frames("1.14.48", "a_text");
    let busy = run.iter().position(|data| data.contains(r#""type":"busy""#)).unwrap();
    for data in &run[..=busy] {
        assert!(standin.publish(data), "{what}");
    }
    client.wait_for(|frame| frame.kind() == "session.status", SOON).await;
    let asked = standin.requests("/experimental/session");
    standin.set_rest(rest);
    standin.set_mode(Mode::Refuse(500));
    standin.cut();
    for data in &run[busy + 1..] {
        standin.publish_undelivered(data);
    }
    // Whoever asks gets what opencode said, as far as that goes, and clients who listen already do not notice.
    let before = client.len();
    if rest != Rest::Mute {
        let answer = relay.api().send(Method::GET, "/session", None).await;
        let refused = Stream::open(&relay.api(), "/event").await.err().unwrap();
        match rest {
            Rest::Status(status) => {
                assert_eq!(answer.unwrap().status.as_u16(), status, "{what}");
                assert!(refused.contains(&format!(" {status} {{\"data\":")), "{what}: {refused}");
            }
            Rest::HalfBody => assert!(answer.unwrap_err().contains("broke off"), "{what}"),
            _ => assert_eq!(answer.unwrap().status.as_u16(), 200, "{what}"),
        }
        if !matches!(rest, Rest::Status(_)) {
            assert!(refused.contains(r#" 502 {"data":{"message":""#), "{what}: {refused}");
        }
        asked_again(&standin, "/experimental/session", asked + FAILURES, &what).await;
    } else {
        asked_again(&standin, "/experimental/session", asked + 2, &what).await;
    }
    client.wait_from(before + 3, |frame| frame.kind() == "server.heartbeat", SOON).await;
    let mut made = client.frames_from(before);
    made.retain(|frame| !frame.is_greeting_or_heartbeat());
    assert!(made.is_empty(), "{what}: made of no answer: {made:#?}");
    assert!(standin.most_asking() <= QUESTIONS, "{what}: {} questions at a time", standin.most_asking());
    standin.set_rest(Rest::Healthy);
    client.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
    let fold = converged(&client, &standin, &what).await;
    assert_eq!(
        fold.idles.values().sum::<usize>(),
        run.iter().filter(|data| kind(data) == "session.idle").count(),
        "{what}: {:#?}",
        client.frames().iter().map(|frame| frame.payload().to_owned()).collect::<Vec<_>>()
    );
    assert_eq!(client.end(), None, "{what}");
    relay.end().await;
}

#[tokio::test]
async fn answers_that_are_none_are_asked_for_again() {
    bounded(async {
        let all = [Rest::Status(500), Rest::Status(401), Rest::HalfBody, Rest::Page, Rest::HalfJson, Rest::Mute];
        futures_util::future::join_all(all.map(one)).await;
    })
    .await;
}

/// Answers that take 2 s each, and a turn that goes on: clients wait for nothing but what the answers tell.
#[tokio::test]
async fn slow_answers_hold_nobody_up() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("grace", "300ms")]).await;
        let client = relay.open("/event").await;
        standin.answer_late(Duration::from_secs(2));
        let run = frames("1.14.48", "a_text");
        let lost = run.iter().position(|data| kind(data) == "message.updated").unwrap();
        let start = Instant::now();
        for (at, data) in run.iter().enumerate() {
            if at == lost { standin.publish_undelivered(data) } else { assert!(standin.publish(data)) }
        }
        client.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        converged(&client, &standin, "slow").await;
        // Else some look at the newest sessions would always be on its way.
        standin.answer_late(Duration::ZERO);
        relay.settled(&standin).await;
        converged(&client, &standin, "slow").await;
        assert!(standin.most_asking() <= QUESTIONS, "{} questions at a time", standin.most_asking());
        relay.end().await;
    })
    .await;
}
