//! The door is exactly as wide as opencode's: its refusals are handed through, and an outage opens nothing.

use base64::Engine as _;
use opencode_relay::http::Credentials;
use opencode_relay::proxy::Target;

use super::fixture::{Relay, Settings, message, up};
use crate::upstream::{Routes, Upstream};

const PATH: &str = r#"{"directory":"/default","worktree":"/"}"#;

/// An opencode with the password `pass`.
async fn locked() -> Upstream {
    Routes::default()
        .on("/path", |head, mut wire| async move {
            let good = base64::engine::general_purpose::STANDARD.encode("opencode:pass");
            let shown = head.get("authorization") == Some(format!("Basic {good}"))
                || head.second().contains(&format!("auth_token={good}"));
            let answer = if shown {
                format!("200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{PATH}", PATH.len())
            } else {
                "401 Unauthorized\r\nwww-authenticate: Basic realm=\"Secure Area\"\r\nvary: Origin\r\n\
                 content-length: 4\r\n\r\nnope"
                    .to_owned()
            };
            wire.send(format!("HTTP/1.1 {answer}")).await;
            Some(wire)
        })
        .start()
        .await
}

fn basic(text: &str) -> String {
    format!("authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(text))
}

const GUARDED: [&str; 5] = ["/event", "/global/event", "/session/ses_1/event", "/api/event", "/_relay/status"];

#[tokio::test]
async fn a_refusal_is_handed_through() {
    let upstream = locked().await;
    let relay = Relay::over(&upstream).await;
    let token = base64::engine::general_purpose::STANDARD.encode("opencode:pass");
    for path in GUARDED {
        for fields in [String::new(), basic("opencode:wrong"), basic("other:pass")] {
            let (head, text) = relay.get_text(path, &fields).await;
            assert_eq!((head.second(), text.as_str()), ("401", "nope"), "{path}");
            assert_eq!(head.get("www-authenticate").as_deref(), Some("Basic realm=\"Secure Area\""));
            assert_eq!(head.get("vary").as_deref(), Some("Origin"));
        }
        for target in ["/_relay/", "/_relay/nothing"] {
            assert_eq!(relay.get(target, "").await.0.second(), "401", "not even what there is: {target}");
        }
        // An id is no credential.
        assert_eq!(relay.get(&format!("{path}?since=7-0"), "").await.0.second(), "401");
        assert_eq!(relay.get(path, &basic("opencode:pass")).await.0.second(), "200", "{path}");
        assert_eq!(relay.get(&format!("{path}?auth_token={token}"), "").await.0.second(), "200", "{path}");
    }
}

#[tokio::test]
async fn what_decides_reaches_opencode_and_nothing_that_changes_the_answer() {
    let upstream = locked().await;
    let relay = Relay::over(&upstream).await;
    let fields = format!(
        "{}x-opencode-directory: %2Fa\r\nif-none-match: *\r\nrange: bytes=0-1\r\naccept-encoding: gzip\r\n\
         accept: text/event-stream\r\nlast-event-id: 1-1\r\ncookie: c=1\r\n",
        basic("opencode:pass")
    );
    relay.get("/event?directory=%2Fb&types=a&workspace=w", &fields).await;
    let asked = upstream.last();
    assert_eq!(asked.start, "GET /path?directory=%2Fb&workspace=w HTTP/1.1");
    for name in ["if-none-match", "range", "accept-encoding", "last-event-id"] {
        assert_eq!(asked.get(name), None, "{name}");
    }
    assert_eq!(asked.get("accept").as_deref(), Some("application/json"));
    assert_eq!(asked.get("cookie").as_deref(), Some("c=1"));
    assert_eq!(asked.get("x-opencode-directory").as_deref(), Some("%2Fa"));
    relay.get("/global/event?directory=%2Fb", &fields).await;
    assert_eq!(upstream.last().second(), "/path");
    assert_eq!(upstream.last().get("x-opencode-directory"), None);
}

#[tokio::test]
async fn an_answer_that_is_not_opencodes_admits_nobody() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 21\r\n\r\n{\"directory\":\"/html\"}",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{}",
    ] {
        let upstream = Routes::default()
            .on("/path", move |_, mut wire| async move {
                wire.send(answer).await;
                None
            })
            .start()
            .await;
        let relay = Relay::over(&upstream).await;
        let (head, text) = relay.get_text("/event", "").await;
        assert_eq!(head.second(), "502");
        assert!(message(&text).contains("--upstream"), "{text}");
    }
    let upstream = Routes::default()
        .fixed("/path", "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n")
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    assert_eq!(relay.get("/event", "").await.0.second(), "302");
}

