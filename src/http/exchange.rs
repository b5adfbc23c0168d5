//! What goes on on a client's connection, as far as hyper does not tell: which part of an exchange it is in since when,
//! and what the relay itself has to say on it besides its answers.
//!
//! hyper's HTTP/1 server sends no interim answers but its own 100. Here they wait for
//! [`Interleaved`](super::interleave::Interleaved), which puts them between hyper's messages. HTTP/2 has no such way:
//! hyper offers none, and its frames are not ours to write.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::time::Instant;

use super::delivery::Handover;
use super::refusal::write_head;
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
    /// The answer is the relay's to write, as soon as hyper has written what came before it.
    Handing,
    /// hyper has nothing left to write, and the connection may be taken from it.
    Handed,
    /// The connection speaks another protocol from its 101 on: nothing on it is a message any more.
    Upgraded,
    /// The relay refuses to go on: nothing more is read, and what it has to say is the last that is written.
    Refused,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    after: Phase,
    /// When the phase began, if it is one in which something is waited for from the client (see [`Exchange::waits`]).
    since: Instant,
    /// Requests that are not answered to their end. HTTP/1 has one at most.
    requests: usize,
    /// Those among them that are event streams: they end by themselves only.
    streams: usize,
    /// The requests so far: an interim answer that comes too late is known by it.
    number: u64,
    /// The answer that is the relay's to write.
    handover: Option<Handover>,
    /// Whole messages of the relay's own that wait to be written.
    pub(super) own: BytesMut,
    /// Whether part of `own` was written: then the rest comes before anything else.
    pub(super) begun: bool,
    /// The connection's task.
    pub(super) waker: Option<Waker>,
}

impl Exchange {
    /// `after` is what comes after an answer: on HTTP/2, [`Phase::Idle`] at once, as hyper writes what it has by itself.
    pub(super) fn new(after: Phase) -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Idle,
            after,
            since: Instant::now(),
            requests: 0,
            streams: 0,
            number: 0,
            handover: None,
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
        state.requests += 1;
        state.enter(Phase::Asked);
        Underway { exchange: self.clone(), is_stream: false }
    }

    /// The relay itself answers the request, and whatever comes after it on this connection.
    pub(super) fn hand_over(&self, handover: Handover) {
        let mut state = self.lock();
        state.handover = Some(handover);
        state.enter(Phase::Handing);
    }

    /// Whether the connection can be taken from hyper: it was asked to write nothing that it has not written.
    pub(super) fn is_handed_over(&self) -> bool {
        self.lock().phase == Phase::Handed
    }

    /// The answer that was handed over.
    pub(super) fn take_over(&self) -> Option<Handover> {
        self.lock().handover.take()
    }

    /// The answer to the request was to speak another protocol from now on.
    pub(super) fn upgrade(&self) {
        self.lock().enter(Phase::Upgraded);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.lock().phase == Phase::Upgraded
    }

    /// Ends the connection with this message.
    pub(super) fn refuse(&self, message: &Bytes) {
        let mut state = self.lock();
        state.refuse(message);
        state.wake();
    }

    /// Whether the connection ends with a refusal of the relay's.
    pub(super) fn is_refused(&self) -> bool {
        self.lock().phase == Phase::Refused
    }

    /// Whether nothing is underway but event streams, which no client waits for to end.
    pub(super) fn has_only_streams(&self) -> bool {
        let state = self.lock();
        state.requests == state.streams && state.phase != Phase::Answered
    }

    /// What the connection waits for from its client, and since when; `None` while the client waits for an answer.
    ///
    /// What still comes of a request's body after its answer looks like the next head: hyper does not say where a request
    /// ends. opencode does not answer ahead of a body that it goes on to read.
    pub(super) fn waits(&self) -> Option<(Phase, Instant)> {
        let state = self.lock();
        match state.phase {
            Phase::Head | Phase::Refused => Some((state.phase, state.since)),
            Phase::Idle if state.requests == 0 => Some((Phase::Idle, state.since)),
            _ => None,
        }
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
            state.wake();
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
        if matches!(phase, Phase::Idle | Phase::Head | Phase::Refused) {
            self.since = Instant::now();
        }
    }

    /// Ends the connection with this message.
    pub(super) fn refuse(&mut self, message: &Bytes) {
        self.own.extend_from_slice(message);
        self.enter(Phase::Refused);
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// A request that was not answered to its end yet. It belongs into the body of the answer.
#[derive(Debug)]
pub(super) struct Underway {
    exchange: Exchange,
    is_stream: bool,
}

impl Underway {
    /// The answer is an event stream.
    pub(super) fn stream(&mut self) {
        self.is_stream = true;
        self.exchange.lock().streams += 1;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut state = self.exchange.lock();
        state.requests -= 1;
        state.streams -= usize::from(self.is_stream);
        // HTTP/2 may be idle and asked at once; it is idle since the last answer.
        if matches!(state.phase, Phase::Asked | Phase::Answering | Phase::Idle) {
            let after = state.after;
            state.enter(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn on_http_2_a_connection_is_idle_since_its_last_answer() {
        let exchange = Exchange::new(Phase::Idle);
        let (one, other) = (exchange.ask(), exchange.ask());
        drop(one);
        assert_eq!(exchange.waits(), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        drop(other);
        assert_eq!(exchange.waits(), Some((Phase::Idle, Instant::now())));
    }
}
