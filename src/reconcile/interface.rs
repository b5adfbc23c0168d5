//! What `reconcile` is told and what it wants done: the words between it and the pipeline.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::compare::ShapeError;
use crate::event::Event;

/// Which witnesses there are (DESIGN §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// All that are there.
    Auto,
    /// The bus log and the state; the upstream's streams are never opened.
    Log,
    /// The stream and the state; no log is read.
    Stream,
}

/// How to reconcile.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which witnesses there are.
    pub witness: Witness,
    /// How long a log line may wait for its event before the state is read, in milliseconds.
    pub grace: u64,
    /// How often the newest sessions are looked at while somebody listens, in milliseconds; 0 for never.
    pub watch: u64,
    /// Make events with empty properties for log lines whose content no witness can tell.
    pub emit_bare: bool,
}

/// The time, as the pipeline reads it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds that never go back.
    pub steady: u64,
    /// Unix time in milliseconds.
    pub wall: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The log announced an event.
    Notice(Arc<str>),
    /// The log named a session that this opencode works on.
    Hint(Arc<str>),
    /// The log says that opencode started, or lost lines: what was announced is not known.
    LogBroke,
    /// The upstream stream is connected.
    StreamUp,
    /// It is not any more.
    StreamDown,
    /// It delivered an event. The event is emitted by the caller; it is told here so that the shadow knows.
    Event(Event),
    /// It showed life without an event.
    StreamAlive,
    /// It delivered something that could not be read.
    StreamLost,
    /// Questions can be asked, or not.
    Reachable(bool),
    /// A question was answered.
    Answer {
        /// Which question.
        number: u64,
        /// The body, or why there is none.
        answer: Result<Bytes, Failure>,
    },
    /// A directory is in use: somebody's request for it was answered. `None` is the server's own directory.
    InUse(Option<Arc<str>>),
    /// A client's write was accepted by opencode.
    Write {
        /// The request's path.
        path: String,
        /// The request's body, if it was kept.
        body: Bytes,
    },
    /// Whether somebody follows the events.
    Listened(bool),
    /// The log of another opencode process on the same data announced something.
    Elsewhere,
    /// Time passed, or all that arrived was told.
    Tick,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 404: there is no such thing.
    Missing,
    /// Anything else; it is asked again.
    Unanswered,
}

/// What the pipeline has to do.
#[derive(Debug)]
pub enum Effect {
    /// Number this event and show it to clients.
    Emit(Event),
    /// Ask the upstream.
    Ask {
        /// Comes back in [`Input::Answer`].
        number: u64,
        /// Path and query of the request.
        path: String,
        /// Which instance to ask, for the header `x-opencode-directory`.
        directory: Option<Arc<str>>,
        /// JSON text to POST; the others are GETs.
        body: Option<String>,
    },
    /// An answer could not be read: for the log.
    Misshapen(ShapeError),
}

/// What a client has to know after a gap.
#[derive(Debug)]
pub struct Pending {
    /// Open permissions and questions, the status of busy sessions.
    pub events: Vec<Event>,
    /// The directories of which all that is open is known.
    pub directories: BTreeSet<Arc<str>>,
    /// These are all that are in use.
    pub is_complete: bool,
}
