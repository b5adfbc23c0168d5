//! HTTP/2: many streams on one connection, and the same honesty about their ends.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use opencode_relay::stop::Stop;
use tokio::time::Instant;

use super::fixture::Secured;
use crate::proxy::fixture::Settings;
use crate::upstream::{LIMIT, Routes, Upstream, within};

const PATH: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"directory\":\"/d\"}";

/// The upstream; `/slow` answers when the gate is open.
async fn upstream(gate: &Stop) -> Upstream {
    let gate = gate.clone();
    Routes::default()
        .fixed("/path", PATH)
        .fixed("/x", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .on("/slow", move |_, mut wire| {
            let gate = gate.clone();
            async move {
                gate.pulled().await;
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
                Some(wire)
            }
        })
        .on("/cut", |_, mut wire| async move {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n").await;
            None
        })
        .start()
        .await
}

/// Reads until these words have come.
async fn until(body: &mut Incoming, words: &str) {
    let mut text = String::new();
    while !text.contains(words) {
        let frame = within("a frame", body.frame()).await.expect("more").unwrap();
        text += &String::from_utf8_lossy(&frame.into_data().unwrap());
    }
}

/// Reads to the end, which has to be an error's.
async fn is_reset(body: &mut Incoming) -> bool {
    loop {
        match within("the end", body.frame()).await {
            None => return false,
            Some(Ok(_)) => {}
            Some(Err(_)) => return true,
        }
    }
}

#[tokio::test]
async fn one_connection_has_more_than_six_streams() {
    let gate = Stop::new();
    let upstream = upstream(&gate).await;
    let mut secured = Secured::over(&upstream, Settings::default()).await;
    let client = secured.http2().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let answer = client.get("/event", &[]).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        streams.push(answer.into_body());
    }
    secured.relay.publish("/d", "session.idle", "ses_1");
    for stream in &mut streams {
        until(stream, "session.idle").await;
    }
    let answer = client.get("/x", &[]).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(secured.relay.connections.open(), 1);
    // The relay ends them: that is no end of the events.
    let start = Instant::now();
    secured.relay.end().await;
    for stream in &mut streams {
        assert!(is_reset(stream).await);
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let gate = Stop::new();
    let upstream = upstream(&gate).await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let client = secured.http2().await;
    let mut body = client.get("/cut", &[]).await.unwrap().into_body();
    assert!(is_reset(&mut body).await);
    // That one alone.
    assert_eq!(client.get("/x", &[]).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_waits_for_no_stream() {
    let gate = Stop::new();
    let upstream = upstream(&gate).await;
    let mut settings = Settings::default();
    settings.http.grace = LIMIT;
    let mut secured = Secured::over(&upstream, settings).await;
    let mut client = secured.http2().await;
    // Nobody reads this one, so it cannot even be told that it ends.
    let _stuck = client.get("/event", &[]).await.unwrap();
    let kind = format!("long.{}", "x".repeat(8_000));
    for _ in 0..400 {
        secured.relay.publish("/d", &kind, "ses_1");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let slow = async {
        let answer = client.get("/slow", &[]).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    let stop = async {
        upstream.requests(2).await;
        secured.relay.stop.pull();
        // Longer than idle connections and streams get.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        gate.pull();
    };
    let (body, ()) = tokio::join!(slow, stop);
    assert_eq!(body, "done");
    let start = Instant::now();
    secured.relay.end().await;
    within("the end of the connection", &mut client.running).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_with_a_stream_is_not() {
    let gate = Stop::new();
    let upstream = upstream(&gate).await;
    let mut settings = Settings::default();
    settings.http.idle_timeout = Duration::from_millis(300);
    settings.http.heartbeat = Duration::from_millis(100);
    let secured = Secured::over(&upstream, settings).await;
    let (mut idle, mut busy) = (secured.http2().await, secured.http2().await);
    let mut stream = busy.get("/event", &[]).await.unwrap().into_body();
    assert_eq!(idle.get("/x", &[]).await.unwrap().status(), 200);
    let start = Instant::now();
    within("the end", &mut idle.running).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(250));
    tokio::time::sleep(Duration::from_millis(600)).await;
    secured.relay.publish("/d", "session.idle", "ses_1");
    until(&mut stream, "session.idle").await;
    drop(stream);
    within("the end", &mut busy.running).await.unwrap();
}

#[tokio::test]
async fn opencode_gets_what_http1_would_have_brought() {
    let gate = Stop::new();
    let upstream = upstream(&gate).await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let client = secured.http2().await;
    client.get("/x?a=%2F", &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]).await.unwrap();
    let sent = upstream.last();
    assert_eq!(sent.start, "GET /x?a=%2F HTTP/1.1");
    assert_eq!(sent.get("host").as_deref(), Some("localhost"));
    assert_eq!(sent.get("cookie").as_deref(), Some("a=1; b=2"));
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let gate = Stop::new();
    let upstream = upstream(&gate).await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let client = secured.http2().await;
    let long = "x".repeat(80_000);
    match client.get("/x", &[("x-long", &long)]).await {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(!error.is_timeout(), "{error}"),
    }
    assert!(upstream.heads().is_empty());
    assert_eq!(secured.http2().await.get("/x", &[]).await.unwrap().status(), 200);
}

#[tokio::test]
async fn curl_speaks_it() {
    let gate = Stop::new();
    let upstream = upstream(&gate).await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let url = format!("https://localhost:{}/x", secured.relay.address.port());
    let run = |flag: &str| {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-s", flag, "--max-time", "10", "--cacert"]).arg(&secured.files.certificate);
        curl.args(["-w", " %{http_version}", &url]).kill_on_drop(true);
        async move { String::from_utf8(within("curl", curl.output()).await.unwrap().stdout).unwrap() }
    };
    assert_eq!(run("--http1.1").await, "ok 1.1");
    let version = within("curl", tokio::process::Command::new("curl").arg("-V").output()).await.unwrap();
    if String::from_utf8_lossy(&version.stdout).contains("HTTP2") {
        assert_eq!(run("--http2").await, "ok 2");
    }
}
