//! What there is too much of is refused with a name, a reason and the setting that allows more.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::fixture::{Relay, Settings, message, up};
use crate::upstream::{Broken, Head, Routes, Upstream, Wire, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

async fn with(upstream: &Upstream, set: impl FnOnce(&mut opencode_relay::proxy::Options)) -> Relay {
    let mut settings = Settings::default();
    set(&mut settings.proxy);
    Relay::start(up(upstream), settings).await
}

/// The status, the error's name and its message.
async fn refusal(wire: &mut Wire) -> (String, String, String) {
    let head = wire.head().await.expect("an answer");
    let text = String::from_utf8(wire.body(&head).await.unwrap()).unwrap();
    let name = serde_json::from_str::<serde_json::Value>(&text).unwrap()["name"].as_str().unwrap().to_owned();
    if head.second() == "503" {
        assert_eq!(head.get("retry-after").as_deref(), Some("1"));
    }
    if ["408", "413"].contains(&head.second()) {
        assert_eq!(head.get("connection").as_deref(), Some("close"));
    }
    (head.second().to_owned(), name, message(&text))
}

/// An upstream that begins its answer before the request's body is there, and waits for its end.
async fn begins() -> Upstream {
    Routes::default()
        .on("/", |_, mut wire| async move {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            wire.send_chunk("begun").await;
            wire.ended().await;
            None
        })
        .start()
        .await
}

/// Asks until a place is free: it becomes free a moment after its holder's end was seen.
async fn admitted(relay: &Relay, target: &str, fields: &str) -> (Head, Wire) {
    within("a free place", async {
        loop {
            let (head, wire) = relay.get(target, fields).await;
            if head.second() != "503" {
                return (head, wire);
            }
        }
    })
    .await
}

#[tokio::test]
async fn requests_over_the_limit_are_503_until_an_answer_is_over() {
    let (open, gate) = watch::channel(false);
    let upstream = Routes::default()
        .fixed("/", OK)
        .fixed(
            "/path",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"directory\":\"/a\"}",
        )
        .on("/slow", move |_, mut wire| {
            let mut gate = gate.clone();
            async move {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await;
                gate.wait_for(|open| *open).await.ok()?;
                wire.send("cd").await;
                Some(wire)
            }
        })
        .start()
        .await;
    let relay = with(&upstream, |options| options.requests = 1).await;
    let (_, mut slow) = relay.get("/slow", "").await;
    assert_eq!(slow.exactly(2).await, b"ab");
    let mut second = relay.connect().await;
    second.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    let (status, name, message) = refusal(&mut second).await;
    assert_eq!((status.as_str(), name.as_str()), ("503", "OverloadedError"));
    assert!(message.contains("--max-requests"), "{message}");
    assert_eq!(upstream.heads().len(), 1, "nothing of it reached opencode");
    // Whoever fills the places shuts nobody out of the streams.
    assert_eq!(relay.get("/event", "").await.0.second(), "200");

    open.send_replace(true);
    assert_eq!(slow.exactly(2).await, b"cd");
    let (head, mut wire) = admitted(&relay, "/", "").await;
    assert_eq!((head.second(), wire.body(&head).await.unwrap()), ("200", b"ok".to_vec()));
    // A client that leaves frees its place as well.
    open.send_replace(false);
    let (_, slow) = admitted(&relay, "/slow", "").await;
    drop(slow);
    assert_eq!(admitted(&relay, "/", "").await.0.second(), "200");
}

#[tokio::test]
async fn sockets_over_the_limit_are_503_before_anything_is_sent() {
    let upstream = Routes::default()
        .fixed("/refused", "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        .fixed("/", OK)
        .on("/socket", |_, mut wire| async move {
            wire.send(SWITCHED).await;
            wire.ended().await;
            None
        })
        .start()
        .await;
    let relay = with(&upstream, |options| {
        options.sockets = 1;
        options.requests = 1;
    })
    .await;
    let (head, socket) = relay.get("/socket", UPGRADE).await;
    assert_eq!(head.second(), "101");
    let mut second = relay.connect().await;
    second.send(format!("GET /socket HTTP/1.1\r\nhost: relay\r\n{UPGRADE}\r\n")).await;
    // The socket's request keeps no place among the requests.
    let (status, name, message) = within("the other limit", async {
        loop {
            let refused = refusal(&mut second).await;
            if !refused.2.contains("--max-requests") {
                return refused;
            }
            second.send(format!("GET /socket HTTP/1.1\r\nhost: relay\r\n{UPGRADE}\r\n")).await;
        }
    })
    .await;
    assert_eq!((status.as_str(), name.as_str()), ("503", "OverloadedError"));
    assert!(message.contains("--max-sockets"), "{message}");
    assert_eq!(upstream.heads().len(), 1);
    assert_eq!(admitted(&relay, "/", "").await.0.second(), "200", "other requests pass");
    drop(socket);
    // A refused upgrade gives its place back.
    for _ in 0..3 {
        assert_eq!(admitted(&relay, "/refused", UPGRADE).await.0.second(), "403");
    }
    assert_eq!(admitted(&relay, "/socket", UPGRADE).await.0.second(), "101");
}

#[tokio::test]
async fn a_body_that_is_declared_too_long_is_413_at_once() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let relay = with(&upstream, |options| options.body = Some(10)).await;
    for expect in ["", "expect: 100-continue\r\n"] {
        let mut wire = relay.connect().await;
        wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\n{expect}content-length: 11\r\n\r\n")).await;
        let (status, name, message) = refusal(&mut wire).await;
        assert_eq!((status.as_str(), name.as_str()), ("413", "BodyTooLargeError"));
        assert!(message.contains("10 bytes") && message.contains("--max-body"), "{message}");
        assert!(wire.ended().await.is_empty());
    }
    assert!(upstream.heads().is_empty());
    for framing in
        ["content-length: 10\r\n\r\n0123456789", "transfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"]
    {
        let mut wire = relay.connect().await;
        wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\n{framing}")).await;
        assert_eq!(wire.answer().await.second(), "200");
    }
}

#[tokio::test]
async fn a_body_that_grows_too_long_is_413_and_broken_off_at_opencode() {
    let (tell, mut told) = mpsc::channel(1);
    let upstream = Routes::default()
        .on("/", move |head, mut wire| {
            let tell = tell.clone();
            async move {
                let body = wire.body(&head).await;
                tell.send(matches!(body, Err(Broken))).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = with(&upstream, |options| options.body = Some(10)).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n").await;
    upstream.requests(1).await;
    wire.send("5\r\nghijk\r\n").await;
    let (status, name, message) = refusal(&mut wire).await;
    assert_eq!((status.as_str(), name.as_str()), ("413", "BodyTooLargeError"));
    assert!(message.contains("--max-body"), "{message}");
    assert_eq!(within("the end", told.recv()).await, Some(true), "it must not look like an end");
}

#[tokio::test]
async fn a_body_that_grows_too_long_breaks_an_answer_off_that_has_begun() {
    let upstream = begins().await;
    let relay = with(&upstream, |options| options.body = Some(10)).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(wire.answer().await.second(), "200");
    assert_eq!(wire.chunk().await.unwrap(), b"begun");
    wire.send("b\r\n0123456789a\r\n").await;
    assert!(wire.chunk().await.is_err());
}

#[tokio::test]
async fn a_client_that_pauses_for_too_long_is_408() {
    let (tell, mut told) = mpsc::channel(4);
    let upstream = Routes::default()
        .on("/", move |head, mut wire| {
            let tell = tell.clone();
            async move {
                if head.get("expect").is_some() {
                    wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                }
                let body = wire.body(&head).await;
                tell.send(matches!(body, Err(Broken))).await.ok()?;
                wire.send(OK).await;
                Some(wire)
            }
        })
        .start()
        .await;
    let relay = with(&upstream, |options| options.body_timeout = Duration::from_millis(400)).await;
    for request in [
        "content-length: 5\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "expect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    ] {
        let mut wire = relay.connect().await;
        wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\n{request}")).await;
        if request.starts_with("expect") {
            assert_eq!(wire.head().await.unwrap().second(), "100");
        }
        let (status, name, message) = refusal(&mut wire).await;
        assert_eq!((status.as_str(), name.as_str()), ("408", "RequestTimeoutError"), "{request}");
        assert!(message.contains("--idle-timeout"), "{message}");
        assert!(wire.ended().await.is_empty());
        assert_eq!(within("the end", told.recv()).await, Some(true));
    }
    // However long it takes in all.
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 6\r\n\r\n").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(900) {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        wire.send("xy").await;
    }
    assert_eq!(wire.answer().await.second(), "200");
}

#[tokio::test]
async fn a_pause_breaks_an_answer_off_that_has_begun() {
    let upstream = begins().await;
    let relay = with(&upstream, |options| options.body_timeout = Duration::from_millis(300)).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 5\r\n\r\nabc").await;
    assert_eq!(wire.answer().await.second(), "200");
    assert_eq!(wire.chunk().await.unwrap(), b"begun");
    assert!(wire.chunk().await.is_err());
}

#[tokio::test]
async fn an_answer_that_does_not_begin_in_time_is_504_and_the_request_is_cancelled() {
    let (tell, mut told) = mpsc::channel(4);
    let upstream = Routes::default()
        .on("/", move |head, mut wire| {
            let tell = tell.clone();
            async move {
                wire.body(&head).await.ok()?;
                wire.ended().await;
                tell.send(()).await.ok()?;
                None
            }
        })
        .on("/begun", |_, mut wire| async move {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            wire.send("ok").await;
            Some(wire)
        })
        .start()
        .await;
    let relay = with(&upstream, |options| options.answer_timeout = Some(Duration::from_millis(300))).await;
    for request in
        ["GET / HTTP/1.1\r\nhost: relay\r\n\r\n", "POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\nab"]
    {
        let mut wire = relay.connect().await;
        wire.send(request).await;
        let (status, name, message) = refusal(&mut wire).await;
        assert_eq!((status.as_str(), name.as_str()), ("504", "UpstreamTimeoutError"));
        assert!(message.contains("300ms") && message.contains("--answer-timeout"), "{message}");
        within("the end", told.recv()).await.unwrap();
    }
    // Only the beginning has a limit.
    let (head, mut wire) = relay.get("/begun", "").await;
    assert_eq!(wire.body(&head).await.unwrap(), b"ok");
}

#[tokio::test]
async fn a_long_upload_is_not_counted_against_opencode() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let relay = with(&upstream, |options| options.answer_timeout = Some(Duration::from_millis(300))).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\na").await;
    assert!(timeout(Duration::from_millis(900), wire.head()).await.is_err());
    wire.send("b").await;
    assert_eq!(wire.answer().await.second(), "200");
}

#[tokio::test]
async fn an_opencode_that_takes_no_more_of_a_body_is_504_too() {
    let upstream = Routes::default()
        .on("/", |_, wire| async move {
            // Reads nothing, keeps the connection.
            std::future::pending::<()>().await;
            Some(wire)
        })
        .start()
        .await;
    let relay = with(&upstream, |options| options.answer_timeout = Some(Duration::from_millis(500))).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 1000000000\r\n\r\n").await;
    // More than all the buffers on the way hold.
    let piece = vec![b'x'; 1 << 20];
    while let Ok(true) = timeout(Duration::from_millis(300), wire.try_send(&piece)).await {}
    assert_eq!(wire.head().await.unwrap().second(), "504");
}
