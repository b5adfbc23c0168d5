//! Which epoch numbered which events, and from where a client's id can be gone on from.

use std::hash::{BuildHasher, RandomState};

use crate::event::{Cursor, Epoch, Seq};

/// Most epochs kept; the oldest are forgotten, and ids of theirs are as foreign ones. A new one begins when the end of the
/// journal may have been lost, which is rare.
const LIMIT: usize = 256;

/// Why an id cannot be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The events after it are no longer kept.
    Expired {
        /// How many events came after it, in any scope.
        missed: u64,
    },
    /// The journal never gave this id.
    Unknown,
    /// It is from another journal.
    Restarted,
}

/// The epochs of a journal, in order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epochs(Vec<Entry>);

/// One epoch: its events begin with `first` and end before the next epoch's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) epoch: Epoch,
    pub(super) first: Seq,
}

impl Epochs {
    /// One epoch, from the first event on.
    pub(super) fn new(epoch: Epoch) -> Self {
        Self(vec![Entry { epoch, first: Seq(1) }])
    }

    /// Those that were stored; `None` unless they are in order.
    pub(super) fn stored(entries: Vec<Entry>) -> Option<Self> {
        let ordered = entries.windows(2).all(|pair| pair[0].first <= pair[1].first);
        (ordered && !entries.is_empty()).then_some(Self(entries))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The one that numbers now.
    pub(super) fn current(&self) -> Entry {
        self.0[self.0.len() - 1]
    }

    /// Begins another one with this event. What the older ones numbered before it stays theirs.
    pub(super) fn begin(&mut self, epoch: Epoch, first: Seq) {
        self.0.push(Entry { epoch, first });
        let surplus = self.0.len().saturating_sub(LIMIT);
        self.0.drain(..surplus);
    }

    /// The id of a position. That of an event which an older epoch numbered is in that epoch, so that it outlives an epoch
    /// which is only in memory yet.
    pub(super) fn cursor(&self, seq: Seq) -> Cursor {
        let entry = self.0.iter().rev().find(|entry| entry.first <= seq).unwrap_or(&self.0[0]);
        Cursor { epoch: entry.epoch, seq }
    }

    /// A position as an id of the epoch that numbers now.
    pub(super) fn cursor_of_current(&self, seq: Seq) -> Cursor {
        Cursor { epoch: self.current().epoch, seq }
    }

    /// Where to go on from for an id that a client brought; `oldest` is the oldest event that can be read.
    pub(super) fn locate(&self, cursor: Cursor, newest: Seq, oldest: Seq) -> Result<Seq, Lost> {
        let Some(at) = self.0.iter().position(|entry| entry.epoch == cursor.epoch) else {
            return Err(Lost::Restarted);
        };
        // An epoch's ids reach from the one before its first event, which greetings give, to its last.
        let end = self.0.get(at + 1).map_or(newest, |next| Seq(next.first.0.saturating_sub(1)));
        if cursor.seq > end || cursor.seq.next() < self.0[at].first {
            return Err(Lost::Unknown);
        }
        if cursor.seq.next() < oldest {
            return Err(Lost::Expired { missed: newest.0 - cursor.seq.0 });
        }
        Ok(cursor.seq)
    }
}

/// An epoch that no journal had before.
pub(super) fn draw() -> Epoch {
    // The standard library's hasher is keyed by the system's randomness, once per thread, and counts on from there.
    Epoch::new(RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_answers_for_its_own_events() {
        let (first, second, third) = (Epoch::new(1), Epoch::new(2), Epoch::new(3));
        let mut epochs = Epochs::new(first);
        epochs.begin(second, Seq(11));
        epochs.begin(third, Seq(11));
        let locate = |epoch, seq| epochs.locate(Cursor { epoch, seq: Seq(seq) }, Seq(20), Seq(5));
        assert_eq!(locate(first, 3), Err(Lost::Expired { missed: 17 }));
        assert_eq!(locate(first, 4), Ok(Seq(4)));
        assert_eq!(locate(first, 10), Ok(Seq(10)));
        assert_eq!(locate(first, 11), Err(Lost::Unknown));
        assert_eq!(locate(second, 10), Ok(Seq(10)));
        assert_eq!(locate(second, 11), Err(Lost::Unknown));
        assert_eq!(locate(third, 9), Err(Lost::Unknown));
        assert_eq!(locate(third, 20), Ok(Seq(20)));
        assert_eq!(locate(third, 21), Err(Lost::Unknown));
        assert_eq!(locate(Epoch::new(4), 12), Err(Lost::Restarted));
        assert_eq!(epochs.cursor(Seq(10)).epoch, first);
        assert_eq!(epochs.cursor(Seq(11)).epoch, third);
        assert_eq!(epochs.cursor(Seq(0)).epoch, first);
    }

    #[test]
    fn draws_differ() {
        assert_ne!(draw(), draw());
    }

    #[test]
    fn the_list_stays_short() {
        let mut epochs = Epochs::new(Epoch::new(0));
        for n in 1..1000 {
            epochs.begin(Epoch::new(n), Seq(n));
        }
        assert_eq!((epochs.entries().len(), epochs.current().epoch), (LIMIT, Epoch::new(999)));
        assert!(Epochs::stored(epochs.entries().to_vec()).is_some());
        assert!(Epochs::stored(vec![]).is_none());
    }
}
