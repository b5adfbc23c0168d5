//! The listening side: accept, read heads, hand requests to the [`Front`], and stop in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::{Client, Ends, LAST_WAIT, Limits};
use super::listen::Listener;
use super::room::{Place, Room};
use super::socket::{Accepted, Socket, Stream};
use super::threads::Threads;
use super::tls::Tls;
use super::{Front, Parts};
use crate::proxy::Peer;
use crate::stop::{Stop, Tasks};

/// How long accepting rests after an error that would come again at once, such as no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop` is pulled, then ends in order: listeners closed, event streams ended as errors, the other
/// requests finished within [`Options::grace`](super::Options::grace), what is left dropped.
///
/// Clients are served on `threads`, or on the runtime of the caller if there are none. Sockets (upgraded connections) are the
/// proxy's: pull its stop when this has returned.
pub async fn serve(listeners: Vec<Listener>, threads: Arc<Threads>, parts: Parts, tasks: Tasks, stop: Stop) {
    let options = &parts.options;
    let grace = options.grace;
    let limits = Limits { head: options.head_timeout, idle: options.idle_timeout, stall: options.stall_timeout };
    let room = Room::new(
        options.connections,
        options.connections_per_address,
        options.trusted.clone(),
        parts.connections.clone(),
    );
    let ends = Ends { drain: Stop::new(), drop: Stop::new(), tasks: tasks.clone() };
    let front = Arc::new(Front::new(parts));
    let server = Arc::new(Server { threads, front, room, limits, ends, connections: TaskTracker::new() });

    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| tasks.spawn("listener", accept(server.clone(), listener, stop.clone())))
        .collect();
    for listener in accepting {
        let _ = listener.await;
    }
    stop.pulled().await;

    // Endless bodies would block hyper's graceful shutdown: they end first.
    server.front.end_streams();
    server.ends.drain.pull();
    server.connections.close();
    if tokio::time::timeout(grace, server.connections.wait()).await.is_err() {
        tracing::warn!(
            connections = server.connections.len(),
            ?grace,
            "requests were cut off: the grace period is over"
        );
        server.ends.drop.pull();
        let _ = tokio::time::timeout(LAST_WAIT, server.connections.wait()).await;
    }
}

struct Server {
    threads: Arc<Threads>,
    front: Arc<Front>,
    room: Room,
    limits: Limits,
    ends: Ends,
    /// Those whose requests are waited for.
    connections: TaskTracker,
}

impl Server {
    /// Serves a client, on the thread whose turn it is.
    ///
    /// Whatever it needs is made there, the room for its future too, which is no part of the task: a task is aligned to 128
    /// bytes, and glibc's malloc (before 2.38) cannot use the place of an aligned allocation for the next such one. What
    /// stays for as long as the client does would fill such places up, one after the other.
    fn begin(self: &Arc<Self>, accepted: Accepted, peer: Peer, place: Place, tls: Option<Tls>) {
        let _on = self.threads.enter();
        let (server, token) = (self.clone(), self.connections.token());
        self.ends.tasks.spawn("client connection", async move {
            match accepted.register() {
                Ok(stream) => Box::pin(server.client(stream, peer, place, token).serve(tls)).await,
                Err(error) => tracing::warn!(%error, "cannot serve a connection; it is closed"),
            }
        });
    }

    fn client(&self, stream: Stream, peer: Peer, place: Place, token: TaskTrackerToken) -> Arc<Client> {
        Arc::new(Client {
            front: self.front.clone(),
            peer,
            local: stream.local_address(),
            socket: Socket::new(stream, Some(place)),
            limits: self.limits,
            ends: self.ends.clone(),
            token,
        })
    }
}

/// Accepts until `stop`; the listener is closed when this ends.
async fn accept(server: Arc<Server>, listener: Listener, stop: Stop) {
    loop {
        let Some(Some(permit)) = stop.or(server.room.wait()).await else { return };
        let Some(accepted) = stop.or(listener.accept()).await else { return };
        match accepted {
            Ok((accepted, peer)) => {
                let Some(place) = server.room.take(permit, peer) else { continue };
                server.begin(accepted, peer, place, listener.tls().cloned());
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
