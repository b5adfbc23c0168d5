//! When opencode cannot answer, the client is told by whom, why, and what to do.

use std::time::Duration;

use opencode_relay::proxy::Target;
use opencode_relay::stop::Stop;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::fixture::{Relay, Settings, message, up};
use crate::upstream::Routes;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn nobody_there_is_502() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let relay = Relay::start(Target::Up(free.into()), Settings::default()).await;
    let (head, text) = relay.get_text("/session", "").await;
    assert_eq!((head.second(), head.get("content-type").as_deref()), ("502", Some("application/json")));
    assert!(message(&text).contains("check that opencode runs there"), "{text}");
}

#[tokio::test]
async fn down_is_503_with_the_reason() {
    let relay = Relay::start(Target::Down { reason: "it exited with code 7".into() }, Settings::default()).await;
    let (head, text) = relay.get_text("/session", "").await;
    assert_eq!((head.second(), head.get("retry-after").as_deref()), ("503", Some("1")));
    assert!(message(&text).contains("it exited with code 7"), "{text}");
}

#[tokio::test]
async fn a_start_is_waited_for_but_not_forever() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let mut settings = Settings::default();
    let relay = Relay::start(Target::Starting, Settings::default()).await;
    let (head, text) = relay.get_text("/", "").await;
    assert_eq!((head.second(), head.get("retry-after").as_deref()), ("503", Some("1")));
    assert!(message(&text).contains("still starting"), "{text}");

    settings.proxy.start_timeout = Duration::from_secs(60);
    let relay = Relay::start(Target::Starting, settings).await;
    let mut wire = relay.connect().await;
    wire.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    relay.target.send_replace(up(&upstream));
    assert_eq!(wire.answer().await.second(), "200");
}

#[tokio::test]
async fn a_connection_that_is_never_made_is_504() {
    // A listener whose backlog is full answers no further SYN.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    deaf.listen(0).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        filling.push(stream);
    }
    let mut settings = Settings::default();
    settings.proxy.connect_timeout = Duration::from_millis(100);
    let relay = Relay::start(Target::Up(address.into()), settings).await;
    let (head, text) = relay.get_text("/session", "").await;
    assert_eq!(head.second(), "504");
    assert!(message(&text).contains("within 100ms"), "{text}");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_502_and_no_write_is_sent_twice() {
    let upstream = Routes::default()
        .fixed("/ok", OK)
        .on("/close", |head, mut wire| async move {
            wire.body(&head).await.ok()?;
            None
        })
        .fixed("/garbage", "HELLO\r\n\r\n")
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for path in ["/close", "/garbage"] {
        // First one that leaves a connection in the pool, so that the next could be thought stale.
        wire.send("GET /ok HTTP/1.1\r\nhost: relay\r\n\r\n").await;
        let head = wire.answer().await;
        wire.body(&head).await.unwrap();
        let before = upstream.heads().len();
        wire.send(format!("POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\n{{}}")).await;
        let head = wire.answer().await;
        assert_eq!(head.second(), "502", "{path}");
        assert!(message(&String::from_utf8(wire.body(&head).await.unwrap()).unwrap()).contains("broke off"));
        assert_eq!(upstream.heads().len(), before + 1, "{path}");
    }
}

