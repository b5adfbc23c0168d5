//! nginx and Caddy before the relay, with the files in `deploy/`: events come at once, terminals work, connections are
//! kept, and nobody's claims about where he comes from are believed.

mod front;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use self::front::{CLIENT, Front, Kind, nginx, nginx_file, replace};
use crate::support::opencode::free_port;
use crate::support::programs::tool;
use crate::support::situations::until;
use crate::upstream::{LIMIT, Wire};

const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// Nothing comes within this.
const QUIET: Duration = Duration::from_millis(400);

/// Each event is there before the next is published, also for a client that takes compressed answers; a client that
/// comes back gets what it missed; and one that left is gone at the relay.
async fn events_come_at_once(kind: Kind) {
    let front = Front::start(kind).await;
    let compressed = [("accept-encoding", "gzip, br, zstd")];
    let stream = front.stream("/global/event", &compressed).await;
    assert_eq!(stream.head.header("content-encoding"), None);
    let greeting = stream.wait_for(|frame| frame.kind() == "server.connected", LIMIT).await;
    let mut last = greeting.id.clone();
    for number in 0..3 {
        let (count, session) = (stream.len(), format!("ses_{number}"));
        front.relay.publish("/a", "session.idle", &session);
        let frame = stream.wait_from(count, |frame| frame.kind() == "session.idle", LIMIT).await;
        assert_ne!(frame.id, last);
        last.clone_from(&frame.id);
    }
    assert_eq!(stream.end(), None);
    drop(stream);
    until("the relay to notice", || async { (front.streams() == 0).then_some(()) }).await;

    front.relay.publish("/a", "session.idle", "ses_missed");
    let again = front.stream("/global/event", &[("last-event-id", last.as_deref().unwrap())]).await;
    let missed = again.wait_for(|frame| frame.kind() == "session.idle", LIMIT).await;
    assert_ne!(missed.id, last);
    assert_eq!(again.head.header("x-relay-resume"), Some("resumed"));
    assert_eq!(again.frames()[0].payload_json()["properties"], serde_json::json!({"resumed": true}));
    assert_eq!(again.frames().len(), 2, "nothing twice");
}

#[tokio::test]
async fn events_come_at_once_through_nginx() {
    events_come_at_once(Kind::Nginx).await;
}

#[tokio::test]
async fn events_come_at_once_through_caddy() {
    events_come_at_once(Kind::Caddy).await;
}

async fn terminals_and_connections_work(kind: Kind) {
    let front = Front::start(kind).await;
    let (head, mut wire) = front.get("/pty/pty_1/connect", UPGRADE).await;
    assert_eq!(head.second(), "101", "{head:?}");
    for word in ["hello", "again"] {
        wire.send(word).await;
        assert_eq!(wire.exactly(5).await, word.as_bytes());
    }
    drop(wire);
    until("the relay to notice", || async { (front.relay.connections.open() <= 1).then_some(()) }).await;

    // One request after another goes over one connection to the relay.
    for _ in 0..5 {
        let (head, mut wire) = front.get("/session", "").await;
        assert_eq!(head.second(), "200");
        wire.body(&head).await.unwrap();
    }
    assert_eq!(front.relay.connections.open(), 1);
}

#[tokio::test]
async fn terminals_and_connections_work_through_nginx() {
    terminals_and_connections_work(Kind::Nginx).await;
}

#[tokio::test]
async fn terminals_and_connections_work_through_caddy() {
    terminals_and_connections_work(Kind::Caddy).await;
}

