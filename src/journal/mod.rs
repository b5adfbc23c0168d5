//! The journal: every event clients were or will be sent, numbered, for those who come back.
//!
//! Only the pipeline appends; the hub reads for clients that are behind. This release keeps it in memory.

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Cursor, Epoch, Event, Frame, Seq, View};

pub use memory::Memory as Journal;

/// How much is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes of frames; older events are dropped. In memory this is memory.
    pub bytes: usize,
    /// Events older than this are dropped.
    pub age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { bytes: 64 << 20, age: Duration::from_secs(24 * 60 * 60) }
    }
}

/// What is kept together: after a crash the durable form has all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events, in order, not numbered yet.
    pub events: Vec<Event>,
    /// What the pipeline needs to go on after a restart, by name; each takes the place of the one of that name.
    pub notes: Vec<(&'static str, String)>,
}

/// What an earlier run of the relay left.
#[derive(Debug, Default)]
pub struct Restored {
    /// The newest note of each name.
    pub notes: BTreeMap<String, String>,
    /// The newest records, in order, as many as are worth going through at a start.
    pub recent: Vec<Arc<Record>>,
}

/// A numbered event with its ready-made frames.
#[derive(Debug)]
pub struct Record {
    /// Its number.
    pub seq: Seq,
    /// When it was numbered, in milliseconds of Unix time.
    pub at: u64,
    /// The event.
    pub event: Event,
    /// Its frame on `/event` and `/session/{id}/event`, if those carry it.
    instance: Option<Frame>,
    /// Its frame on `/global/event`.
    global: Option<Frame>,
    /// Its frame on `/api/event`.
    api: Option<Frame>,
}

impl Record {
    fn new(epoch: Epoch, seq: Seq, at: u64, mut event: Event) -> Self {
        let cursor = Cursor { epoch, seq };
        let has = |view| event.views.has(view);
        let instance = has(View::Instance).then(|| Frame::new(cursor, &event.global[event.payload.clone()]));
        let global = has(View::Global).then(|| Frame::new(cursor, &event.global));
        if let Some(global) = &global {
            // The frame holds the text already: one copy is enough, and the chunk it was read from can go.
            event.global = global.data();
        }
        let api = event.api.as_ref().filter(|_| has(View::Api)).map(|data| Frame::new(cursor, data));
        Self { seq, at, event, instance, global, api }
    }

    /// The event's bytes on a stream; `None` when that stream does not carry it.
    #[must_use]
    pub fn frame(&self, view: View) -> Option<&Frame> {
        match view {
            View::Instance | View::Session => self.instance.as_ref(),
            View::Global => self.global.as_ref(),
            View::Api => self.api.as_ref(),
        }
    }

    /// How much memory the record takes, in bytes: its frames and itself.
    #[must_use]
    pub fn size(&self) -> usize {
        let frames = [&self.instance, &self.global, &self.api];
        frames.into_iter().flatten().map(Frame::size).sum::<usize>() + size_of::<Self>()
    }
}

/// A part of the journal.
#[derive(Debug)]
pub struct Read {
    /// The records after the asked position, in order.
    pub records: Vec<Arc<Record>>,
}

/// The asked position is older than what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the journal after {after}: it begins with {oldest}")]
pub struct Expired {
    /// The asked position.
    pub after: Seq,
    /// The oldest number kept.
    pub oldest: Seq,
}
