//! Server-Sent Events with their ids, from bytes in any pieces (WHATWG HTML, "Server-sent events", parsing).
//!
//! `ingest::stream` has a reader of its own for opencode's streams, which have no ids. No async, no I/O.

use std::sync::Arc;

use memchr::memchr2;

/// Most bytes of one frame; a longer one is skipped and counted. Twice what the relay itself takes from opencode.
pub(super) const FRAME: usize = 64 << 20;

/// The longest id that is kept, in bytes; the relay's have 17 and a number. A longer one is none of its.
const ID: usize = 256;

/// One event of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The last id that the stream gave, with this frame or before it.
    pub(super) id: Option<Arc<str>>,
    /// The lines of data, with a line feed between them.
    pub(super) data: Vec<u8>,
}

/// Collects lines into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The line begun by earlier pieces.
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    id: Option<Arc<str>>,
    /// The id that the frame begun gives.
    next_id: Option<Arc<str>>,
    /// The last piece ended with a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    /// The frame is too long and is skipped up to its end.
    is_skipping: bool,
    /// The first line has ended. Only before it a byte order mark means nothing.
    has_begun: bool,
}

impl Frames {
    /// Takes the next bytes and adds every frame that is complete. Gives the number of frames that were too long.
    pub(super) fn push(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> usize {
        self.push_up_to(FRAME, bytes, frames)
    }

    fn push_up_to(&mut self, most: usize, mut bytes: &[u8], frames: &mut Vec<Frame>) -> usize {
        let mut skipped = 0;
        if !bytes.is_empty() && std::mem::take(&mut self.after_return) {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            self.add(most, &bytes[..end]);
            skipped += self.end_line(frames);
            let is_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_return {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.add(most, bytes);
        skipped
    }

    fn add(&mut self, most: usize, bytes: &[u8]) {
        if !self.is_skipping && self.line.len() + self.data.len() + bytes.len() > most {
            self.is_skipping = true;
            self.data = Vec::new();
            self.line.truncate(1);
            self.line.shrink_to_fit();
        }
        // Only whether the line is empty matters while skipping.
        let room = if self.is_skipping { 1usize.saturating_sub(self.line.len()) } else { bytes.len() };
        self.line.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn end_line(&mut self, frames: &mut Vec<Frame>) -> usize {
        let mut line = std::mem::take(&mut self.line);
        let skipped = self.whole_line(&line, frames);
        line.clear();
        self.line = line;
        skipped
    }

    fn whole_line(&mut self, mut line: &[u8], frames: &mut Vec<Frame>) -> usize {
        if !std::mem::replace(&mut self.has_begun, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_frame(frames);
        }
        if self.is_skipping {
            return 0;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
            None => (line, &b""[..]),
        };
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            // An id goes back in a header: only what fits into one is kept.
            b"id" if !value.is_empty() && value.len() <= ID && value.iter().all(u8::is_ascii_graphic) => {
                self.next_id = str::from_utf8(value).ok().map(Into::into);
            }
            _ => {}
        }
        0
    }

    fn end_frame(&mut self, frames: &mut Vec<Frame>) -> usize {
        if let Some(id) = self.next_id.take() {
            self.id = Some(id);
        }
        if std::mem::take(&mut self.is_skipping) {
            self.has_data = false;
            return 1;
        }
        if std::mem::take(&mut self.has_data) {
            frames.push(Frame { id: self.id.clone(), data: std::mem::take(&mut self.data) });
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]], most: usize) -> (Vec<(Option<String>, String)>, usize) {
        let (mut reader, mut frames, mut skipped) = (Frames::default(), Vec::new(), 0);
        for piece in pieces {
            skipped += reader.push_up_to(most, piece, &mut frames);
            assert!(reader.line.len() + reader.data.len() <= most + 1);
        }
        let text = |frame: Frame| (frame.id.map(|id| id.to_string()), String::from_utf8(frame.data).unwrap());
        (frames.into_iter().map(text).collect(), skipped)
    }

    const STREAM: &str = "\u{feff}retry: 500\nid: e-1\ndata: {\"é\":1}\n\n: comment\r\n\r\ndata:a\rdata\rdata:  b\r\rid: e-2\n\
        event: x\ndata: c\n\nid: not good\ndata: d\n\nid: e-3\n\ndata: e\n\ndata: f\r\ndata: g\r\n\r\ndata: unfinished\n";

    #[test]
    fn every_split_gives_the_same_frames() {
        let expected =
            [("e-1", "{\"é\":1}"), ("e-1", "a\n\n b"), ("e-2", "c"), ("e-2", "d"), ("e-3", "e"), ("e-3", "f\ng")];
        let expected: Vec<_> = expected.map(|(id, data)| (Some(id.to_owned()), data.to_owned())).into();
        let bytes = STREAM.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read(&pieces, FRAME), (expected.clone(), 0), "{first} {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single, FRAME), (expected, 0));
    }

    #[test]
    fn a_long_frame_is_skipped_and_what_follows_is_read() {
        let long = "x".repeat(100);
        let text = format!(
            "id: 1\ndata: {long}\ndata: more\n\nid: 2\ndata: a\n\ndata: {}\ndata: {}\n\ndata: b\n\n",
            "y".repeat(20),
            "z".repeat(20)
        );
        for size in [1, 7, 1_000] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (frames, skipped) = read(&pieces, 40);
            assert_eq!(frames, [(Some("2".into()), "a".into()), (Some("2".into()), "b".into())], "{size}");
            assert_eq!(skipped, 2, "{size}");
        }
    }

    #[test]
    fn an_id_that_no_header_can_hold_is_not_kept() {
        for id in ["a b", "a\tb", "é", "", &"a".repeat(300)] {
            assert_eq!(read(&[format!("id: {id}\ndata: x\n\n").as_bytes()], FRAME).0, [(None, "x".to_owned())], "{id}");
        }
    }
}
