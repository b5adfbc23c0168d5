//! Following a source: which file is read now, when the next one's turn comes, and what to say when there is none.
//!
//! `tail` reads one open file, `place` knows paths. A full queue to the pipeline holds back the reading of the file, never
//! opencode: the file keeps what is not read yet.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::journald::follow_unit;
use super::others::Others;
use super::place::{Begin, Current, Place, why};
use super::position::{Identity, Saved};
use super::reader::follow_reader;
use super::rotated::{self, Successor};
use super::tail::{From, Read, Tail};
use super::wake::Wake;
use super::{Item, Message, Source, Start};
use crate::ingest::{self, Sender};
use crate::stop::Stop;

/// How many looks in a row must find nothing new in a file whose path means another file by now, before it is left: a
/// process that was told to reopen its log may write a last line to the old one.
const QUIET_LOOKS: u32 = 2;

/// How many of the files that were read last are remembered, so that none is read again under another name.
const REMEMBERED_FILES: usize = 16;

/// Follows a source until the stop is pulled, the source ends for good, or nobody takes the messages.
pub async fn follow(source: Source, start: Start, out: Sender, stop: Stop) {
    let name = source.to_string();
    let place = match source {
        Source::File(path) => Place::File(path),
        Source::Directory(path) => Place::Directory(Folder::new(path)),
        Source::Journald(unit) => {
            let _ = stop.or(follow_unit(&unit, &name, start, &out)).await;
            return;
        }
        Source::Stdin => {
            let _ = stop.or(follow_reader(io::stdin(), name, &out)).await;
            return;
        }
        Source::None => return,
    };
    let _ = stop.or(follow_place(Follower::new(place, start, name), Wake::new, &out)).await;
}

/// Nobody takes the messages any more.
pub(super) struct Closed;

pub(super) async fn send(out: &Sender, message: Message) -> Result<(), Closed> {
    out.send(ingest::Message::Log(message)).await.map_err(|_| Closed)
}

