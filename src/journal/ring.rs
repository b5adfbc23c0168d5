//! The newest records in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Record;
use crate::event::Seq;

/// A ring of records, bounded by bytes and age. Neighbours differ by one in `seq`.
#[derive(Debug, Default)]
pub(super) struct Ring {
    records: VecDeque<Arc<Record>>,
    /// The number of the newest record ever appended, also when it is dropped by now.
    newest: Seq,
    /// The sum of the records' sizes.
    bytes: usize,
}

impl Ring {
    /// An empty ring that goes on after `newest`.
    pub(super) fn after(newest: Seq) -> Self {
        Self { newest, ..Self::default() }
    }

    /// Adds records that follow the newest.
    pub(super) fn extend(&mut self, records: impl IntoIterator<Item = Arc<Record>>) {
        for record in records {
            self.newest = record.seq;
            self.bytes += record.size();
            self.records.push_back(record);
        }
    }

    /// Drops what is too much, and what was numbered before `expired`, in milliseconds of Unix time.
    pub(super) fn trim(&mut self, bytes: usize, expired: u64) {
        while let Some(record) = self.records.front()
            && (self.bytes > bytes || record.at < expired)
        {
            self.bytes -= record.size();
            self.records.pop_front();
        }
    }

    /// The records after a position, about `limit` bytes at most, but at least one if there is one; `None` when the one
    /// after it was dropped.
    pub(super) fn read(&self, after: Seq, limit: usize) -> Option<Vec<Arc<Record>>> {
        let oldest = self.oldest();
        let start = usize::try_from(after.next().0.checked_sub(oldest.0)?).unwrap_or(usize::MAX);
        let mut left = limit;
        let mut records = Vec::new();
        for record in self.records.range(start.min(self.records.len())..) {
            records.push(record.clone());
            left = left.saturating_sub(record.size());
            if left == 0 {
                break;
            }
        }
        Some(records)
    }

    /// The oldest number that can be read; one past the newest when nothing is kept.
    pub(super) fn oldest(&self) -> Seq {
        self.records.front().map_or_else(|| self.newest.next(), |record| record.seq)
    }

    pub(super) fn newest(&self) -> Seq {
        self.newest
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
