//! Where witnesses come in: each submodule turns bytes of one witness into [`Message`]s for the pipeline.
//!
//! Nothing here decides what an event means; that is `reconcile`. Nothing here holds back opencode: a full queue to the
//! pipeline stops reading a file or a socket, and the child's pipe is drained by a reader of its own.

pub mod log;
pub mod state;
pub mod stream;

use tokio::sync::mpsc;

/// How many messages may wait for the pipeline. A source that finds the queue full waits.
pub const QUEUE: usize = 1024;

/// What a witness tells the pipeline.
#[derive(Debug)]
pub enum Message {
    /// Lines of the bus log.
    Log(log::Message),
    /// The upstream stream.
    Stream(stream::Message),
    /// An answer to a question about the state.
    State(state::Message),
    /// A write that passed through the proxy.
    Write(Write),
}

/// A request that passed through the proxy and that opencode should answer with events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The method, upper case.
    pub method: String,
    /// The raw path, without the query.
    pub path: String,
    /// The directory the request named, percent-decoded, if any.
    pub directory: Option<String>,
    /// The request's body, if it was small enough to keep (see `proxy`).
    pub body: bytes::Bytes,
    /// The upstream's answer.
    pub status: u16,
}

/// The sending end of the pipeline's queue.
pub type Sender = mpsc::Sender<Message>;
