//! How many connections there may be.

use std::time::Duration;

use tokio::time::timeout;

use crate::proxy::fixture::{Relay, Settings, up};
use crate::upstream::{Routes, Upstream, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\n";

async fn upstream() -> Upstream {
    Routes::default()
        .fixed("/", OK)
        .on("/socket", |_, mut wire| async move {
            wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
            wire.ended().await;
            None
        })
        .start()
        .await
}

#[tokio::test]
async fn one_address_has_its_limit_and_sockets_count() {
    let upstream = upstream().await;
    let mut settings = Settings::default();
    settings.http.connections_per_address = Some(2);
    let relay = Relay::start(up(&upstream), settings).await;
    let (_, first) = relay.get("/", "").await;
    let (head, second) = relay.get("/socket", UPGRADE).await;
    assert_eq!(head.second(), "101");
    for refused in 1..=3 {
        assert!(relay.connect().await.ended().await.is_empty());
        assert_eq!((relay.connections.open(), relay.connections.refused()), (2, refused));
    }
    for wire in [first, second] {
        drop(wire);
        within("room", async {
            while relay.connections.open() == 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(relay.get("/", "").await.0.second(), "200");
        within("room", async {
            while relay.connections.open() == 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let (head, kept) = relay.get("/socket", UPGRADE).await;
        assert_eq!(head.second(), "101");
        drop(kept);
    }
}

#[tokio::test]
async fn a_trusted_proxy_comes_for_many() {
    let upstream = upstream().await;
    let mut settings = Settings::default();
    settings.http.connections_per_address = Some(1);
    settings.http.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let relay = Relay::start(up(&upstream), settings).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let (head, wire) = relay.get("/", "").await;
        assert_eq!(head.second(), "200");
        open.push(wire);
    }
    assert_eq!((relay.connections.open(), relay.connections.refused()), (5, 0));
}

#[tokio::test]
async fn a_socket_keeps_its_place_until_it_is_closed() {
    let upstream = upstream().await;
    let mut settings = Settings::default();
    settings.http.connections = 1;
    let relay = Relay::start(up(&upstream), settings).await;
    let (head, socket) = relay.get("/socket", UPGRADE).await;
    assert_eq!(head.second(), "101");
    let mut second = relay.connect().await;
    second.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    assert!(timeout(Duration::from_millis(150), second.head()).await.is_err());
    drop(socket);
    assert_eq!(second.answer().await.second(), "200");
}
