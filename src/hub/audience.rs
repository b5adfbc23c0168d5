//! Everybody who sees the same bytes: followers with the same scope and form. What is made for one of them is made for all.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use tokio::runtime;

use super::crier::Crier;
use super::wakers::{Place, Wakers};
use crate::event::{Cursor, Form, Frame, Scope, Seq, put_frame};
use crate::journal::{Expired, Journal, Record};

/// Most bytes of frames handed out at once. Frames that wait are written together up to here; a bigger one goes alone.
pub(super) const BATCH: usize = 64 << 10;

/// Most bytes of events that are looked at in the journal's file for one batch: others wait for their turn to read.
const SCAN: usize = 2 << 20;

/// Most batches that are kept for others, and most bytes of them; the newest is kept however big it is. While events come
/// faster than all are served, followers stand at the ends of the last few batches.
const BATCHES: usize = 4;
const BATCHES_BYTES: usize = BATCH;

/// What one client asked for: which events, and how they look. And where it is served: those on one runtime are an audience
/// of their own, so that one thread alone works with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Interest {
    pub(super) scope: Scope,
    pub(super) form: Form,
    pub(super) runtime: Option<runtime::Id>,
}

/// The followers with one interest.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) interest: Arc<Interest>,
    /// Wakes them, if they are on a runtime.
    pub(super) crier: Option<Arc<Crier>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The newest record that was shown to anybody.
    tail: Cursor,
    /// The newest one of them that may be in the scope: who has come this far has nothing to read before the tail.
    newest: Seq,
    wakers: Wakers,
    /// The batches that were made last.
    batches: VecDeque<Batch>,
}

/// Frames, whole and ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// The records that were looked at came after this one, up to the other. Those without a frame in the batch are not in
    /// the scope.
    pub(super) after: Seq,
    pub(super) to: Cursor,
    pub(super) bytes: Bytes,
}

/// What there is for a follower.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing: it waits.
    Wait,
    /// These frames.
    Take(Batch),
    /// It has to read.
    Read,
}

impl Audience {
    pub(super) fn new(interest: Arc<Interest>, crier: Option<Arc<Crier>>, tail: Cursor) -> Self {
        let state = State { tail, newest: tail.seq, wakers: Wakers::default(), batches: VecDeque::new() };
        Self { interest, crier, state: Mutex::new(state) }
    }

    pub(super) fn enter(&self) -> Place {
        self.state().wakers.enter()
    }

    /// Gives the place back; whether nobody is left.
    pub(super) fn leave(&self, place: &Place) -> bool {
        let mut state = self.state();
        state.wakers.leave(place);
        state.wakers.len() == 0
    }

    /// Shows records, of which the newest is at `tail`, and takes along whom to wake: those that have something to read, or
    /// everybody who waits.
    pub(super) fn show(&self, records: &[Arc<Record>], tail: Cursor, everybody: bool, woken: &mut Vec<Waker>) {
        let newest = records.iter().rev().find(|record| self.frame(record).is_some());
        let mut state = self.state();
        if everybody || newest.is_some() {
            let before = state.tail;
            state.wakers.take(before, woken);
        }
        state.tail = tail;
        state.newest = newest.map_or(state.newest, |record| record.seq);
    }

    /// Takes along everybody who waits for whatever it is.
    pub(super) fn rouse(&self, woken: &mut Vec<Waker>) {
        let mut state = self.state();
        let tail = state.tail;
        state.wakers.rouse(tail, woken);
    }

    /// Who waits for the journal's file can be roused, too.
    pub(super) fn reads_file(&self, place: &Place, waker: &Waker) {
        self.state().wakers.read(place, waker);
    }

    /// What there is for a follower that has come to `cursor`, which is moved on over what is not in the scope. One that has to
    /// wait leaves its waker, under the lock that [`Self::show`] takes too, so that no record comes between.
    pub(super) fn turn(&self, cursor: &mut Cursor, place: &Place, waker: &Waker) -> Turn {
        let mut state = self.state();
        *cursor = state.position(place, *cursor);
        if state.newest <= cursor.seq {
            state.wakers.wait(place, waker);
            if state.wakers.are_all_waiting() {
                // They have what was made for them.
                state.batches.clear();
            }
            return Turn::Wait;
        }
        let newest = state.newest;
        let ready = state.batches.iter().find(|batch| batch.after == cursor.seq && batch.to.seq >= newest);
        ready.cloned().map_or(Turn::Read, Turn::Take)
    }

