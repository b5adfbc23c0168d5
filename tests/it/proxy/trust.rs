//! Who came, and by which way, is told to opencode by nobody but those who may tell.

use super::fixture::{Relay, Settings, up};
use crate::upstream::{Head, Routes, Upstream};

/// What a client claims about the hops before it.
const CLAIMS: &str = "forwarded: for=9.9.9.9;proto=https\r\nx-forwarded-for: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\n\
    x-forwarded-proto: https\r\nx-forwarded-host: evil\r\nx-forwarded-port: 1\r\nx-forwarded-prefix: /x\r\n\
    x-real-ip: 9.9.9.9\r\nvia: 1.1 front\r\n";

async fn upstream() -> Upstream {
    Routes::default().fixed("*", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").start().await
}

async fn trusting(upstream: &Upstream, proxies: &[&str]) -> Relay {
    let mut settings = Settings::default();
    settings.proxy.trusted = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
    Relay::start(up(upstream), settings).await
}

fn told(sent: &Head) -> Vec<(&str, &str)> {
    let mut fields: Vec<(&str, &str)> = sent
        .fields
        .iter()
        .filter(|(name, _)| name.contains("forwarded") || name == "x-real-ip")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn what_a_client_claims_about_others_is_replaced() {
    let upstream = upstream().await;
    for proxies in [&[][..], &["10.0.0.0/8", "unix", "127.0.0.2"]] {
        let relay = trusting(&upstream, proxies).await;
        relay.get("/", CLAIMS).await;
        let sent = upstream.last();
        assert_eq!(
            told(&sent),
            [
                ("forwarded", "for=127.0.0.1;proto=http;host=\"relay\""),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-host", "relay"),
                ("x-forwarded-proto", "http"),
            ]
        );
        // This one is a trace, and loops are found by it.
        let via = sent.get("via").unwrap();
        assert!(via.starts_with("1.1 front, 1.1 opencode-relay-"), "{via}");
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_tells_is_continued() {
    let upstream = upstream().await;
    for proxy in ["127.0.0.1", "127.0.0.0/8"] {
        let relay = trusting(&upstream, &[proxy]).await;
        relay.get("/", CLAIMS).await;
        assert_eq!(
            told(&upstream.last()),
            [
                ("forwarded", "for=9.9.9.9;proto=https, for=127.0.0.1;proto=http;host=\"relay\""),
                ("x-forwarded-for", "9.9.9.9, 8.8.8.8, 127.0.0.1"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-port", "1"),
                ("x-forwarded-prefix", "/x"),
                ("x-forwarded-proto", "https"),
                ("x-real-ip", "9.9.9.9"),
            ],
            "{proxy}"
        );
    }
}

#[tokio::test]
async fn a_connection_line_cannot_take_away_what_the_relay_tells() {
    let upstream = upstream().await;
    let relay = trusting(&upstream, &["127.0.0.1"]).await;
    relay.get("/", &format!("{CLAIMS}connection: forwarded, x-forwarded-for, x-forwarded-proto, via, host\r\n")).await;
    let sent = upstream.last();
    assert_eq!(sent.get("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(sent.get("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(sent.get("host").as_deref(), Some("relay"));
    assert!(sent.get("via").unwrap().starts_with("1.1 opencode-relay-"));
}

#[tokio::test]
async fn the_relays_own_questions_tell_it_too() {
    let upstream = Routes::default()
        .fixed(
            "/path",
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"directory\":\"/a\"}",
        )
        .start()
        .await;
    let relay = trusting(&upstream, &[]).await;
    assert_eq!(relay.get("/event", CLAIMS).await.0.second(), "200");
    assert_eq!(upstream.last().second(), "/path");
    assert_eq!(upstream.last().get("x-forwarded-for").as_deref(), Some("127.0.0.1"));
}
