//! The connections to opencode that no request is on at the moment.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::runtime::{self, Handle};
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::target::Address;
use crate::stop::{Stop, Tasks};

/// A connection that the rest of an answer comes on. Dropping it before that is over closes the connection.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Connection,
    pool: Pool,
}

impl Lease {
    pub(super) fn new(connection: Connection, pool: Pool) -> Self {
        Self { connection, pool }
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
        body: &mut Incoming,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // It often came together with the head.
        let here = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
        if here.is_ready() {
            return here;
        }
        self.connection.drive_for(context, |context| Pin::new(&mut *body).poll_frame(context))
    }

    /// The answer is over: the next request may have the connection.
    pub(super) fn end(self) {
        self.pool.put(self.connection);
    }
}

/// The unused connections of one thread, or of some. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Shared>);

/// Nobody else writes to its memory, see [`PerThread`](super::per_thread::PerThread).
#[derive(Debug)]
#[repr(align(128))]
struct Shared {
    /// Most connections that are kept; for one more the oldest is closed.
    most: usize,
    /// How long a connection may be unused.
    limit: Duration,
    tasks: Tasks,
    /// Closes them all, and lets no more in.
    stop: Stop,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The one that was used last is the last, and is used next: those that are too many become old.
    idle: VecDeque<Idle>,
    /// Whether a task closes the old ones. There is none while there is nothing to close.
    is_swept: bool,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    /// Whose the socket is: on another one, everything that comes would come by way of this one's thread.
    runtime: runtime::Id,
    connection: Connection,
}

impl State {
    /// The one that was used last on this runtime.
    fn take(&mut self, runtime: runtime::Id) -> Option<Idle> {
        let last = self.idle.iter().rposition(|idle| idle.runtime == runtime)?;
        self.idle.remove(last)
    }
}

impl Pool {
    pub(super) fn new(most: usize, limit: Duration, tasks: Tasks, stop: Stop) -> Self {
        Self(Arc::new(Shared { most, limit, tasks, stop, state: Mutex::default() }))
    }

    /// A connection to `address` on which a request can be sent, unless opencode has closed it: that shows when it is tried,
    /// and then the request is given back. Those that lead elsewhere are closed.
    pub(super) fn take(&self, address: &Address) -> Option<Connection> {
        let here = Handle::current().id();
        loop {
            let Idle { connection, .. } = self.lock().take(here)?;
            if connection.address() == address {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request, if it is fit for one.
    pub(super) fn put(&self, mut connection: Connection) {
        if !(connection.may_send() || connection.is_idle()) || self.0.stop.is_pulled() {
            return;
        }
        let mut state = self.lock();
        state.idle.push_back(Idle { since: Instant::now(), runtime: Handle::current().id(), connection });
        let oldest = if state.idle.len() > self.0.most { state.idle.pop_front() } else { None };
        let is_swept = std::mem::replace(&mut state.is_swept, true);
        drop(state);
        // Closed only now: others may wait for the lock.
        drop(oldest);
        if !is_swept {
            let pool = self.clone();
            self.0.tasks.spawn("idle upstream connections", async move {
                if pool.0.stop.or(pool.sweep()).await.is_none() {
                    pool.lock().idle.clear();
                }
            });
        }
    }

    /// Closes what is unused for too long, until there is nothing left.
    async fn sweep(&self) {
        while let Some(next) = self.close_old() {
            sleep_until(next).await;
        }
    }

    /// Says when the next one will be too old.
    fn close_old(&self) -> Option<Instant> {
        let mut state = self.lock();
        let old = state.idle.partition_point(|idle| idle.since.elapsed() >= self.0.limit);
        let closed: Vec<Idle> = state.idle.drain(..old).collect();
        let next = state.idle.front().map(|idle| idle.since + self.0.limit);
        state.is_swept = next.is_some();
        drop(state);
        drop(closed);
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
