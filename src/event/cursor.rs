//! Where a client stands: which journal, and how far in it.

use std::fmt;
use std::str::FromStr;

use bytes::BufMut;

/// Which journal numbered an event. A new one begins when the old one is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// An epoch from a number that no earlier journal had; the caller draws it.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An event's number in its journal. The first event has 1; 0 stands before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What stands in a frame's `id:` field: `<epoch>-<seq>`, as `00d1ce5eed5eed00-42` (DESIGN §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Which journal.
    pub epoch: Epoch,
    /// The last event the client has.
    pub seq: Seq,
}

impl Cursor {
    /// The longest text of a cursor, in bytes.
    pub const LONGEST: usize = 16 + 1 + 20;

    /// Writes its text. Each event is written with it at least once, and `fmt` takes several times as long.
    pub(super) fn put(self, out: &mut impl BufMut) {
        let mut text = [b'-'; Self::LONGEST];
        let mut epoch = self.epoch.0;
        for digit in text[..16].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(epoch & 15) as usize];
            epoch >>= 4;
        }
        let mut seq = self.seq.0;
        let mut start = Self::LONGEST;
        while start == Self::LONGEST || seq > 0 {
            start -= 1;
            text[start] = b'0' + (seq % 10) as u8;
            seq /= 10;
        }
        out.put_slice(&text[..17]);
        out.put_slice(&text[start..]);
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// An id that no relay ever gave.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the id as <epoch>-<seq>")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, seq) = text.split_once('-').ok_or(ParseCursorError)?;
        // Only the one spelling we write: an id is compared as text by some clients.
        let hex = epoch.len() == 16 && epoch.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let decimal =
            !seq.is_empty() && seq.bytes().all(|b| b.is_ascii_digit()) && (seq == "0" || !seq.starts_with('0'));
        if !hex || !decimal {
            return Err(ParseCursorError);
        }
        Ok(Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).map_err(|_| ParseCursorError)?),
            seq: Seq(seq.parse().map_err(|_| ParseCursorError)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_it_writes() {
        for (epoch, seq) in [(0xd1ce, 42), (0, 0), (u64::MAX, u64::MAX), (1 << 63, 10)] {
            let cursor = Cursor { epoch: Epoch::new(epoch), seq: Seq(seq) };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
            let mut text = Vec::new();
            cursor.put(&mut text);
            assert_eq!(text, cursor.to_string().as_bytes());
        }
        for bad in [
            "",
            "-",
            "1-1",
            "000000000000d1ce",
            "000000000000d1ce-",
            "000000000000D1CE-1",
            "000000000000d1ce-01",
            "000000000000d1ce--1",
            "000000000000d1ce-+1",
            "000000000000d1ce-99999999999999999999",
            "evt_1",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(ParseCursorError), "{bad}");
        }
    }
}
