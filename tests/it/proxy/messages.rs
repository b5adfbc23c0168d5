//! What of a message passes, and what of it does not.

use tokio::sync::mpsc;

use super::fixture::{Relay, Settings, up};
use crate::upstream::{Routes, within};

const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn fields_for_the_next_hop_only_stay_here_in_both_directions() {
    let upstream = Routes::default()
        .fixed(
            "/",
            "HTTP/1.1 200 Fine\r\nconnection: X-Secret, keep-alive\r\nConnection: x-other\r\nx-secret: 1\r\nx-other: 1\r\n\
             keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nx-kept: 1\r\nX-Kept: 2\r\ncontent-length: 0\r\n\r\n",
        )
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (answer, _) = relay
        .get(
            "/",
            "connection: X-Secret\r\nConnection: close, x-other\r\nx-secret: 1\r\nx-other: 1\r\nkeep-alive: 1\r\n\
             proxy-connection: x\r\nproxy-authorization: x\r\nte: gzip, trailers;q=1\r\nupgrade: websocket\r\n\
             trailer: x-t\r\nx-kept: 1\r\nX-Kept: 2\r\norigin: http://localhost:3000\r\n",
        )
        .await;
    let sent = upstream.last();
    for name in ["x-secret", "x-other", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"] {
        assert_eq!(sent.get(name), None, "{name} reached opencode");
    }
    for (name, value) in
        [("host", "relay"), ("x-kept", "1, 2"), ("origin", "http://localhost:3000"), ("trailer", "x-t")]
    {
        assert_eq!(sent.get(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(answer.start, "HTTP/1.1 200 Fine");
    for name in ["x-secret", "x-other", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.get(name), None, "{name} reached the client");
    }
    assert_eq!(answer.get("x-kept").as_deref(), Some("1, 2"));
}

#[tokio::test]
async fn path_and_query_pass_byte_for_byte() {
    let upstream = Routes::default().fixed("*", EMPTY).start().await;
    let relay = Relay::over(&upstream).await;
    for target in [
        "//a//b/",
        "/a/../b/./c",
        "/a%2Fb%2f%00%zz",
        "/?",
        "/x?a=%20+b&&c==&a",
        "/x?q=/../?&{}|^`'",
        "/\u{e9}\u{6f22}?\u{e9}",
    ] {
        relay.get(target, "").await;
        assert_eq!(upstream.last().second(), target);
    }
    let mut wire = relay.connect().await;
    wire.send("OPTIONS * HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    wire.answer().await;
    assert_eq!(upstream.last().start, "OPTIONS * HTTP/1.1");
    wire.send("GET http://other:8/x?y HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    wire.answer().await;
    assert_eq!(upstream.last().start, "GET /x?y HTTP/1.1");
    assert_eq!(upstream.last().get("host").as_deref(), Some("other:8"));
}

#[tokio::test]
async fn answers_without_a_body_keep_their_heads() {
    let upstream = Routes::default()
        .fixed("/length", "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\netag: \"a\"\r\n\r\n")
        .fixed("/chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .fixed("/204", "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n")
        .fixed("/304", "HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\netag: \"a\"\r\n\r\n")
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("HEAD /length HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(answer.get("content-length").as_deref(), Some("1234"));
    wire.send("HEAD /chunked HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    assert_eq!(wire.answer().await.get("content-length"), None);
    wire.send("GET /204 HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.second(), answer.get("content-length"), answer.get("transfer-encoding")), ("204", None, None));
    wire.send("GET /304 HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.second(), answer.get("etag").as_deref()), ("304", Some("\"a\"")));
    // All of that on one connection: nothing was left over or missing between the answers.
    wire.send("HEAD /length HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    assert_eq!(wire.answer().await.second(), "200");
}

#[tokio::test]
async fn bodies_pass_on_any_method_and_whatever_their_framing() {
    let upstream = Routes::default().echo("/echo").start().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for method in ["GET", "POST", "DELETE", "PATCH"] {
        for body in
            ["content-length: 5\r\n\r\nabcde", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"]
        {
            wire.send(format!("{method} /echo HTTP/1.1\r\nhost: relay\r\n{body}")).await;
            let answer = wire.answer().await;
            assert_eq!(wire.body(&answer).await.unwrap(), b"abcde", "{method} {body:?}");
        }
        // A request with chunks is the last of its connection (see `http::connection`).
        assert!(wire.ended().await.is_empty());
        wire = relay.connect().await;
    }
    wire.send("POST /echo HTTP/1.1\r\nhost: relay\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(wire.answer().await.second(), "200");
    assert_eq!(upstream.last().get("content-length").as_deref(), Some("0"));
}

#[tokio::test]
async fn trailers_pass_both_ways_but_for_those_that_are_not_the_ends() {
    // hyper lets declared ones through, and only where the reader can take them.
    const ALL: &str = "x-sum, x-named, x-head, te, keep-alive, connection, upgrade, proxy-authorization, \
                       proxy-authenticate, transfer-encoding, content-length, host, authorization, cookie, set-cookie, \
                       content-type, via, forwarded, x-forwarded-for, x-real-ip";
    let last = || {
        let fields = ALL.split(", ").map(|name| {
            let value = if name == "connection" { "x-named" } else { "1" };
            format!("{name}: {value}\r\n")
        });
        format!("0\r\n{}\r\n", fields.collect::<String>())
    };
    let upstream = Routes::default()
        .on("/", move |head, mut wire| async move {
            wire.body(&head).await.ok()?;
            let came = format!("{:?}", wire.trailers);
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nconnection: x-head\r\ntrailer: {ALL}\r\ntransfer-encoding: chunked\r\n\r\n"
            ))
            .await;
            wire.send_chunk(&came).await;
            wire.send(last()).await;
            Some(wire)
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send(format!(
        "POST / HTTP/1.1\r\nhost: relay\r\nte: trailers\r\nconnection: te, x-head\r\ntrailer: {ALL}\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    ))
    .await;
    wire.send(last()).await;
    let answer = wire.answer().await;
    let body = wire.body(&answer).await.unwrap();
    assert_eq!(String::from_utf8(body).unwrap(), r#"[("x-sum", "1")]"#);
    assert_eq!(wire.trailers, [("x-sum".to_owned(), "1".to_owned())]);
    assert_eq!(upstream.last().get("te").as_deref(), Some("trailers"));
    assert_eq!(upstream.last().get("connection").as_deref(), Some("te"));
}

#[tokio::test]
async fn trailers_that_were_not_announced_or_not_wanted_are_left_out() {
    let upstream = Routes::default()
        .on("/", |head, mut wire| async move {
            wire.body(&head).await.ok()?;
            let came = format!("{:?}", wire.trailers);
            wire.send("HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n").await;
            wire.send_chunk(&came).await;
            wire.send("0\r\nx-sum: 1\r\nx-other: 1\r\n\r\n").await;
            Some(wire)
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    for (te, trailers) in [("", &[][..]), ("te: trailers\r\n", &[("x-sum".to_owned(), "1".to_owned())])] {
        let mut wire = relay.connect().await;
        wire.send(format!(
            "POST / HTTP/1.1\r\nhost: relay\r\n{te}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-up: 1\r\n\r\n"
        ))
        .await;
        let answer = wire.answer().await;
        assert_eq!(wire.body(&answer).await.unwrap(), b"[]");
        assert_eq!(wire.trailers, trailers);
    }
}

#[tokio::test]
async fn compressed_bodies_pass_as_they_are() {
    let upstream = Routes::default()
        .fixed("/", "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x01\x02")
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let (answer, mut wire) = relay.get("/", "accept-encoding: gzip\r\n").await;
    assert_eq!(answer.get("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(wire.body(&answer).await.unwrap(), b"\x1f\x01\x02");
    assert_eq!(upstream.last().get("accept-encoding").as_deref(), Some("gzip"));
}

#[tokio::test]
async fn what_passed_is_told() {
    let upstream = Routes::default().fixed("*", EMPTY).start().await;
    let (queue, mut reports) = mpsc::channel(8);
    let mut settings = Settings::default();
    settings.proxy.observer = Some(queue);
    let relay = Relay::start(up(&upstream), settings).await;
    let mut wire = relay.connect().await;
    let body = r#"{"reply":"once"}"#;
    for request in [
        "GET /session HTTP/1.1\r\nhost: relay\r\n\r\n".to_owned(),
        "GET /session?directory=%2Fa HTTP/1.1\r\nhost: relay\r\n\r\n".to_owned(),
        "GET /agent?directory=%2Fa HTTP/1.1\r\nhost: relay\r\n\r\n".to_owned(),
        format!(
            "POST /permission/per_1/reply?auth_token=x HTTP/1.1\r\nhost: relay\r\nx-opencode-directory: %2Fb\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ),
        "POST /session HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
    ] {
        wire.send(request).await;
        wire.answer().await;
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        let passed = within("a report", reports.recv()).await.unwrap();
        told.push((
            format!("{} {} {}", passed.method, passed.path, passed.status),
            passed.directory,
            String::from_utf8(passed.body.to_vec()).unwrap(),
        ));
    }
    assert_eq!(
        told,
        [
            ("GET /session 200".to_owned(), Some("/a".to_owned()), String::new()),
            ("POST /permission/per_1/reply 200".to_owned(), Some("/b".to_owned()), body.to_owned()),
            ("POST /session 200".to_owned(), None, String::new()),
        ]
    );
    assert!(reports.try_recv().is_err());
}
