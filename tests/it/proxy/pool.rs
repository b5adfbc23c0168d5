//! A connection to opencode is used again when nothing is left on it, and never otherwise.

use std::sync::Arc;
use std::time::Duration;

use opencode_relay::http::Threads;
use tokio::sync::{Semaphore, mpsc};

use super::fixture::{Relay, Settings, up};
use crate::upstream::{Routes, Upstream, Wire, within};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Asks for a path on a new connection to the relay, whose answer must be `ok`.
async fn get(relay: &Relay, path: &str) {
    let (head, text) = relay.get_text(path, "").await;
    assert_eq!((head.second(), text.as_str()), ("200", "ok"), "{path}");
}

/// Answers with `ok`, then does this with the connection.
fn after<F, A>(then: F) -> Routes
where
    F: Fn(Wire) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Option<Wire>> + Send + 'static,
{
    Routes::default().fixed("/ok", OK).on("/", move |_, mut wire| {
        let then = then.clone();
        async move {
            wire.send(OK).await;
            then(wire).await
        }
    })
}

/// Tells when opencode has seen one of its connections end.
async fn telling() -> (Upstream, mpsc::Receiver<()>) {
    let (tell, ended) = mpsc::channel(16);
    let routes = after(move |mut wire: Wire| {
        let tell = tell.clone();
        async move {
            wire.ended().await;
            tell.send(()).await.ok()?;
            None
        }
    });
    (routes.start().await, ended)
}

/// Waits until opencode has seen so many of its connections end.
async fn ends(count: usize, ended: &mut mpsc::Receiver<()>) {
    for _ in 0..count {
        within("an end", ended.recv()).await.expect("an end");
    }
}

async fn with_idle_timeout(upstream: &Upstream, limit: Duration) -> Relay {
    let mut settings = Settings::default();
    settings.proxy.idle_timeout = limit;
    Relay::start(up(upstream), settings).await
}

#[tokio::test]
async fn what_nobody_asked_for_is_nobodys_answer() {
    let (tell, mut told) = mpsc::channel(16);
    let upstream = after(move |mut wire: Wire| {
        let tell = tell.clone();
        async move {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
            tell.send(()).await.ok()?;
            Some(wire)
        }
    })
    .start()
    .await;
    let relay = Relay::over(&upstream).await;
    for round in 1..=10 {
        get(&relay, "/").await;
        within("the second answer", told.recv()).await.unwrap();
        get(&relay, "/ok").await;
        assert_eq!(upstream.connections(), round + 1);
    }
}

