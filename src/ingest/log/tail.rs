//! One open log file that is read as it grows.
//!
//! A file is an identity, not a path: renaming it changes nothing here. What the path means now is `follow`'s question.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::{Decoder, Item};

/// How much is read at a time, in bytes. What is read together travels together.
pub(super) const READ: usize = 256 * 1024;

/// How many bytes before the position are compared at each read, to notice a file that was emptied and has grown past the
/// position since. Log lines carry times, so 64 bytes do not repeat.
const TRACE: usize = 64;

/// How far before the end the beginning of an unfinished last line is looked for.
const LOOK_BACK: u64 = 64 * 1024;

/// Which file a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Where to begin to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
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
    /// The file was emptied; it is read again from its beginning.
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
    decoder: Decoder,
}

impl Tail {
    /// Opens what the path means now.
    pub(super) fn open(path: &Path, start: Start) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let position = match start {
            Start::Beginning => 0,
            Start::End => line_start(&file, metadata.len())?,
        };
        let mut tail =
            Self { file, identity: Identity::from(&metadata), position, trace: Vec::new(), decoder: Decoder::new() };
        tail.trace = tail.bytes_before(position)?;
        Ok(tail)
    }

    /// Which file this is.
    pub(super) fn identity(&self) -> Identity {
        self.identity
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
            self.restart(items);
            return Ok(Read::Truncated);
        }
        let new = &bytes[overlap..];
        if new.is_empty() {
            return Ok(Read::Nothing);
        }
        self.decoder.push(new, items);
        self.position += new.len() as u64;
        self.trace = bytes[bytes.len().saturating_sub(TRACE)..].to_vec();
        Ok(Read::Some)
    }

    /// The file will not grow any more: its last line counts, also without a newline.
    pub(super) fn finish(mut self, items: &mut Vec<Item>) {
        self.decoder.finish(items);
    }

    /// Begins again at the file's beginning.
    fn restart(&mut self, items: &mut Vec<Item>) {
        // What was written after the last read and before the cut is gone, and nobody can say whether there was something.
        items.push(Item::Gap { reason: "truncated" });
        self.decoder.forget_partial();
        self.position = 0;
        self.trace.clear();
    }

    fn bytes_before(&self, position: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; TRACE.min(usize::try_from(position).unwrap_or(TRACE))];
        let from = position - bytes.len() as u64;
        let count = read_at(&self.file, &mut bytes, from)?;
        bytes.truncate(count);
        Ok(bytes)
    }
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
