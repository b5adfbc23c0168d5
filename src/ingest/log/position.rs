//! Where reading goes on after a restart, and how a file is known again.
//!
//! A file is not its path: it may have been renamed, copied, emptied or replaced while nobody looked. So a place in a file
//! is kept together with which file it was and with a hash of the bytes before the place; if the bytes are not there any
//! more, the place means nothing. Pure but for reading what a file is from its metadata.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::Position;
use super::decode::LONGEST_LINE;

/// How many bytes before a place are compared, to notice a file that was emptied and has grown past the place since.
pub(super) const TRACE: usize = 1024;

/// How many bytes of the beginning of a file are compared at most, to tell a file that was cut from one that was written
/// anew: of its first line only, so that in a file that was cut within them no whole line is left.
pub(super) const HEAD: usize = 128;

/// How many equal bytes make another file a copy of one: the shortest line of the bus. Log lines carry times, so that not
/// many repeat.
const ENOUGH: usize = 60;

/// The version of the text. A text of another version is not understood.
const VERSION: u32 = 1;

/// How far reading advances without saying anything before its position is told all the same, in bytes.
const FAR: u64 = 1024 * 1024;

/// Which file a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970, where the file system knows it. An inode that is used again is born again.
    pub(super) born: Option<u64>,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self { device: metadata.dev(), inode: metadata.ino(), born }
    }
}

/// When a file was last written to, in nanoseconds since 1970.
pub(super) fn modified(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// Some bytes of a file, to be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Print {
    /// How many bytes.
    pub(super) length: usize,
    hash: u64,
}

impl Print {
    /// Of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        // FNV-1a: stays the same in every release, and nobody gains by a collision here.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { length: bytes.len(), hash }
    }
}

/// The first line that is not empty, of the first bytes of a file.
pub(super) fn first_line(head: &[u8]) -> &[u8] {
    let begin = head.iter().position(|byte| *byte != b'\n').unwrap_or(head.len());
    let end = memchr::memchr(b'\n', &head[begin..]).map_or(head.len(), |length| begin + length);
    &head[..end]
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) identity: Identity,
    /// Where the first line begins that has not been given; inside an over-long line, how far that was skipped.
    pub(super) offset: u64,
    /// How far the file was read: up to here it held at least these bytes.
    pub(super) seen: u64,
    /// The last bytes before `seen`, at most [`TRACE`].
    pub(super) trace: Print,
    /// The beginning of the file's first line, at most [`HEAD`].
    pub(super) head: Print,
    /// Whether `offset` is inside a line that was too long and was counted already.
    pub(super) skipping: bool,
}

impl Cursor {
    /// Whether the bytes alone show that another file is a copy.
    pub(super) fn is_enough(&self) -> bool {
        self.trace.length >= ENOUGH
    }

    /// Whether this is a place that can have been written down by us.
    fn is_sound(&self) -> bool {
        let held = self.seen.checked_sub(self.offset);
        held.is_some_and(|held| held <= LONGEST_LINE as u64)
            && self.trace.length <= TRACE
            && self.trace.length as u64 <= self.seen
            && self.head.length <= HEAD
    }
}

/// A [`Position`], read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    version: u32,
    /// The source that was followed, as a person writes it.
    source: String,
    /// The name of the file at that time, without its folder.
    pub(super) name: String,
    pub(super) cursor: Cursor,
    /// The end of the file before it, as it was left.
    pub(super) left: Option<Cursor>,
}

impl Saved {
    pub(super) fn new(source: &str, name: String, cursor: Cursor, left: Option<Cursor>) -> Self {
        Self { version: VERSION, source: source.to_owned(), name, cursor, left }
    }

    /// Reads a position of this source; `None` if it is of another, or of a release that we do not know, or nothing at all.
    pub(super) fn read(position: &Position, source: &str) -> Option<Self> {
        let saved: Self = serde_json::from_str(&position.0).ok()?;
        let is_sound = saved.cursor.is_sound() && saved.left.is_none_or(|left| left.is_sound());
        (saved.version == VERSION && saved.source == source && is_sound).then_some(saved)
    }

    pub(super) fn to_position(&self) -> Position {
        Position(serde_json::to_string(self).unwrap_or_default())
    }

    /// Whether it is worth to be told although nothing was read that says anything.
    pub(super) fn is_far_from(&self, told: &Self) -> bool {
        let (now, then) = (&self.cursor, &told.cursor);
        now.identity != then.identity || now.offset < then.offset || now.offset - then.offset >= FAR
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn saved() -> Saved {
        let identity = Identity { device: 1, inode: u64::MAX, born: Some(3) };
        let trace = Print::of(b"0123456789");
        let cursor = Cursor { identity, offset: 8, seen: 10, trace, head: trace, skipping: false };
        Saved::new("file:/a", "a".to_owned(), cursor, None)
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Saved::read(&saved().to_position(), "file:/a"), Some(saved()));
        assert_eq!(Saved::read(&saved().to_position(), "file:/b"), None);
    }

    #[test]
    fn refuses_what_it_cannot_have_written() {
        let text = saved().to_position().0;
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"offset\":8", "\"offset\":11"),
            ("\"seen\":10", "\"seen\":9000000000000"),
            ("\"length\":10", "\"length\":11"),
            ("\"offset\":8", "\"offset\":-8"),
        ] {
            assert!(text.contains(from), "{text}");
            assert_eq!(Saved::read(&Position(text.replace(from, to)), "file:/a"), None, "{to}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(at in 0_usize..200, byte in any::<u8>()) {
            let mut text = saved().to_position().0.into_bytes();
            let length = text.len();
            text[at % length] = byte;
            let _ = Saved::read(&Position(String::from_utf8_lossy(&text).into_owned()), "file:/a");
        }
    }
}
