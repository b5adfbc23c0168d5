//! The bus log witness: lines of opencode's log, turned into [`Notice`](Item::Notice)s.
//!
//! The log is untrusted (FACTS §2): a session title can forge a perfect line. So a line only ever *announces* an event;
//! its content comes from the stream or the state.

pub mod decode;
mod folder;
mod follow;
pub mod journald;
pub mod line;
mod others;
mod place;
mod position;
mod reader;
mod rotated;
mod source;
mod tail;
mod wake;

use std::sync::Arc;

pub use decode::Decoder;
pub use folder::choose;
pub use follow::follow;
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

/// Where to begin to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the end: what is there was published before anybody listened.
    End,
    /// At the beginning.
    Beginning,
    /// After what was read before a restart: the last position that was kept together with its items. What is not there
    /// any more is a [`Gap`](Item::Gap).
    After(Position),
}

/// Where reading goes on: which file and how far, or after which entry of systemd's journal. JSON text, to be kept and handed back as it is.
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
        /// For people and for the counter's label:
        /// * `line-too-long`: a line beyond [`LONGEST_LINE`](decode::LONGEST_LINE);
        /// * `truncated`: the file was emptied or cut, and what it held is in none of the files beside it;
        /// * `rotated-away`: a file was removed or compressed before it was read to its end, or may have been; entries of
        ///   systemd's journal were;
        /// * `unfinished-line`: a file ended within a line;
        /// * `written-after-rotation`: a file was left for its successor and was written to after that;
        /// * `two-servers`: a server's log was left for a newer one, and lives on (see [`Elsewhere`](Item::Elsewhere));
        /// * `position-unknown`: the position to begin at is of another source or release;
        /// * `rate-limited`: systemd's journal dropped lines of the unit;
        /// * `unreadable`, `queue-full`.
        reason: &'static str,
    },
    /// Another opencode process that writes its log to the same folder published something, perhaps often. No stream of
    /// our server tells what.
    Elsewhere,
}
