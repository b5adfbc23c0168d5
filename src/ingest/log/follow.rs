//! Following a source: which file is read now, when the next one's turn comes, and what to say when there is none.
//!
//! `tail` reads one open file; this module knows paths. A full queue to the pipeline holds back the reading of the file,
//! never opencode: the file keeps what is not read yet.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::folder::Folder;
use super::tail::{Identity, READ, Read, Tail};
use super::wake::Wake;
use super::{Item, Message, Source};
use crate::ingest::{self, Sender};
use crate::stop::Stop;

pub use super::tail::Start;

/// How many looks in a row must find nothing new in a file whose path means another file by now, before it is left: a
/// process that was told to reopen its log may write a last line to the old one.
const QUIET_LOOKS: u32 = 2;

/// How many chunks of standard input may wait.
const STDIN_QUEUE: usize = 4;

/// Follows a source until the stop is pulled, the source ends for good, or nobody takes the messages.
pub async fn follow(source: Source, start: Start, out: Sender, stop: Stop) {
    let name = source.to_string();
    let place = match source {
        Source::File(path) => Place::File(path),
        Source::Directory(path) => Place::Directory(Folder::new(path)),
        Source::Stdin => {
            let _ = stop.or(follow_reader(io::stdin(), name, &out)).await;
            return;
        }
        Source::None => return,
    };
    let _ = stop.or(follow_place(Follower::new(place, start), &out)).await;
}

/// Nobody takes the messages any more.
struct Closed;

async fn send(out: &Sender, message: Message) -> Result<(), Closed> {
    out.send(ingest::Message::Log(message)).await.map_err(|_| Closed)
}

/// Looks, sends, waits; forever.
async fn follow_place(mut follower: Follower, out: &Sender) -> Result<(), Closed> {
    let mut wake = Wake::new(follower.place.folder());
    let mut last_reason = None;
    let mut following = None;
    loop {
        // Looking reads files, which may hang on a network mount: not on a thread that others need.
        let looked = tokio::task::spawn_blocking(move || {
            let look = follower.look();
            (follower, look)
        });
        // It fails only when the runtime ends or the look panicked; both end this task.
        let Ok((returned, look)) = looked.await else { return Err(Closed) };
        follower = returned;
        let found = follower.path.clone().filter(|_| !matches!(look.next, Next::Missing(_)));
        if let Some(path) = found.filter(|path| following.as_ref() != Some(path)) {
            send(out, Message::Following { source: follower.place.describe(&path) }).await?;
            following = Some(path);
            last_reason = None;
        }
        if !look.items.is_empty() {
            send(out, Message::Lines { items: look.items, position: None }).await?;
        }
        match look.next {
            Next::Again => {}
            Next::Wait => wake.wait().await,
            Next::Missing(reason) => {
                following = None;
                if last_reason.as_ref() != Some(&reason) {
                    send(out, Message::Waiting { reason: reason.clone() }).await?;
                    last_reason = Some(reason);
                }
                wake.wait().await;
            }
        }
    }
}

/// Follows what is read from a blocking reader, on a thread of its own: a read of standard input cannot be given up, and
/// must not keep the runtime from ending.
async fn follow_reader(mut reader: impl io::Read + Send + 'static, name: String, out: &Sender) -> Result<(), Closed> {
    let (sender, mut chunks) = mpsc::channel(STDIN_QUEUE);
    let thread = std::thread::Builder::new().name("log-stdin".to_owned()).spawn(move || {
        let mut buffer = vec![0; READ];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "standard input cannot be read any more");
                    break;
                }
            }
        }
    });
    if let Err(error) = thread {
        send(out, Message::Waiting { reason: format!("no thread to read standard input with: {error}") }).await?;
        return send(out, Message::Ended).await;
    }
    send(out, Message::Following { source: name }).await?;
    let mut decoder = super::Decoder::new();
    while let Some(chunk) = chunks.recv().await {
        let mut items = Vec::new();
        decoder.push(&chunk, &mut items);
        if !items.is_empty() {
            send(out, Message::Lines { items, position: None }).await?;
        }
    }
    let mut items = Vec::new();
    decoder.finish(&mut items);
    if !items.is_empty() {
        send(out, Message::Lines { items, position: None }).await?;
    }
    send(out, Message::Ended).await
}

/// Where files are looked for.
#[derive(Debug)]
enum Place {
    File(PathBuf),
    Directory(Folder),
}

impl Place {
    /// The folder whose changes matter.
    fn folder(&self) -> &Path {
        match self {
            Self::File(path) => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            },
            Self::Directory(folder) => folder.path(),
        }
    }

    /// The path to read on at, when it is not the file that is being read.
    fn successor(&mut self, current: Option<&Path>, identity: Identity) -> Option<PathBuf> {
        match self {
            // While nothing is there, the old file may still be written to.
            Self::File(path) => {
                let now = Identity::from(&std::fs::metadata(&*path).ok()?);
                (now != identity).then(|| path.clone())
            }
            Self::Directory(folder) => folder.after(current?.file_name()?),
        }
    }

    fn describe(&self, path: &Path) -> String {
        match self {
            Self::File(_) => format!("file:{}", path.display()),
            Self::Directory(_) => format!("dir:{}", path.display()),
        }
    }
}

