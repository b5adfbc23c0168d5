//! The data of Server-Sent Events, from bytes in any pieces (WHATWG HTML, "Server-sent events", parsing).
//!
//! Only `data` matters here: opencode sends no `id`, `event` or `retry` (FACTS §1). No async, no I/O.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// Most bytes of one frame. A longer one is skipped and counted. The biggest real frames carry a tool's output or a
/// file's diff.
pub(super) const FRAME: usize = 32 << 20;

/// Collects lines into frames.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line begun by earlier pieces.
    line: BytesMut,
    /// The data of the frame so far; lines are separated by a line feed.
    data: BytesMut,
    has_data: bool,
    /// The last piece ended with a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    /// The frame is too long; it is skipped up to its end.
    skipping: bool,
    /// The first line has ended. Only before it a byte order mark means nothing.
    begun: bool,
}

impl Parser {
    /// Takes the next bytes and adds the data of every frame that is complete. Gives the number of frames that were too
    /// long.
    pub fn push(&mut self, mut bytes: &[u8], frames: &mut Vec<Bytes>) -> usize {
        let mut oversize = 0;
        if !bytes.is_empty() && std::mem::take(&mut self.after_return) {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            oversize += self.line(&bytes[..end], frames);
            let is_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_return {
                match bytes.first() {
                    Some(b'\n') => bytes = &bytes[1..],
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
        }
        if !self.skipping {
            self.line.extend_from_slice(bytes);
            if self.line.len() + self.data.len() > FRAME {
                self.skipping = true;
                self.line = BytesMut::new();
                self.data = BytesMut::new();
            }
        } else if !bytes.is_empty() && self.line.is_empty() {
            // Only whether the line is empty matters while skipping.
            self.line.extend_from_slice(&bytes[..1]);
        }
        oversize
    }

    /// A line ended; `rest` is what of it came in this piece.
    fn line(&mut self, rest: &[u8], frames: &mut Vec<Bytes>) -> usize {
        if self.line.is_empty() {
            return self.whole(rest, frames);
        }
        let mut line = std::mem::take(&mut self.line);
        if !self.skipping {
            line.extend_from_slice(rest);
        }
        self.whole(&line, frames)
    }

    fn whole(&mut self, mut line: &[u8], frames: &mut Vec<Bytes>) -> usize {
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.skipping) {
                self.has_data = false;
                return 1;
            }
            if std::mem::take(&mut self.has_data) {
                frames.push(self.data.split().freeze());
            }
            return 0;
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return 0,
        };
        if self.skipping {
            return 0;
        }
        if std::mem::replace(&mut self.has_data, true) {
            self.data.extend_from_slice(b"\n");
        }
        self.data.extend_from_slice(value);
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Vec<Bytes> {
        let mut frames = Vec::new();
        Parser::default().push(bytes, &mut frames);
        frames
    }

    #[test]
    fn reads_what_the_standard_says() {
        let text = b"\xef\xbb\xbfdata: a\n\n: comment\n\ndata:b\ndata\ndata: c\nid: 1\nevent: x\n\nid: 2\n\ndatax: no\n\ndata:  two\r\n\r\ndata: cr\r\rdata: open";
        assert_eq!(whole(text), ["a", "b\n\nc", " two", "cr"]);
    }

    #[test]
    fn only_the_streams_beginning_may_have_a_byte_order_mark() {
        let text = b"\xef\xbb\xbf\ndata: a\n\n\xef\xbb\xbfdata: b\n\xef\xbb\xbf\ndata: c\n\n";
        assert_eq!(whole(text), ["a", "c"]);
    }

    #[test]
    fn every_split_gives_the_same() {
        let text = "data: {\"ä\":1}\r\n\r\ndata: x\ndata: y\n\n: c\n\ndata: z\r\rdata: 1\n\n".as_bytes();
        let expected = whole(text);
        assert_eq!(expected.len(), 4);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let (mut parser, mut frames) = (Parser::default(), Vec::new());
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    parser.push(piece, &mut frames);
                }
                assert_eq!(frames, expected, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_frame_without_end_is_skipped_and_counted_and_the_next_is_read() {
        let (mut parser, mut frames) = (Parser::default(), Vec::new());
        let piece = vec![b'x'; 1 << 20];
        let mut oversize = parser.push(b"data: ", &mut frames);
        for _ in 0..40 {
            oversize += parser.push(&piece, &mut frames);
            assert!(parser.line.len() + parser.data.len() <= FRAME + (1 << 20));
        }
        oversize += parser.push(b"\ndata: still the same\n\ndata: next\n\n", &mut frames);
        assert_eq!((oversize, frames), (1, vec![Bytes::from("next")]));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_harmless(pieces in proptest::collection::vec("[dat:x \r\n\u{feff}]{0,12}", 0..8)) {
            let (mut parser, mut frames) = (Parser::default(), Vec::new());
            for piece in &pieces {
                parser.push(piece.as_bytes(), &mut frames);
            }
            prop_assert_eq!(frames, whole(pieces.concat().as_bytes()));
        }
    }
}
