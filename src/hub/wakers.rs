//! Who waits at the tail: one place per follower, so that a follower polled often does not make the list grow.

use std::task::Waker;

use crate::event::Cursor;

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

/// What a follower does.
#[derive(Debug)]
enum Slot {
    /// With a waker: from the journal's file, which takes a while.
    Reads(Option<Waker>),
    Waits(Waker),
    /// It was woken, and had nothing to read before this position, however long it slept.
    Woken(Cursor),
}

impl Wakers {
    /// A place for a new follower.
    pub(super) fn enter(&mut self) -> Place {
        Place(self.free.pop().unwrap_or_else(|| {
            self.places.push(Slot::Reads(None));
            self.places.len() - 1
        }))
    }

    /// Gives the place back.
    pub(super) fn leave(&mut self, place: &Place) {
        let left = std::mem::replace(&mut self.places[place.0], Slot::Reads(None));
        self.waiting -= usize::from(matches!(left, Slot::Waits(_)));
        self.free.push(place.0);
    }

    /// Remembers whom to wake.
    pub(super) fn wait(&mut self, place: &Place, waker: &Waker) {
        match &mut self.places[place.0] {
            Slot::Waits(old) => old.clone_from(waker),
            slot => {
                *slot = Slot::Waits(waker.clone());
                self.waiting += 1;
            }
        }
    }

    /// Remembers whom to rouse, and for nothing else: it reads the file.
    pub(super) fn read(&mut self, place: &Place, waker: &Waker) {
        self.places[place.0] = Slot::Reads(Some(waker.clone()));
    }

    /// Takes along everybody who could be roused; nothing is new for them, so they stand where they stood, which is `tail` for
    /// those that wait.
    pub(super) fn rouse(&mut self, tail: Cursor, woken: &mut Vec<Waker>) {
        self.take(tail, woken);
        let readers = self.places.iter_mut().filter_map(|slot| match slot {
            Slot::Reads(waker) => waker.take(),
            Slot::Waits(_) | Slot::Woken(_) => None,
        });
        woken.extend(readers);
    }

    /// Takes everybody who waits along; they have nothing to read before `tail`.
    pub(super) fn take(&mut self, tail: Cursor, woken: &mut Vec<Waker>) {
        if std::mem::take(&mut self.waiting) == 0 {
            return;
        }
        for slot in &mut self.places {
            if matches!(slot, Slot::Waits(_))
                && let Slot::Waits(waker) = std::mem::replace(slot, Slot::Woken(tail))
            {
                woken.push(waker);
            }
        }
    }

    /// Where a follower that has come to `cursor` goes on from.
    pub(super) fn position(&self, place: &Place, cursor: Cursor) -> Cursor {
        match self.places[place.0] {
            Slot::Woken(tail) if cursor.seq < tail.seq => tail,
            _ => cursor,
        }
    }

    /// How many followers have a place.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn are_all_waiting(&self) -> bool {
        self.waiting == self.len()
    }
}
