//! What a client of an event stream sees of the front: heads, scoping, ids, endings.

use std::time::Duration;

use opencode_relay::event::View;
use opencode_relay::proxy::Target;

use super::fixture::{Relay, Settings, message, up};
use crate::upstream::{LIMIT, Routes, Upstream, Wire, within};

/// An opencode that admits everybody and resolves `/link` to `/real`.
async fn opencode() -> Upstream {
    Routes::default()
        .on("/path", |head, mut wire| async move {
            let target = head.second();
            let directory = match target.split_once("directory=") {
                Some((_, "%2Flink")) => "/real",
                Some((_, other)) => other,
                None => "/default",
            };
            let body = format!(r#"{{"home":"/h","directory":"{directory}","worktree":"/"}}"#);
            wire.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nvary: Origin, X\r\n\
                 access-control-allow-origin: http://localhost:3000\r\nx-other: 1\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
            Some(wire)
        })
        .fixed("/api/event", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        .start()
        .await
}

/// Frames up to the one that has `last`.
async fn until(wire: &mut Wire, last: &str) -> String {
    let mut text = String::new();
    while !text.contains(last) {
        let chunk = wire.chunk().await.expect("a frame");
        assert!(!chunk.is_empty(), "the stream ended cleanly after {text:?}");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text
}

#[tokio::test]
async fn a_stream_looks_like_a_healthy_opencodes() {
    let upstream = opencode().await;
    let relay = Relay::over(&upstream).await;
    let (head, mut wire) = relay.get("/event", "origin: http://localhost:3000\r\ncookie: a\r\n").await;
    assert_eq!(head.start, "HTTP/1.1 200 OK");
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("vary", "Origin, X"),
        ("access-control-allow-origin", "http://localhost:3000"),
        ("x-relay-resume", "fresh"),
    ] {
        assert_eq!(head.get(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(head.get("x-other"), None);
    let asked = upstream.last();
    assert_eq!(
        (asked.start.as_str(), asked.get("origin").as_deref()),
        ("GET /path HTTP/1.1", Some("http://localhost:3000"))
    );
    let greeting = until(&mut wire, "server.connected").await;
    assert!(greeting.contains("\nid: ") && greeting.ends_with("\n\n"), "{greeting}");
    relay.publish("/default", "session.idle", "ses_1");
    let frame = until(&mut wire, "session.idle").await;
    assert!(frame.contains(r#""type":"session.idle","properties":{"x":1}"#), "{frame}");
    assert_eq!(relay.clients.count(View::Instance), 1);
    drop(wire);
    within("the count to fall", async {
        while relay.clients.count(View::Instance) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_stream_has_its_scope() {
    let upstream = opencode().await;
    let relay = Relay::over(&upstream).await;
    let mut streams = Vec::new();
    for (target, fields, expected) in [
        ("/event", "", "dmz"),
        ("/event?directory=%2Flink", "", "r"),
        ("/event", "x-opencode-directory: %2Fa\r\n", "dmz"),
        ("/event?types=session.*", "", "dmz"),
        ("/event?session=ses_d", "", "dz"),
        ("/global/event?directory=%2Flink", "", "drmz"),
        ("/session/ses_r/event", "", "rz"),
        ("/api/event", "", "drmz"),
    ] {
        let (head, wire) = relay.get(target, fields).await;
        assert_eq!(head.second(), "200", "{target}");
        streams.push((target, wire, expected));
    }
    // The stand-in looks at the query only, so the header resolved to the default.
    assert!(upstream.heads().iter().any(|head| head.get("x-opencode-directory").as_deref() == Some("%2Fa")));
    assert!(upstream.heads().iter().filter(|head| head.second().contains("link")).count() == 1);
    for (directory, kind, session) in
        [("/default", "session.d", "ses_d"), ("/real", "session.r", "ses_r"), ("/default", "session.m", "ses_m")]
    {
        relay.publish(directory, kind, session);
    }
    // One that every scope but the two sessions' sees ends the reading; those get their own.
    for session in ["ses_d", "ses_r", "ses_m"] {
        relay.publish(if session == "ses_r" { "/real" } else { "/default" }, "session.z", session);
    }
    for (target, mut wire, expected) in streams {
        let last = if expected.contains('z') { "session.z" } else { "session.r" };
        let text = until(&mut wire, last).await;
        for kind in ["d", "r", "m"] {
            assert_eq!(
                text.contains(&format!("session.{kind}\"")),
                expected.contains(kind),
                "{target}: {kind}\n{text}"
            );
        }
    }
}

#[tokio::test]
async fn ids_are_for_those_who_can_take_them() {
    let upstream = opencode().await;
    let relay = Relay::over(&upstream).await;
    for (target, agent, ids) in [
        ("/event", "Bun/1.3", true),
        ("/event", "curl/8.5.0", false),
        ("/event?ids=1", "curl/8.5.0", true),
        ("/event?ids=0", "Bun/1.3", false),
    ] {
        let (_, mut wire) = relay.get(target, &format!("user-agent: {agent}\r\n")).await;
        let greeting = until(&mut wire, "server.connected").await;
        assert_eq!(greeting.contains("id: "), ids, "{target} {agent}");
        relay.publish("/default", "session.idle", "ses_1");
        let frame = until(&mut wire, "session.idle").await;
        assert_eq!(frame.contains("\nid: "), ids, "{frame}");
        assert!(ids || frame.lines().all(|line| line.is_empty() || line.starts_with("data: ")), "{frame}");
    }
}

#[tokio::test]
async fn a_client_goes_on_where_it_was() {
    let upstream = opencode().await;
    let relay = Relay::over(&upstream).await;
    relay.publish("/default", "session.one", "ses_1");
    relay.publish("/default", "session.two", "ses_1");
    let (_, mut wire) = relay.get("/event", "").await;
    let greeting = until(&mut wire, "server.connected").await;
    let newest = greeting.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let first = newest.replace("-2", "-1");
    for (target, fields) in [
        ("/event".to_owned(), format!("last-event-id: {first}\r\n")),
        (format!("/event?since={first}"), String::new()),
        (format!("/event?lastEventId={first}"), String::new()),
        (format!("/event?last_event_id={newest}"), format!("last-event-id: {first}\r\n")),
    ] {
        let (head, mut wire) = relay.get(&target, &fields).await;
        assert_eq!(head.get("x-relay-resume").as_deref(), Some("resumed"), "{target}");
        let text = until(&mut wire, "session.two").await;
        assert!(text.contains(r#"{"resumed":true}"#) && !text.contains("session.one"), "{text}");
    }
    let (head, mut wire) = relay.get("/event?since=nonsense", "").await;
    assert_eq!(head.get("x-relay-resume").as_deref(), Some("gap; reason=unknown"));
    assert!(until(&mut wire, "server.connected").await.contains(r#""gap":{"reason":"unknown","missed":null}"#));
}

#[tokio::test]
async fn bad_filters_are_400_with_the_remedy() {
    let upstream = opencode().await;
    let relay = Relay::over(&upstream).await;
    for (target, word) in [
        ("/event?types=a,,b", "message.*"),
        ("/event?session=%2F", "ses_"),
        ("/session/a%20b/event", "ses_"),
        ("/event?ids=2", "0 nor 1"),
    ] {
        let (head, text) = relay.get_text(target, "").await;
        assert_eq!(head.second(), "400", "{target}");
        assert!(message(&text).contains(word), "{target}: {text}");
        assert!(head.get("access-control-allow-origin").is_some());
    }
}

#[tokio::test]
async fn api_event_is_proxied_where_opencode_has_none() {
    let upstream = opencode().await;
    let relay = Relay::start(up(&upstream), Settings { api: false, ..Settings::default() }).await;
    assert_eq!(relay.get("/api/event", "").await.0.second(), "404");
    assert_eq!(upstream.last().second(), "/api/event");
}

#[tokio::test]
async fn the_api_stream_beats_at_once_in_a_comment() {
    let upstream = opencode().await;
    let relay = Relay::over(&upstream).await;
    let (_, mut wire) = relay.get("/api/event", "").await;
    let text = until(&mut wire, ": heartbeat\n\n").await;
    assert!(text.contains("server.connected"), "{text}");
    assert_eq!(relay.clients.count(View::Api), 1);
}

#[tokio::test]
async fn heartbeats_are_data_and_come_through_an_outage() {
    let upstream = opencode().await;
    let mut settings = Settings::default();
    settings.http.heartbeat = Duration::from_millis(20);
    let relay = Relay::start(up(&upstream), settings).await;
    let (_, mut instance) = relay.get("/event", "").await;
    let (_, mut global) = relay.get("/global/event", "").await;
    relay.target.send_replace(Target::Down { reason: "it exited".into() });
    drop(upstream);
    for (wire, start) in [(&mut instance, r#"data: {"id":"evt_"#), (&mut global, r#"data: {"payload":{"id":"evt_"#)] {
        let mut ids = std::collections::BTreeSet::new();
        while ids.len() < 3 {
            let text = until(wire, "server.heartbeat").await;
            let beat = text.lines().rfind(|line| line.contains("server.heartbeat")).expect("a heartbeat");
            assert!(beat.starts_with(start), "{beat}");
            ids.insert(beat.to_owned());
        }
    }
    // Events are not held up by the beats.
    relay.publish("/default", "session.idle", "ses_1");
    until(&mut instance, "session.idle").await;
}

#[tokio::test]
async fn stopping_ends_streams_as_errors() {
    let upstream = opencode().await;
    let mut settings = Settings::default();
    // Streams do not use up the grace of requests.
    settings.http.grace = 2 * LIMIT;
    let mut relay = Relay::start(up(&upstream), settings).await;
    let (_, mut one) = relay.get("/event", "").await;
    let (_, mut other) = relay.get("/global/event", "").await;
    until(&mut one, "server.connected").await;
    until(&mut other, "server.connected").await;
    relay.end().await;
    assert!(one.chunk().await.is_err());
    assert!(other.chunk().await.is_err());
    assert_eq!(relay.tasks.finish(Duration::from_secs(5)).await, Ok(()));
}

#[tokio::test]
async fn a_stream_to_http_1_0_ends_by_a_reset() {
    let upstream = opencode().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("GET /event HTTP/1.0\r\n\r\n").await;
    let head = wire.answer().await;
    assert_eq!(head.get("transfer-encoding"), None);
    let greeting = wire.exactly(20).await;
    assert!(greeting.starts_with(b"retry: "));
    relay.stop.pull();
    assert!(wire.is_reset().await);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let upstream = opencode().await;
    let mut settings = Settings::default();
    settings.http.stall_timeout = Duration::from_millis(500);
    let relay = Relay::start(up(&upstream), settings).await;
    let (_, wire) = relay.get("/global/event", "").await;
    assert_eq!(relay.clients.count(View::Global), 1);
    within("the client to be cut off", async {
        let long = format!("session.{}", "x".repeat(10_000));
        while relay.clients.count(View::Global) > 0 {
            relay.publish("/default", &long, "ses_1");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(wire);
}
