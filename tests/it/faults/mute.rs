//! An opencode whose stream and log are dead: the stream is open and shows life, but neither brings an event. What
//! happens is only seen by who looks.

use std::time::Duration;

use tokio::time::sleep;

use crate::faults::cut::converged;
use crate::faults::relay::Relay;
use crate::standin::StandIn;
use crate::standin::capture::frames;
use crate::support::bounded;

/// Between two changes of the state, so that looks fall between them.
const PACE: Duration = Duration::from_millis(20);

async fn is_followed(scenario: &'static str, flags: &[(&'static str, &str)]) {
    let standin = StandIn::start("1.14.48").await;
    let mut all = vec![("watch_state", "200ms")];
    all.extend(flags);
    let relay = Relay::over(&standin, &all).await;
    let client = relay.open("/event").await;
    let global = relay.open("/global/event").await;
    for data in frames("1.14.48", scenario) {
        standin.fold(&data);
        standin.beat();
        sleep(PACE).await;
    }
    for client in [&client, &global] {
        converged(client, &standin, scenario).await;
        assert_eq!(client.end(), None);
    }
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_stream_is_made_up_for_by_looking() {
    bounded(is_followed("a_text", &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_log_is_made_up_for_by_looking() {
    bounded(is_followed("f_todo", &[("witness", "log")])).await;
}
