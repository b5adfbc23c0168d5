//! What clients and the relay know each other by is written nowhere: not in the log at its most talkative, not in answers,
//! the status or the journal.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use socket2::{Domain, Socket, Type};
use tokio::time::{Instant, sleep};

use crate::support::bounded;
use crate::support::relay::Relay;
use crate::upstream::{Head, Routes, Upstream, Wire, within};

/// The relay's own.
const PASSWORD: &str = "relays-own-password";
/// A client's wrong one.
const WRONG: &str = "clients-wrong-password";
const TICKET: &str = "ticket-for-one-terminal";
const COOKIE: &str = "cookie-of-a-page";

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// An opencode that knows the password and breaks in several ways.
async fn opencode() -> Upstream {
    const BROKEN: [(&str, &str); 6] = [
        ("/nonsense", "\u{1}\u{2} no HTTP\r\n\r\n"),
        ("/half", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
        ("/head", "HTTP/1.1 200 OK\r\nx-half: "),
        ("/nothing", ""),
        ("/length", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"),
        ("/switched", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n"),
    ];
    let admits = |head: &Head| {
        let good = encode(&format!("opencode:{PASSWORD}"));
        head.get("authorization") == Some(format!("Basic {good}")) || head.second().contains(&good)
    };
    let json = |body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    const REFUSAL: &str =
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"Secure Area\"\r\ncontent-length: 0\r\n\r\n";
    let mut routes = Routes::default();
    for (path, body) in
        [("/path", r#"{"directory":"/"}"#), ("/global/health", r#"{"healthy":true,"version":"1.14.48"}"#), ("*", "[]")]
    {
        routes = routes.on(path, move |head, mut wire: Wire| async move {
            wire.body(&head).await.ok()?;
            wire.send(if admits(&head) { json(body) } else { REFUSAL.to_owned() }).await;
            Some(wire)
        });
    }
    for (path, bytes) in BROKEN {
        routes = routes.on(path, move |_, mut wire: Wire| async move {
            wire.send(bytes).await;
            None
        });
    }
    routes = routes.on("/pty/pty_1/connect", move |_, mut wire: Wire| async move {
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        wire.exactly(2).await;
        None
    });
    routes = routes.on("/global/event", move |head, mut wire: Wire| async move {
        if !admits(&head) {
            wire.send(REFUSAL).await;
            return Some(wire);
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
        wire.send_chunk("data: {\"payload\":{\"id\":\"evt_1\",\"type\":\"server.connected\",\"properties\":{}}}\n\n").await;
        wire.send_chunk("data: {\"directory\":\"/\",\"payload\":{\"id\":\"evt_2\",\"type\":\"session.idle\",\"properties\":{\"sessionID\":\"ses_1\"}}}\n\n")
            .await;
        std::future::pending().await
    });
    routes.start().await
}

/// All ways in which a request carries secrets; the query begins with `&`.
fn carried(user_and_password: &str) -> (String, String) {
    let encoded = encode(user_and_password);
    let escaped: String = encoded.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let query = format!("&auth_token={encoded}&auth_token={escaped}&ticket={TICKET}");
    let fields = format!(
        "authorization: Basic {encoded}\r\nproxy-authorization: Basic {encoded}\r\ncookie: a={COOKIE}\r\n\
         x-opencode-ticket: {TICKET}\r\nreferer: http://localhost/?auth_token={encoded}\r\n"
    );
    (query, fields)
}

/// Sends raw bytes and reads what comes until the end, or for a moment.
async fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut wire = Wire::connect(address).await;
    wire.send(bytes).await;
    let Some(head) = wire.head().await else { return String::new() };
    let is_endless = head.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let body = if is_endless || head.second() == "101" { Ok(Vec::new()) } else { wire.body(&head).await };
    format!("{} {:?}\n{}", head.start, head.fields, String::from_utf8_lossy(&body.unwrap_or_default()))
}

/// The requests, by what comes of them.
fn requests(query: &str, fields: &str) -> Vec<String> {
    let get = |target: &str| format!("GET {target}{query} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
    let mut all: Vec<String> = [
        "/session?",
        "/event?",
        "/event?ids=wrong",
        "/event?types=,",
        "/event?session=a/b",
        "/global/event?since=1-1",
        "/_relay/status?",
        "/_relay/nothing?",
        "/_relay/health?",
        "/nonsense?",
        "/half?",
        "/head?",
        "/nothing?",
        "/length?",
        "/switched?",
        "/session/ses_1/event?",
        "/api/event?",
    ]
    .map(get)
    .into();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a\r\nsec-websocket-version: 13\r\n";
    for path in ["/pty/pty_1/connect", "/switched"] {
        all.push(format!("GET {path}?{query} HTTP/1.1\r\nhost: localhost\r\n{upgrade}{fields}\r\n"));
    }
    all.push(format!("POST /_relay/status?{query} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: 0\r\n\r\n"));
    all.push(format!("POST /session?{query} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: 2\r\n\r\n{{}}"));
    all.push(format!("GET /event?{query} HTTP/1.1\r\nhost: evil.example\r\n{fields}\r\n"));
    all.push(format!("CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"));
    all.push(format!(
        "GET http://opencode:{WRONG}@localhost/session?{query} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
    ));
    // A head that is too long, one that is none, and a body that is none.
    all.push(format!("GET /session?{query} HTTP/1.1\r\nhost: localhost\r\n{fields}x: {}\r\n\r\n", "x".repeat(1 << 20)));
    all.push(format!("GET /session?{query} HTTP/1.1\r\nhost: localhost\r\n{fields}no field: {TICKET}\u{1}\r\n\r\n"));
    all.push(format!(
        "POST /session?{query} HTTP/1.1\r\nhost: localhost\r\n{fields}transfer-encoding: chunked\r\n\r\n{TICKET}\r\n"
    ));
    all
}

/// Every file below a folder.
fn read_all(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(read_all(&path));
        } else {
            bytes.extend(std::fs::read(&path).unwrap_or_default());
        }
    }
    bytes
}

/// An address that takes no connection: its queue is full, and nobody accepts.
fn full() -> (Socket, Vec<Socket>, SocketAddr) {
    let new = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..4)
        .map(|_| {
            let socket = new();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        })
        .collect();
    (listener, waiting, address.as_socket().unwrap())
}

async fn nothing_is_told(format: &str) {
    let upstream = opencode().await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let start = async |url: &str, name: &str| {
        let own = state.join(name);
        let arguments = [
            "--upstream",
            url,
            "--log",
            "none",
            "--state-dir",
            own.to_str().unwrap(),
            "--log-level",
            "trace",
            "--log-format",
            format,
        ];
        let env = [("OPENCODE_SERVER_PASSWORD".to_owned(), PASSWORD.to_owned())];
        // One of them is told no password.
        let env = if name == "third" { &[] } else { &env[..] };
        let relay = Relay::start(&arguments, env, folder.path()).await;
        let address: SocketAddr = relay.base().strip_prefix("http://").unwrap().parse().unwrap();
        (relay, address)
    };
    let (relay, address) = start(&format!("http://{}", upstream.address()), "relay").await;
    let ready = "GET /_relay/ready HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let deadline = Instant::now() + Duration::from_secs(10);
    while !exchange(address, ready).await.contains(" 200 ") {
        assert!(Instant::now() < deadline, "not ready: {}", relay.output());
        sleep(Duration::from_millis(20)).await;
    }

    let mut told = String::new();
    let mut statuses = Vec::new();
    let mut drive = async |address: SocketAddr, all: &[String]| {
        for request in all {
            let answer = exchange(address, request).await;
            statuses.push(answer.split(' ').nth(1).unwrap_or("none").to_owned());
            told.push_str(&answer);
        }
    };
    let both = [carried(&format!("opencode:{WRONG}")), carried(&format!("opencode:{PASSWORD}"))];
    for (query, fields) in &both {
        drive(address, &requests(query, fields)).await;
    }
    // The same while nobody answers, and where nobody accepts.
    drop(upstream);
    let (query, fields) = &both[1];
    drive(address, &requests(query, fields)).await;
    let (_listener, _waiting, nobody) = full();
    let (second, second_address) = start(&format!("http://{nobody}"), "second").await;
    drive(second_address, &requests(query, fields)[..1]).await;
    // An opencode that lets everybody in, and a name that is not ours; then nobody knows whom it would let in.
    let open = Routes::default().fixed("/path", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").start().await;
    let (third, third_address) = start(&format!("http://{}", open.address()), "third").await;
    drive(third_address, &requests(query, fields)).await;
    drop(open);
    drive(third_address, &requests(query, fields)).await;

    for expected in ["101", "200", "400", "401", "403", "404", "405", "431", "501", "502", "503", "504"] {
        assert!(statuses.iter().any(|status| status == expected), "no {expected} was provoked: {statuses:?}");
    }
    let logs = relay.output() + &second.output() + &third.output();
    assert!(logs.contains("answered") && logs.contains("/session/ses_1/event"), "it talks at all:\n{logs}");
    let journal = read_all(&state);
    assert!(String::from_utf8_lossy(&journal).contains("session.idle"), "the journal is where it was looked for");
    let places = [("the log", logs.as_bytes()), ("an answer", told.as_bytes()), ("the journal", &journal)];
    for secret in [PASSWORD, WRONG, TICKET, COOKIE] {
        let encoded = [secret.to_owned(), encode(&format!("opencode:{secret}"))];
        for text in encoded.iter().flat_map(|text| [text.clone(), text.bytes().map(|b| format!("%{b:02X}")).collect()])
        {
            for (place, bytes) in places {
                let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
                let around = found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(300)..at]).into_owned());
                assert_eq!(around, None, "{text} is in {place}");
            }
        }
    }
}

#[tokio::test]
async fn secrets_are_nowhere_with_a_log_for_people() {
    bounded(nothing_is_told("text")).await;
}

#[tokio::test]
async fn secrets_are_nowhere_with_a_log_in_json() {
    bounded(nothing_is_told("json")).await;
}

/// Whatever the filter asks for by name.
#[tokio::test]
async fn libraries_say_nothing_however_they_are_asked() {
    bounded(async {
        let upstream = opencode().await;
        let folder = tempfile::tempdir().unwrap();
        let filter = "trace,h2=trace,hyper=trace,hyper_util=trace,rustls=trace,tokio=trace,mio=trace";
        let url = format!("http://{}", upstream.address());
        let state = folder.path().to_str().unwrap();
        let arguments =
            ["--upstream", &url, "--log", "none", "--state-dir", state, "--log-level", filter, "--log-format", "json"];
        let relay = Relay::start(&arguments, &[], folder.path()).await;
        let address = relay.base().strip_prefix("http://").unwrap().parse().unwrap();
        exchange(address, "GET /session HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let said = |line: &str| line.contains("answered").then_some(());
        within("a line", relay.stderr().wait(0, Duration::from_secs(5), |line| said(&line.text)))
            .await
            .expect("a line");
        for line in relay.stderr().from(0) {
            let line: serde_json::Value = serde_json::from_str(&line.text).expect("a line of JSON");
            assert!(line["target"].as_str().unwrap().starts_with("opencode_relay"), "{line}");
        }
    })
    .await;
}
