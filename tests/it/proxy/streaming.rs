//! Bodies pass as they come, and an abort on one side is an abort on the other.

use tokio::sync::{mpsc, watch};

use super::fixture::Relay;
use crate::upstream::{Broken, Routes, within};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a2V5\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn both_bodies_flow_at_the_same_time() {
    // Each chunk is answered before the next is sent: any buffering would stand still.
    let upstream = Routes::default()
        .on("/", |_, mut wire| async move {
            wire.send(CHUNKED).await;
            loop {
                let chunk = wire.chunk().await.ok()?;
                if chunk.is_empty() {
                    wire.send("0\r\n\r\n").await;
                    return Some(wire);
                }
                wire.send_chunk(&format!("got {}", String::from_utf8_lossy(&chunk))).await;
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let head = wire.answer().await;
    assert_eq!(head.get("transfer-encoding").as_deref(), Some("chunked"));
    for word in ["one", "two", "three"] {
        wire.send_chunk(word).await;
        assert_eq!(wire.chunk().await.unwrap(), format!("got {word}").as_bytes());
    }
    wire.send("0\r\n\r\n").await;
    assert!(wire.chunk().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_long_body_passes_whole_both_ways() {
    let upstream = Routes::default().echo("/").start().await;
    let relay = Relay::over(&upstream).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut wire = relay.connect().await;
    wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    wire.send(&body).await;
    let head = wire.answer().await;
    assert!(wire.body(&head).await.unwrap() == body);
}

#[tokio::test]
async fn a_long_poll_has_no_limit_of_ours() {
    let (open, gate) = watch::channel(false);
    let upstream = Routes::default()
        .on("/tui/control/next", move |_, mut wire| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.ok()?;
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                Some(wire)
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("GET /tui/control/next HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    upstream.requests(1).await;
    // Others are served meanwhile.
    relay.get("/other", "").await;
    open.send_replace(true);
    assert_eq!(wire.answer().await.second(), "200");
}

#[tokio::test]
async fn a_client_that_breaks_off_ends_the_request_at_opencode() {
    let (ended, mut ends) = mpsc::channel(4);
    let waiting = ended.clone();
    let reading = ended.clone();
    let upstream = Routes::default()
        .on("/wait", move |_, mut wire| {
            let ended = waiting.clone();
            async move {
                wire.ended().await;
                ended.send("waiting for the head").await.ok()?;
                None
            }
        })
        .on("/download", move |_, mut wire| {
            let ended = ended.clone();
            async move {
                wire.send(CHUNKED).await;
                wire.send_chunk("first").await;
                wire.ended().await;
                ended.send("reading the body").await.ok()?;
                None
            }
        })
        .on("/upload", move |head, mut wire| {
            let ended = reading.clone();
            async move {
                let cut = matches!(wire.body(&head).await, Err(Broken));
                ended.send(if cut { "sending the body" } else { "a whole body came" }).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;

    let mut wire = relay.connect().await;
    wire.send("GET /wait HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    upstream.requests(1).await;
    drop(wire);
    assert_eq!(within("the end", ends.recv()).await, Some("waiting for the head"));

    let (_, mut wire) = relay.get("/download", "").await;
    assert_eq!(wire.chunk().await.unwrap(), b"first");
    wire.reset();
    assert_eq!(within("the end", ends.recv()).await, Some("reading the body"));

    for framing in ["transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "content-length: 10\r\n\r\nabc"] {
        let mut wire = relay.connect().await;
        let before = upstream.heads().len();
        wire.send(format!("POST /upload HTTP/1.1\r\nhost: relay\r\n{framing}")).await;
        upstream.requests(before + 1).await;
        drop(wire);
        assert_eq!(within("the end", ends.recv()).await, Some("sending the body"), "{framing}");
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_never_looks_like_an_end() {
    let upstream = Routes::default()
        .on("/chunked", |_, mut wire| async move {
            wire.send(CHUNKED).await;
            wire.send_chunk("first").await;
            None
        })
        .on("/length", |_, mut wire| async move {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await;
            None
        })
        .on("/reset", |_, mut wire| async move {
            wire.send(CHUNKED).await;
            wire.send_chunk("first").await;
            // The reset must not overtake the data.
            wire.head().await;
            wire.reset();
            None
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    for path in ["/chunked", "/length"] {
        let (head, mut wire) = relay.get(path, "").await;
        assert!(wire.body(&head).await.is_err(), "{path}");
        assert!(wire.ended().await.is_empty(), "{path}");
    }
    // To HTTP/1.0 the end of the connection is the end of the body, so it has to be a reset.
    let mut wire = relay.connect().await;
    wire.send("GET /chunked HTTP/1.0\r\n\r\n").await;
    assert!(wire.is_reset().await);
    let mut wire = relay.connect().await;
    wire.send("POST /reset HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n").await;
    wire.answer().await;
    assert_eq!(wire.chunk().await.unwrap(), b"first");
    wire.send_chunk("\r\n\r\n").await;
    assert!(wire.chunk().await.is_err());
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let upstream = Routes::default()
        .on("/", |_, mut wire| async move {
            wire.send("HTTP/1.1 413 Too Long\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
            wire.ended().await;
            None
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 1000000\r\n\r\nbegin").await;
    let head = wire.answer().await;
    assert_eq!(head.second(), "413");
    assert_eq!(wire.body(&head).await.unwrap(), b"no");
}

#[tokio::test]
async fn a_socket_passes_both_ways_with_its_half_close() {
    let upstream = Routes::default()
        .on("/pty/1/connect", |_, mut wire| async move {
            // Bytes right behind the head belong to the socket already.
            wire.send(format!("{SWITCHED}hello")).await;
            let came = wire.ended().await;
            wire.send(format!("you said {}", String::from_utf8_lossy(&came))).await;
            None
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (head, mut wire) =
        relay.get("/pty/1/connect?ticket=t", &format!("origin: http://localhost\r\n{UPGRADE}")).await;
    assert_eq!(head.second(), "101");
    assert_eq!(head.get("upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.get("connection").as_deref(), Some("upgrade"));
    let sent = upstream.last();
    assert_eq!(sent.second(), "/pty/1/connect?ticket=t");
    for (name, value) in [
        ("host", "relay"),
        ("origin", "http://localhost"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "a2V5"),
    ] {
        assert_eq!(sent.get(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(wire.exactly(5).await, b"hello");
    wire.send("some ").await;
    wire.send("words").await;
    wire.half_close().await;
    assert_eq!(wire.ended().await, b"you said some words");
}

#[tokio::test]
async fn bytes_of_another_protocol_are_never_taken_for_http() {
    const LOOKS_LIKE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let upstream = Routes::default()
        .on("/odd", |_, mut wire| async move {
            wire.send(SWITCHED).await;
            wire.exactly(1).await;
            wire.send(LOOKS_LIKE).await;
            None
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (head, mut wire) = relay.get("/odd", UPGRADE).await;
    assert_eq!(head.second(), "101");
    // By then the 101 has been flushed, and nothing else is underway.
    wire.send("a").await;
    assert_eq!(wire.ended().await, LOOKS_LIKE.as_bytes());
}

#[tokio::test]
async fn a_socket_ends_with_the_relay_and_with_either_end() {
    let upstream = Routes::default()
        .on("/echo", |_, mut wire| async move {
            wire.send(SWITCHED).await;
            loop {
                let byte = wire.exactly(1).await;
                if byte.is_empty() || byte == b"q" {
                    return None;
                }
                wire.send(byte).await;
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (_, mut wire) = relay.get("/echo", UPGRADE).await;
    wire.send("a").await;
    assert_eq!(wire.exactly(1).await, b"a");
    wire.send("q").await;
    assert!(wire.ended().await.is_empty());
    let (_, mut wire) = relay.get("/echo", UPGRADE).await;
    wire.send("a").await;
    assert_eq!(wire.exactly(1).await, b"a");
    relay.stop.pull();
    assert!(wire.ended().await.is_empty());
    assert_eq!(relay.tasks.finish(crate::upstream::LIMIT).await, Ok(()));
}

#[tokio::test]
async fn only_the_asked_protocol_is_switched_to() {
    let upstream = Routes::default()
        .fixed("/refused", "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        .fixed("/plain", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .fixed("/other", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n")
        .fixed("/switch", SWITCHED)
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    for (path, fields, status) in [
        ("/refused", UPGRADE, "403"),
        ("/plain", UPGRADE, "200"),
        ("/other", UPGRADE, "502"),
        ("/switch", "", "502"),
        ("/switch", "upgrade: websocket\r\n", "502"),
        ("/switch", "connection: upgrade\r\nupgrade: h2c\r\n", "502"),
    ] {
        assert_eq!(relay.get(path, fields).await.0.second(), status, "{path} {fields:?}");
    }
    // A refused upgrade leaves the connection usable.
    let (head, mut wire) = relay.get("/refused", UPGRADE).await;
    wire.body(&head).await.unwrap();
    wire.send("GET /plain HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    assert_eq!(wire.answer().await.second(), "200");
}

#[tokio::test]
async fn a_refused_upgrade_passes_with_its_body() {
    let upstream = Routes::default()
        .fixed("/", "HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: other\r\nx-why: a\r\ncontent-length: 5\r\n\r\nother")
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (head, mut wire) = relay.get("/", UPGRADE).await;
    assert_eq!((head.second(), head.get("x-why").as_deref()), ("426", Some("a")));
    assert_eq!(wire.body(&head).await.unwrap(), b"other");
}

#[tokio::test]
async fn what_is_sent_before_the_switch_is_not_lost() {
    let (open, gate) = watch::channel(false);
    let upstream = Routes::default()
        .on("/", move |_, mut wire| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.ok()?;
                wire.send(format!("{SWITCHED}right behind")).await;
                let came = wire.ended().await;
                wire.send(format!(" and {}", String::from_utf8_lossy(&came))).await;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    // Some in the same packet as the request, some while opencode thinks about it.
    wire.send(format!("GET / HTTP/1.1\r\nhost: relay\r\n{UPGRADE}\r\nfirst ")).await;
    upstream.requests(1).await;
    wire.send("second ").await;
    open.send_replace(true);
    assert_eq!(wire.answer().await.second(), "101");
    wire.send("third").await;
    wire.half_close().await;
    assert_eq!(wire.ended().await, b"right behind and first second third");
}

#[tokio::test]
async fn an_opencode_that_has_said_all_still_hears() {
    let (tell, mut told) = mpsc::channel(1);
    let upstream = Routes::default()
        .on("/", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                wire.send(format!("{SWITCHED}bye")).await;
                wire.half_close().await;
                tell.send(wire.ended().await).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (_, mut wire) = relay.get("/", UPGRADE).await;
    assert_eq!(wire.ended().await, b"bye");
    wire.send("still ").await;
    wire.send("there").await;
    wire.half_close().await;
    assert_eq!(within("the rest", told.recv()).await.unwrap(), b"still there");
}

#[tokio::test]
async fn a_socket_that_is_reset_on_one_side_ends_on_the_other() {
    let (tell, mut told) = mpsc::channel(2);
    let upstream = Routes::default()
        .on("/reset", |_, mut wire| async move {
            wire.send(SWITCHED).await;
            wire.exactly(1).await;
            wire.reset();
            None
        })
        .on("/wait", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                wire.send(SWITCHED).await;
                wire.ended().await;
                tell.send(()).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (_, mut wire) = relay.get("/reset", UPGRADE).await;
    wire.send("x").await;
    assert!(wire.ended().await.is_empty());
    let (_, wire) = relay.get("/wait", UPGRADE).await;
    wire.reset();
    within("the end", told.recv()).await.unwrap();
}
