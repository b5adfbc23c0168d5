//! The listening side: accept, read heads, hand requests to the [`Front`], and stop in order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use super::listen::Listener;
use super::socket::Socket;
use super::{Front, Parts};
use crate::proxy::{Caller, Peer};
use crate::stop::{Stop, Tasks};

/// How long accepting rests after an error that would come again at once, such as no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Most bytes of a connection's read buffer, and so of a request's head; a longer head is answered with 431.
const BUFFER: usize = 64 << 10;

/// How long a connection that was told to go may take to be gone. Also how long the client of an event stream may take for
/// what was sent before the stream's end: hyper asks a body for nothing, not even for its end, while the client does not
/// read, and one that never does must not use up the grace of a stop.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Serves until `stop` is pulled, then ends in order: listeners closed, event streams ended as errors, the other
/// requests finished within [`Options::grace`](super::Options::grace), what is left dropped.
///
/// Sockets (upgraded connections) are the proxy's: pull its stop when this has returned.
pub async fn serve(listeners: Vec<Listener>, parts: Parts, tasks: Tasks, stop: Stop) {
    let grace = parts.options.grace;
    let server = Server {
        room: Arc::new(Semaphore::new(parts.options.connections)),
        head_timeout: parts.options.head_timeout,
        streams: Stop::new(),
        drain: Stop::new(),
        drop: Stop::new(),
        connections: TaskTracker::new(),
        tasks,
        front: None,
    };
    let front = Arc::new(Front::new(parts, server.streams.clone()));
    let server = Arc::new(Server { front: Some(front), ..server });

    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| server.tasks.spawn("listener", accept(server.clone(), listener.0, stop.clone())))
        .collect();
    for listener in accepting {
        let _ = listener.await;
    }
    stop.pulled().await;

    // Endless bodies would block hyper's graceful shutdown: they end first.
    server.streams.pull();
    server.drain.pull();
    server.connections.close();
    if tokio::time::timeout(grace, server.connections.wait()).await.is_err() {
        tracing::warn!(
            connections = server.connections.len(),
            ?grace,
            "requests were cut off: the grace period is over"
        );
        server.drop.pull();
        let _ = tokio::time::timeout(LAST_WAIT, server.connections.wait()).await;
    }
}

struct Server {
    front: Option<Arc<Front>>,
    /// One permit per connection; without one nobody is accepted, and the kernel's backlog holds the callers.
    room: Arc<Semaphore>,
    head_timeout: Duration,
    /// Ends the event streams.
    streams: Stop,
    /// Ends connections between two requests.
    drain: Stop,
    /// Ends connections wherever they are.
    drop: Stop,
    connections: TaskTracker,
    tasks: Tasks,
}

/// Accepts until `stop`; the listener is closed when this ends.
async fn accept(server: Arc<Server>, listener: TcpListener, stop: Stop) {
    loop {
        let Some(Ok(permit)) = stop.or(server.room.clone().acquire_owned()).await else { return };
        let Some(accepted) = stop.or(listener.accept()).await else { return };
        match accepted {
            Ok((stream, peer)) => {
                let token = server.connections.token();
                let connection = connection(server.clone(), stream, peer, permit);
                server.tasks.spawn("client connection", async move {
                    connection.await;
                    drop(token);
                });
            }
            // That one caller's trouble.
            Err(error) if is_callers(&error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
            Err(error) => {
                tracing::warn!(%error, pause = ?ACCEPT_PAUSE, "cannot accept connections; pausing");
                if stop.or(tokio::time::sleep(ACCEPT_PAUSE)).await.is_none() {
                    return;
                }
            }
        }
    }
}

fn is_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn connection(server: Arc<Server>, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
    let Some(front) = server.front.clone() else { return };
    let local = stream.local_addr().ok();
    let socket = Socket::new(stream);
    let service = {
        let socket = socket.clone();
        service_fn(move |request| {
            let (front, socket) = (front.clone(), socket.clone());
            let caller = Caller { peer: Peer::Ip(peer), local, is_tls: false, interim: None };
            async move { Ok::<_, Infallible>(front.answer(request, &caller, &socket).await) }
        })
    };
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Also the longest idle time between two requests.
        .header_read_timeout(server.head_timeout)
        .max_buf_size(BUFFER)
        // A client that closes its sending side is gone: that is how an abort shows while its answer is awaited.
        .half_close(false);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket.clone()), service).with_upgrades());
    let (mut draining, mut last) = (false, Instant::now());
    loop {
        tokio::select! {
            biased;
            () = server.drop.pulled() => break,
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended early");
                }
                break;
            }
            () = server.drain.pulled(), if !draining => {
                (draining, last) = (true, Instant::now() + LAST_WAIT);
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(last), if draining && socket.carries_stream() => break,
        }
    }
    drop(permit);
}
