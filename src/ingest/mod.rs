//! Where witnesses come in: each submodule turns bytes of one witness into [`Message`]s for the pipeline.
//!
//! Nothing here decides what an event means; that is `reconcile`. Nothing here holds back opencode: a full queue to the
//! pipeline stops reading a file or a socket, and the child's pipe is drained by a reader of its own.

pub mod log;
pub mod release;
pub mod state;
pub mod stream;

use std::sync::Arc;

use ::http::HeaderValue;
use tokio::sync::{mpsc, oneshot, watch};

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
    /// Something passed through the proxy.
    Passed(Passed),
    /// Somebody wants to know whether the pipeline works: it answers.
    Ping(oneshot::Sender<()>),
}

/// What the client's side shows of opencode's state.
#[derive(Debug)]
pub enum Passed {
    /// A directory's instance answered somebody. `None` is the server's own directory.
    InUse(Option<Arc<str>>),
    /// opencode accepted a write.
    Write {
        /// The request's raw path, without the query.
        path: String,
        /// The request's body, where the proxy keeps it: replies to permissions and questions.
        body: bytes::Bytes,
    },
}

/// The sending end of the pipeline's queue.
pub type Sender = mpsc::Sender<Message>;

/// Where opencode is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `host:port`.
    pub authority: Arc<str>,
    /// The relay's own credentials, for its own questions only. Marked sensitive, so that no log shows them.
    pub authorization: Option<HeaderValue>,
}

/// Where opencode is reached now; `None` while it is not running.
pub type UpstreamWatch = watch::Receiver<Option<Upstream>>;
