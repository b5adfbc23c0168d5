//! How many requests and sockets there may be at opencode at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::failure::Failure;

/// A place among the requests or the sockets; dropping it frees it.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One kind of places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    most: usize,
    /// Makes the refusal from the limit.
    full: fn(usize) -> Failure,
}

impl Places {
    /// Places for requests. A request keeps its place until its body and its answer's are both over.
    ///
    /// The relay's own questions about who is admitted to an event stream need none: else whoever fills all places
    /// would shut everybody out of the streams. Their number is bounded by the clients' connections.
    pub(super) fn for_requests(most: usize) -> Self {
        Self::new(most, Failure::Overloaded)
    }

    /// Places for upgraded connections. A request for an upgrade takes one before it is sent, and gives it back if the
    /// answer is another.
    pub(super) fn for_sockets(most: usize) -> Self {
        Self::new(most, Failure::Sockets)
    }

    fn new(most: usize, full: fn(usize) -> Failure) -> Self {
        Self { taken: Arc::default(), most, full }
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A place, or why there is none. Nobody waits for one: a queue would only hide that opencode cannot keep up.
    pub(super) fn take(&self) -> Result<Place, Failure> {
        let next = |taken| (taken < self.most).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(Place(self.taken.clone())),
            Err(_) => Err((self.full)(self.most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let places = Places::for_requests(1);
        let place = places.take().unwrap();
        assert!(matches!(places.take(), Err(Failure::Overloaded(1))));
        assert_eq!(places.taken(), 1);
        drop(place);
        assert_eq!(places.taken(), 0);
        assert!(places.take().is_ok());
        assert!(Places::for_sockets(usize::MAX).take().is_ok());
        assert!(matches!(Places::for_sockets(0).take(), Err(Failure::Sockets(0))));
    }
}
