//! Where a message ends is said once, and read in one way only, in both directions.

use super::fixture::{Relay, message};
use crate::upstream::{Head, Routes};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The framing fields of a head, as they were written.
fn framing(head: &Head) -> Vec<(&str, &str)> {
    let fields = head.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    fields.filter(|(name, _)| ["content-length", "transfer-encoding"].contains(name)).collect()
}

#[tokio::test]
async fn a_request_has_one_framing_whatever_came() {
    let upstream = Routes::default().echo("/").start().await;
    let relay = Relay::over(&upstream).await;
    let length = [("content-length", "5")];
    let coding = [("transfer-encoding", "chunked")];
    let plain = "abcde";
    let chunks = "1\r\na\r\n4;x=\"y\"\r\nbcde\r\n0\r\n\r\n";
    for (fields, body, sent) in [
        ("content-length: 5", plain, &length),
        ("content-length: 00005", plain, &length),
        ("content-length: 5\r\ncontent-length: 5", plain, &length),
        ("content-length: 5, 5", plain, &length),
        ("content-length: 5\r\ncontent-length: 05", plain, &length),
        ("connection: content-length\r\ncontent-length: 5", plain, &length),
        ("transfer-encoding: chunked", chunks, &coding),
        ("transfer-encoding: Chunked", chunks, &coding),
        ("connection: transfer-encoding\r\ntransfer-encoding: chunked", chunks, &coding),
        ("content-length: 3\r\ntransfer-encoding: chunked", chunks, &coding),
        ("transfer-encoding: chunked\r\ncontent-length: 3", chunks, &coding),
    ] {
        for method in ["GET", "POST"] {
            let before = upstream.heads().len();
            let mut wire = relay.connect().await;
            wire.send(format!("{method} / HTTP/1.1\r\nhost: relay\r\n{fields}\r\n\r\n{body}")).await;
            // What can be read in more than one way may be refused, but then nothing of it is sent on.
            let Some(head) = wire.head().await.filter(|head| head.second() == "200") else {
                assert_eq!(upstream.heads().len(), before, "{fields}");
                continue;
            };
            assert_eq!(framing(&upstream.last()), *sent, "{method} {fields}");
            assert_eq!(wire.body(&head).await.unwrap(), b"abcde", "{method} {fields}");
        }
    }
    for coding in [
        "gzip, chunked",
        "gzip\r\ntransfer-encoding: chunked",
        "chunked, chunked",
        "chunked\r\ntransfer-encoding: chunked",
        "chunked, gzip",
        "xchunked",
        "gzip",
    ] {
        let before = upstream.heads().len();
        let mut wire = relay.connect().await;
        wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: {coding}\r\n\r\n{chunks}")).await;
        let head = wire.head().await;
        let status = head.as_ref().map(Head::second);
        assert!(matches!(status, None | Some("400" | "501")), "{coding} {status:?}");
        assert_eq!(upstream.heads().len(), before, "{coding}");
    }
    // No body is no framing; an empty one is an empty one.
    relay.get("/", "").await;
    assert_eq!(framing(&upstream.last()), []);
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 000\r\n\r\n").await;
    if wire.answer().await.second() == "200" {
        assert_eq!(framing(&upstream.last()), [("content-length", "0")]);
    }
}

