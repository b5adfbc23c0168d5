//! A numbered event: with its ready-made frames in memory, and as it stands in the file.

use std::ops::Range;

use bytes::Bytes;

use crate::event::{Cursor, Epoch, Event, Frame, Head, Origin, Seq, View};

/// A numbered event with its ready-made frames.
#[derive(Debug)]
pub struct Record {
    /// Its number.
    pub seq: Seq,
    /// The epoch in which it was numbered; its frames' ids say so too.
    pub epoch: Epoch,
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
    pub(super) fn new(epoch: Epoch, seq: Seq, at: u64, mut event: Event) -> Self {
        let cursor = Cursor { epoch, seq };
        let has = |view| event.views.has(view);
        let instance = has(View::Instance).then(|| Frame::new(cursor, &event.global[event.payload.clone()]));
        let global = has(View::Global).then(|| Frame::new(cursor, &event.global));
        if let Some(global) = &global {
            // The frame holds the text already: one copy is enough, and the chunk it was read from can go.
            event.global = global.data();
        }
        let api = event.api.as_ref().filter(|_| has(View::Api)).map(|data| Frame::new(cursor, data));
        Self { seq, epoch, at, event, instance, global, api }
    }

    /// The same event with other ids: those it was given cannot be kept.
    pub(super) fn in_epoch(&self, epoch: Epoch) -> Self {
        Self::new(epoch, self.seq, self.at, self.event.clone())
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

    /// The event's id in its frames.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, seq: self.seq }
    }

    /// How much memory the record takes, in bytes: its frames and itself.
    #[must_use]
    pub fn size(&self) -> usize {
        let frames = [&self.instance, &self.global, &self.api];
        frames.into_iter().flatten().map(Frame::size).sum::<usize>() + size_of::<Self>()
    }

    /// The frame that is stored: that of `/global/event`, made if no stream carries it.
    pub(super) fn stored(&self) -> Frame {
        self.global.clone().unwrap_or_else(|| Frame::new(self.cursor(), &self.event.global))
    }
}

/// A numbered event as it stands in the file, for whoever reads on without keeping it.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Its id.
    pub cursor: Cursor,
    /// When it was numbered, in milliseconds of Unix time.
    pub at: u64,
    /// Who sees it.
    pub head: Head<'a>,
    /// Who supplied its content.
    pub origin: Origin,
    /// The text after `data: ` on `/global/event`.
    pub global: &'a [u8],
    /// Where in it the text after `data: ` on `/event` stands.
    pub(super) payload: Range<usize>,
    /// The text after `data: ` on `/api/event`.
    pub(super) api: Option<&'a [u8]>,
}

impl<'a> Stored<'a> {
    /// The text after `data: ` on a stream; `None` when that stream does not carry the event.
    #[must_use]
    pub fn data(&self, view: View) -> Option<&'a [u8]> {
        let data = match view {
            View::Instance | View::Session => Some(&self.global[self.payload.clone()]),
            View::Global => Some(self.global),
            View::Api => self.api,
        };
        data.filter(|_| self.head.views.has(view))
    }

    /// The record to keep.
    #[must_use]
    pub fn record(&self) -> Record {
        let Head { kind, directory, session, views } = self.head;
        let event = Event {
            kind: kind.into(),
            directory: directory.map(Into::into),
            session: session.map(Into::into),
            origin: self.origin,
            views,
            global: Bytes::copy_from_slice(self.global),
            payload: self.payload.clone(),
            api: self.api.map(Bytes::copy_from_slice),
        };
        Record::new(self.cursor.epoch, self.cursor.seq, self.at, event)
    }
}
