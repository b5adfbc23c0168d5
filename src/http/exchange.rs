//! What goes on on a client's connection, as far as hyper does not tell: which part of an exchange it is in since when,
//! and what the relay itself has to say on it besides its answers.
//!
//! hyper's HTTP/1 server sends no interim answers but its own 100. Here they wait for
//! [`Interleaved`](super::interleave::Interleaved), which puts them between hyper's messages. HTTP/2 has no such way:
//! hyper offers none, and its frames are not ours to write.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::proxy::Interim;

/// How many bytes of interim answers may wait for one client; further ones are left out, as they are advice only. One that
/// comes before the limit is reached is taken whole, however long it is.
const INTERIM: usize = 64 << 10;

/// One connection's state. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Exchange(Arc<Mutex<State>>);

/// Where an HTTP/1 connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between two requests.
    Idle,
    /// Part of a head has come.
    Head,
    /// A request is with the front. hyper writes nothing but its 100.
    Asked,
    /// The final answer is with hyper.
    Answering,
    /// hyper has all of the answer, but may not have written all of it.
    Answered,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// When the phase began; on HTTP/2, when the last request began or ended.
    pub(super) since: Instant,
    /// The requests so far: an interim answer that comes too late is known by it.
    number: u64,
    /// Whole messages of the relay's own that wait to be written.
    pub(super) own: BytesMut,
    /// Whether part of `own` was written: then the rest comes before anything else.
    pub(super) begun: bool,
    /// The connection's task.
    pub(super) waker: Option<Waker>,
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Idle,
            since: Instant::now(),
            number: 0,
            own: BytesMut::new(),
            begun: false,
            waker: None,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come. Keep what this returns until its answer is over.
    pub(super) fn ask(&self) -> Underway {
        let mut state = self.lock();
        state.number += 1;
        state.enter(Phase::Asked);
        Underway(self.clone())
    }

    /// Sends interim answers to the request that came last, as long as it has no final one.
    pub(super) fn interim(&self) -> Interim {
        let (exchange, number) = (self.clone(), self.lock().number);
        Arc::new(move |status, fields| {
            let mut state = exchange.lock();
            // hyper sends its own 100 when the body is asked for, and 101 is final.
            let is_ours = !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
            if !status.is_informational() || !is_ours || state.number != number || state.phase != Phase::Asked {
                return;
            }
            if state.own.len() >= INTERIM {
                tracing::debug!(%status, "an interim answer was left out: the client takes nothing");
                return;
            }
            write_head(&mut state.own, status, fields);
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        })
    }

    /// Waits until the interim answers are written: hyper writes the final one as soon as it has it. Ends with the
    /// connection, at the latest when the client takes nothing for too long.
    pub(super) async fn settled(&self) {
        // No waker is needed: whoever writes the last of them wakes the connection's task, which runs this too.
        poll_fn(|_| {
            let mut state = self.lock();
            if !state.own.is_empty() {
                return Poll::Pending;
            }
            state.enter(Phase::Answering);
            Poll::Ready(())
        })
        .await;
    }
}

impl State {
    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

/// A request that was not answered to its end yet. It belongs into the body of the answer.
#[derive(Debug)]
pub(super) struct Underway(Exchange);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.lock().enter(Phase::Answered);
    }
}

/// A head of HTTP/1.1. Values are bytes; `HeaderValue` has no line breaks in them.
fn write_head(out: &mut BytesMut, status: StatusCode, fields: &HeaderMap) {
    // Writing to memory does not fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}
