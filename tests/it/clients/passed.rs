//! What is not an event stream goes through: sockets, long polls, the web app.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fixture::{SOON, Served, bounded};
use crate::support::http::send;
use crate::support::sse::Stream;

/// The example of RFC 6455 and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A short text as one masked frame; the mask is zero, which masks nothing.
fn text_frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short text");
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Reads until the words came.
async fn read_until(socket: &mut TcpStream, words: &str) -> String {
    let mut got = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&got).contains(words) {
            let read = socket.read_buf(&mut got).await.unwrap();
            assert_ne!(read, 0, "closed before {words:?}");
        }
    };
    let came = timeout(SOON, reading).await.is_ok();
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(came, "no {words:?} within {SOON:?}: {got:?}");
    got
}

#[tokio::test]
async fn a_terminal_answers_over_its_websocket() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let pty = served.relay.api().post("/pty", &json!({"command": "/bin/sh", "args": []})).await;
        let id = pty["id"].as_str().unwrap();

        let mut socket = TcpStream::connect(served.relay.base().strip_prefix("http://").unwrap()).await.unwrap();
        let handshake = format!(
            "GET /pty/{id}/connect HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
        );
        socket.write_all(handshake.as_bytes()).await.unwrap();
        let head = read_until(&mut socket, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.to_lowercase().contains(&format!("sec-websocket-accept: {}", ACCEPT.to_lowercase())), "{head}");
        // The terminal echoes the sum as it was typed; only the shell can have worked it out.
        socket.write_all(&text_frame("echo sum $((40 + 2))\n")).await.unwrap();
        read_until(&mut socket, "sum 42").await;
    })
    .await;
}

/// 1.14.48 has the long poll, but nothing in it answers one: what it is told to do on its screen, it publishes.
#[tokio::test]
async fn a_long_poll_stays_open_and_holds_nothing_up() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        let api = served.relay.api();
        let events = Stream::open(&api, "/event").await.unwrap();
        let poll = api.send(Method::GET, "/tui/control/next", None);
        let orders = async {
            let append = json!({"text": "typed elsewhere"});
            assert_eq!(api.post("/tui/append-prompt", &append).await, json!(true));
            let show = json!({"type": "tui.toast.show", "properties": {"message": "told", "variant": "info"}});
            assert_eq!(api.post("/tui/publish", &show).await, json!(true));
            let appended = events.wait_for(|frame| frame.kind() == "tui.prompt.append", SOON).await;
            assert_eq!(appended.json()["properties"], append);
            let shown = events.wait_for(|frame| frame.kind() == "tui.toast.show", SOON).await;
            assert_eq!(shown.json()["properties"]["message"], "told");
        };
        tokio::select! {
            biased;
            answer = poll => panic!("the poll was answered: {answer:?}"),
            () = orders => {}
        }
        // It was given up with the connection; the next one waits as well.
        let second = timeout(Duration::from_millis(300), api.send(Method::GET, "/tui/control/next", None)).await;
        assert!(second.is_err(), "{second:?}");
    })
    .await;
}

#[tokio::test]
async fn the_web_app_is_opencodes() {
    bounded(async {
        let served = Served::start("1.14.48").await;
        for path in ["/", "/favicon.ico", "/session/some/page"] {
            let get = async |base: &str| send(Method::GET, &format!("{base}{path}"), &[], "").await.unwrap();
            let direct = get(served.relay.upstream().base()).await;
            let relayed = get(served.relay.base()).await;
            assert_eq!(relayed.status, direct.status, "{path}");
            assert_eq!(relayed.body, direct.body, "{path}");
            for name in ["content-type", "content-length", "content-security-policy", "cache-control", "vary"] {
                assert_eq!(relayed.headers.get(name), direct.headers.get(name), "{path}: {name}");
            }
        }
        let page = served.relay.api().send(Method::GET, "/", None).await.unwrap();
        assert!(page.status.is_success() && page.text().contains("<html"), "{}", page.text());
    })
    .await;
}