#[tokio::test]
async fn a_stale_connection_costs_nobody_an_error() {
    let upstream = Routes::default()
        .on("/close", |head, mut wire| async move {
            wire.body(&head).await.ok()?;
            // Says nothing of closing, and closes.
            wire.send(OK).await;
            None
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for round in 0..20 {
        wire.send("POST /close HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\n{}").await;
        let head = wire.answer().await;
        assert_eq!(head.second(), "200", "{round}");
        assert_eq!(wire.body(&head).await.unwrap(), b"ok");
    }
    assert_eq!(upstream.connections(), 20);
}

#[tokio::test]
async fn a_stale_connection_costs_a_waiting_body_nothing_either() {
    let upstream = Routes::default()
        .on("/", |head, mut wire| async move {
            if head.get("expect").is_some() {
                wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let body = wire.body(&head).await.ok()?;
            assert_eq!(body, b"{}");
            wire.send(OK).await;
            None
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    for (round, framing) in
        ["content-length: 2\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"].repeat(10).iter().enumerate()
    {
        let mut wire = relay.connect().await;
        wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\n{framing}")).await;
        assert_eq!(wire.head().await.unwrap().second(), "100", "{round}");
        wire.send(if framing.starts_with('c') { "{}" } else { "2\r\n{}\r\n0\r\n\r\n" }).await;
        let head = wire.answer().await;
        assert_eq!(head.second(), "200", "{round}");
        assert_eq!(wire.body(&head).await.unwrap(), b"ok");
    }
    assert_eq!((upstream.connections(), upstream.heads().len()), (20, 20));
}

#[tokio::test]
async fn half_a_write_is_never_sent_twice() {
    // On a connection that was used before, so that it could be thought stale.
    let upstream = Routes::default()
        .fixed("/ok", OK)
        .on("/half", |_, mut wire| async move {
            wire.exactly(3).await;
            None
        })
        .on("/none", |_, _| async move { None })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    for (path, fields) in [
        ("/half", "content-length: 10\r\n\r\nabc"),
        ("/half", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("/none", "expect: 100-continue\r\ncontent-length: 10\r\n\r\n"),
    ] {
        let mut wire = relay.connect().await;
        wire.send("GET /ok HTTP/1.1\r\nhost: relay\r\n\r\n").await;
        let head = wire.answer().await;
        wire.body(&head).await.unwrap();
        let before = upstream.heads().len();
        wire.send(format!("POST {path} HTTP/1.1\r\nhost: relay\r\n{fields}")).await;
        assert_eq!(wire.answer().await.second(), "502", "{path} {fields}");
        assert_eq!(upstream.heads().len(), before + 1, "{path} {fields}");
    }
}

#[tokio::test]
async fn a_body_that_is_none_is_400_and_broken_off_at_opencode() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let upstream = Routes::default()
        .on("/", move |head, mut wire| {
            let tell = tell.clone();
            async move {
                tell.send(wire.body(&head).await.is_err()).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    for chunks in ["3\r\nabc\r\nzz\r\n", "3\r\nabcd\r\n", "3\r\nabc\r\n-1\r\n", "3\r\nabc\r\n0x1\r\nd\r\n"] {
        let mut wire = relay.connect().await;
        wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")).await;
        assert_eq!(wire.answer().await.second(), "400", "{chunks}");
        assert_eq!(crate::upstream::within("the end", told.recv()).await, Some(true), "{chunks}");
    }
}

#[tokio::test]
async fn connections_to_opencode_are_used_again() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    for _ in 0..10 {
        wire.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
        let head = wire.answer().await;
        wire.body(&head).await.unwrap();
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_relay_in_front_of_itself_is_508() {
    let relay = Relay::start(Target::Starting, Settings::default()).await;
    relay.target.send_replace(Target::Up(relay.address.into()));
    let (head, text) = relay.get_text("/session", "").await;
    assert_eq!(head.second(), "508");
    assert!(message(&text).contains("--upstream"), "{text}");
}

#[tokio::test]
async fn two_relays_in_a_row_are_no_loop() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let inner = Relay::over(&upstream).await;
    let outer = Relay::start(Target::Up(inner.address.into()), Settings::default()).await;
    assert_eq!(outer.get("/", "").await.0.second(), "200");
    assert_eq!(upstream.last().get("via").unwrap().matches("opencode-relay").count(), 2);
}

#[tokio::test]
async fn connect_is_refused() {
    let upstream = Routes::default().start().await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n").await;
    let head = wire.answer().await;
    assert_eq!(head.second(), "501");
    assert!(message(&String::from_utf8(wire.body(&head).await.unwrap()).unwrap()).contains("CONNECT"));
    assert!(upstream.heads().is_empty());
}

#[tokio::test]
async fn callers_over_the_limit_wait_for_a_place() {
    let upstream = Routes::default().fixed("/", OK).start().await;
    let mut settings = Settings::default();
    settings.http.connections = 1;
    let relay = Relay::start(up(&upstream), settings).await;
    let (_, first) = relay.get("/", "").await;
    let mut second = relay.connect().await;
    second.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    assert!(tokio::time::timeout(Duration::from_millis(100), second.head()).await.is_err());
    drop(first);
    assert_eq!(second.answer().await.second(), "200");
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_cuts_what_does_not() {
    let gate = Stop::new();
    let opened = gate.clone();
    let upstream = Routes::default()
        .on("/slow", move |_, mut wire| {
            let opened = opened.clone();
            async move {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await;
                opened.pulled().await;
                wire.send("cd").await;
                Some(wire)
            }
        })
        .on("/never", |_, mut wire| async move {
            wire.ended().await;
            None
        })
        .start()
        .await;
    let mut settings = Settings::default();
    settings.http.grace = Duration::from_secs(5);
    let mut relay = Relay::start(up(&upstream), settings).await;
    let mut idle = relay.connect().await;
    let (_, mut slow) = relay.get("/slow", "").await;
    assert_eq!(slow.exactly(2).await, b"ab");
    relay.stop.pull();
    assert!(idle.ended().await.is_empty());
    while TcpStream::connect(relay.address).await.is_ok() {}
    gate.pull();
    assert_eq!(slow.exactly(2).await, b"cd");
    relay.end().await;

    let mut relay = Relay::over(&upstream).await;
    let mut never = relay.connect().await;
    never.send("GET /never HTTP/1.1\r\nhost: relay\r\n\r\n").await;
    upstream.requests(2).await;
    relay.end().await;
    assert!(never.ended().await.is_empty());
    assert_eq!(relay.tasks.finish(Duration::from_secs(5)).await, Ok(()));
}
