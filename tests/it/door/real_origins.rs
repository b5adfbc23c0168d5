//! Which web pages may read an answer of the relay, and open a terminal through it: those that opencode lets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::Method;
use serde_json::json;

use super::real::{ALLOWED_ORIGIN, Server, say};
use crate::support::bounded;
use crate::support::http::{Api, send};
use crate::upstream::Wire;

const ORIGINS: [&str; 17] = [
    "http://localhost:3000",
    "http://localhost",
    "http://127.0.0.1:1",
    "http://[::1]:3000",
    "https://localhost:3000",
    "tauri://localhost",
    "http://tauri.localhost",
    "https://x.opencode.ai",
    "https://a.b.opencode.ai",
    "https://opencode.ai",
    "https://evilopencode.ai",
    "https://evil.example",
    "http://localhost.evil.example",
    "null",
    "",
    "https://evil.example, http://localhost:3000",
    ALLOWED_ORIGIN,
];

/// What to ask the relay, and what is the same at opencode; errors of the relay's own carry the same fields.
const REQUESTS: [(&str, &str); 13] = [
    ("GET /event", "GET /event"),
    ("GET /global/event", "GET /global/event"),
    ("GET /session/ses_1/event", "GET /path"),
    ("GET /_relay/status", "GET /path"),
    ("GET /_relay/nothing", "GET /path"),
    ("GET /event?ids=wrong", "GET /path"),
    ("GET /event?types=,", "GET /path"),
    ("GET /session/a%20b/event", "GET /path"),
    ("HEAD /_relay/status", "GET /path"),
    ("HEAD /event", "HEAD /event"),
    ("OPTIONS /event", "OPTIONS /event"),
    ("OPTIONS /session/ses_1/event", "OPTIONS /session/ses_1/event"),
    ("OPTIONS /_relay/status", "OPTIONS /_relay/status"),
];

async fn pages_read_what_opencode_lets_them(version: &str) {
    let server = Server::start(version, &[]).await;
    say(server.address, "GET /path", "").await;
    let front = server.relay("relay", &[]).await;
    let preflight = "access-control-request-method: GET\r\naccess-control-request-headers: authorization, x-a\r\n";
    let mut compared = 0;
    for origin in ORIGINS.into_iter().map(Some).chain([None]) {
        let origin_line = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
        for (ours, theirs) in REQUESTS {
            for more in if ours.starts_with("OPTIONS") { vec!["", preflight] } else { vec![""] } {
                let fields = format!("{origin_line}{more}");
                let direct = say(server.address, theirs, &fields).await;
                let relayed = say(front.address, ours, &fields).await;
                let mut expected = direct.door();
                if ours.starts_with("GET") && relayed.get("content-type") == Some("text/event-stream") {
                    // opencode forgets it for origins that it does not allow; a cache needs it there too.
                    expected.insert("vary", "Origin");
                }
                assert_eq!(relayed.door(), expected, "{ours} from {origin:?}: {relayed:?}");
                let reflected = relayed.get("access-control-allow-origin");
                let is_foreign = origin.is_some_and(|origin| origin.contains("evil"));
                assert!(!is_foreign || reflected.is_none(), "{ours} from {origin:?}: {relayed:?}");
                compared += 1;
            }
        }
        // A name that is not ours, too: opencode's word about the page is kept.
        let mut wire = Wire::connect(front.address).await;
        wire.send(format!("GET /event HTTP/1.1\r\nhost: evil.example\r\n{origin_line}\r\n")).await;
        let (refused, direct) = (wire.answer().await, say(server.address, "GET /path", &origin_line).await);
        assert_eq!(refused.second(), "403");
        for name in ["access-control-allow-origin", "vary"] {
            assert_eq!(refused.get(name).as_deref(), direct.get(name), "{origin:?}");
        }
        compared += 1;
    }
    let from_ours = say(front.address, "GET /_relay/status", &format!("origin: {ALLOWED_ORIGIN}\r\n")).await;
    assert_eq!(from_ours.get("access-control-allow-origin"), Some(ALLOWED_ORIGIN), "the test sees such fields");
    println!("| {version} | {} origins × requests | {compared} equal |", ORIGINS.len() + 1);
}

