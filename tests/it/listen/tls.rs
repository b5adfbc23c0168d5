//! TLS: it is spoken where it was asked for, and a new certificate needs no restart.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::fixture::{Secured, connect, talk};
use crate::proxy::fixture::{Settings, message};
use crate::upstream::{Routes, Upstream, Wire};

const GET: &str = "GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn upstream() -> Upstream {
    Routes::default().fixed("/x", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").start().await
}

#[tokio::test]
async fn requests_pass_through_tls() {
    let upstream = upstream().await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let text = talk(secured.connect("http/1.1").await, GET).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nok"), "{text}");
    let text = talk(secured.connect("http/1.1").await, "GET / HTTP/1.1\r\nno field\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("RFC 9112"), "{text}");
}

#[tokio::test]
async fn plain_http_is_told_to_speak_tls() {
    let upstream = upstream().await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let mut wire = Wire::connect(secured.relay.address).await;
    wire.send(GET).await;
    let head = wire.answer().await;
    let text = String::from_utf8(wire.body(&head).await.unwrap()).unwrap();
    assert_eq!(head.second(), "400");
    assert!(message(&text).contains("https://"), "{text}");
    assert!(wire.ended().await.is_empty());
    let mut wire = Wire::connect(secured.relay.address).await;
    wire.send(b"\0\x01\x02").await;
    assert!(wire.ended().await.is_empty());
    assert!(upstream.heads().is_empty());
}

#[tokio::test]
async fn a_handshake_has_the_time_of_a_head_and_a_place() {
    let upstream = upstream().await;
    let mut settings = Settings::default();
    settings.http.head_timeout = Duration::from_millis(200);
    settings.http.connections_per_address = Some(2);
    let secured = Secured::over(&upstream, settings).await;
    let start = Instant::now();
    let mut silent = Wire::connect(secured.relay.address).await;
    let mut begun = Wire::connect(secured.relay.address).await;
    begun.send(b"\x16\x03\x01").await;
    assert!(connect(secured.relay.address, &secured.shown, "h2").await.is_err(), "a third");
    assert!(silent.ended().await.is_empty() && begun.ended().await.is_empty());
    assert!(start.elapsed() >= Duration::from_millis(200));
    secured.connect("h2").await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let upstream = upstream().await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let mut before = secured.connect("http/1.1").await;
    before.write_all(b"GET /x HTTP/1.1\r\n").await.unwrap();
    let renewed = secured.files.renew();
    secured.tls.reload().unwrap();
    assert!(connect(secured.relay.address, &secured.shown, "h2").await.is_err(), "the old one is still shown");
    let stream = connect(secured.relay.address, &renewed, "http/1.1").await.unwrap();
    assert!(talk(stream, GET).await.ends_with("ok"));
    assert!(talk(before, "host: localhost\r\nconnection: close\r\n\r\n").await.ends_with("ok"));
    std::fs::write(&secured.files.key, "nothing").unwrap();
    secured.tls.reload().unwrap_err();
    connect(secured.relay.address, &renewed, "h2").await.unwrap();
}
