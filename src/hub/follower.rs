//! One client's position in the journal.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};

use super::Hub;
use super::audience::{Audience, Batch, READ, Standing, Turn};
use super::wakers::{Outlet, Place};
use crate::event::{Cursor, View, connected, heartbeat, quote};
use crate::journal::{Journal, Lost, Read};

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
pub(super) fn place(last_id: Option<&str>, journal: &Journal, tail: Cursor) -> (Word, Cursor) {
    let gap = |reason, missed| (Word::Gap { reason, missed }, tail);
    let Some(last_id) = last_id else { return (Word::Fresh, tail) };
    let Ok(cursor) = last_id.parse::<Cursor>() else { return gap(Reason::Unknown, None) };
    match journal.locate(cursor) {
        Ok(_) => (Word::Resumed, cursor),
        Err(Lost::Expired { missed }) => gap(Reason::Expired, Some(missed)),
        Err(Lost::Unknown) => gap(Reason::Unknown, None),
        Err(Lost::Restarted) => gap(Reason::Restarted, None),
    }
}

/// Frames on their way from the journal's file.
struct Reading(Pin<Box<dyn Future<Output = Result<Batch, Expired>> + Send>>);

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Reading {
    /// Reads after a position, once it is this one's turn. Dropping it takes it out of the queue; a read that has begun
    /// ends by itself, and keeps its turn until then.
    fn start(hub: &Hub, audience: &Arc<Audience>, after: Cursor) -> Self {
        let (journal, reads, audience) = (hub.0.journal.clone(), hub.0.reads.clone(), audience.clone());
        Self(Box::pin(async move {
            let turn = reads.acquire_owned().await;
            let read = move || {
                let batch = audience.read_file(&journal, after);
                drop(turn);
                batch
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(Ok(batch)) => Ok(batch),
                _ => Err(Expired),
            }
        }))
    }
}

/// Follows the journal for one client: catches up, then live.
#[derive(Debug)]
pub struct Follower {
    hub: Hub,
    standing: Arc<Standing>,
    word: Word,
    /// The last record that was looked at; everything up to here was sent or is not in the scope.
    cursor: Cursor,
    /// The greeting was handed out.
    is_greeted: bool,
    /// After a gap, what is pending has to be told, as soon as it is known. Counted in the hub.
    owes: bool,
    /// Set while frames come from the file.
    reading: Option<Reading>,
}

impl Follower {
    pub(super) fn new(hub: Hub, audience: Arc<Audience>, place: Place, word: Word, cursor: Cursor, owes: bool) -> Self {
        let standing = Arc::new(Standing::new(audience, place, cursor));
        Self { hub, standing, word, cursor, is_greeted: false, owes, reading: None }
    }

    /// What the first frame says.
    #[must_use]
    pub fn word(&self) -> &Word {
        &self.word
    }

    /// How far it has come, for those who look on.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.clone()
    }

    /// From now on, what comes while it waits is offered to `outlet`, and its task is woken only for what that does not take.
    /// What the outlet sent comes between two results of `poll_frames`.
    pub fn attach(&self, outlet: Arc<dyn Outlet>) {
        self.audience().attach(&self.standing.place, outlet);
    }

    /// A frame that shows the client its stream is alive. It may only stand between two results of `poll_frames`.
    #[must_use]
    pub fn heartbeat(&self) -> Bytes {
        let audience = self.audience();
        let position = audience.interest.form.ids.then(|| audience.position(self.cursor, &self.standing.place));
        heartbeat(audience.interest.scope.view, position, &self.hub.frame_id())
    }

    /// The next whole frames, written together up to 64 KiB, the greeting first. Clients that asked for the same share the
    /// bytes.
    ///
    /// # Errors
    ///
    /// When the stream has to end; it must end as an error then.
    pub fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Expired>> {
        if !self.is_greeted {
            self.is_greeted = true;
            return Poll::Ready(Ok(self.greeting()));
        }
        if let Some(pending) = self.pending() {
            return Poll::Ready(Ok(pending));
        }
        loop {
            let batch = match &mut self.reading {
                Some(reading) => {
                    let Poll::Ready(read) = reading.0.as_mut().poll(context) else {
                        self.audience().reads_file(&self.standing.place, context.waker());
                        return Poll::Pending;
                    };
                    self.reading = None;
                    read?
                }
                None => match self.standing.audience.turn(&mut self.cursor, &self.standing.place, context.waker()) {
                    Turn::Wait => {
                        self.standing.set(self.cursor);
                        return Poll::Pending;
                    }
                    Turn::Take(batch) => batch,
                    Turn::Read => match self.hub.0.journal.read(self.cursor.seq, READ) {
                        Ok(Read::Here(records)) => {
                            let batch = self.audience().batch(self.cursor, &records);
                            self.audience().keep(&batch);
                            batch
                        }
                        Ok(Read::InFile) => {
                            self.reading = Some(Reading::start(&self.hub, self.audience(), self.cursor));
                            continue;
                        }
                        Err(_) => return Poll::Ready(Err(Expired)),
                    },
                },
            };
            self.cursor = batch.to;
            self.standing.set(self.cursor);
            if !batch.bytes.is_empty() {
                return Poll::Ready(Ok(batch.bytes));
            }
        }
    }

    fn audience(&self) -> &Arc<Audience> {
        &self.standing.audience
    }

    fn greeting(&self) -> Bytes {
        let interest = &self.audience().interest;
        let position = interest.form.ids.then_some(self.cursor);
        connected(interest.scope.view, position, &self.hub.frame_id(), &self.word.properties())
    }

    /// What is pending, if it is owed and known by now, and there is anything.
    fn pending(&mut self) -> Option<Bytes> {
        if !self.owes {
            return None;
        }
        let scope = &self.standing.audience.interest.scope;
        let mut tail = self.hub.tail();
        if !tail.pending.covers(scope) {
            return None;
        }
        self.owes = false;
        tail.owing -= 1;
        let mut bytes = BytesMut::new();
        for event in tail.pending.events.iter().filter(|event| scope.admits(&event.head())) {
            let payload = event.payload();
            let data = match scope.view {
                View::Global => &event.global,
                View::Api => event.api.as_ref().unwrap_or(&payload),
                View::Instance | View::Session => &payload,
            };
            // No id: these were not journaled now, and the greeting's id already says where the client stands.
            bytes.put_slice(b"data: ");
            bytes.put_slice(data);
            bytes.put_slice(b"\n\n");
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut tail = self.hub.tail();
        tail.owing -= usize::from(self.owes);
        tail.followers -= 1;
        let audience = self.audience();
        if audience.leave(&self.standing.place) {
            tail.audiences.remove(&audience.interest);
        }
    }
}

#[cfg(test)]
mod tests;