#[tokio::test]
async fn an_outage_opens_nothing() {
    let relay = Relay::start(Target::Down { reason: "it exited".into() }, Settings::default()).await;
    for path in GUARDED {
        let (head, text) = relay.get_text(path, &basic("opencode:pass")).await;
        assert_eq!((head.second(), head.get("retry-after").as_deref()), ("503", Some("1")), "{path}");
        assert!(message(&text).contains("it exited"));
    }
}

#[tokio::test]
async fn a_relay_that_holds_the_password_asks_for_it_itself() {
    let upstream = locked().await;
    let mut settings = Settings::default();
    settings.http.credentials = Some(Credentials { user: "opencode".into(), password: "pass".into() });
    let relay = Relay::start(up(&upstream), settings).await;
    relay.target.send_replace(Target::Down { reason: "it exited".into() });
    // Nobody knows the default directory yet.
    assert_eq!(relay.get("/event", &basic("opencode:pass")).await.0.second(), "503");
    relay.target.send_replace(up(&upstream));
    relay.get("/event", &basic("opencode:pass")).await;
    relay.target.send_replace(Target::Down { reason: "it exited".into() });
    for path in GUARDED {
        let (head, text) = relay.get_text(path, &basic("opencode:wrong")).await;
        assert_eq!((head.second(), text.as_str()), ("401", ""), "{path}");
        assert_eq!(head.get("www-authenticate").as_deref(), Some("Basic realm=\"Secure Area\""));
        assert_eq!(relay.get(path, &basic("opencode:pass")).await.0.second(), "200", "{path}");
    }
    let (_, mut wire) = relay.get("/event", &basic("opencode:pass")).await;
    relay.publish("/default", "session.idle", "ses_1");
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("session.idle") {
        text.extend(wire.chunk().await.unwrap());
    }
}

#[tokio::test]
async fn health_and_ready_are_for_everybody() {
    let relay = Relay::start(Target::Down { reason: "it exited".into() }, Settings::default()).await;
    let (head, text) = relay.get_text("/_relay/health", "").await;
    assert_eq!((head.second(), head.get("content-type").as_deref()), ("200", Some("application/json")));
    let health: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(health["healthy"], true);
    assert_eq!(relay.get("/_relay/ready", "").await.0.second(), "200");

    let settings = Settings { ready: Err("opencode is starting".into()), ..Settings::default() };
    let relay = Relay::start(Target::Starting, settings).await;
    let (head, text) = relay.get_text("/_relay/ready", "").await;
    assert_eq!(head.second(), "503");
    assert!(text.contains("opencode is starting"));
}

#[tokio::test]
async fn other_paths_and_methods_of_ours_do_not_reach_opencode() {
    let upstream = Routes::default()
        .fixed("*", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .fixed(
            "/path",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\naccess-control-allow-origin: http://localhost:1\r\n\
             content-length: 17\r\n\r\n{\"directory\":\"/\"}",
        )
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    for path in ["/_relay/x", "/_relay/health/x"] {
        let (head, _) = relay.get(path, "").await;
        assert_eq!(head.second(), "404", "{path}");
        assert_eq!(
            head.get("access-control-allow-origin").as_deref(),
            Some("http://localhost:1"),
            "a page may read it"
        );
    }
    let mut wire = relay.connect().await;
    wire.send("POST /_relay/health HTTP/1.1\r\nhost: relay\r\ncontent-length: 0\r\n\r\n").await;
    let head = wire.answer().await;
    assert_eq!((head.second(), head.get("allow").as_deref()), ("405", Some("GET, HEAD")));
    assert!(upstream.heads().iter().all(|head| head.start == "GET /path HTTP/1.1"));
    for preflight in ["", "access-control-request-method: GET\r\n"] {
        let mut wire = relay.connect().await;
        wire.send(format!("OPTIONS /_relay/status HTTP/1.1\r\nhost: relay\r\n{preflight}\r\n")).await;
        assert_eq!(wire.answer().await.second(), "200");
        assert_eq!(upstream.last().start, "OPTIONS /_relay/status HTTP/1.1");
    }
    assert_eq!(relay.get("/_relayed", "").await.0.second(), "200");
}
