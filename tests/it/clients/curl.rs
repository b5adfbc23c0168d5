//! curl, as the bug report has it and as editors' plugins run it.

use std::time::Duration;

use serde_json::Value;

use super::fixture::{SOON, Served, bounded, event_type, since_session};

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
        let curl = served.tool("curl", &["-sN", &served.url("/event"), "-H", "Accept: text/event-stream"]);
        let events = served.turn(&curl, see).await;
        served.compare(&events);

        // Not only the same values: the same bytes.
        let lines = curl.stdout.from(0).into_iter().map(|line| line.text);
        let printed = Vec::from_iter(lines.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())));
        let printed = since_session(printed, |data| see(&format!("data: {data}")).as_ref().map(event_type).unwrap());
        assert_eq!(printed, served.published());
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
