//! From chunks of bytes to lines, and from lines to [`Item`]s. Pure: no async, no I/O, no clock.
//!
//! Where the bytes are cut into chunks makes no difference to what comes out.

use std::sync::Arc;

use super::Item;
use super::line::{Meaning, parse};

/// The longest line that is kept, in bytes without the newline. A longer one is skipped up to its end.
///
/// Real lines stay under 10 KiB; a `stderr=` value of a tool can be longer.
pub const LONGEST_LINE: usize = 1024 * 1024;

/// How many words are remembered at most, so that a busy log does not allocate for each line. opencode has about 70 types.
const WORD_PLACES: usize = 256;

/// One line, or what could be kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A line without its newline.
    Line(&'a [u8]),
    /// The first [`LONGEST_LINE`] bytes of a line that is longer; the rest is skipped.
    TooLong(&'a [u8]),
}

/// Cuts chunks of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose newline has not come; at most [`LONGEST_LINE`] bytes.
    held: Vec<u8>,
    /// Whether the rest of an over-long line is being skipped. `held` is empty then.
    skipping: bool,
}

impl Lines {
    /// Takes the next bytes and gives each line that they complete.
    pub fn push(&mut self, mut chunk: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
            chunk = rest;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.held.is_empty() {
                each(piece(line));
            } else {
                // One byte more than fits is enough to know that the line is too long.
                self.hold(line);
                each(piece(&self.held));
                self.forget();
            }
        }
        if self.skipping {
            return;
        }
        self.hold(chunk);
        if self.held.len() > LONGEST_LINE {
            each(piece(&self.held));
            self.forget();
            self.skipping = true;
        }
    }

    /// The source ended: gives the last line, which had no newline.
    pub fn finish(&mut self, mut each: impl FnMut(Piece<'_>)) {
        if !std::mem::take(&mut self.skipping) && !self.held.is_empty() {
            each(piece(&self.held));
        }
        self.forget();
    }

    /// Whether a line has begun and not ended.
    #[must_use]
    pub fn is_inside_line(&self) -> bool {
        self.skipping || !self.held.is_empty()
    }

    /// How many bytes of a line that has begun are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE + 1 - self.held.len();
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Empties `held`, and gives its memory back after a line far beyond the usual.
    fn forget(&mut self) {
        const USUAL: usize = 64 * 1024;
        self.held.clear();
        self.held.shrink_to(USUAL);
    }
}

fn piece(line: &[u8]) -> Piece<'_> {
    match line.get(..LONGEST_LINE) {
        Some(kept) if kept.len() < line.len() => Piece::TooLong(kept),
        _ => Piece::Line(line),
    }
}

/// Turns lines into [`Item`]s, sharing the words among them.
///
/// The words seen last are remembered, each in a place of its own that its letters give; a word with the same place takes
/// it over.
#[derive(Debug)]
pub struct Words(Box<[Option<Arc<str>>; WORD_PLACES]>);

impl Default for Words {
    fn default() -> Self {
        Self(Box::new([const { None }; WORD_PLACES]))
    }
}

impl Words {
    /// What a line says.
    pub fn item(&mut self, piece: Piece<'_>) -> Option<Item> {
        let line = match piece {
            Piece::Line(line) => line,
            Piece::TooLong(_) => return Some(Item::Gap { reason: "line-too-long" }),
        };
        Some(match parse(line)? {
            Meaning::Notice { kind } => Item::Notice { kind: self.shared(kind) },
            Meaning::Hint { session } => Item::Hint { session: self.shared(session) },
            Meaning::Started => Item::Started,
        })
    }

    fn shared(&mut self, word: &str) -> Arc<str> {
        let place = &mut self.0[place_of(word)];
        match place {
            Some(known) if **known == *word => known.clone(),
            _ => place.insert(word.into()).clone(),
        }
    }
}

fn place_of(word: &str) -> usize {
    // Types and ids differ in these; the few shorter words have one place.
    let (Some(first), Some(last)) = (word.as_bytes().first_chunk(), word.as_bytes().last_chunk()) else { return 0 };
    let mixed = u64::from_le_bytes(*first).rotate_left(32) ^ u64::from_le_bytes(*last) ^ word.len() as u64;
    // The golden ratio spreads what differs in a few bits over the upper ones (Fibonacci hashing).
    let spread = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(spread >> (u64::BITS - WORD_PLACES.ilog2())).unwrap_or(0)
}

/// From chunks of bytes to [`Item`]s.
#[derive(Debug, Default)]
pub struct Decoder {
    lines: Lines,
    words: Words,
}

impl Decoder {
    /// A decoder that stands at the beginning of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder that stands inside a line that is too long and was counted already.
    #[must_use]
    pub fn inside_too_long_line() -> Self {
        Self { lines: Lines { held: Vec::new(), skipping: true }, words: Words::default() }
    }

