//! Who waits at the tail: one place per follower, so that a follower polled often does not make the list grow.

use std::task::Waker;

/// A follower's place in the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

#[derive(Debug, Default)]
pub(super) struct Wakers {
    /// One per follower, empty while it does not wait; places left by followers are free.
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// Places whose waker is set, so that a publish touches only those who wait. A place may stand here twice.
    waiting: Vec<usize>,
}

impl Wakers {
    /// A place for a new follower.
    pub(super) fn enter(&mut self) -> Place {
        Place(self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        }))
    }

    /// Gives the place back.
    pub(super) fn leave(&mut self, place: &Place) {
        self.places[place.0] = None;
        self.free.push(place.0);
    }

    /// Remembers whom to wake.
    pub(super) fn wait(&mut self, place: &Place, waker: &Waker) {
        match &mut self.places[place.0] {
            Some(old) => old.clone_from(waker),
            empty => {
                *empty = Some(waker.clone());
                self.waiting.push(place.0);
            }
        }
    }

    /// Takes everybody who waits.
    pub(super) fn take(&mut self) -> Vec<Waker> {
        let Self { places, waiting, .. } = self;
        waiting.drain(..).filter_map(|place| places[place].take()).collect()
    }

    /// How many followers have a place.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
