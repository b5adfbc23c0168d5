//! What never becomes a request is refused in opencode's error shape, and only that.

use crate::proxy::fixture::{Relay, message};
use crate::upstream::{Head, Routes, Upstream, Wire};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn upstream() -> Upstream {
    Routes::default()
        .fixed("*", OK)
        .fixed("/empty", "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        .fixed("/large", "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n")
        .start()
        .await
}

/// The refusal that comes now, and that it is the last.
async fn refusal(wire: &mut Wire) -> (Head, String) {
    let head = wire.answer().await;
    let body = wire.body(&head).await.unwrap();
    assert_eq!(head.get("connection").as_deref(), Some("close"));
    assert_eq!(head.get("content-type").as_deref(), Some("application/json"));
    assert_eq!(head.get("cache-control").as_deref(), Some("no-store"));
    assert!(head.get("date").is_some());
    assert!(wire.ended().await.is_empty());
    (head, message(&String::from_utf8(body).unwrap()))
}

#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let upstream = upstream().await;
    let relay = Relay::over(&upstream).await;
    let many = "x: y\r\n".repeat(101);
    // More than the relay reads: what it says must not be lost with what it leaves.
    let long = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(400_000));
    for (request, status, words) in [
        ("GET / HTTP/1.1\r\nno field\r\n\r\n", "400", "RFC 9112"),
        ("GET / HTTP/9\r\n\r\n", "400", "RFC 9112"),
        ("GET / HTTP/1.1\r\nx : y\r\n\r\n", "400", "RFC 9112"),
        // The first bytes of TLS.
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n", "400", "RFC 9112"),
        (&format!("GET / HTTP/1.1\r\n{many}\r\n"), "431", "100 fields"),
        (&long, "431", "64 KiB"),
    ] {
        // Alone, and behind a good one on the same connection.
        for before in ["", "GET / HTTP/1.1\r\nhost: relay\r\n\r\n"] {
            let mut wire = relay.connect().await;
            wire.send(format!("{before}{request}")).await;
            if !before.is_empty() {
                let head = wire.answer().await;
                assert_eq!((head.second(), wire.body(&head).await.unwrap()), ("200", b"ok".to_vec()));
            }
            let (head, text) = refusal(&mut wire).await;
            let shown = &request[..request.len().min(60)];
            assert_eq!(head.second(), status, "{shown:?}");
            assert!(text.contains(words), "{shown:?}: {text}");
        }
    }
    assert_eq!(upstream.heads().len(), 6, "only the good ones");
}

#[tokio::test]
async fn answers_that_look_like_refusals_are_opencodes() {
    let upstream = upstream().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for (path, status) in [("/empty", "400"), ("/large", "431"), ("/empty", "400"), ("/", "200")] {
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n")).await;
        let head = wire.answer().await;
        assert_eq!((head.second(), head.get("content-type")), (status, None), "{path}");
        let body = wire.body(&head).await.unwrap();
        assert_eq!(body, if status == "200" { &b"ok"[..] } else { b"" });
    }
}

#[tokio::test]
async fn http2_is_not_spoken_without_tls() {
    let upstream = upstream().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").await;
    assert!(wire.ended().await.is_empty());
    assert!(upstream.heads().is_empty());
}