/// What a look found.
#[derive(Debug)]
struct Look {
    items: Vec<Item>,
    next: Next,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// There is probably more: look again at once.
    Again,
    /// Nothing new.
    Wait,
    /// There is no file to read; the reason and what to do about it.
    Missing(String),
}

/// Which file is read, and how far. Looks at files only when asked to, and never waits.
#[derive(Debug)]
struct Follower {
    place: Place,
    /// Where to begin in a file that is there at the first look. One that appears later is read from its beginning.
    start: Start,
    tail: Option<Tail>,
    /// The path that `tail` was opened by.
    path: Option<PathBuf>,
    /// How many looks in a row found nothing new in a file that is not the current one any more.
    quiet: u32,
    buffer: Vec<u8>,
}

impl Follower {
    fn new(place: Place, start: Start) -> Self {
        Self { place, start, tail: None, path: None, quiet: 0, buffer: Vec::new() }
    }

    /// Looks once: reads at most one buffer.
    fn look(&mut self) -> Look {
        let mut items = Vec::new();
        let next = self.step(&mut items);
        Look { items, next }
    }

    fn step(&mut self, items: &mut Vec<Item>) -> Next {
        let Some(tail) = &mut self.tail else { return self.open_first(items) };
        // Looked up before reading: what the old file holds after the new one appeared is read before it is left.
        let successor = self.place.successor(self.path.as_deref(), tail.identity());
        match tail.read(&mut self.buffer, items) {
            Ok(Read::Some) => {
                self.keep_own_starts(items);
                self.quiet = 0;
                Next::Again
            }
            Ok(Read::Truncated) => {
                if matches!(self.place, Place::Directory(_)) {
                    // opencode empties a file only when it opens it.
                    items.push(Item::Started);
                }
                Next::Again
            }
            Ok(Read::Nothing) => match successor {
                None => {
                    self.quiet = 0;
                    Next::Wait
                }
                Some(_) if self.quiet + 1 < QUIET_LOOKS => {
                    self.quiet += 1;
                    Next::Wait
                }
                Some(path) => self.move_to(path, items),
            },
            // The position stays: what can be read again later is read on, not twice.
            Err(error) => match successor {
                None => missing(self.path.as_deref().unwrap_or(Path::new("")), &error),
                Some(path) => {
                    let next = self.move_to(path, items);
                    if next == Next::Again {
                        items.insert(0, Item::Gap { reason: "unreadable" });
                    }
                    next
                }
            },
        }
    }

    /// Opens the first file.
    fn open_first(&mut self, items: &mut Vec<Item>) -> Next {
        let start = std::mem::replace(&mut self.start, Start::Beginning);
        let path = match &mut self.place {
            Place::File(path) => path.clone(),
            Place::Directory(folder) => match folder.newest() {
                Ok(Some(path)) => path,
                Ok(None) => return Next::Missing(folder.why_none()),
                Err(error) => return missing(folder.path(), &error),
            },
        };
        match Tail::open(&path, start) {
            Ok(tail) => {
                self.tail = Some(tail);
                self.path = Some(path);
                if start == Start::Beginning && matches!(self.place, Place::Directory(_)) {
                    items.push(Item::Started);
                }
                Next::Again
            }
            Err(error) => missing(&path, &error),
        }
    }

    /// Leaves the current file, which was read to its end, for another.
    fn move_to(&mut self, path: PathBuf, items: &mut Vec<Item>) -> Next {
        // Opened first: should that fail, the old file stays, and the next look tries again.
        let Ok(tail) = Tail::open(&path, Start::Beginning) else { return Next::Wait };
        if let Some(old) = self.tail.replace(tail) {
            old.finish(items);
        }
        self.keep_own_starts(items);
        if matches!(self.place, Place::Directory(_)) {
            items.push(Item::Started);
        }
        self.path = Some(path);
        self.quiet = 0;
        Next::Again
    }

    /// In a folder each file is one process, so a line that says "started" says nothing new, or was forged.
    fn keep_own_starts(&self, items: &mut Vec<Item>) {
        if matches!(self.place, Place::Directory(_)) {
            items.retain(|item| *item != Item::Started);
        }
    }
}

fn missing(path: &Path, error: &io::Error) -> Next {
    let shown = path.display();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "it is read as soon as it is there; check the path if opencode runs already",
        io::ErrorKind::PermissionDenied => "give the relay's user the right to read it",
        io::ErrorKind::IsADirectory => "use dir:PATH to follow the newest log in a folder",
        io::ErrorKind::NotADirectory => "use file:PATH to follow one file",
        _ => "it is tried again and again",
    };
    Next::Missing(format!("{shown}: {}; {remedy}", describe(error)))
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "not there".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
