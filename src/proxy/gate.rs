//! `Expect: 100-continue` (RFC 9110 §10.1.1): the body of a request waits until opencode asks for it.
//!
//! hyper's client knows nothing of it and asks for the body as soon as the head is written. So the body itself says
//! "not yet", and is told by a [`Gate`] what has come: an interim 100, or a final answer instead.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// How long opencode may say nothing before the body is let through all the same: there are servers that do not know of
/// `Expect` and wait for the body. curl waits as long for its 100.
///
/// For that long a client that breaks off goes unnoticed too: hyper reads nothing from its connection until the body is
/// asked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a body may pass. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    word: Word,
    /// The task that carries the request's body.
    waker: Option<Waker>,
}

/// What opencode said about the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing so far.
    #[default]
    Nothing,
    /// It may pass.
    Send,
    /// A final answer came instead, and is being handed on: an error of the body would break that off.
    Keep,
    /// That answer is over; now the connection must end, because the request on it never will.
    Over,
}

impl Gate {
    /// opencode asks for the body.
    pub(super) fn open(&self) {
        self.turn(Word::Nothing, Word::Send);
    }

    /// A final answer has come. If the body was not let through before, it never will be, and the connection to opencode
    /// ends when what this returns is dropped: keep it for as long as the answer needs that connection.
    pub(super) fn refuse(&self) -> Option<Refusal> {
        self.turn(Word::Nothing, Word::Keep).then(|| Refusal(self.clone()))
    }

    /// Says whether the state was `from`.
    fn turn(&self, from: Word, to: Word) -> bool {
        let mut state = self.lock();
        if state.word != from {
            return false;
        }
        state.word = to;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// What was said; the task is woken when something else is.
    fn word(&self, context: &Context<'_>) -> Word {
        let mut state = self.lock();
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        state.word
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that was not wanted. Dropping this ends the connection it should have gone on.
#[derive(Debug)]
pub(super) struct Refusal(Gate);

impl Drop for Refusal {
    fn drop(&mut self) {
        self.0.turn(Word::Keep, Word::Over);
    }
}

/// The body's side of a gate.
#[derive(Debug)]
pub(super) struct Wait {
    gate: Gate,
    /// Runs from the first question on: hyper asks for the body right after it wrote the head.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    pub(super) fn at(gate: Gate) -> Self {
        Self { gate, patience: None }
    }

    /// What to do with the body; pending as long as that is nothing.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Word> {
        let word = self.gate.word(context);
        if word != Word::Nothing {
            return Poll::Ready(word);
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        if patience.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.gate.open();
        // A final answer may have come in the same moment.
        Poll::Ready(self.gate.word(context))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lets_the_body_through_when_it_is_asked_for_or_nothing_is_said() {
        let gate = Gate::default();
        let mut wait = Wait::at(gate.clone());
        let began = tokio::time::Instant::now();
        let (word, ()) = tokio::join!(poll_fn(|context| wait.poll(context)), async { gate.open() });
        assert_eq!((word, began.elapsed()), (Word::Send, Duration::ZERO));
        assert!(gate.refuse().is_none());
        let mut wait = Wait::at(Gate::default());
        assert_eq!(poll_fn(|context| wait.poll(context)).await, Word::Send);
        assert!(began.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn ends_the_connection_only_after_the_answer() {
        let gate = Gate::default();
        let mut wait = Wait::at(gate.clone());
        let refusal = gate.refuse();
        assert!(refusal.is_some() && gate.refuse().is_none());
        gate.open();
        assert_eq!(poll_fn(|context| wait.poll(context)).await, Word::Keep);
        drop(refusal);
        assert_eq!(poll_fn(|context| wait.poll(context)).await, Word::Over);
    }
}
