//! Reading once more after things went quiet.
//!
//! Some states change only after their event was published (FACTS §3: the status map), so what was read right after a
//! notice may be old. Twice after the last notice everything that was read is read again; what is owed after that was
//! overwritten.

use std::collections::BTreeSet;

use super::aspect::Aspect;

/// When to read again after the last notice, in milliseconds.
const FIRST: u64 = 250;
const SECOND: u64 = 1_500;

/// What was read since things became lively.
#[derive(Debug, Default)]
pub(super) struct Settle {
    stage: Stage,
    touched: BTreeSet<Aspect>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Quiet,
    /// Reads again at this time, and a second time later.
    First(u64),
    Second(u64),
    /// The last reads are on their way.
    Last,
}

impl Settle {
    /// Something was announced.
    pub(super) fn restart(&mut self, now: u64) {
        self.stage = Stage::First(now + FIRST);
    }

    /// Something was announced that cannot be read by itself: only the accounts have to be closed some time.
    pub(super) fn expect(&mut self, now: u64) {
        if self.stage == Stage::Quiet {
            self.stage = Stage::Second(now + SECOND);
        }
    }

    /// This is being read.
    pub(super) fn touch(&mut self, aspect: &Aspect) {
        self.touched.insert(aspect.clone());
    }

    /// This is gone.
    pub(super) fn forget(&mut self, aspect: &Aspect) {
        self.touched.remove(aspect);
    }

    /// What to read again now.
    pub(super) fn due(&mut self, now: u64) -> Vec<Aspect> {
        self.stage = match self.stage {
            Stage::First(at) if at <= now => Stage::Second(at - FIRST + SECOND),
            Stage::Second(at) if at <= now => Stage::Last,
            _ => return Vec::new(),
        };
        self.touched.iter().cloned().collect()
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Option<u64> {
        match self.stage {
            Stage::First(at) | Stage::Second(at) => Some(at),
            Stage::Quiet | Stage::Last => None,
        }
    }

    /// The last reads were asked for.
    pub(super) fn is_last(&self) -> bool {
        self.stage == Stage::Last
    }

    /// They were answered.
    pub(super) fn finish(&mut self) {
        *self = Self::default();
    }
}
