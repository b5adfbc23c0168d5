//! Everybody who sees the same bytes: followers with the same scope and form. What is made for one of them is made for all.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use tokio::runtime;

use super::crier::Crier;
use super::wakers::{Frames, Offered, Outlet, Place, Waiter, Wakers};
use crate::event::{Cursor, Form, Frame, Scope, Seq, put_frame};
use crate::journal::{Expired, Journal, Read, Record};

/// About how many bytes of records are read from the journal's memory at once.
pub(super) const READ: usize = 128 << 10;

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
    /// Serves and wakes them, if they are on a runtime.
    pub(super) crier: Option<Arc<Crier>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The newest record that was shown to anybody.
    tail: Cursor,
    /// The newest one of them that may be in the scope: who has come this far has nothing to read before the tail.
    newest: Seq,
    /// Set while there is something for those that wait: up to here they have everything.
    due: Option<Cursor>,
    /// How often everybody was woken: those that are being served then are not among those who wait.
    rouses: u64,
    wakers: Wakers,
    /// The batches that were made last.
    batches: VecDeque<Batch>,
}

/// Followers that are served and woken before others of their thread have their turn.
const SERVED: usize = 64;

/// What those that wait are being given.
#[derive(Debug)]
pub(super) struct Wave {
    /// They had everything up to here before, and then up to there.
    after: Cursor,
    to: Cursor,
    frames: Frames,
    /// The place in the list that is served next.
    next: usize,
    is_over: bool,
}

impl Wave {
    /// Whether nobody is left to serve.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
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
        let (wakers, batches) = (Wakers::default(), VecDeque::new());
        let state = State { tail, newest: tail.seq, due: None, rouses: 0, wakers, batches };
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

    /// Gives a follower what there is for it by its outlet, as long as it waits.
    pub(super) fn attach(&self, place: &Place, outlet: Arc<dyn Outlet>) {
        self.state().wakers.attach(place, outlet);
    }

    /// Shows records, of which the newest is at `tail`; whether the crier has to be told that there is something for those that
    /// wait. Without one, and if `everybody` has to be told something else, whoever waits is taken along to be woken.
    pub(super) fn show(&self, records: &[Arc<Record>], tail: Cursor, everybody: bool, woken: &mut Vec<Waker>) -> bool {
        let newest = records.iter().rev().find(|record| self.frame(record).is_some());
        let mut state = self.state();
        let shown = state.shown();
        if everybody || (newest.is_some() && self.crier.is_none()) {
            state.rouses += 1;
            state.wakers.take(shown, woken);
        }
        // Otherwise the crier knows already.
        let is_news = newest.is_some() && !everybody && self.crier.is_some() && state.due.is_none();
        if is_news {
            state.due = Some(shown);
        }
        state.tail = tail;
        state.newest = newest.map_or(state.newest, |record| record.seq);
        is_news
    }

    /// Takes along everybody who waits for whatever it is.
    pub(super) fn rouse(&self, woken: &mut Vec<Waker>) {
        let mut state = self.state();
        let shown = state.shown();
        state.rouses += 1;
        state.wakers.rouse(shown, woken);
    }

    /// What there is for those that wait, and from where on; everybody is taken along instead if it is not in memory.
    pub(super) fn due(&self, journal: &Journal, woken: &mut Vec<Waker>) -> Option<Wave> {
        let after = self.state().due?;
        if let Ok(Read::Here(records)) = journal.read(after.seq, READ) {
            let batch = self.batch(after, &records);
            self.keep(&batch);
            return Some(Wave { after, to: batch.to, frames: Frames::new(batch.bytes), next: 0, is_over: false });
        }
        let mut state = self.state();
        state.due = None;
        state.wakers.take(after, woken);
        None
    }

    /// Serves the next few followers of a wave, and says how many. Those that cannot be served from here are woken.
    pub(super) fn serve(&self, wave: &mut Wave) -> usize {
        let mut state = self.state();
        let rouses = state.rouses;
        let waiters = state.wakers.serve(&mut wave.next, SERVED, wave.after, wave.to);
        drop(state);
        let count = waiters.len();
        wave.is_over = count < SERVED;
        // Without the lock: the pipeline waits for it.
        let offered: Vec<(Waiter, Offered)> = waiters
            .into_iter()
            .map(|waiter| {
                let offer = |outlet: &Arc<dyn Outlet>| {
                    if wave.frames.bytes().is_empty() { Offered::Sent } else { outlet.offer(&wave.frames) }
                };
                let offered = waiter.outlet.as_ref().map_or(Offered::Refused, offer);
                (waiter, offered)
            })
            .collect();
        let mut state = self.state();
        let is_roused = state.rouses != rouses;
        for (waiter, offered) in offered {
            if offered != Offered::Sent || is_roused {
                waiter.waker.wake_by_ref();
            }
            if offered != Offered::Refused {
                state.wakers.served(waiter, wave.to);
            }
        }
        count
    }

    /// A wave is over; whether there is more for those that wait.
    pub(super) fn end(&self, wave: &Wave) -> bool {
        let mut state = self.state();
        state.due = Some(wave.to).filter(|to| to.seq < state.newest);
        state.forget_batches();
        state.due.is_some()
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
            state.wakers.wait(place, waker, *cursor);
            state.forget_batches();
            return Turn::Wait;
        }
        state.wakers.look(place, *cursor);
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

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state().wakers.waiting()
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
    /// Up to where those that wait have everything.
    fn shown(&self) -> Cursor {
        self.due.unwrap_or(self.tail)
    }

    /// Where a follower that has come to `cursor` goes on from: the tail if there is nothing before it.
    fn position(&self, place: &Place, cursor: Cursor) -> Cursor {
        let cursor = self.wakers.position(place, cursor);
        let shown = if self.newest <= cursor.seq {
            self.tail
        } else if self.wakers.is_waiting(place) {
            self.shown()
        } else {
            return cursor;
        };
        // Beyond it stands who has read what is in the journal already and about to be shown.
        if cursor.seq < shown.seq { shown } else { cursor }
    }

    /// Once all wait, they have what was made for them.
    fn forget_batches(&mut self) {
        if self.wakers.are_all_waiting() {
            self.batches.clear();
        }
    }
}

/// How far a follower has come, for those who look at it from outside.
#[derive(Debug)]
pub struct Standing {
    pub(super) audience: Arc<Audience>,
    pub(super) place: Place,
    /// As far as it came by itself; in the epoch of its event, which nobody asks for here.
    seq: AtomicU64,
}

impl Standing {
    pub(super) fn new(audience: Arc<Audience>, place: Place, cursor: Cursor) -> Self {
        Self { audience, place, seq: AtomicU64::new(cursor.seq.0) }
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
        let state = self.audience.state();
        let seq = Seq(self.seq.load(Ordering::Relaxed));
        state.position(&self.place, Cursor { seq, ..state.tail }).seq
    }
}
