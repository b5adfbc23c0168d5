//! What opencode says ahead of its answer reaches the client, and a body is sent only when it is asked for.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::fixture::{Relay, Settings, up};
use crate::upstream::{Head, Routes, Upstream, Wire, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// A request whose client waits to be asked for its two bytes.
const WAITING: &str = "POST / HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";

/// Answers with what `answer` is, and then tells all that still came on that connection.
async fn refusing(answer: &'static str) -> (Upstream, mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = mpsc::channel(4);
    let upstream = Routes::default()
        .on("/", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                wire.send(answer).await;
                tell.send(wire.ended().await).await.ok()?;
                None
            }
        })
        .start()
        .await;
    (upstream, told)
}

async fn text(wire: &mut Wire, head: &Head) -> String {
    String::from_utf8(wire.body(head).await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_body_is_asked_for_when_opencode_asks_for_it_and_not_before() {
    let (ask, mut asked) = mpsc::channel::<()>(1);
    let asked = {
        let (give, take) = tokio::sync::watch::channel(false);
        opencode_relay::stop::Tasks::new().spawn("asking", async move {
            asked.recv().await;
            give.send_replace(true);
        });
        take
    };
    let upstream = Routes::default()
        .on("/", move |head, mut wire| {
            let mut asked = asked.clone();
            async move {
                assert_eq!(head.get("expect").as_deref(), Some("100-continue"));
                asked.wait_for(|asked| *asked).await.ok()?;
                wire.send(CONTINUE).await;
                wire.echo(&head).await
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for framing in ["content-length: 2\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
        wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\n{framing}")).await;
        upstream.requests(1).await;
        if !ask.is_closed() {
            // Less than the patience of the relay: only the word of opencode can let the body through meanwhile.
            assert!(tokio::time::timeout(Duration::from_millis(300), wire.head()).await.is_err());
            let _ = ask.send(()).await;
        }
        assert_eq!(wire.head().await.unwrap().start, "HTTP/1.1 100 Continue");
        wire.send(if framing.starts_with('c') { "ok" } else { "2\r\nok\r\n0\r\n\r\n" }).await;
        let head = wire.answer().await;
        assert_eq!(text(&mut wire, &head).await, "ok");
    }
    assert_eq!(upstream.connections(), 1, "the connection is used again");
}

#[tokio::test]
async fn a_refusal_comes_whole_before_the_body_is_sent() {
    // Long enough to need many reads and writes, and in both framings.
    let long = "x".repeat(3_000_000);
    let fixed = format!("HTTP/1.1 413 No\r\ncontent-length: {}\r\n\r\n{long}", long.len());
    let chunked =
        format!("HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    for answer in [fixed.leak(), chunked.leak(), "HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n"] {
        let (upstream, mut told) = refusing(answer).await;
        let relay = Relay::over(&upstream).await;
        for framing in ["content-length: 2\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
            let began = Instant::now();
            let mut wire = relay.connect().await;
            wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\n{framing}")).await;
            let head = wire.head().await.unwrap();
            assert_eq!(head.second(), &answer[9..12]);
            assert_eq!(head.get("connection").as_deref(), Some("close"));
            let body = text(&mut wire, &head).await;
            assert!(body.is_empty() || body == long);
            assert!(wire.ended().await.is_empty(), "nothing more comes, not even a 100");
            // No last chunk, no bytes: the request was broken off, not ended.
            assert!(within("the end", told.recv()).await.unwrap().is_empty());
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(upstream.connections(), 2, "a connection with half a request is not used again");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_refusal_ends_it() {
    let (tell, mut told) = mpsc::channel(1);
    let upstream = Routes::default()
        .on("/", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                wire.send("HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n").await;
                // Until nobody takes it any more.
                while wire.try_send(&format!("400\r\n{}\r\n", "x".repeat(1024))).await {}
                tell.send(()).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send(WAITING).await;
    assert_eq!(wire.answer().await.second(), "403");
    assert!(!wire.chunk().await.unwrap().is_empty());
    drop(wire);
    within("the end", told.recv()).await.unwrap();
}

#[tokio::test]
async fn an_opencode_that_does_not_know_of_100_gets_the_body_after_a_second() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    let began = Instant::now();
    wire.send(WAITING).await;
    assert_eq!(wire.head().await.unwrap().second(), "100");
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    wire.send("ab").await;
    let head = wire.answer().await;
    assert_eq!(text(&mut wire, &head).await, "ok");
    assert_eq!((upstream.connections(), upstream.heads().len()), (1, 1));
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_not_asked() {
    let upstream = Routes::default()
        .on("/", |head, mut wire| async move {
            wire.send(CONTINUE).await;
            wire.body(&head).await.ok()?;
            wire.send(OK).await;
            Some(wire)
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    // Its body is there already; hyper says 100 all the same, as it has not looked that far.
    wire.send(format!("{WAITING}ab")).await;
    let head = wire.head().await.unwrap();
    let head = if head.second() == "100" { wire.answer().await } else { head };
    assert_eq!((head.second(), text(&mut wire, &head).await.as_str()), ("200", "ok"));
    // Nobody asked for this one.
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\nab").await;
    assert_eq!(wire.head().await.unwrap().second(), "200");
}

#[tokio::test]
async fn nobody_waits_for_a_body_that_there_is_not_or_in_http_1_0() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let relay = Relay::over(&upstream).await;
    for request in [
        "POST / HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: relay\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nab",
    ] {
        let mut wire = relay.connect().await;
        wire.send(request).await;
        assert_eq!(wire.head().await.unwrap().second(), "200", "{request}");
        assert_eq!(upstream.last().get("expect"), None, "{request}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_ends_the_request() {
    let (tell, mut told) = mpsc::channel(1);
    let upstream = Routes::default()
        .on("/", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                tell.send(wire.ended().await).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send(WAITING).await;
    upstream.requests(1).await;
    drop(wire);
    assert!(within("the end", told.recv()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_opencode_that_dies_while_it_is_waited_for_is_502() {
    let upstream = Routes::default().on("/", |_, _| async move { None }).start().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send(WAITING).await;
    assert_eq!(wire.head().await.unwrap().second(), "502");
    assert!(!wire.ended().await.starts_with(b"HTTP/1.1 100"));
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test]
async fn interim_answers_pass_in_order_without_what_is_for_this_hop() {
    let upstream = Routes::default()
        .fixed(
            "/",
            "HTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\n\
             keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\ntransfer-encoding: chunked\r\n\
             upgrade: websocket\r\n\r\n\
             HTTP/1.1 104 Upload Resumption Supported\r\nx-a: b\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
        let mut heads = Vec::new();
        for _ in 0..4 {
            heads.push(wire.head().await.unwrap());
        }
        let seen: Vec<(&str, Vec<(&str, &str)>)> = heads[..3]
            .iter()
            .map(|head| {
                let fields = head.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                (head.second(), fields)
            })
            .collect();
        assert_eq!(
            seen,
            [("102", vec![]), ("103", vec![("link", "</a>"), ("link", "</b>")]), ("104", vec![("x-a", "b")])]
        );
        assert_eq!(text(&mut wire, &heads[3]).await, "ok");
    }
    // HTTP/1.0 knows none.
    let mut old = relay.connect().await;
    old.send("GET / HTTP/1.0\r\nhost: relay\r\n\r\n").await;
    assert_eq!(old.head().await.unwrap().second(), "200");
}

#[tokio::test]
async fn hints_come_while_the_answer_is_still_awaited() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let upstream = Routes::default()
        .on("/", move |head, mut wire| {
            let mut gate = gate.clone();
            async move {
                wire.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
                wire.send(CONTINUE).await;
                wire.body(&head).await.ok()?;
                gate.wait_for(|open| *open).await.ok()?;
                wire.send(OK).await;
                Some(wire)
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send(WAITING).await;
    let mut interim = [wire.head().await.unwrap(), wire.head().await.unwrap()];
    interim.sort_by(|one, other| one.second().cmp(other.second()));
    assert_eq!(interim.iter().map(Head::second).collect::<Vec<_>>(), ["100", "103"]);
    wire.send("ab").await;
    assert!(tokio::time::timeout(Duration::from_millis(50), wire.head()).await.is_err());
    open.send_replace(true);
    assert_eq!(wire.answer().await.second(), "200");
}

#[tokio::test]
async fn what_was_waited_for_is_told_like_anything_that_passed() {
    let upstream = Routes::default()
        .on("*", |head, mut wire| async move {
            if head.second().ends_with("/refused/reply") {
                wire.send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await;
                return None;
            }
            wire.send(CONTINUE).await;
            wire.body(&head).await.ok()?;
            wire.send(OK).await;
            Some(wire)
        })
        .start()
        .await;
    let (queue, mut reports) = mpsc::channel(8);
    let mut settings = Settings::default();
    settings.proxy.observer = Some(queue);
    let relay = Relay::start(up(&upstream), settings).await;
    for (id, status, told) in [("per_1", 200, "ab"), ("refused", 401, "")] {
        let mut wire = relay.connect().await;
        wire.send(WAITING.replace(" / ", &format!(" /permission/{id}/reply "))).await;
        if wire.head().await.unwrap().second() == "100" {
            wire.send("ab").await;
            wire.answer().await;
        }
        let passed = within("a report", reports.recv()).await.unwrap();
        assert_eq!((passed.status, &passed.body[..]), (status, told.as_bytes()), "{id}");
    }
}
