//! A server that answers 503 once, as the relay does while opencode is down: who asks again, and who has given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fixture::{SOON, bounded, tool};
use super::{eventsource, go, python, sdk};
use crate::support::browser::Browser;
use crate::support::process::Process;
use crate::upstream::{Routes, Upstream};

/// Longer than any of these waits before it asks again.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Refuses the first request, and tells the second one an event.
async fn server() -> (Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let routes = Routes::default().on("/event", move |_, mut wire| {
        let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if is_first {
                let refusal =
                    "HTTP/1.1 503 Service Unavailable\r\naccess-control-allow-origin: *\r\ncontent-length: 0\r\n\r\n";
                wire.send(refusal).await;
                return Some(wire);
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
            wire.send_chunk("data: {\"type\":\"here\"}\n\n").await;
            wire.ended().await;
            None
        }
    });
    (routes.start().await, asked)
}

async fn is_here(client: &Process, limit: Duration) -> bool {
    client.stdout.wait(0, limit, |line| line.text.contains(r#""type":"here""#).then_some(())).await.is_some()
}

#[tokio::test]
async fn loops_and_others_ask_again() {
    let go = go::build("follow").await;
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        for name in ["sdk", "go", "python", "eventsource 2"] {
            let (server, _) = server().await;
            let base = format!("http://{}", server.address());
            let url = format!("{base}/event");
            let client = match name {
                "sdk" => sdk::subscribe(folder.path(), &base),
                "go" => tool(&go, &[&url], folder.path()),
                "python" => python::follow(&url, folder.path()),
                _ => eventsource::follow(eventsource::SCRIPTS[1], &url, folder.path()),
            };
            assert!(is_here(&client, SOON).await, "{name}: {}", client.output());
        }
    })
    .await;
}

/// The standard wants it so.
#[tokio::test]
async fn the_browser_and_version_4_give_up() {
    bounded(async {
        let folder = tempfile::tempdir().unwrap();
        let servers = [server().await, server().await];
        let urls = servers.each_ref().map(|(server, _)| format!("http://{}/event", server.address()));
        let browser = Browser::start("eventsource.mjs", &[&urls[0], "", ""], folder.path());
        let package = eventsource::follow(eventsource::SCRIPTS[0], &urls[1], folder.path());
        let clients = [&browser.script, &package];
        for client in clients {
            let told = client.stderr.wait(0, SOON, |line| line.text.starts_with("broken: ").then(|| line.text.clone()));
            let told = told.await.unwrap_or_else(|| panic!("{}", client.output()));
            assert!(told == "broken: for ever" || told.starts_with("broken: 503"), "{told}");
        }
        for (client, (_, asked)) in clients.iter().zip(&servers) {
            assert!(!is_here(client, GIVEN_UP).await && asked.load(Ordering::Relaxed) == 1, "{}", client.output());
        }
    })
    .await;
}
