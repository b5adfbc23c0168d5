//! The browser's own EventSource: a page of another origin in Chromium, with opencode's password in the address.

use serde_json::{Value, json};

use super::comeback::Beside;
use super::fixture::{Cutter, SOON, bounded, create};
use crate::support::browser::Browser;
use crate::support::model::ScriptedModel;
use crate::support::opencode::Home;
use crate::support::relay::Relay;

const PASSWORD: &str = "kept + between / us";

#[tokio::test]
async fn eventsource_comes_back_after_a_kill() {
    bounded(async {
        let mut beside = Beside::start(|model| Home::new("1.14.48", model).with_password(PASSWORD)).await;
        let stream = beside.url("/event");
        let browser =
            Browser::start("eventsource.mjs", &[&stream, "opencode", PASSWORD], &beside.opencode.home.scratch());
        beside.kill_in_a_turn(&browser.script).await;
        let broken = browser.script.stderr.from(0);
        assert!(!broken.is_empty() && broken.iter().all(|line| line.text == "broken: for now"), "{broken:?}");
    })
    .await;
}

/// A single answer that the page may not read would be the end for it.
#[tokio::test]
async fn eventsource_comes_back_while_opencode_is_down() {
    bounded(async {
        let model = ScriptedModel::start().await.unwrap();
        let mut opencode = Home::new("1.14.48", &model).with_password(PASSWORD).start().await;
        let relay = Relay::beside(&opencode, Relay::TEE, "auto", &["--journal", "memory"]).await;
        let cutter = Cutter::start(&relay, &[]).await;
        let stream = format!("{}/event", cutter.base());
        let browser = Browser::start("eventsource.mjs", &[&stream, "opencode", PASSWORD], &opencode.home.scratch());
        let page = &browser.script;
        let hear = async |from: usize, kind: &'static str| -> Value {
            let is_meant = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|event| event["type"] == kind);
            let heard = page.stdout.wait(from, SOON, |line| is_meant(&line.text)).await;
            heard.unwrap_or_else(|| panic!("no {kind}: {}\n{}", page.output(), relay.output()))
        };
        assert_eq!(hear(0, "server.connected").await["properties"], json!({}));

        opencode.kill();
        let heard = page.stdout.len();
        cutter.cut();
        assert_eq!(hear(heard, "server.connected").await["properties"], json!({"resumed": true}));
        opencode.restart().await;
        let session = create(&relay.api()).await;
        assert_eq!(hear(heard, "session.created").await["properties"]["info"]["id"], session);

        let broken = page.stderr.from(0);
        assert_eq!(Vec::from_iter(broken.iter().map(|line| &*line.text)), ["broken: for now"]);
    })
    .await;
}
