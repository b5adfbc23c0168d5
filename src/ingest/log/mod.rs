//! The bus log witness: lines of opencode's log, turned into [`Notice`](Item::Notice)s.
//!
//! The log is untrusted (FACTS §2): a session title can forge a perfect line. So a line only ever *announces* an event;
//! its content comes from the stream or the state.

pub mod decode;
mod folder;
mod follow;
pub mod line;
mod source;
mod tail;
mod wake;

use std::sync::Arc;

pub use decode::Decoder;
pub use follow::{Start, follow};
pub use source::{ParseSourceError, Source};

/// What a log source tells the pipeline.
#[derive(Debug)]
pub enum Message {
    /// Lines, in order, read together.
    Lines {
        /// What they say.
        items: Vec<Item>,
        /// Where reading goes on after them, for a source that can be read on after a restart.
        position: Option<Position>,
    },
    /// The source is followed from here on; `source` is how a person names it.
    Following {
        /// For people: `file:/path`, `stdin`, `stderr of pid 7`.
        source: String,
    },
    /// The source cannot be read at the moment.
    Waiting {
        /// What is missing and what to do about it.
        reason: String,
    },
    /// The source ended and will not come back.
    Ended,
}

/// Where reading goes on: which file, and how far. JSON text, to be kept and handed back as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub String);

/// One thing the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `service=bus type=KIND publishing`: an event of this type is being published.
    Notice {
        /// The event's type, as `message.updated`; checked: `[a-z0-9._-]`, at most 64 bytes.
        kind: Arc<str>,
    },
    /// A line that names a session which this process works on. A hint which state to read, nothing more.
    Hint {
        /// The session, as `ses_…`; checked: `[A-Za-z0-9_]`, at most 64 bytes.
        session: Arc<str>,
    },
    /// The first line of an opencode process: what was announced before belongs to another process.
    Started,
    /// Bytes that could not be read as lines; what they announced is not known.
    Gap {
        /// For people and for the counter's label: `line-too-long`, `truncated`, `unreadable`, `queue-full`.
        reason: &'static str,
    },
}
