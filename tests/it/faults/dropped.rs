//! A healthy stream that loses one frame: the log announced it, the state has it.

use serde_json::Value;
use tokio::task::JoinSet;

use crate::faults::cut::ended;
use crate::faults::relay::{Relay, sum};
use crate::standin::StandIn;
use crate::standin::capture::{frames, kind};
use crate::support::bounded;

/// Loses one frame with its twin, which a real release would lose together.
async fn one(scenario: &'static str, lost: usize, nameless: bool) -> usize {
    let standin = StandIn::start("1.14.48").await;
    if nameless {
        standin.name_no_sessions();
    }
    let relay = Relay::over(&standin, &[("grace", "400ms")]).await;
    let client = relay.open("/event").await;
    let run = frames("1.14.48", scenario);
    let lost_kind = kind(&run[lost]);
    let what = format!("{scenario}, frame {lost} lost, {lost_kind}");
    for (at, data) in run.iter().enumerate() {
        if at == lost || at == lost + 1 && kind(data) == "sync" {
            standin.publish_undelivered(data);
        } else {
            assert!(standin.publish(data), "{what}");
        }
    }
    let status = relay.settled(&standin).await;
    let fold = ended(&client, &standin, 1, &what).await;
    let published = run.iter().filter(|data| kind(data) != "sync").count() as u64;
    // Pending is 0: what was announced was delivered, recovered or given up by name.
    let without_twins = |name| sum(&status, name) - status["ledger"]["sync"][name].as_u64().unwrap_or_default();
    assert_eq!(without_twins("published"), published, "{what}");
    assert_eq!(without_twins("delivered"), published - 1, "{what}");
    let lost_count: &Value = &status["ledger"][&lost_kind];
    let unrecoverable = &lost_count["unrecoverable"];
    let accounted = [&lost_count["recovered"], &unrecoverable["overwritten"], &unrecoverable["no_source"]];
    let accounted: u64 = accounted.iter().map(|count| count.as_u64().unwrap()).sum();
    assert!(accounted >= 1, "{what}: {lost_count}");
    let made = status["witnesses"]["state"]["events"].as_u64().unwrap();
    assert_eq!(made, sum(&status, "recovered"), "{what}");
    assert_eq!(client.end(), None, "{what}");
    relay.end().await;
    fold.idles.values().sum()
}

async fn each(scenario: &'static str) {
    let run = frames("1.14.48", scenario);
    let mut runs = JoinSet::new();
    for lost in (0..run.len()).filter(|lost| kind(&run[*lost]) != "sync") {
        runs.spawn(one(scenario, lost, false));
        if runs.len() >= 16 {
            assert_eq!(runs.join_next().await.unwrap().unwrap(), 1, "turns end once");
        }
    }
    while let Some(done) = runs.join_next().await {
        assert_eq!(done.unwrap(), 1, "turns end once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_frame_of_a_text_turn_may_be_lost() {
    bounded(each("a_text")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_frame_of_a_turn_with_todos_may_be_lost() {
    bounded(each("f_todo")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_idle_is_recovered() {
    bounded(async {
        let idle = frames("1.14.48", "a_text").iter().position(|data| kind(data) == "session.idle").unwrap();
        assert_eq!(one("a_text", idle, false).await, 1);
    })
    .await;
}

/// The turn is over when the loss is noticed, and no line of the log says whose it was; but the stream did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_part_is_recovered_without_a_hint_in_the_log() {
    bounded(async {
        let run = frames("1.14.48", "a_text");
        let part = run.iter().position(|data| kind(data) == "message.part.updated").unwrap();
        assert_eq!(one("a_text", part, true).await, 1);
    })
    .await;
}