/// opencode is told the client's address and the front's, and nothing that the client claims.
async fn claims_are_not_believed(kind: Kind) {
    let front = Front::start(kind).await;
    let claims = "forwarded: for=9.9.9.9;proto=gopher\r\nx-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: gopher\r\n\
        x-forwarded-host: evil\r\nx-forwarded-port: 9\r\nx-real-ip: 9.9.9.9\r\n";
    front.get("/session", claims).await;
    let sent = front.upstream.last();
    let told = |name: &str| sent.get(name).unwrap_or_default();
    assert_eq!(told("x-forwarded-for"), format!("{CLIENT}, 127.0.0.1"));
    assert_eq!(told("x-forwarded-proto"), "http");
    assert_eq!(told("x-forwarded-host"), "code.example.com");
    assert_eq!(told("x-real-ip"), CLIENT.to_string());
    assert_eq!(told("host"), "code.example.com");
    let own = "for=127.0.0.1;proto=http;host=\"code.example.com\"";
    match kind {
        Kind::Nginx => assert_eq!(told("forwarded"), format!("for={CLIENT};proto=http, {own}")),
        Kind::Caddy => assert_eq!(told("forwarded"), own),
    }
    let evil =
        sent.fields.iter().filter(|(_, value)| ["9.9", "gopher", "evil"].iter().any(|word| value.contains(word)));
    assert_eq!(Vec::from_iter(evil), Vec::<&(String, String)>::new());
    let port = if matches!(kind, Kind::Nginx) { front.address.port().to_string() } else { String::new() };
    assert_eq!(told("x-forwarded-port"), port);
}

/// Without these lines of the files they would be: a front passes on what it does not know, and the relay trusts it.
#[tokio::test]
async fn claims_would_be_believed_without_the_files() {
    for (kind, line) in [(Kind::Nginx, "proxy_set_header Forwarded "), (Kind::Caddy, "header_up -Forwarded")] {
        let front = Front::start_with(kind, |file| replace(&file, line, &format!("# {line}"))).await;
        front.get("/session", "forwarded: for=9.9.9.9\r\n").await;
        let told = front.upstream.last().get("forwarded").unwrap();
        assert!(told.starts_with("for=9.9.9.9, for=127.0.0.1"), "{kind:?}: {told}");
    }
}

#[tokio::test]
async fn claims_are_not_believed_through_nginx() {
    claims_are_not_believed(Kind::Nginx).await;
}

#[tokio::test]
async fn claims_are_not_believed_through_caddy() {
    claims_are_not_believed(Kind::Caddy).await;
}

async fn a_prefix_is_taken_off(kind: Kind) {
    let front = Front::start(kind).await;
    for (asked, sent) in [
        ("/code/session/a%2Fb?directory=%2Fx%20y&z=1", "/session/a%2Fb?directory=%2Fx%20y&z=1"),
        ("/code/", "/"),
        ("/codes", "/codes"),
        ("/session/code/x", "/session/code/x"),
    ] {
        assert_eq!(front.get(asked, "").await.0.second(), "200", "{asked}");
        assert_eq!(front.upstream.last().second(), sent);
    }
    let stream = front.stream("/code/global/event", &[]).await;
    stream.wait_for(|frame| frame.kind() == "server.connected", LIMIT).await;
    let (head, mut wire) = front.get("/code/pty/pty_1/connect", UPGRADE).await;
    assert_eq!(head.second(), "101", "{head:?}");
    wire.send("hello").await;
    assert_eq!(wire.exactly(5).await, b"hello");
}

#[tokio::test]
async fn a_prefix_is_taken_off_by_nginx() {
    a_prefix_is_taken_off(Kind::Nginx).await;
}

#[tokio::test]
async fn a_prefix_is_taken_off_by_caddy() {
    a_prefix_is_taken_off(Kind::Caddy).await;
}

/// Why the file for Caddy does not have what is often advised for event streams.
#[tokio::test]
async fn caddy_told_to_flush_keeps_streams_that_nobody_reads() {
    let place = "header_up -Forwarded";
    let flush = |file: String| replace(&file, place, &format!("flush_interval -1\n{place}"));
    for (front, stays) in
        [(Front::start(Kind::Caddy).await, false), (Front::start_with(Kind::Caddy, flush).await, true)]
    {
        let stream = front.stream("/global/event", &[]).await;
        stream.wait_for(|frame| frame.kind() == "server.connected", LIMIT).await;
        drop(stream);
        let gone = until("the relay to notice", || async { (front.streams() == 0).then_some(()) });
        let limit = if stays { QUIET } else { LIMIT };
        assert_eq!(tokio::time::timeout(limit, gone).await.is_err(), stays);
    }
}

