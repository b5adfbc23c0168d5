//! What every request changes, once for each thread that serves clients: two processors that write to the same line of memory
//! wait for each other, and that costs a request more than all that it writes there.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are of a thing. Twice the threads that serve clients at most; with more of them some share one.
const COUNT: usize = 16;

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// One `T` for each thread.
#[derive(Debug)]
pub(super) struct PerThread<T>(Box<[Apart<T>]>);

/// Two lines, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T> PerThread<T> {
    pub(super) fn new(make: impl Fn() -> T) -> Self {
        Self((0..COUNT).map(|_| Apart(make())).collect())
    }

    /// This thread's.
    pub(super) fn here(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.get().unwrap_or_else(|| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            NUMBER.set(Some(number));
            number
        });
        &self.0[number % COUNT].0
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|apart| &apart.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_own_and_all_are_seen() {
        let counts = PerThread::new(AtomicUsize::default);
        let add = || {
            counts.here().fetch_add(1, Ordering::Relaxed);
            std::ptr::from_ref(counts.here()).addr()
        };
        let mine = add();
        let theirs = std::thread::scope(|scope| [(); 2].map(|()| scope.spawn(add).join().unwrap()));
        assert_eq!(add(), mine);
        assert!(theirs.iter().all(|place| place.abs_diff(mine) >= 128), "{theirs:?}");
        assert_eq!(counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>(), 4);
    }
}
