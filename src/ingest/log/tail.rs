//! One open log file that is read as it grows.
//!
//! A file is an identity, not a path: renaming it changes nothing here. What the path means now is `follow`'s question.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::position::{Cursor, HEAD, Identity, Print, TRACE, first_line, modified};
use super::{Decoder, Item};

/// How much is read at a time, in bytes. What is read together travels together.
pub(super) const READ: usize = 256 * 1024;

/// How far before the end the beginning of an unfinished last line is looked for.
const LOOK_BACK: u64 = 64 * 1024;

/// Where in a file to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// At the end: what is there was published before anybody listened.
    End,
    /// At the beginning.
    Beginning,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Bytes; there may be more.
    Some,
    /// Nothing new.
    Nothing,
    /// What was read is not in the file any more; nothing was read.
    Truncated,
}

/// A position in an open file, with the line that has begun there.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    identity: Identity,
    /// All bytes before it were given to the decoder.
    position: u64,
    /// The last bytes before `position`, as they were read; at most [`TRACE`].
    trace: Vec<u8>,
    /// The first bytes of the file, of those before `position`; at most [`HEAD`].
    head: Vec<u8>,
    decoder: Decoder,
}

impl Tail {
    /// Opens what the path means now.
    pub(super) fn open(path: &Path, from: From) -> io::Result<Self> {
        let (file, identity, length) = open(path)?;
        let mut tail =
            Self { file, identity, position: 0, trace: Vec::new(), head: Vec::new(), decoder: Decoder::new() };
        if from == From::End {
            tail.jump(length)?;
        }
        Ok(tail)
    }

    /// Opens what the path means now, if it holds what was read up to the place, and goes on there.
    pub(super) fn resume(path: &Path, place: &Cursor) -> io::Result<Option<Self>> {
        let (file, identity, length) = open(path)?;
        if length < place.seen {
            return Ok(None);
        }
        let mut head = vec![0; place.head.length];
        let count = read_at(&file, &mut head, 0)?;
        let from = place.offset.min(place.seen - place.trace.length as u64);
        // At most one line and a trace.
        let mut bytes = vec![0; usize::try_from(place.seen - from).unwrap_or(0)];
        let read = read_at(&file, &mut bytes, from)?;
        let trace = &bytes[bytes.len() - place.trace.length..];
        if Print::of(&head[..count]) != place.head || read < bytes.len() || Print::of(trace) != place.trace {
            return Ok(None);
        }
        // The line that had begun is taken up again, so that it is noticed if it goes away.
        let begun = &bytes[usize::try_from(place.offset - from).unwrap_or(0)..];
        let mut decoder = if place.skipping { Decoder::inside_too_long_line() } else { Decoder::new() };
        decoder.push(begun, &mut Vec::new());
        if decoder.held() < begun.len() {
            return Ok(None);
        }
        let mut tail = Self { file, identity, position: place.seen, trace: trace.to_vec(), head: Vec::new(), decoder };
        tail.keep_head()?;
        Ok(Some(tail))
    }

    /// Opens what the path means now, which is known not to hold what was read up to the place: after its last line if it
    /// begins as the file did that was read, so that no line of that is given twice; else at its beginning.
    pub(super) fn open_changed(path: &Path, place: &Cursor) -> io::Result<Self> {
        let mut tail = Self::open(path, From::Beginning)?;
        let length = tail.file.metadata()?.len();
        let mut head = vec![0; place.head.length];
        let count = read_at(&tail.file, &mut head, 0)?;
        if count > 0 && Print::of(&head[..count]) == place.head {
            tail.jump_over(length)?;
        }
        Ok(tail)
    }

    /// Which file this is.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// When it was last written to.
    pub(super) fn modified(&self) -> io::Result<i128> {
        Ok(modified(&self.file.metadata()?))
    }