/// A file that says no more than where the relay is: nginx buffers by default, and would hold events back. The relay's
/// `x-accel-buffering: no` turns that off for its streams.
#[tokio::test]
async fn nginx_buffers_unless_the_answer_says_no() {
    let plain = |listen: SocketAddr, relay: SocketAddr, more: &str| {
        format!("server {{ listen {listen}; location / {{ proxy_pass http://{relay}; {more} }} }}")
    };
    for (more, is_held) in [("", false), ("proxy_ignore_headers X-Accel-Buffering;", true)] {
        let front = Front::start(Kind::Nginx).await;
        let (address, folder) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), tempfile::tempdir().unwrap());
        let _nginx = nginx(folder.path(), &plain(address, front.relay.address, more));
        until("nginx to listen", || async { tokio::net::TcpStream::connect(address).await.ok() }).await;
        let mut wire = Wire::connect(address).await;
        wire.send("GET /global/event HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        until("the stream", || async { (front.streams() == 1).then_some(()) }).await;
        front.relay.publish("/a", "session.idle", "ses_first");
        let limit = if is_held { QUIET } else { LIMIT };
        let early = tokio::time::timeout(limit, async {
            let head = wire.answer().await;
            let mut text = String::new();
            while !text.contains("session.idle") {
                text.push_str(&String::from_utf8_lossy(&wire.chunk().await.unwrap()));
            }
            head
        });
        assert_eq!(early.await.is_err(), is_held, "{more:?}");
    }
}

/// How long a terminal may be silent is the file's `proxy_read_timeout`; event streams are never silent for long.
#[tokio::test]
async fn a_silent_terminal_lives_as_long_as_nginx_is_told() {
    let front =
        Front::start_with(Kind::Nginx, |file| replace(&file, "proxy_read_timeout 1h;", "proxy_read_timeout 1s;")).await;
    let (head, mut wire) = front.get("/pty/pty_1/connect", UPGRADE).await;
    assert_eq!(head.second(), "101");
    assert_eq!(wire.ended().await, b"", "nginx cuts it off");
}

/// The whole file: a name, TLS, HTTP/2.
#[tokio::test]
async fn events_come_at_once_over_http2() {
    let front = Front::launch(Kind::Nginx, |address, relay, folder| {
        let pair = rcgen::generate_simple_self_signed(["code.example.com".to_owned()]).unwrap();
        fs::write(folder.join("pair.crt"), pair.cert.pem()).unwrap();
        fs::write(folder.join("pair.key"), pair.signing_key.serialize_pem()).unwrap();
        nginx_file(address, relay, folder)
    })
    .await;
    let (folder, port) = (front.folder.path(), front.address.port());
    let [certificate, place, url] = [
        folder.join("pair.crt").display().to_string(),
        format!("code.example.com:{port}:127.0.0.1"),
        format!("https://code.example.com:{port}/global/event"),
    ];
    let curl = tool("curl", &["-siN", "--http2", "--cacert", &certificate, "--resolve", &place, &url], folder);
    for kind in ["server.connected", "session.idle"] {
        let shown = curl.stdout.wait(0, LIMIT, |line| line.text.contains(kind).then_some(())).await;
        assert!(shown.is_some(), "{kind}: {}", curl.output());
        front.relay.publish("/a", "session.idle", "ses_1");
    }
    assert!(curl.output().contains("HTTP/2 200"), "{}", curl.output());
    let sent = front.upstream.last();
    assert_eq!(sent.get("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(sent.get("host"), Some(format!("code.example.com:{port}")));
}