#[tokio::test]
async fn an_answer_has_one_framing_whatever_came() {
    let length = [("content-length", "5")];
    let coding = [("transfer-encoding", "chunked")];
    let (plain, chunks) = ("abcde", "5\r\nabcde\r\n0\r\n\r\n");
    // Each with what is sent on; `None` is 502.
    for (answer, body, sent) in [
        ("1.1 200 OK\r\ncontent-length: 5", plain, Some(&length)),
        ("1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5", plain, Some(&length)),
        ("1.1 200 OK\r\ncontent-length: 5, 5", plain, Some(&length)),
        ("1.1 200 OK\r\ncontent-length: 0005", plain, Some(&length)),
        ("1.1 200 OK\r\nconnection: content-length\r\ncontent-length: 5", plain, Some(&length)),
        ("1.0 200 OK\r\ncontent-length: 5", plain, Some(&length)),
        ("1.1 200 OK\r\ntransfer-encoding: CHUNKED", chunks, Some(&coding)),
        ("1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked", chunks, Some(&coding)),
        // Ends with the connection, so its length is only known then.
        ("1.1 200 OK", plain, Some(&coding)),
        ("1.0 200 OK", plain, Some(&coding)),
        ("1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6", plain, None),
        ("1.1 200 OK\r\ncontent-length: 5, 6", plain, None),
        ("1.1 200 OK\r\ncontent-length: +5", plain, None),
        ("1.1 200 OK\r\ncontent-length: 0x5", plain, None),
        ("1.1 200 OK\r\ncontent-length:", plain, None),
        ("1.1 200 OK\r\ncontent-length: 99999999999999999999", plain, None),
        ("1.1 200 OK\r\ntransfer-encoding: gzip", plain, None),
        ("1.1 200 OK\r\ntransfer-encoding: gzip, chunked", chunks, None),
        ("1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked", chunks, None),
        ("1.1 200 OK\r\ntransfer-encoding: chunked, chunked", chunks, None),
        ("1.1 200 OK\r\ntransfer-encoding: chunked, gzip", chunks, None),
        ("1.1 200 OK\r\ntransfer-encoding: identity\r\ncontent-length: 5", plain, None),
        ("1.1 200 OK\r\nconnection: transfer-encoding\r\ntransfer-encoding: gzip, chunked", chunks, None),
        ("1.0 200 OK\r\ntransfer-encoding: chunked", chunks, None),
    ] {
        let bytes: &'static str = format!("HTTP/{answer}\r\n\r\n{body}").leak();
        let upstream = Routes::default()
            .on("/", move |_, mut wire| async move {
                wire.send(bytes).await;
                None
            })
            .start()
            .await;
        let relay = Relay::over(&upstream).await;
        let (head, mut wire) = relay.get("/", "").await;
        let Some(sent) = sent else {
            assert_eq!(head.second(), "502", "{answer}");
            continue;
        };
        assert_eq!((head.second(), framing(&head)), ("200", sent.to_vec()), "{answer}");
        assert_eq!(wire.body(&head).await.unwrap(), b"abcde", "{answer}");
        // HTTP/1.0 has no chunks: there the end of the connection is the end.
        let mut old = relay.connect().await;
        old.send("GET / HTTP/1.0\r\nhost: relay\r\n\r\n").await;
        let head = old.answer().await;
        assert_eq!(framing(&head), if *sent == coding { vec![] } else { sent.to_vec() }, "{answer}");
        assert_eq!(old.ended().await, b"abcde", "{answer}");
    }
}

