//! `--witness log`: no stream is opened, and clients still end with what REST shows.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::faults::cut::{converged, ended};
use crate::faults::relay::{Dice, Relay};
use crate::standin::StandIn;
use crate::standin::capture::{frames, kind};
use crate::support::bounded;

async fn one(scenario: &'static str, pace: u64, late: u64) {
    let what = format!("{scenario}, {pace} ms between events, answers up to {late} ms late");
    let standin = StandIn::start("1.14.48").await;
    let relay = Relay::over(&standin, &[("witness", "log")]).await;
    let client = relay.open("/event").await;
    standin.answer_late(Duration::from_millis(late));
    let run = frames("1.14.48", scenario);
    for data in &run {
        standin.publish_undelivered(data);
        sleep(Duration::from_millis(pace)).await;
    }
    converged(&client, &standin, &what).await;
    relay.settled(&standin).await;
    let idles = run.iter().filter(|data| kind(data) == "session.idle").count();
    // A turn that is over before anybody can look is seen by its answer, once for all that came together.
    let least = if pace == 0 { idles.min(1) } else { idles };
    let fold = ended(&client, &standin, least, &what).await;
    let got = fold.idles.values().sum::<usize>();
    assert!((least..=idles).contains(&got), "{what}: {got} session.idle for {idles}");
    assert_eq!(standin.requests("/global/event"), 0, "{what}");
    assert_eq!(client.end(), None, "{what}");
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_state_are_enough() {
    bounded(async {
        let mut dice = Dice::new(5);
        let mut runs = JoinSet::new();
        for scenario in ["a_text", "f_todo", "e_permission", "d_crud"] {
            for pace in [0, 5, 30] {
                for late in [0, dice.below(300) as u64] {
                    runs.spawn(one(scenario, pace, late));
                }
            }
        }
        while let Some(done) = runs.join_next().await {
            done.unwrap();
        }
    })
    .await;
}
