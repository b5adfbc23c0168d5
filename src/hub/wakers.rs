//! Who waits at the tail: one place per follower, so that a follower polled often does not make the list grow.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use bytes::Bytes;

use crate::event::Cursor;

/// Takes what there is for a follower that waits at the tail, on the thread that serves it and without the task that polls
/// it: a task that sleeps is dear to wake, for all that it works with has left the processor's caches since.
pub trait Outlet: fmt::Debug + Send + Sync {
    /// Gives it whole frames. It must not block, nor ask the hub for anything.
    fn offer(&self, frames: &Frames) -> Offered;
}

/// Whole frames for many followers.
#[derive(Debug)]
pub struct Frames {
    bytes: Bytes,
    made: OnceLock<Bytes>,
}

impl Frames {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes, made: OnceLock::new() }
    }

    /// The frames.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What is made of them: by whoever comes first, for all who make something of them.
    pub fn made(&self, make: impl FnOnce(&Bytes) -> Bytes) -> &Bytes {
        self.made.get_or_init(|| make(&self.bytes))
    }
}

/// What became of frames that were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// They were sent.
    Sent,
    /// They were taken, and the follower's task has to send what is left of them.
    Taken,
    /// They were not taken: the follower will be polled for them.
    Refused,
}

/// A follower's place in the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

#[derive(Debug, Default)]
pub(super) struct Wakers {
    /// One per follower; places left by followers are free.
    places: Vec<Slot>,
    free: Vec<usize>,
    /// How many wait.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Slot {
    outlet: Option<Arc<dyn Outlet>>,
    doing: Doing,
}

/// What a follower does.
#[derive(Debug)]
enum Doing {
    /// With a waker: from the journal's file, which takes a while.
    Reads(Option<Waker>),
    /// It has everything up to this position, and what came after that is not for it unless its audience says so.
    Waits(Waker, Cursor),
    /// It was woken, or is being served, and has everything up to this position, however long it slept.
    Woken(Cursor),
}

impl Default for Doing {
    fn default() -> Self {
        Self::Reads(None)
    }
}

/// A follower that waited, with what serves it.
#[derive(Debug)]
pub(super) struct Waiter {
    place: usize,
    pub(super) waker: Waker,
    pub(super) outlet: Option<Arc<dyn Outlet>>,
}

impl Wakers {
    /// A place for a new follower.
    pub(super) fn enter(&mut self) -> Place {
        Place(self.free.pop().unwrap_or_else(|| {
            self.places.push(Slot::default());
            self.places.len() - 1
        }))
    }

    /// Gives the place back.
    pub(super) fn leave(&mut self, place: &Place) {
        let left = std::mem::take(&mut self.places[place.0]);
        self.waiting -= usize::from(matches!(left.doing, Doing::Waits(..)));
        self.free.push(place.0);
    }

    /// What is there for a follower goes here while it waits.
    pub(super) fn attach(&mut self, place: &Place, outlet: Arc<dyn Outlet>) {
        self.places[place.0].outlet = Some(outlet);
    }

    /// Remembers whom to wake, and how far it has come.
    pub(super) fn wait(&mut self, place: &Place, waker: &Waker, cursor: Cursor) {
        match &mut self.places[place.0].doing {
            Doing::Waits(old, at) => {
                old.clone_from(waker);
                *at = cursor;
            }
            doing => {
                *doing = Doing::Waits(waker.clone(), cursor);
                self.waiting += 1;
            }
        }
    }

    /// A follower looks for itself what there is after `cursor`: it waits no longer, until it says so.
    pub(super) fn look(&mut self, place: &Place, cursor: Cursor) {
        let _ = self.wake(place.0, cursor);
    }

    /// Remembers whom to rouse, and for nothing else: it reads the file.
    pub(super) fn read(&mut self, place: &Place, waker: &Waker) {
        self.places[place.0].doing = Doing::Reads(Some(waker.clone()));
    }

    /// Takes along everybody who could be roused; those that wait have everything up to `shown`.
    pub(super) fn rouse(&mut self, shown: Cursor, woken: &mut Vec<Waker>) {
        self.take(shown, woken);
        let readers = self.places.iter_mut().filter_map(|slot| match &mut slot.doing {
            Doing::Reads(waker) => waker.take(),
            Doing::Waits(..) | Doing::Woken(_) => None,
        });
        woken.extend(readers);
    }

    /// Takes everybody who waits along; they have everything up to `shown`.
    pub(super) fn take(&mut self, shown: Cursor, woken: &mut Vec<Waker>) {
        if self.waiting > 0 {
            let waiters = (0..self.places.len()).filter_map(|place| self.wake(place, shown));
            woken.extend(waiters);
        }
    }

    /// Takes along the next ones, `most` at a time and from the place `from` on, that wait and have not come to `to`. Those that
    /// have everything up to `after` and nothing behind it have an outlet to be served by.
    pub(super) fn serve(&mut self, from: &mut usize, most: usize, after: Cursor, to: Cursor) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        while *from < self.places.len() && waiters.len() < most {
            let place = *from;
            *from += 1;
            let Slot { outlet, doing: Doing::Waits(_, at) } = &self.places[place] else { continue };
            if at.seq < to.seq {
                let outlet = outlet.clone().filter(|_| at.seq <= after.seq);
                waiters.extend(self.wake(place, after).map(|waker| Waiter { place, waker, outlet }));
            }
        }
        waiters
    }

    /// A follower that was taken along was served up to `to`, and waits again.
    pub(super) fn served(&mut self, waiter: Waiter, to: Cursor) {
        let doing = &mut self.places[waiter.place].doing;
        // Otherwise it is gone.
        if matches!(doing, Doing::Woken(_)) {
            *doing = Doing::Waits(waiter.waker, to);
            self.waiting += 1;
        }
    }

    fn wake(&mut self, place: usize, shown: Cursor) -> Option<Waker> {
        let doing = &mut self.places[place].doing;
        match std::mem::replace(doing, Doing::Woken(shown)) {
            Doing::Waits(waker, at) => {
                *doing = Doing::Woken(later(at, shown));
                self.waiting -= 1;
                Some(waker)
            }
            other => {
                *doing = other;
                None
            }
        }
    }

    /// Up to where a follower that has come to `cursor` by itself has everything, as far as that does not depend on its audience.
    pub(super) fn position(&self, place: &Place, cursor: Cursor) -> Cursor {
        match self.places[place.0].doing {
            Doing::Waits(_, at) | Doing::Woken(at) => later(cursor, at),
            Doing::Reads(_) => cursor,
        }
    }

    pub(super) fn is_waiting(&self, place: &Place) -> bool {
        matches!(self.places[place.0].doing, Doing::Waits(..))
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many followers have a place.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn are_all_waiting(&self) -> bool {
        self.waiting == self.len()
    }
}

fn later(one: Cursor, other: Cursor) -> Cursor {
    if one.seq < other.seq { other } else { one }
}
