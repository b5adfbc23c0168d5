//! The browser's own EventSource: a page of another origin in Chromium, with opencode's password in the address.

use super::comeback::Beside;
use super::fixture::bounded;
use crate::support::browser::Browser;
use crate::support::opencode::Home;

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