    /// Up to where a follower that has come to `cursor` has everything.
    pub(super) fn position(&self, cursor: Cursor, place: &Place) -> Cursor {
        self.state().position(place, cursor)
    }

    /// Keeps a batch for others who come to the same place, if it reaches as far as there is anything to send.
    pub(super) fn keep(&self, batch: &Batch) {
        let mut state = self.state();
        if batch.to.seq < state.newest || state.wakers.len() < 2 {
            return;
        }
        state.batches.retain(|old| old.after != batch.after);
        state.batches.push_back(batch.clone());
        let mut bytes: usize = state.batches.iter().map(|batch| batch.bytes.len()).sum();
        while state.batches.len() > BATCHES || (state.batches.len() > 1 && bytes > BATCHES_BYTES) {
            bytes -= state.batches.pop_front().map_or(0, |oldest| oldest.bytes.len());
        }
    }

    /// The frames of the records that are in the scope, written together; as many records as one batch holds. `after` is the
    /// position before the first of them.
    pub(super) fn batch(&self, after: Cursor, records: &[Arc<Record>]) -> Batch {
        let mut to = after;
        let mut size = 0;
        let mut admitted: Vec<(&Frame, &Record)> = Vec::new();
        for record in records {
            if let Some(frame) = self.frame(record) {
                if size > 0 && size + frame.size() > BATCH {
                    break;
                }
                size += frame.size();
                admitted.push((frame, record));
            }
            to = record.cursor();
        }
        let form = self.interest.form;
        let bytes = match *admitted {
            [] => Bytes::new(),
            [(frame, _)] if form == Frame::FORM => frame.bytes().clone(),
            _ => {
                let mut bytes = BytesMut::with_capacity(size);
                for (frame, record) in admitted {
                    put_frame(&frame.data(), record.cursor(), form, record.event.origin, record.at, &mut bytes);
                }
                bytes.freeze()
            }
        };
        Batch { after: after.seq, to, bytes }
    }

    /// The same from the journal's file. Waits for the disk.
    pub(super) fn read_file(&self, journal: &Journal, after: Cursor) -> Result<Batch, Expired> {
        let Interest { scope, form, .. } = &*self.interest;
        let (mut to, mut bytes, mut left) = (after, BytesMut::new(), SCAN);
        journal.read_file(after.seq, |stored| {
            if let Some(data) = stored.data(scope.view).filter(|_| scope.admits(&stored.head)) {
                if !bytes.is_empty() && bytes.len() + data.len() > BATCH {
                    return ControlFlow::Break(());
                }
                put_frame(data, stored.cursor, *form, stored.origin, stored.at, &mut bytes);
            }
            to = stored.cursor;
            left = left.saturating_sub(stored.global.len());
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(Batch { after: after.seq, to, bytes: bytes.freeze() })
    }

    fn frame<'a>(&self, record: &'a Record) -> Option<&'a Frame> {
        let scope = &self.interest.scope;
        record.frame(scope.view).filter(|_| scope.admits(&record.event.head()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where a follower that has come to `cursor` goes on from: the tail if there is nothing before it.
    fn position(&self, place: &Place, cursor: Cursor) -> Cursor {
        let cursor = self.wakers.position(place, cursor);
        // Beyond the tail stands who has read what is in the journal already and about to be shown.
        if self.newest <= cursor.seq && cursor.seq < self.tail.seq { self.tail } else { cursor }
    }
}

/// How far a follower has come, for those who look at it from outside.
#[derive(Debug)]
pub struct Standing {
    pub(super) audience: Arc<Audience>,
    /// In the epoch of its event, which nobody asks for here.
    seq: AtomicU64,
}

impl Standing {
    pub(super) fn new(audience: Arc<Audience>, cursor: Cursor) -> Self {
        Self { audience, seq: AtomicU64::new(cursor.seq.0) }
    }

    pub(super) fn set(&self, cursor: Cursor) {
        self.seq.store(cursor.seq.0, Ordering::Relaxed);
    }

    /// Whose events it follows.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.audience.interest.scope
    }

    /// Up to which number everything was handed out or is not in the scope.
    #[must_use]
    pub fn seq(&self) -> Seq {
        let seq = Seq(self.seq.load(Ordering::Relaxed));
        let state = self.audience.state();
        if state.newest <= seq { seq.max(state.tail.seq) } else { seq }
    }
}