#[tokio::test]
async fn what_is_said_of_a_body_that_does_not_follow_is_said_once_or_not_at_all() {
    let upstream = Routes::default()
        .fixed("/twice", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 7\r\n\r\n")
        .fixed("/zeros", "HTTP/1.1 200 OK\r\ncontent-length: 007\r\n\r\n")
        .fixed("/unclear", "HTTP/1.1 200 OK\r\ncontent-length: 7, 8\r\n\r\n")
        .fixed("/both", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n")
        .fixed("/coded", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n")
        .fixed("/204", "HTTP/1.1 204 No Content\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n")
        .fixed("/304", "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n")
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for (request, status, sent) in [
        ("HEAD /twice", "200", &[("content-length", "7")][..]),
        ("HEAD /zeros", "200", &[("content-length", "7")]),
        ("HEAD /unclear", "200", &[]),
        ("HEAD /both", "200", &[]),
        ("HEAD /coded", "200", &[]),
        ("GET /204", "204", &[]),
        ("GET /304", "304", &[]),
        ("HEAD /twice", "200", &[("content-length", "7")]),
    ] {
        wire.send(format!("{request} HTTP/1.1\r\nhost: relay\r\n\r\n")).await;
        let head = wire.answer().await;
        assert_eq!((head.second(), framing(&head)), (status, sent.to_vec()), "{request}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502_and_never_half_read() {
    let long = format!("200 OK\r\nx: {}", "x".repeat(1 << 20));
    let many = format!("200 OK{}", "\r\nx: y".repeat(1000));
    for head in [
        "200 OK\r\nx: a\r\n b",
        "200 OK\r\nx: a\r\n\tb",
        "200 OK\r\n x: a",
        "200 OK\r\nx : a",
        "200 OK\r\n: a",
        "200 OK\r\nno colon",
        "200 OK\r\nx: a\rb",
        "200 OK\r\nx: a\0b",
        "200 OK\r\nx\0: a",
        "200 O\0K",
        "20 OK",
        "2000 OK",
        "+20 OK",
        " 200 OK",
        &long,
        &many,
    ] {
        let answer: &'static str = format!("HTTP/1.1 {head}\r\ncontent-length: 2\r\n\r\nok").leak();
        let upstream = Routes::default()
            .on("/", move |_, mut wire| async move { wire.try_send(answer).await.then_some(wire) })
            .start()
            .await;
        let relay = Relay::over(&upstream).await;
        let (answer, text) = relay.get_text("/", "").await;
        assert_eq!(answer.second(), "502", "{}", &head[..head.len().min(40)]);
        assert!(message(&text).contains("broke off"), "{text}");
        assert_eq!(upstream.heads().len(), 1);
    }
    let upstream = Routes::default().fixed("/", "HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok").start().await;
    assert_eq!(Relay::over(&upstream).await.get("/", "").await.0.second(), "502");
}

#[tokio::test]
async fn chunks_that_are_none_break_the_answer_off() {
    for chunks in [
        "zz\r\n",
        "-1\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\nx y: z\r\n\r\n",
    ] {
        let answer: &'static str =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n{chunks}").leak();
        let upstream = Routes::default()
            .on("/", move |_, mut wire| async move {
                wire.send(answer).await;
                Some(wire)
            })
            .start()
            .await;
        let relay = Relay::over(&upstream).await;
        let (head, mut wire) = relay.get("/", "te: trailers\r\n").await;
        assert_eq!(head.second(), "200");
        assert!(wire.body(&head).await.is_err(), "{chunks:?}");
        // What followed is not taken for the answer to another request.
        assert_eq!(relay.get("/", "").await.0.second(), "200", "{chunks:?}");
        assert_eq!(upstream.connections(), 2, "{chunks:?}");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_answer_nothing_else() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for (method, answer) in [
        ("GET", "200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("GET", "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET", "204 No Content\r\n\r\n"),
        ("GET", "304 Not Modified\r\ncontent-length: 2\r\n\r\n"),
        ("HEAD", "200 OK\r\ncontent-length: 50\r\n\r\n"),
        ("HEAD", "200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ] {
        let bytes: &'static str = format!("HTTP/1.1 {answer}{EVIL}").leak();
        let upstream = Routes::default()
            .fixed("/next", OK)
            .on("/", move |_, mut wire| async move {
                wire.send(bytes).await;
                Some(wire)
            })
            .start()
            .await;
        let relay = Relay::over(&upstream).await;
        let mut wire = relay.connect().await;
        wire.send(format!("{method} / HTTP/1.1\r\nhost: relay\r\n\r\n")).await;
        let head = wire.answer().await;
        if method == "GET" {
            let body = wire.body(&head).await.unwrap();
            assert!(body.is_empty() || body == b"ok", "{answer}");
        }
        wire.send("GET /next HTTP/1.1\r\nhost: relay\r\n\r\n").await;
        let head = wire.answer().await;
        assert_eq!(wire.body(&head).await.unwrap(), b"ok", "{method} {answer}");
        assert_eq!(upstream.connections(), 2, "{method} {answer}");
    }
}
