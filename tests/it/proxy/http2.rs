//! What comes by HTTP/2 is no other request to opencode, and no other answer to the client.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use opencode_relay::stop::{Stop, Tasks};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::fixture::Settings;
use crate::listen::fixture::Secured;
use crate::upstream::{Routes, Upstream, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

type Body = BoxBody<Bytes, Infallible>;

/// A connection; closed when dropped.
struct Client {
    sender: http2::SendRequest<Body>,
    stop: Stop,
}

#[derive(Clone)]
struct Executor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("test's http2", future);
    }
}

impl Client {
    async fn of(secured: &Secured) -> Self {
        let (tasks, stop) = (Tasks::new(), Stop::new());
        let io = TokioIo::new(secured.connect("h2").await);
        let (sender, connection) = http2::Builder::new(Executor(tasks.clone())).handshake(io).await.unwrap();
        let stopped = stop.clone();
        tasks.spawn("test's connection", async move {
            let _ = stopped.or(connection).await;
        });
        Self { sender, stop }
    }

    async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        within("an answer", self.sender.clone().send_request(request)).await.unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.pull();
    }
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// A body whose length nobody declares.
fn unmeasured(text: &'static str, trailers: Option<HeaderMap>) -> Body {
    let data = Frame::data(Bytes::from_static(text.as_bytes()));
    let frames = [data].into_iter().chain(trailers.map(Frame::trailers)).map(Ok::<_, Infallible>);
    BodyExt::boxed(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())))
}

async fn echo() -> Upstream {
    Routes::default().echo("/").start().await
}

#[tokio::test]
async fn bodies_get_one_framing_on_any_method() {
    let upstream = echo().await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let client = Client::of(&secured).await;
    for method in ["GET", "POST", "PUT", "DELETE"] {
        for (body, name, value) in [
            (unmeasured("abc", None), "transfer-encoding", "chunked"),
            (BodyExt::boxed(Full::from("abc")), "content-length", "3"),
        ] {
            let request = Request::builder().method(method).uri("https://relay/").body(body).unwrap();
            let answer = client.send(request).await;
            let both = ["transfer-encoding", "content-length"].map(|name| upstream.last().get(name));
            assert_eq!(both.iter().flatten().collect::<Vec<_>>(), [value], "{method}");
            assert_eq!(upstream.last().get(name).as_deref(), Some(value), "{method}");
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "abc");
        }
    }
    let sent = upstream.last();
    assert!(sent.get("via").unwrap().starts_with("2.0 opencode-relay-"));
    assert_eq!(sent.get("forwarded").as_deref(), Some("for=127.0.0.1;proto=https;host=\"relay\""));
    assert_eq!(sent.get("x-forwarded-proto").as_deref(), Some("https"));
}

#[tokio::test]
async fn trailers_pass_both_ways_but_for_those_of_a_hop() {
    let upstream = Routes::default()
        .on("/", |head, mut wire| async move {
            wire.body(&head).await.ok()?;
            let came = format!("{:?}", wire.trailers);
            wire.send("HTTP/1.1 200 OK\r\nconnection: x-named\r\ntransfer-encoding: chunked\r\n\r\n").await;
            wire.send_chunk(&came).await;
            // hyper leaves none out on HTTP/2, announced or not.
            wire.send("0\r\nx-sum: 1\r\nx-named: 1\r\nset-cookie: a=b\r\nconnection: x\r\nte: x\r\nhost: x\r\n\r\n")
                .await;
            Some(wire)
        })
        .start()
        .await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let client = Client::of(&secured).await;
    let trailers = fields(&[("x-up", "1"), ("x-forwarded-for", "9.9.9.9"), ("authorization", "x")]);
    let request = Request::post("https://relay/")
        .header("trailer", "x-up, x-forwarded-for, authorization")
        .header("te", "trailers")
        .body(unmeasured("a", Some(trailers)))
        .unwrap();
    let body = client.send(request).await.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&fields(&[("x-sum", "1")])));
    assert_eq!(body.to_bytes(), r#"[("x-up", "1")]"#);
    assert_eq!(upstream.last().get("te").as_deref(), Some("trailers"));
}

#[tokio::test]
async fn what_http2_has_not_is_not_asked_of_opencode() {
    let upstream = Routes::default()
        .on("/", |head, mut wire| async move {
            wire.body(&head).await.ok()?;
            wire.send(format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}")).await;
            Some(wire)
        })
        .start()
        .await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    let client = Client::of(&secured).await;
    let request = Request::post("https://relay/").header("expect", "100-continue").body(unmeasured("abc", None));
    let answer = client.send(request.unwrap()).await;
    assert_eq!((answer.status().as_u16(), upstream.last().get("expect")), (200, None));
    let request = Request::connect("other:443").body(BodyExt::boxed(Empty::new())).unwrap();
    assert_eq!(client.send(request).await.status(), 501);
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test]
async fn a_refused_body_costs_its_own_stream_only() {
    let upstream = echo().await;
    let mut settings = Settings::default();
    settings.proxy.body = Some(2);
    let secured = Secured::over(&upstream, settings).await;
    let client = Client::of(&secured).await;
    for body in [unmeasured("abc", None), BodyExt::boxed(Full::from("abc"))] {
        let answer = client.send(Request::post("https://relay/").body(body).unwrap()).await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("connection")), (413, None));
    }
    let answer = client.send(Request::post("https://relay/").body(unmeasured("ab", None)).unwrap()).await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ab");
    assert_eq!(secured.relay.connections.open(), 1);
}

/// A frame of HTTP/2: length, type, flags, stream, payload (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

// On more than one thread: the body and the answer hear of the reset in one order or the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_no_end_of_a_body_whatever_its_reason() {
    let (tell, mut told) = mpsc::channel(4);
    let upstream = Routes::default()
        .on("/", move |head, mut wire| {
            let tell = tell.clone();
            async move {
                assert_eq!(wire.chunk().await.unwrap(), b"abc");
                if head.get("x-early").is_some() {
                    wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                }
                tell.send(None).await.ok()?;
                tell.send(Some(wire.body(&head).await.is_ok())).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let secured = Secured::over(&upstream, Settings::default()).await;
    const NO_ERROR: u8 = 0;
    const CANCEL: u8 = 8;
    // A field without an index: its name and value come as they are.
    const EARLY: &[u8] = b"\x00\x07x-early\x01y";
    for (reason, early) in [(CANCEL, false), (NO_ERROR, false), (CANCEL, true), (NO_ERROR, true)].repeat(10) {
        let mut stream = secured.connect("h2").await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        // From the static table of HPACK: POST, https, /; and the authority.
        let fields = [&b"\x83\x87\x84\x41\x05relay"[..], if early { EARLY } else { b"" }].concat();
        bytes.extend(frame(1, 4, 1, &fields));
        bytes.extend(frame(0, 0, 1, b"abc"));
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(within("the beginning", told.recv()).await, Some(None));
        stream.write_all(&frame(3, 0, 1, &[0, 0, 0, reason])).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(within("the end", told.recv()).await, Some(Some(false)), "{reason} {early}");
    }
}
