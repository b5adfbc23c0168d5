//! DNS rebinding: while no password guards opencode, the relay's own pages and streams answer to known names only.

use opencode_relay::http::Credentials;
use opencode_relay::proxy::Target;

use crate::proxy::fixture::{Relay, Settings, message, up};
use crate::upstream::{Head, Routes, Upstream, Wire};

const GUARDED: [&str; 6] =
    ["/event", "/global/event", "/session/ses_1/event", "/api/event", "/_relay/status", "/_relay/nothing"];

/// Whatever it shows, a page proves nothing.
const SHOWN: &str = "authorization: Basic b3BlbmNvZGU6cGFzcw==\r\ncookie: a=b\r\nx-opencode-directory: /evil\r\n";

/// An opencode that lets everybody in, or only those who show anything.
async fn opencode(is_open: bool) -> Upstream {
    Routes::default()
        .on("/path", move |head: Head, mut wire: Wire| async move {
            let origin = head.get("origin").unwrap_or_default();
            let cors = format!("access-control-allow-origin: {origin}\r\nvary: Origin\r\n");
            let is_admitted = is_open || head.get("authorization").is_some();
            let answer = match is_admitted {
                true => format!(
                    "200 OK\r\n{cors}content-type: application/json\r\ncontent-length: 17\r\n\r\n{{\"directory\":\"/\"}}"
                ),
                false => format!("401 Unauthorized\r\n{cors}content-length: 4\r\n\r\nnope"),
            };
            wire.send(format!("HTTP/1.1 {answer}")).await;
            Some(wire)
        })
        .fixed("/session", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")
        .start()
        .await
}

fn settings(allowed: &[&str]) -> Settings {
    let mut settings = Settings::default();
    settings.http.allowed_hosts = allowed.iter().map(|&name| name.to_owned()).collect();
    settings
}

async fn get(relay: &Relay, start: &str, fields: &str) -> (Head, Wire) {
    let mut wire = relay.connect().await;
    wire.send(format!("{start}\r\n{fields}\r\n")).await;
    (wire.answer().await, wire)
}

#[tokio::test]
async fn a_foreign_name_is_refused_while_opencode_is_open() {
    let upstream = opencode(true).await;
    let relay = Relay::start(up(&upstream), settings(&[])).await;
    for path in GUARDED {
        let target = format!("{path}?directory=%2Fevil&auth_token=b3BlbmNvZGU6cGFzcw==");
        let fields = format!("host: evil.example:4097\r\norigin: http://evil.example\r\n{SHOWN}");
        let (head, mut wire) = get(&relay, &format!("GET {target} HTTP/1.1"), &fields).await;
        assert_eq!(head.second(), "403", "{path}");
        assert_eq!(head.get("vary").as_deref(), Some("Origin"));
        assert_eq!(head.get("access-control-allow-origin").as_deref(), Some("http://evil.example"), "opencode's word");
        let text = String::from_utf8(wire.body(&head).await.unwrap()).unwrap();
        let message = message(&text);
        assert!(message.contains("--allowed-host evil.example,") && message.contains("password"), "{message}");
        // The question is nobody's, and boots no instance.
        let asked = upstream.last();
        assert_eq!(asked.start, "GET /path HTTP/1.1");
        for name in ["authorization", "cookie", "x-opencode-directory"] {
            assert_eq!(asked.get(name), None, "{name}");
        }
    }
    assert_eq!(upstream.heads().len(), GUARDED.len(), "nothing else was asked");
    for path in GUARDED {
        let expected = if path == "/_relay/nothing" { "404" } else { "200" };
        for host in ["localhost:1", "127.0.0.1", "[::1]:4097", "a.localhost"] {
            let (head, _) = get(&relay, &format!("GET {path} HTTP/1.1"), &format!("host: {host}\r\n")).await;
            assert_eq!(head.second(), expected, "{path} {host}");
        }
        // Older than the field, and no browser's.
        assert_eq!(get(&relay, &format!("GET {path} HTTP/1.0"), "").await.0.second(), expected, "{path}");
    }
    let foreign = "host: evil.example\r\n";
    // A target's name is one, too; the methods of a page as well.
    let (head, _) = get(&relay, "GET http://evil.example/event HTTP/1.1", "host: localhost\r\n").await;
    assert_eq!(head.second(), "403");
    for method in ["HEAD", "POST"] {
        let start = format!("{method} /_relay/status HTTP/1.1");
        assert_eq!(get(&relay, &start, &format!("{foreign}content-length: 0\r\n")).await.0.second(), "403", "{method}");
    }
    // Monitors come by any name, and what opencode itself serves is opencode's to guard.
    for path in ["/_relay/health", "/_relay/ready", "/session"] {
        assert_eq!(get(&relay, &format!("GET {path} HTTP/1.1"), foreign).await.0.second(), "200", "{path}");
    }
}

#[tokio::test]
async fn allowed_names_are_let_in() {
    let upstream = opencode(true).await;
    let relay = Relay::start(up(&upstream), settings(&["relay.example"])).await;
    let status = async |relay: &Relay, host: &str| {
        let (head, _) = get(relay, "GET /_relay/status HTTP/1.1", &format!("host: {host}\r\n")).await;
        head.second().to_owned()
    };
    assert_eq!(status(&relay, "Relay.Example:443").await, "200");
    assert_eq!(status(&relay, "other.example").await, "403");
    let relay = Relay::start(up(&upstream), settings(&["*"])).await;
    assert_eq!(status(&relay, "other.example").await, "200");
}

/// The relay may not know the password that opencode has.
#[tokio::test]
async fn a_password_guards_any_name() {
    let upstream = opencode(false).await;
    let relay = Relay::start(up(&upstream), settings(&[])).await;
    for path in ["/event", "/_relay/status"] {
        let start = format!("GET {path} HTTP/1.1");
        let foreign = "host: relay.example\r\n";
        let (head, mut wire) = get(&relay, &start, foreign).await;
        assert_eq!((head.second(), wire.body(&head).await.unwrap()), ("401", b"nope".to_vec()), "{path}");
        assert_eq!(get(&relay, &start, &format!("{foreign}{SHOWN}")).await.0.second(), "200", "{path}");
    }
    // Where the relay holds it, opencode is asked once.
    let mut settings = settings(&[]);
    settings.http.credentials = Some(Credentials { user: "opencode".into(), password: "pass".into() });
    let relay = Relay::start(up(&upstream), settings).await;
    let before = upstream.heads().len();
    let (head, _) = get(&relay, "GET /_relay/status HTTP/1.1", &format!("host: relay.example\r\n{SHOWN}")).await;
    assert_eq!((head.second(), upstream.heads().len() - before), ("200", 1));
    let (head, _) = get(&relay, "GET /_relay/status HTTP/1.1", "host: relay.example\r\n").await;
    assert_eq!(head.second(), "401");
    relay.target.send_replace(Target::Down { reason: "it exited".into() });
    for (fields, expected) in [("", "401"), (SHOWN, "200")] {
        let fields = format!("host: relay.example\r\n{fields}");
        let (head, _) = get(&relay, "GET /_relay/status HTTP/1.1", &fields).await;
        assert_eq!(head.second(), expected, "the relay compares on its own");
    }
}

/// Nor does a password guard opencode because the relay was given one.
#[tokio::test]
async fn a_password_of_the_relay_alone_guards_nothing() {
    let upstream = opencode(true).await;
    let mut settings = settings(&[]);
    settings.http.credentials = Some(Credentials { user: "opencode".into(), password: "other".into() });
    let relay = Relay::start(up(&upstream), settings).await;
    for (host, expected) in [("evil.example", "403"), ("localhost", "200")] {
        let (head, _) = get(&relay, "GET /event HTTP/1.1", &format!("host: {host}\r\n{SHOWN}")).await;
        assert_eq!(head.second(), expected, "{host}");
    }
}

#[tokio::test]
async fn an_outage_lets_no_foreign_name_in() {
    let relay = Relay::start(Target::Down { reason: "it exited".into() }, settings(&[])).await;
    for path in GUARDED {
        let (head, _) = get(&relay, &format!("GET {path} HTTP/1.1"), &format!("host: evil.example\r\n{SHOWN}")).await;
        assert_eq!((head.second(), head.get("retry-after").as_deref()), ("503", Some("1")), "{path}");
    }
    // Whatever it is that answers, it did not say that a password guards it.
    for answer in [
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n",
    ] {
        let upstream = Routes::default().fixed("/path", answer).start().await;
        let relay = Relay::start(up(&upstream), settings(&[])).await;
        assert_eq!(get(&relay, "GET /event HTTP/1.1", "host: evil.example\r\n").await.0.second(), "403");
    }
}