#[tokio::test]
async fn pages_read_what_1_14_48_lets_them() {
    bounded(pages_read_what_opencode_lets_them("1.14.48")).await;
}

#[tokio::test]
async fn pages_read_what_1_18_34_lets_them() {
    bounded(pages_read_what_opencode_lets_them("1.18.34")).await;
}

/// What a WebSocket's handshake is answered, by opencode itself and through the relay.
async fn handshakes(
    server: &Server,
    relay: SocketAddr,
    target: &str,
    ticket: Option<&Api>,
    fields: &str,
) -> [String; 2] {
    let mut statuses = [String::new(), String::new()];
    for (status, address) in statuses.iter_mut().zip([server.address, relay]) {
        // A ticket is good for one handshake.
        let target = match ticket {
            Some(api) => format!("{target}/connect?ticket={}", new_ticket(api, target).await),
            None => format!("{target}/connect"),
        };
        let mut wire = Wire::connect(address).await;
        wire.send(format!(
            "GET {target} HTTP/1.1\r\n{fields}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
        *status = wire.head().await.expect("an answer").second().to_owned();
    }
    statuses
}

async fn new_ticket(api: &Api, pty: &str) -> String {
    let fields = [("origin", "http://localhost:3000"), ("x-opencode-ticket", "1")];
    let answer = send(Method::POST, &api.url(&format!("{pty}/connect-token")), &fields, "").await.unwrap();
    answer.json()["ticket"].as_str().unwrap_or_else(|| panic!("no ticket: {}", answer.text())).to_owned()
}

/// A WebSocket is not under the same-origin rule: the server's look at the origin is all that keeps pages out. opencode
/// looks at it where a ticket is shown, and only there.
async fn terminals_open_for_the_same_pages(version: &str) {
    let server = Server::start(version, &[]).await;
    let front = server.relay("relay", &[]).await;
    let api = Api::new(format!("http://{}", server.address));
    let pty = api.post("/pty", &json!({"command": "/bin/sh", "args": []})).await;
    let target = format!("/pty/{}", pty["id"].as_str().unwrap());
    let mut seen = BTreeMap::new();
    for ticket in [None, Some(&api)] {
        for host in ["localhost:4096", "evil.example"] {
            for origin in
                ORIGINS.into_iter().chain(["http://evil.example", "http://localhost:4096"]).map(Some).chain([None])
            {
                let origin_line = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
                let fields = format!("host: {host}\r\n{origin_line}");
                let [direct, relayed] = handshakes(&server, front.address, &target, ticket, &fields).await;
                assert_eq!(relayed, direct, "{host} from {origin:?}, ticket: {}", ticket.is_some());
                seen.insert((ticket.is_some(), host, origin), relayed);
            }
        }
    }
    // The test sees the difference: a page's origin, and the Host it is compared with, come to opencode.
    for (key, status) in [
        ((false, "localhost:4096", None), "101"),
        ((true, "localhost:4096", Some("http://localhost:3000")), "101"),
        ((true, "localhost:4096", Some("https://evil.example")), "403"),
        ((true, "evil.example", Some("http://evil.example")), "101"),
        ((true, "localhost:4096", Some("http://evil.example")), "403"),
    ] {
        assert_eq!(seen[&key], status, "{key:?}");
    }
    println!("| {version} | {} handshakes | equal |", seen.len());
}

#[tokio::test]
async fn terminals_open_for_the_same_pages_as_at_1_14_48() {
    bounded(terminals_open_for_the_same_pages("1.14.48")).await;
}

#[tokio::test]
async fn terminals_open_for_the_same_pages_as_at_1_18_34() {
    bounded(terminals_open_for_the_same_pages("1.18.34")).await;
}
