//! curl, as the bug report has it and as editors' plugins run it.

use std::time::Duration;

use serde_json::Value;

use super::comeback::Beside;
use super::fixture::{SOON, Served, bounded, event_type, seen, since_session, tool};
use crate::support::opencode::Home;

/// How opencode.nvim runs it.
pub(super) const NVIM: [&str; 6] = ["-s", "-X", "GET", "-H", "Accept: text/event-stream", "-N"];
/// opencode's heartbeat comes every 10 s.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A line as the plugins take it: they give up at a line that is neither empty nor data.
fn see(line: &str) -> Option<Value> {
    (!line.is_empty()).then(|| {
        let data = line.strip_prefix("data: ").unwrap_or_else(|| panic!("not a line of data: {line:?}"));
        serde_json::from_str(data).unwrap()
    })
}

#[tokio::test]
async fn curl_prints_the_turn_as_it_happens() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let curl = served.tool("curl", &[&NVIM[..], &[&served.url("/event")]].concat());
        let events = served.turn(&curl, see).await;
        served.compare(&events);

        // Not only the same values: the same bytes.
        let lines = curl.stdout.from(0).into_iter().map(|line| line.text);
        let printed = Vec::from_iter(lines.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())));
        let printed = since_session(printed, |data| see(&format!("data: {data}")).as_ref().map(event_type).unwrap());
        assert_eq!(printed, served.published());

        // Nothing else comes while nothing happens.
        let beat = |line: &str| see(line).filter(|event| event["type"] == "server.heartbeat");
        assert!(curl.stdout.wait(0, HEARTBEAT, |line| beat(&line.text)).await.is_some(), "{}", curl.output());
    })
    .await;
}

/// Without ids nobody can say where to go on: the plugins start curl again and hear what comes from then on.
#[tokio::test]
async fn curl_ends_with_the_relay_and_another_hears_the_end_of_the_turn() {
    bounded(async {
        let mut beside = Beside::start(|model| Home::new("1.14.48", model)).await;
        let url = beside.url("/event");
        let start = |beside: &Beside| tool("curl", &[&NVIM[..], &[&url]].concat(), &beside.opencode.home.scratch());
        let kind = |line: &str, kind: &str| see(line).filter(|event| event["type"] == kind);

        let mut first = start(&beside);
        first.stdout.wait(0, SOON, |line| kind(&line.text, "server.connected")).await.expect("a greeting");
        beside.begin_turn().await;
        beside.kill_relay().await;
        // Partial file, or connection reset: what a plugin sees is that the job ended.
        let status = first.wait(SOON).await.and_then(|status| status.code());
        assert!(matches!(status, Some(18 | 56)), "{status:?}");

        beside.start_relay().await;
        let second = start(&beside);
        second.stdout.wait(0, SOON, |line| kind(&line.text, "session.idle")).await.expect("the end of the turn");
        let (first, second) = (seen(&first.stdout, see), seen(&second.stdout, see));
        assert_eq!(second[0]["type"], "server.connected");
        assert!(first.iter().all(|event| second.iter().all(|other| other["id"] != event["id"])), "nothing comes twice");
        assert!(second.iter().any(|event| event["type"] == "message.part.delta"));
    })
    .await;
}

/// What the same command shows without the relay.
#[tokio::test]
async fn curl_at_the_bare_release_prints_one_frame() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let mut curl = served.tool("curl", &["-sN", &format!("{}/event", served.relay.upstream().base())]);
        assert!(curl.wait(SOON).await.is_some_and(|status| status.success()), "{}", curl.output());
        curl.stdout.wait_closed(Duration::from_secs(5)).await;
        let lines = Vec::from_iter(curl.stdout.from(0).into_iter().map(|line| line.text));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains(r#""type":"server.connected""#), "{lines:?}");
    })
    .await;
}
