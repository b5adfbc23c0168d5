//! One client's position in the journal.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};

use super::{Hub, wakers};
use crate::event::{Cursor, Form, Scope, Seq, connected, heartbeat, quote};
use crate::journal::{Journal, Lost, Read, Record};

/// Most bytes of frames handed out at once. Frames that wait are written together up to here; a bigger one goes alone.
const BATCH: usize = 64 << 10;

/// About how many bytes of records are read from the journal at once.
const READ: usize = 256 << 10;

/// What the first frame tells the client (DESIGN §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It asked for nothing older.
    Fresh,
    /// It gets everything after its id.
    Resumed,
    /// Something cannot be replayed; the stream goes on from now.
    Gap {
        /// Why.
        reason: Reason,
        /// How many events of the journal it missed, in any scope; `None` when nobody knows.
        missed: Option<u64>,
    },
}

/// Why an id could not be resumed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The events after it are no longer kept.
    Expired,
    /// The relay never gave this id.
    Unknown,
    /// It is from another journal: the relay was restarted.
    Restarted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Restarted => "restarted",
        })
    }
}

impl Word {
    /// The `properties` of `server.connected`, as JSON text.
    #[must_use]
    pub fn properties(&self) -> String {
        match self {
            Self::Fresh => "{}".into(),
            Self::Resumed => r#"{"resumed":true}"#.into(),
            Self::Gap { reason, missed } => {
                let missed = missed.map_or("null".into(), |missed| missed.to_string());
                format!(r#"{{"gap":{{"reason":{},"missed":{missed}}}}}"#, quote(&reason.to_string()))
            }
        }
    }
}

/// The client read so slowly that what it needs next is no longer kept. The stream has to end as an error, so that it
/// comes back and is told (FACTS §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("go on with the stream: the client is further behind than the journal reaches")]
pub struct Expired;

/// Where a client starts, by the id it brought. An id is a wish, never a credential: all it selects is a position. A fresh
/// stream starts after `tail`.
pub(super) fn place(last_id: Option<&str>, journal: &Journal, tail: Seq) -> (Word, Cursor) {
    let gap = |reason, missed| (Word::Gap { reason, missed }, journal.cursor(tail));
    let Some(last_id) = last_id else { return (Word::Fresh, journal.cursor(tail)) };
    let Ok(cursor) = last_id.parse::<Cursor>() else { return gap(Reason::Unknown, None) };
    match journal.locate(cursor) {
        Ok(_) => (Word::Resumed, cursor),
        Err(Lost::Expired { missed }) => gap(Reason::Expired, Some(missed)),
        Err(Lost::Unknown) => gap(Reason::Unknown, None),
        Err(Lost::Restarted) => gap(Reason::Restarted, None),
    }
}

/// Records on their way from the journal's file.
struct Reading(Pin<Box<dyn Future<Output = Fetched> + Send>>);

type Fetched = Result<Vec<Arc<Record>>, Expired>;

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Reading {
    /// Reads after a position, once it is this one's turn. Dropping it takes it out of the queue; a read that has begun
    /// ends by itself, and keeps its turn until then.
    fn start(hub: &Hub, after: Seq) -> Self {
        let (journal, reads) = (hub.0.journal.clone(), hub.0.reads.clone());
        Self(Box::pin(async move {
            let turn = reads.acquire_owned().await;
            let read = move || {
                let read = journal.read_file(after, READ);
                drop(turn);
                read
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(Ok(records)) => Ok(records),
                _ => Err(Expired),
            }
        }))
    }
}

/// Follows the journal for one client: catches up, then live.
#[derive(Debug)]
pub struct Follower {
    hub: Hub,
    scope: Scope,
    form: Form,
    word: Word,
    /// The last record that was looked at; everything up to here was sent or is not in the scope.
    cursor: Cursor,
    /// The greeting, not sent yet.
    first: Option<Bytes>,
    /// After a gap, what is pending has to be told, as soon as it is known. Counted in the hub.
    owes: bool,
    /// Records read from the journal, not looked at yet. Bounded by `READ`.
    ahead: VecDeque<Arc<Record>>,
    /// Set while they come from the file.
    reading: Option<Reading>,
    place: wakers::Place,
}

impl Follower {
    pub(super) fn new(
        hub: Hub,
        scope: Scope,
        form: Form,
        word: Word,
        cursor: Cursor,
        owes: bool,
        place: wakers::Place,
    ) -> Self {
        let ahead = VecDeque::new();
        let mut follower = Self { hub, scope, form, word, cursor, first: None, owes, ahead, reading: None, place };
        let properties = follower.word.properties();
        let position = follower.position();
        follower.first = Some(connected(follower.scope.view, position, &follower.hub.frame_id(), &properties));
        follower
    }

