//! The relay's own credentials go to opencode only, and only in the relay's own questions.

use std::time::Duration;

use base64::Engine as _;
use opencode_relay::http::Credentials;
use tokio::net::TcpListener;

use crate::proxy::fixture::{Relay, Settings, up};
use crate::support::bounded;
use crate::support::relay;
use crate::upstream::{Head, Routes, Upstream, Wire, within};

const PASSWORD: &str = "the-relays-own";

/// An opencode that lets everybody in and writes down what came.
async fn recording() -> Upstream {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    Routes::default()
        .fixed("*", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .fixed(
            "/path",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"directory\":\"/\"}",
        )
        .on("/pty/pty_1/connect", move |_, mut wire: Wire| async move {
            wire.send(upgrade).await;
            Some(wire)
        })
        .start()
        .await
}

/// Whether any credential is in a head.
fn shows_some(head: &Head) -> bool {
    head.get("authorization").is_some() || head.get("cookie").is_some() || head.start.contains("auth_token")
}

#[tokio::test]
async fn a_client_is_lent_no_credentials() {
    let upstream = recording().await;
    let mut settings = Settings::default();
    settings.http.credentials = Some(Credentials { user: "opencode".into(), password: PASSWORD.into() });
    let relay = Relay::start(up(&upstream), settings).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a\r\nsec-websocket-version: 13\r\n";
    let requests = [
        ("GET /session", ""),
        ("POST /session", "content-length: 0\r\n"),
        ("PATCH /config", "content-length: 0\r\n"),
        ("DELETE /session/ses_1", ""),
        ("HEAD /session", ""),
        ("OPTIONS /session", ""),
        ("OPTIONS /event", "access-control-request-method: GET\r\n"),
        ("OPTIONS /_relay/status", "access-control-request-method: GET\r\n"),
        ("HEAD /event", ""),
        ("GET /event", ""),
        ("GET /event?directory=%2Fa", "last-event-id: 7-0\r\n"),
        ("GET /global/event", ""),
        ("GET /api/event", ""),
        ("GET /session/ses_1/event", ""),
        ("GET /_relay/status", ""),
        ("HEAD /_relay/status", ""),
        ("GET /_relay/nothing", ""),
        ("GET /pty/pty_1/connect", upgrade),
    ];
    for (start, fields) in requests {
        let before = upstream.heads().len();
        let mut wire = relay.connect().await;
        wire.send(format!("{start} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
        wire.answer().await;
        let heads = upstream.heads().split_off(before);
        assert!(!heads.is_empty(), "{start} was not asked about");
        assert!(!heads.iter().any(shows_some), "{start}: {heads:?}");
    }
    // What a client shows goes along, unchanged.
    for (path, query) in [("/session", ""), ("/event", ""), ("/event", "?auth_token=eDp5")] {
        let fields = if query.is_empty() { "authorization: Basic eDp5\r\n" } else { "" };
        relay.get(&format!("{path}{query}"), fields).await;
        let last = upstream.last();
        let (shown, asked) = (last.get("authorization"), last.second());
        assert!(shown.as_deref() == Some("Basic eDp5") || asked.ends_with("?auth_token=eDp5"), "{last:?}");
    }
}

/// opencode says that what the relay asks for is elsewhere; nobody goes there with its password.
#[tokio::test]
async fn no_other_place_is_shown_the_credentials() {
    bounded(async {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = elsewhere.local_addr().unwrap();
        let upstream = Routes::default()
            .on("*", move |_, mut wire: Wire| async move {
                let moved = format!("HTTP/1.1 307 Moved\r\nlocation: http://{address}/x\r\ncontent-length: 0\r\n\r\n");
                wire.send(moved).await;
                Some(wire)
            })
            .start()
            .await;
        let folder = tempfile::tempdir().unwrap();
        let (url, state) = (format!("http://{}", upstream.address()), folder.path().to_str().unwrap().to_owned());
        // A proxy for outgoing requests is another place as well.
        let proxy = format!("http://{address}");
        let env = [
            ("OPENCODE_SERVER_PASSWORD", PASSWORD),
            ("http_proxy", &proxy),
            ("HTTP_PROXY", &proxy),
            ("ALL_PROXY", &proxy),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let _relay =
            relay::Relay::start(&["--upstream", &url, "--state-dir", &state, "--log", "none"], &env, folder.path())
                .await;
        let good = base64::engine::general_purpose::STANDARD.encode(format!("opencode:{PASSWORD}"));
        let shows = |head: &Head| head.get("authorization") == Some(format!("Basic {good}"));
        let both = async || loop {
            let heads = upstream.heads();
            let asked = |path: &str| heads.iter().any(|head| head.second().starts_with(path) && shows(head));
            if asked("/global/event") && asked("/global/health") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        within("the relay to show opencode its password", both()).await;
        let came = tokio::time::timeout(Duration::from_millis(500), elsewhere.accept()).await;
        assert!(came.is_err(), "somebody came: {came:?}");
    })
    .await;
}