/// Looks, sends, waits; forever.
async fn follow_place(mut follower: Follower, wake: fn(&Path) -> Wake, out: &Sender) -> Result<(), Closed> {
    let mut wake = wake(follower.place.folder());
    let mut last_reason = None;
    let mut following = None;
    let mut told: Option<Saved> = None;
    loop {
        // Looking reads files, which may hang on a network mount: not on a thread that others need.
        let looked = tokio::task::spawn_blocking(move || {
            wake.prepare(follower.file());
            let look = follower.look();
            (wake, follower, look)
        });
        // It fails only when the runtime ends or the look panicked; both end this task.
        let Ok((returned_wake, returned, look)) = looked.await else { return Err(Closed) };
        (wake, follower) = (returned_wake, returned);
        let found = follower.path().map(PathBuf::from).filter(|_| !matches!(look.next, Next::Missing(_)));
        if let Some(path) = found.filter(|path| following.as_ref() != Some(path)) {
            send(out, Message::Following { source: follower.place.describe(&path) }).await?;
            following = Some(path);
            last_reason = None;
        }
        let is_far = |now: &Saved| told.as_ref().is_none_or(|told| now.is_far_from(told));
        if !look.items.is_empty() || look.position.as_ref().is_some_and(is_far) {
            let position = look.position.as_ref().map(Saved::to_position);
            send(out, Message::Lines { items: look.items, position }).await?;
            told = look.position;
        }
        match look.next {
            Next::Again => wake.found(),
            Next::Wait => wake.wait().await,
            Next::Soon => wake.wait_briefly().await,
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

/// What a look found.
#[derive(Debug)]
struct Look {
    items: Vec<Item>,
    /// Where reading goes on after the items.
    position: Option<Saved>,
    next: Next,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// There is probably more: look again at once.
    Again,
    /// Nothing new.
    Wait,
    /// Nothing new, but there is a file to go on to.
    Soon,
    /// There is no file to read; the reason and what to do about it.
    Missing(String),
}

/// Which file is read, and how far. Looks at files only when asked to, and never waits.
#[derive(Debug)]
struct Follower {
    place: Place,
    /// The source as a person writes it; a position is good for this one only.
    source: String,
    /// Where to begin in a file that is there at the first look. One that appears later is read from its beginning.
    begin: Begin,
    /// What is to be told with the next look.
    early: Vec<Item>,
    current: Option<Current>,
    /// How many looks in a row found nothing new in a file that is not the current one any more.
    quiet: u32,
    /// The file that was left last for another, kept open to see whether it is written to after all.
    left: Option<Tail>,
    /// The files that were read to their end.
    read: VecDeque<Identity>,
    others: Others,
    buffer: Vec<u8>,
}

impl Follower {
    fn new(place: Place, start: Start, source: String) -> Self {
        let mut early = Vec::new();
        let begin = Begin::new(start, &source, &mut early);
        Self {
            place,
            source,
            begin,
            early,
            current: None,
            quiet: 0,
            left: None,
            read: VecDeque::new(),
            others: Others::default(),
            buffer: Vec::new(),
        }
    }

    /// The path that the current file was opened by.
    fn path(&self) -> Option<&Path> {
        self.current.as_ref().map(|current| &*current.path)
    }

    /// The file that is being read, and the path that it was opened by.
    fn file(&self) -> Option<(&Path, Identity)> {
        self.current.as_ref().map(|current| (&*current.path, current.tail.identity()))
    }

    /// Looks once: reads at most one buffer.
    fn look(&mut self) -> Look {
        let mut items = std::mem::take(&mut self.early);
        let next = self.step(&mut items);
        let position = self.current.as_ref().map(|current| {
            let name = current.name.to_string_lossy().into_owned();
            Saved::new(&self.source, name, current.tail.cursor(), self.left.as_ref().map(Tail::cursor))
        });
        Look { items, position, next }
    }

    fn step(&mut self, items: &mut Vec<Item>) -> Next {
        self.look_back(items);
        let Some(current) = &mut self.current else { return self.open_first(items) };
        // Looked up before reading: what the old file holds after the new one appeared is read before it is left.
        let successor = self.place.successor(current, |identity| self.read.contains(&identity));
        match current.tail.read(&mut self.buffer, items) {
            Ok(Read::Some) => {
                self.keep_own_starts(items);
                self.quiet = 0;
                Next::Again
            }
            Ok(Read::Truncated) => self.go_on_in_copy(items),
            Ok(Read::Nothing) => match successor {
                None => {
                    self.quiet = 0;
                    self.look_around(items);
                    Next::Wait
                }
                Some(_) if self.quiet + 1 < QUIET_LOOKS => {
                    self.quiet += 1;
                    Next::Soon
                }
                Some(successor) => self.move_to(successor, items),
            },
            // The position stays: what can be read again later is read on, not twice.
            Err(error) => match successor {
                None => Next::Missing(why(&current.path, &error)),
                Some(successor) => {
                    let next = self.move_to(successor, items);
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
        match self.place.open(&self.begin, items) {
            Ok(current) => {
                self.current = Some(current);
                if let (Begin::After(saved), Place::File(path)) = (&self.begin, &self.place)
                    && let Some(left) = &saved.left
                {
                    self.left = rotated::find(&rotated::beside(path), left).map(|(_, tail)| tail);
                }
                Next::Again
            }
            Err(reason) => {
                // A position is kept until there is a file to compare it with.
                if !matches!(self.begin, Begin::After(_)) {
                    self.begin = Begin::Beginning;
                }
                Next::Missing(reason)
            }
        }
    }

    /// What was read is not in the file any more. If it was copied before it was emptied, the copy has the rest.
    fn go_on_in_copy(&mut self, items: &mut Vec<Item>) -> Next {
        let Some(current) = &mut self.current else { return Next::Wait };
        self.quiet = 0;
        let place = current.tail.cursor();
        if let Place::File(path) = &self.place
            && place.is_enough()
            && let Some((path, tail)) = rotated::find(&rotated::beside(path), &place)
        {
            *current = Current::new(tail, path);
            return Next::Again;
        }
        if let Err(error) = current.tail.restart(items) {
            return Next::Missing(why(&current.path, &error));
        }
        if self.place.is_directory() {
            // opencode empties a file only when it opens it.
            items.push(Item::Started);
        }
        Next::Again
    }

    /// Leaves the current file, which was read to its end, for another.
    fn move_to(&mut self, successor: Successor, items: &mut Vec<Item>) -> Next {
        let Some(mut old) = self.current.take() else { return Next::Wait };
        let Successor { path, lost } = successor;
        let place = old.tail.cursor();
        let (opened, is_copy) = match Tail::resume(&path, &place) {
            // A copy of what was read: not from its beginning.
            Ok(Some(tail)) if place.is_enough() && !self.place.is_directory() => (Ok(tail), true),
            Ok(_) => (Tail::open(&path, From::Beginning), false),
            Err(error) => (Err(error), false),
        };
        let tail = match opened {
            Ok(tail) => tail,
            Err(error) => {
                self.current = Some(old);
                if !self.is_for_good(&path, &error) {
                    return Next::Soon;
                }
                items.push(Item::Gap { reason: "unreadable" });
                self.skip(&path);
                return Next::Again;
            }
        };
        if !is_copy {
            old.tail.finish(items);
            self.keep_own_starts(items);
        }
        if lost {
            items.push(Item::Gap { reason: "rotated-away" });
        }
        self.read.retain(|identity| *identity != tail.identity());
        if self.place.is_directory() {
            self.others.leave(&old.name, old.tail.position());
            items.push(Item::Started);
        } else {
            self.remember(old.tail.identity());
            self.look_back(items);
            self.left = (!is_copy).then_some(old.tail);
        }
        self.current = Some(Current::new(tail, path));
        self.quiet = 0;
        Next::Again
    }

    /// Whether a file between the last and the present one will never be read. The present one is tried again and again.
    fn is_for_good(&self, path: &Path, error: &io::Error) -> bool {
        let present = matches!(&self.place, Place::File(present) if path == present);
        !present && !self.place.is_directory() && error.kind() != io::ErrorKind::NotFound
    }

    /// Treats a file as read.
    fn skip(&mut self, path: &Path) {
        if let Ok(metadata) = std::fs::metadata(path) {
            self.remember(Identity::from(&metadata));
        }
    }

    fn remember(&mut self, identity: Identity) {
        if self.read.len() >= REMEMBERED_FILES {
            self.read.pop_front();
        }
        self.read.push_back(identity);
    }

    /// Looks at the file that was left.
    fn look_back(&mut self, items: &mut Vec<Item>) {
        if self.left.as_ref().is_some_and(Tail::has_grown) {
            self.left = None;
            items.push(Item::Gap { reason: "written-after-rotation" });
        }
    }

    /// Looks at other processes' logs.
    fn look_around(&mut self, items: &mut Vec<Item>) {
        if let (Place::Directory(folder), Some(current)) = (&self.place, &self.current) {
            self.others.look(folder.path(), folder.names(), &current.name, items);
        }
    }

    /// In a folder each file is one process, so a line that says "started" says nothing new, or was forged.
    fn keep_own_starts(&self, items: &mut Vec<Item>) {
        if self.place.is_directory() {
            items.retain(|item| *item != Item::Started);
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