    /// What the first frame says.
    #[must_use]
    pub fn word(&self) -> &Word {
        &self.word
    }

    /// Up to which number everything was handed out or is not in the scope.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.cursor.seq
    }

    /// A frame that shows the client its stream is alive. It may only stand between two results of `poll_frames`.
    #[must_use]
    pub fn heartbeat(&self) -> Bytes {
        heartbeat(self.scope.view, self.position(), &self.hub.frame_id())
    }

    /// The next whole frames, written together up to 64 KiB, the greeting first.
    ///
    /// # Errors
    ///
    /// When the stream has to end; it must end as an error then.
    pub fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Expired>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        let mut batch = self.pending().unwrap_or_default();
        loop {
            while let Some(record) = self.ahead.front() {
                let frame = record.frame(self.scope.view).filter(|_| self.scope.admits(&record.event));
                if let Some(frame) = frame {
                    if !batch.is_empty() && batch.len() + frame.size() > BATCH {
                        return Poll::Ready(Ok(batch.freeze()));
                    }
                    frame.put(self.form, record.event.origin, record.at, &mut batch);
                }
                self.cursor = record.cursor();
                self.ahead.pop_front();
            }
            let more = if batch.is_empty() { self.fetch(Some(context)) } else { self.fetch(None) };
            match more {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(expired)) if batch.is_empty() => return Poll::Ready(Err(expired)),
                _ if batch.is_empty() => return Poll::Pending,
                _ => return Poll::Ready(Ok(batch.freeze())),
            }
        }
    }

    /// Fills `ahead` from the journal. At the tail it leaves the waker, under the lock that a publish takes too, so that no
    /// record comes between. Without a context it does not wait for anything.
    fn fetch(&mut self, context: Option<&mut Context<'_>>) -> Poll<Result<(), Expired>> {
        if self.reading.is_none() {
            {
                let mut tail = self.hub.tail();
                // Beyond the tail stands who has read what is in the journal already and about to be published.
                if tail.seq <= self.cursor.seq {
                    if let Some(context) = context {
                        tail.wakers.wait(&self.place, context.waker());
                    }
                    return Poll::Pending;
                }
            }
            match self.hub.0.journal.read(self.cursor.seq, READ) {
                Ok(Read::Here(records)) => {
                    self.ahead.extend(records);
                    return Poll::Ready(Ok(()));
                }
                Ok(Read::InFile) => self.reading = Some(Reading::start(&self.hub, self.cursor.seq)),
                Err(_) => return Poll::Ready(Err(Expired)),
            }
        }
        let (Some(reading), Some(context)) = (&mut self.reading, context) else { return Poll::Pending };
        let read = std::task::ready!(reading.0.as_mut().poll(context));
        self.reading = None;
        self.ahead.extend(read?);
        Poll::Ready(Ok(()))
    }

    fn position(&self) -> Option<Cursor> {
        self.form.ids.then_some(self.cursor)
    }

    /// What is pending, if it is owed and known by now.
    fn pending(&mut self) -> Option<BytesMut> {
        if !self.owes {
            return None;
        }
        let mut tail = self.hub.tail();
        if !tail.pending.covers(&self.scope) {
            return None;
        }
        self.owes = false;
        tail.owing -= 1;
        let view = self.scope.view;
        let mut bytes = BytesMut::new();
        for event in tail.pending.events.iter().filter(|event| self.scope.admits(event)) {
            let payload = event.payload();
            let data = match view {
                crate::event::View::Global => &event.global,
                crate::event::View::Api => event.api.as_ref().unwrap_or(&payload),
                crate::event::View::Instance | crate::event::View::Session => &payload,
            };
            // No id: these were not journaled now, and the greeting's id already says where the client stands.
            bytes.put_slice(b"data: ");
            bytes.put_slice(data);
            bytes.put_slice(b"\n\n");
        }
        Some(bytes)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut tail = self.hub.tail();
        tail.owing -= usize::from(self.owes);
        tail.wakers.leave(&self.place);
    }
}

#[cfg(test)]
mod tests;