    /// How far it was read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether it has more than was read. What cannot be asked counts as not.
    pub(super) fn has_grown(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() > self.position)
    }

    /// Where reading goes on.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor {
            identity: self.identity,
            offset: self.position - self.decoder.held() as u64,
            seen: self.position,
            trace: Print::of(&self.trace),
            head: Print::of(first_line(&self.head)),
            skipping: self.decoder.is_skipping(),
        }
    }

    /// Reads on; adds what the bytes say to `items`. `buffer` is scratch space.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, items: &mut Vec<Item>) -> io::Result<Read> {
        buffer.resize(TRACE + READ, 0);
        // The trace is read again together with what is new: one system call for both.
        let overlap = self.trace.len();
        let from = self.position - overlap as u64;
        let count = read_at(&self.file, buffer, from)?;
        let bytes = &buffer[..count];
        if !bytes.starts_with(&self.trace) {
            return Ok(Read::Truncated);
        }
        let new = &bytes[overlap..];
        if new.is_empty() {
            return Ok(Read::Nothing);
        }
        self.decoder.push(new, items);
        let room = HEAD - self.head.len();
        if self.head.len() as u64 == self.position {
            self.head.extend_from_slice(&new[..new.len().min(room)]);
        }
        self.position += new.len() as u64;
        self.trace = bytes[bytes.len().saturating_sub(TRACE)..].to_vec();
        Ok(Read::Some)
    }

    /// The file will not grow any more: its last line counts, also without a newline. One that says nothing may have been
    /// torn.
    pub(super) fn finish(&mut self, items: &mut Vec<Item>) {
        let (torn, before) = (self.decoder.held() > 0, items.len());
        self.decoder.finish(items);
        if torn && items.len() == before {
            items.push(Item::Gap { reason: "unfinished-line" });
        }
    }

    /// What was read is not in the file any more: begins again, at the beginning, or at the end of what was only cut.
    pub(super) fn restart(&mut self, items: &mut Vec<Item>) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let head = first_line(&self.head);
        let mut now = vec![0; head.len()];
        let count = read_at(&self.file, &mut now, 0)?;
        let was_cut = count > 0 && head == &now[..count];
        self.decoder.forget_partial();
        self.position = 0;
        self.trace.clear();
        self.head.clear();
        if was_cut {
            self.jump_over(length)?;
        }
        // What was written after the last read and before the cut is gone, and nobody can say whether there was something.
        items.push(Item::Gap { reason: "truncated" });
        Ok(())
    }

    /// Goes to the beginning of the line that is being written at `end`.
    fn jump(&mut self, end: u64) -> io::Result<()> {
        self.jump_to(line_start(&self.file, end)?)
    }

    /// Goes to `end`, and over the rest of a line that was cut there: it may have been given already.
    fn jump_over(&mut self, end: u64) -> io::Result<()> {
        self.jump_to(end)?;
        if self.trace.last().is_some_and(|byte| *byte != b'\n') {
            self.decoder = Decoder::inside_too_long_line();
        }
        Ok(())
    }

    fn jump_to(&mut self, position: u64) -> io::Result<()> {
        self.position = position;
        let mut bytes = vec![0; TRACE.min(usize::try_from(self.position).unwrap_or(TRACE))];
        let from = self.position - bytes.len() as u64;
        let count = read_at(&self.file, &mut bytes, from)?;
        bytes.truncate(count);
        self.trace = bytes;
        self.keep_head()
    }

    fn keep_head(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; HEAD.min(usize::try_from(self.position).unwrap_or(HEAD))];
        let count = read_at(&self.file, &mut bytes, 0)?;
        bytes.truncate(count);
        self.head = bytes;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, Identity, u64)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((file, Identity::from(&metadata), metadata.len()))
}

/// Where the line begins that is being written at `end`.
fn line_start(file: &File, end: u64) -> io::Result<u64> {
    let from = end.saturating_sub(LOOK_BACK);
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
    let count = read_at(file, &mut bytes, from)?;
    Ok(match memchr::memrchr(b'\n', &bytes[..count]) {
        Some(newline) => from + newline as u64 + 1,
        None if from == 0 => 0,
        // A line that long is no bus line, so it does not matter where in it reading begins.
        None => from + count as u64,
    })
}

/// Reads until the buffer is full or the file ends. A file on a network mount may give less at a time.
fn read_at(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read_at(&mut buffer[count..], from + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
