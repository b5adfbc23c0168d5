//! The journal in memory: lost with the process.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::{Batch, Expired, Options, Read, Record};
use crate::event::{Epoch, Seq};

/// A ring of records, bounded by bytes and age.
#[derive(Debug)]
pub struct Memory {
    epoch: Epoch,
    options: Options,
    ring: RwLock<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Neighbours differ by one in `seq`.
    records: VecDeque<Arc<Record>>,
    /// The number of the newest record ever appended, also when it is dropped by now.
    newest: Seq,
    /// The sum of the records' sizes.
    bytes: usize,
}

/// How full a journal is.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Records kept.
    pub events: usize,
    /// Bytes they take.
    pub bytes: usize,
    /// The oldest number that can be read; one past the newest when nothing is kept.
    pub oldest: Seq,
    /// The newest number given.
    pub newest: Seq,
}

impl Memory {
    /// An empty journal.
    #[must_use]
    pub fn new(epoch: Epoch, options: Options) -> Self {
        Self { epoch, options, ring: RwLock::default() }
    }

    /// Which journal this is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Numbers the events and keeps them. `now` is Unix time in milliseconds.
    pub fn append(&self, batch: Batch, now: u64) -> Vec<Arc<Record>> {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let mut added = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            let record = Arc::new(Record::new(self.epoch, ring.newest.next(), now, event));
            ring.newest = record.seq;
            ring.bytes += record.size();
            ring.records.push_back(record.clone());
            added.push(record);
        }
        let expired = now.saturating_sub(u64::try_from(self.options.age.as_millis()).unwrap_or(u64::MAX));
        while let Some(record) = ring.records.front()
            && (ring.bytes > self.options.bytes || record.at < expired)
        {
            let size = record.size();
            ring.bytes -= size;
            ring.records.pop_front();
        }
        added
    }

    /// Reads on after a position, about `limit` bytes at most, but at least one record if there is one.
    ///
    /// # Errors
    ///
    /// When the record after `after` was dropped already.
    pub fn read(&self, after: Seq, limit: usize) -> Result<Read, Expired> {
        let ring = self.read_ring();
        let oldest = ring.oldest();
        if after.next() < oldest {
            return Err(Expired { after, oldest });
        }
        let start = usize::try_from(after.next().0 - oldest.0).unwrap_or(usize::MAX);
        let mut left = limit;
        let mut records = Vec::new();
        for record in ring.records.iter().skip(start) {
            records.push(record.clone());
            left = left.saturating_sub(record.size());
            if left == 0 {
                break;
            }
        }
        Ok(Read { records })
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let ring = self.read_ring();
        Fill { events: ring.records.len(), bytes: ring.bytes, oldest: ring.oldest(), newest: ring.newest }
    }

    fn read_ring(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn oldest(&self) -> Seq {
        self.records.front().map_or_else(|| self.newest.next(), |record| record.seq)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Event, Origin, Place};

    fn event(n: u64) -> Event {
        let place = Place { directory: Some("/p".into()), project: None };
        Event::made(Origin::State, "a", &place, None, &format!("evt_{n}"), "{}")
    }

    fn batch(numbers: std::ops::Range<u64>) -> Batch {
        Batch { events: numbers.map(event).collect(), ..Batch::default() }
    }

    fn journal(bytes: usize) -> Memory {
        Memory::new(Epoch::new(7), Options { bytes, age: Duration::from_secs(10) })
    }

    fn seqs(journal: &Memory, after: u64, limit: usize) -> Vec<u64> {
        journal.read(Seq(after), limit).unwrap().records.iter().map(|record| record.seq.0).collect()
    }

    #[test]
    fn reads_on_from_any_kept_position() {
        let journal = journal(1 << 20);
        assert_eq!(seqs(&journal, 0, 100), [0; 0]);
        journal.append(batch(0..5), 1);
        assert_eq!(seqs(&journal, 0, usize::MAX), [1, 2, 3, 4, 5]);
        assert_eq!(seqs(&journal, 3, usize::MAX), [4, 5]);
        assert_eq!(seqs(&journal, 3, 1), [4]);
        assert_eq!(seqs(&journal, 5, 1), [0; 0]);
        assert_eq!(seqs(&journal, 99, 1), [0; 0]);
    }

    #[test]
    fn drops_by_size_and_by_age_and_says_so() {
        let one = Record::new(Epoch::new(7), Seq(1), 1, event(1)).size();
        let small = journal(one * 3);
        small.append(batch(0..5), 1);
        assert_eq!(small.fill().oldest, Seq(3));
        assert_eq!(small.read(Seq(1), 1).unwrap_err(), Expired { after: Seq(1), oldest: Seq(3) });
        assert_eq!(seqs(&small, 2, usize::MAX), [3, 4, 5]);
        small.append(batch(6..7), 1 + 10_001);
        assert_eq!((small.fill().events, small.fill().oldest, small.fill().newest), (1, Seq(6), Seq(6)));
        small.append(batch(0..0), 1 + 20_002);
        assert_eq!((small.fill().events, small.fill().bytes, small.fill().oldest), (0, 0, Seq(7)));
        assert!(small.read(Seq(6), 1).is_ok() && small.read(Seq(5), 1).is_err());
    }
}