#[tokio::test]
async fn an_unused_connection_is_closed_after_a_while() {
    let (upstream, mut ended) = telling().await;
    let relay = with_idle_timeout(&upstream, Duration::from_millis(50)).await;
    // Twice, because whoever closes them has nothing to do in between.
    for _ in 0..2 {
        get(&relay, "/").await;
        ends(1, &mut ended).await;
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn unused_connections_end_with_the_relay() {
    let (upstream, mut ended) = telling().await;
    let mut relay = with_idle_timeout(&upstream, Duration::from_secs(600)).await;
    get(&relay, "/").await;
    relay.end().await;
    ends(1, &mut ended).await;
    relay.tasks.finish(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn only_so_many_unused_connections_are_kept() {
    const MOST: usize = 4;
    const MORE: usize = 3;
    let (tell, mut ended) = mpsc::channel(16);
    let go = Arc::new(Semaphore::new(0));
    let waits = go.clone();
    let upstream = Routes::default()
        .on("/", move |_, mut wire| {
            let (tell, go) = (tell.clone(), waits.clone());
            async move {
                go.acquire().await.unwrap().forget();
                wire.send(OK).await;
                wire.ended().await;
                tell.send(()).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let mut settings = Settings::default();
    (settings.proxy.idle_timeout, settings.proxy.idle_connections) = (Duration::from_secs(600), MOST);
    let relay = Relay::start(up(&upstream), settings).await;
    let mut clients = Vec::new();
    for _ in 0..MOST + MORE {
        let mut wire = relay.connect().await;
        wire.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
        clients.push(wire);
    }
    upstream.requests(MOST + MORE).await;
    go.add_permits(MOST + MORE);
    for wire in &mut clients {
        let head = wire.answer().await;
        assert_eq!(wire.body(&head).await.unwrap(), b"ok");
    }
    ends(MORE, &mut ended).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), ended.recv()).await.is_err(), "one too many was closed");
}

#[tokio::test]
async fn an_answer_that_is_broken_off_leaves_nothing_to_use() {
    let (tell, mut ended) = mpsc::channel(16);
    let upstream = Routes::default()
        .fixed("/ok", OK)
        .on("/", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegin").await;
                wire.ended().await;
                tell.send(()).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    get(&relay, "/ok").await;
    let (_, mut wire) = relay.get("/", "").await;
    assert_eq!(wire.exactly(5).await, b"begin");
    drop(wire);
    ends(1, &mut ended).await;
    get(&relay, "/ok").await;
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_upload_that_outlasts_its_answer_goes_on_and_keeps_its_connection() {
    let (tell, mut told) = mpsc::channel(16);
    let upstream = Routes::default()
        .fixed("/ok", OK)
        .on("/", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                wire.send(OK).await;
                tell.send(wire.exactly(10).await).await.ok()?;
                Some(wire)
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 10\r\n\r\nbegin").await;
    let head = wire.answer().await;
    assert_eq!(head.second(), "200");
    // Still on its way.
    get(&relay, "/ok").await;
    assert_eq!(upstream.connections(), 2);
    wire.send("ended").await;
    assert_eq!(within("the whole body", told.recv()).await.unwrap(), b"beginended");
    assert_eq!(wire.body(&head).await.unwrap(), b"ok");
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_up_its_own_upload() {
    const BODY: usize = 16 << 20;
    let (tell, mut told) = mpsc::channel(16);
    let upstream = Routes::default()
        .on("/", move |_, mut wire| {
            let tell = tell.clone();
            async move {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
                // More than fits anywhere on the way to a client that does not read.
                let full = tokio::time::timeout(Duration::from_millis(500), wire.flood(1_000_000_000)).await;
                assert!(full.is_err());
                tell.send(wire.exactly(BODY).await.len()).await.ok()?;
                None
            }
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    let mut wire = relay.connect().await;
    wire.send(format!("POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: {BODY}\r\n\r\n")).await;
    within("room for the body", wire.flood(BODY)).await.unwrap();
    assert_eq!(within("the whole body", told.recv()).await, Some(BODY));
}

#[tokio::test]
async fn a_socket_never_goes_back() {
    let upstream = Routes::default()
        .fixed("/ok", OK)
        .on("/socket", |_, mut wire| async move {
            wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
            wire.ended().await;
            None
        })
        .start()
        .await;
    let relay = Relay::over(&upstream).await;
    get(&relay, "/ok").await;
    let (head, wire) = relay.get("/socket", "connection: upgrade\r\nupgrade: websocket\r\n").await;
    assert_eq!(head.second(), "101");
    get(&relay, "/ok").await;
    drop(wire);
    get(&relay, "/ok").await;
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn connections_to_where_opencode_was_are_not_used() {
    let (old, new) =
        (after(|wire| async { Some(wire) }).start().await, after(|wire| async { Some(wire) }).start().await);
    let relay = Relay::over(&old).await;
    get(&relay, "/").await;
    relay.target.send_replace(up(&new));
    get(&relay, "/").await;
    assert_eq!((old.heads().len(), new.heads().len()), (1, 1));
}

#[tokio::test]
async fn a_connection_stays_with_the_thread_that_made_it() {
    let upstream = Routes::default()
        .on("/", |_, mut wire| async move {
            let name = wire.peer().to_string();
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())).await;
            Some(wire)
        })
        .start()
        .await;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let settings = Settings { threads: Arc::new(Threads::start().unwrap()), ..Settings::default() };
    let relay = Relay::start(up(&upstream), settings).await;
    // They come to the threads by turns.
    let mut clients = [relay.connect().await, relay.connect().await];
    let mut names = [const { Vec::new() }; 2];
    for client in [0, 1, 0, 0, 1, 1, 0, 1] {
        let wire = &mut clients[client];
        wire.send("GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await;
        let head = wire.answer().await;
        names[client].push(wire.body(&head).await.unwrap());
    }
    for names in &names {
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    }
    assert_eq!(upstream.connections(), threads);
}
