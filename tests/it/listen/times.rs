//! How long a client may take for its part, and that nothing counts while opencode does its own.

use std::time::Duration;

use opencode_relay::http::{self, Endpoint};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};

use crate::proxy::fixture::{Relay, Settings, message, up};
use crate::upstream::{LIMIT, Routes, Upstream, Wire, within};

const HEAD: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_millis(600);

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.http.head_timeout = HEAD;
    settings.http.idle_timeout = IDLE;
    settings.http.stall_timeout = Duration::from_millis(300);
    settings
}

async fn upstream() -> Upstream {
    Routes::default()
        .fixed("/", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .fixed(
            "/path",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"directory\":\"/d\"}",
        )
        .on("/thinks", |_, mut wire| async move {
            sleep(IDLE * 2).await;
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok").await;
            sleep(IDLE * 2).await;
            wire.send("ok").await;
            Some(wire)
        })
        .on("/much", |_, mut wire| async move {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20)).await;
            // Fails in the end, as nobody takes it.
            let _ = tokio::time::timeout(LIMIT, wire.flood(64 << 20)).await;
            None
        })
        .on("/socket", |_, mut wire| async move {
            wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
            let byte = wire.exactly(1).await;
            wire.send(byte).await;
            None
        })
        .start()
        .await
}

async fn until_closed(relay: &Relay) {
    within("the connections to be closed", async {
        while relay.connections.open() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_408() {
    let upstream = upstream().await;
    let mut settings = settings();
    settings.http.idle_timeout = LIMIT;
    let relay = Relay::start(up(&upstream), settings).await;
    let (head, mut wire) = relay.get("/", "").await;
    wire.body(&head).await.unwrap();
    // By then it has been looked at once, and was idle.
    sleep(HEAD * 3 / 2).await;
    let start = Instant::now();
    // Each byte comes in time, the head does not; the second head of a connection no more than the first.
    for byte in "GET / HTTP/1.1\r\nhost: re".bytes() {
        wire.send([byte]).await;
        sleep(Duration::from_millis(5)).await;
    }
    let head = wire.answer().await;
    assert_eq!((head.second(), head.get("connection").as_deref()), ("408", Some("close")));
    let text = String::from_utf8(wire.body(&head).await.unwrap()).unwrap();
    assert!(message(&text).contains("--head-timeout"), "{text}");
    assert!(start.elapsed() >= HEAD && start.elapsed() < LIMIT / 2, "{:?}", start.elapsed());
    assert!(wire.ended().await.is_empty());
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let upstream = upstream().await;
    let relay = Relay::start(up(&upstream), settings()).await;
    let (head, mut used) = relay.get("/", "").await;
    used.body(&head).await.unwrap();
    let mut fresh = relay.connect().await;
    let start = Instant::now();
    // A pause that is too long within a head is none between two.
    sleep(HEAD * 2).await;
    used.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    let head = used.answer().await;
    used.body(&head).await.unwrap();
    let again = Instant::now();
    assert!(fresh.ended().await.is_empty());
    assert!(start.elapsed() >= IDLE);
    assert!(used.ended().await.is_empty());
    assert!(again.elapsed() >= IDLE - Duration::from_millis(50), "{:?}", again.elapsed());
    until_closed(&relay).await;
}

#[tokio::test]
async fn nobody_is_hurried_while_opencode_thinks() {
    let upstream = upstream().await;
    let relay = Relay::start(up(&upstream), settings()).await;
    let (head, mut wire) = relay.get("/thinks", "").await;
    assert_eq!((head.second(), wire.body(&head).await.unwrap()), ("200", b"okok".to_vec()));
    // A socket has no times of ours.
    let (head, mut wire) = relay.get("/socket", "connection: upgrade\r\nupgrade: websocket\r\n").await;
    assert_eq!(head.second(), "101");
    sleep(IDLE * 2).await;
    wire.send("x").await;
    assert_eq!(wire.exactly(1).await, b"x");
}

async fn small(relay: &Relay) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.connect(&relay.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_reset() {
    let upstream = upstream().await;
    let relay = Relay::start(up(&upstream), settings()).await;
    let mut stuck = small(&relay).await;
    stuck.write_all(b"GET /much HTTP/1.1\r\nhost: relay\r\n\r\n").await.unwrap();
    upstream.requests(1).await;
    assert_eq!(relay.connections.open(), 1);
    until_closed(&relay).await;
    assert!(Wire::new(stuck).is_reset().await);
}

#[tokio::test]
async fn a_client_that_takes_little_is_not() {
    let upstream = upstream().await;
    let relay = Relay::start(up(&upstream), settings()).await;
    let mut slow = small(&relay).await;
    slow.write_all(b"GET /much HTTP/1.1\r\nhost: relay\r\n\r\n").await.unwrap();
    let start = Instant::now();
    let mut bytes = vec![0; 16 << 10];
    while start.elapsed() < IDLE * 3 {
        assert!(within("bytes", slow.read(&mut bytes)).await.unwrap() > 0);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_stream_that_nobody_takes_is_ended_on_a_unix_socket_too() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.sock");
    let listener = http::Listener::bind(&Endpoint::Unix { path: path.clone() }, 0o600, None).await.unwrap();
    let mut settings = settings();
    settings.http.idle_timeout = LIMIT;
    let relay = Relay::start_on(listener, ([127, 0, 0, 1], 0).into(), up(&upstream), settings);
    let mut stuck = UnixStream::connect(&path).await.unwrap();
    stuck.write_all(b"GET /event HTTP/1.1\r\nhost: relay\r\n\r\n").await.unwrap();
    let mut greeting = [0; 12];
    within("the head", stuck.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"HTTP/1.1 200");
    // More than the kernel and hyper hold for it.
    let kind = format!("long.{}", "x".repeat(8_000));
    for _ in 0..400 {
        relay.publish("/d", &kind, "ses_1");
    }
    until_closed(&relay).await;
    let mut rest = Vec::new();
    within("the end", stuck.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() > 10_000 && !rest.ends_with(b"0\r\n\r\n"));
}
