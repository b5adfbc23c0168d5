//! The logs of opencode's other processes in the same folder: whether they publish something.
//!
//! What they publish never comes over our server's streams, so that it does is all there is to know. Cheap: only what was
//! added to a few logs since the last look is read, and never more than a little of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Item;
use super::line::{Meaning, parse};

/// How many of the other logs are looked at, those that were written to last.
const WATCHED: usize = 4;

/// How much of one is read in a look, in bytes. Of more, the end: one line is enough to know.
const READ: u64 = 64 * 1024;

/// How far the other logs were looked at.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Has every log of the folder but ours since the first look; those that appear later are new altogether.
    seen: BTreeMap<OsString, Seen>,
    has_looked: bool,
}

#[derive(Debug, Default)]
struct Seen {
    position: u64,
    /// It was followed, and left for a newer one, and has not grown since.
    left: bool,
}

impl Others {
    /// A log was followed up to here and left for a newer one.
    pub(super) fn leave(&mut self, name: &OsStr, position: u64) {
        self.seen.insert(name.to_owned(), Seen { position, left: true });
    }

    /// Says at most once that another process published something, and that a log that was left lives on.
    pub(super) fn look<'a>(
        &mut self,
        folder: &Path,
        names: impl Iterator<Item = &'a OsStr>,
        ours: &OsStr,
        items: &mut Vec<Item>,
    ) {
        let mut logs: Vec<_> = names
            .filter(|name| *name != ours)
            .filter_map(|name| std::fs::metadata(folder.join(name)).ok().map(|metadata| (name, metadata)))
            .collect();
        self.seen.retain(|name, _| logs.iter().any(|(other, _)| other == name));
        let first = !std::mem::replace(&mut self.has_looked, true);
        for (name, metadata) in &logs {
            if !self.seen.contains_key(*name) {
                // One that was there before us has published what it has: nobody listened then.
                let position = if first { metadata.len() } else { 0 };
                self.seen.insert((*name).to_owned(), Seen { position, left: false });
            }
        }
        logs.sort_by_key(|(_, metadata)| std::cmp::Reverse(metadata.modified().ok()));
        let mut published = false;
        for (name, metadata) in logs.into_iter().take(WATCHED) {
            let Some(seen) = self.seen.get_mut(name) else { continue };
            if seen.look(&folder.join(name), metadata.len()) {
                published = true;
                if std::mem::take(&mut seen.left) {
                    // Perhaps it is the log of our server, which did not end when a newer one began. From here on its lines
                    // count as another's; the folder does not tell whose they are.
                    items.push(Item::Gap { reason: "two-servers" });
                }
            }
        }
        if published {
            items.push(Item::Elsewhere);
        }
    }
}

impl Seen {
    /// Whether a log has new lines that announce something.
    fn look(&mut self, path: &Path, length: u64) -> bool {
        if length < self.position {
            self.position = 0;
        }
        if length == self.position {
            return false;
        }
        let from = self.position.max(length.saturating_sub(READ));
        let mut bytes = vec![0; usize::try_from(length - from).unwrap_or(0)];
        if File::open(path).and_then(|file| file.read_exact_at(&mut bytes, from)).is_err() {
            return false;
        }
        let Some(end) = memchr::memrchr(b'\n', &bytes) else {
            // A line that long is none of the bus.
            if bytes.len() as u64 == READ {
                self.position = length;
            }
            return false;
        };
        self.position = from + end as u64 + 1;
        bytes[..end].split(|byte| *byte == b'\n').any(|line| matches!(parse(line), Some(Meaning::Notice { .. })))
    }
}