    /// How many bytes of a line that has begun are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lines.held()
    }

    /// Whether the rest of an over-long line is being skipped.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.lines.skipping
    }

    /// Takes the next bytes and adds what they say to `items`.
    pub fn push(&mut self, chunk: &[u8], items: &mut Vec<Item>) {
        let words = &mut self.words;
        self.lines.push(chunk, |piece| items.extend(words.item(piece)));
    }

    /// The source ended: adds what its last line says, should it have no newline. Ready for another source after this.
    pub fn finish(&mut self, items: &mut Vec<Item>) {
        let words = &mut self.words;
        self.lines.finish(|piece| items.extend(words.item(piece)));
    }

    /// Forgets a line that has begun and will not end. Says whether there was one.
    pub fn forget_partial(&mut self) -> bool {
        let was = self.lines.is_inside_line();
        self.lines = Lines::default();
        was
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: &str = "INFO  2026-11-23T00:39:14 +105ms service=default version=1.14.48 args=[] opencode\n\
        INFO  2026-11-23T00:39:14 +5ms service=bus type=session.created publishing\n\
        a \u{fe}\u{1F980} banner\n\nINFO  2026-11-23T00:39:14 +5ms service=session.prompt session.id=ses_1 loop\n\
        INFO  2026-11-23T00:39:15 +5ms service=bus type=session.idle publishing";

    const BUS: &[u8] = b"INFO  2026-11-23T00:39:14 +5ms service=bus type=session.created publishing";

    fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Item> {
        let mut decoder = Decoder::new();
        let mut items = Vec::new();
        for chunk in chunks {
            decoder.push(chunk, &mut items);
        }
        decoder.finish(&mut items);
        items
    }

    fn notice(kind: &str) -> Item {
        Item::Notice { kind: kind.into() }
    }

    fn expected() -> Vec<Item> {
        let hint = Item::Hint { session: "ses_1".into() };
        vec![Item::Started, notice("session.created"), hint, notice("session.idle")]
    }

    #[test]
    fn every_split_gives_the_same() {
        let bytes = LOG.as_bytes();
        assert_eq!(decode([bytes]), expected());
        for first in 0..=bytes.len() {
            assert_eq!(decode([&bytes[..first], &bytes[first..]]), expected(), "cut at {first}");
        }
        for size in 1..40 {
            assert_eq!(decode(bytes.chunks(size)), expected(), "chunks of {size}");
        }
    }

    #[test]
    fn two_cuts_anywhere_give_the_same() {
        let bytes = &LOG.as_bytes()[80..];
        let expected = decode([bytes]);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                assert_eq!(decode([&bytes[..first], &bytes[first..second], &bytes[second..]]), expected);
            }
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_one_gap() {
        let good = "INFO  2026-11-23T00:39:14 +5ms service=bus type=session.idle publishing\n";
        for (length, expected) in [
            (LONGEST_LINE - 1, vec![notice("session.idle")]),
            (LONGEST_LINE, vec![notice("session.idle")]),
            (LONGEST_LINE + 1, vec![Item::Gap { reason: "line-too-long" }, notice("session.idle")]),
            (3 * LONGEST_LINE, vec![Item::Gap { reason: "line-too-long" }, notice("session.idle")]),
        ] {
            let mut bytes = vec![b'x'; length];
            bytes.push(b'\n');
            bytes.extend_from_slice(good.as_bytes());
            for size in [1000, 65_536, LONGEST_LINE, LONGEST_LINE + 1, 4 * LONGEST_LINE] {
                assert_eq!(decode(bytes.chunks(size)), expected, "{length} bytes in chunks of {size}");
            }
        }
    }

    #[test]
    fn an_over_long_line_at_the_end_is_one_gap() {
        let bytes = vec![b'x'; 2 * LONGEST_LINE];
        assert_eq!(decode(bytes.chunks(100_000)), [Item::Gap { reason: "line-too-long" }]);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_give_the_same(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300), size in 1_usize..50) {
            prop_assert_eq!(decode(bytes.chunks(size)), decode([&bytes[..]]));
        }

        #[test]
        fn a_line_is_what_stands_between_two_newlines(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                BUS, &BUS[..30], &BUS[30..], b" publishing", b"\n", b"\r\n", b"\0", b"\xff\xfe", b" title=x ",
            ]), 0..30),
            size in 1_usize..200,
        ) {
            let text = parts.concat();
            let mut words = Words::default();
            let plain: Vec<Item> =
                text.split(|byte| *byte == b'\n').filter_map(|line| words.item(Piece::Line(line))).collect();
            prop_assert_eq!(decode(text.chunks(size)), plain);
        }

        #[test]
        fn words_are_shared_and_stay_themselves(texts in proptest::collection::vec("[a-c]{1,10}", 1..100)) {
            let mut words = Words::default();
            for text in &texts {
                let word = words.shared(text);
                prop_assert_eq!(&*word, text);
                prop_assert!(Arc::ptr_eq(&word, &words.shared(text)));
            }
        }
    }
}
