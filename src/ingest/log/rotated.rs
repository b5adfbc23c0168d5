//! What became of a file that was renamed or copied: the files beside it, and in which order they were written.
//!
//! Three things tell the order, and each is wrong at times: the birth (a copy is younger than what is written to its
//! original after it), the last write (a process may write late to a file that was rotated already), and the name (the
//! highest number is the oldest file for most rotators, and the newest for some). So the majority counts, and what has none
//! is a gap.

use std::cmp::{Ordering, Reverse};
use std::io;
use std::path::{Path, PathBuf};

use super::position::{Cursor, Identity, modified};
use super::tail::Tail;

/// How many files of a folder are looked at. Beyond that the folder is no place for a log.
const FILES: usize = 1000;

/// The endings of compressed files.
const COMPRESSED: [&str; 5] = [".gz", ".xz", ".zst", ".bz2", ".lz4"];

/// The longest number that counts files; longer ones are dates.
const COUNTER_DIGITS: usize = 4;

/// A file to read on at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Successor {
    pub(super) path: PathBuf,
    /// Whether there was, or may have been, another one before it that cannot be read.
    pub(super) lost: bool,
}

/// A file that was the log once.
#[derive(Debug)]
struct Rotated {
    path: PathBuf,
    identity: Identity,
    modified: i128,
    name: Name,
    compressed: bool,
}

/// What a rotator added to the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// A counter: the higher, the older.
    Counter(Reverse<u32>),
    /// A date or the like.
    Date(String),
}

impl Name {
    /// Which is the later one, if they are of one kind.
    fn order(&self, other: &Self) -> Option<Ordering> {
        (std::mem::discriminant(self) == std::mem::discriminant(other)).then(|| self.cmp(other))
    }
}

/// Finds the file that holds what was read up to the place: the same file if it can be, else a copy of it.
pub(super) fn find(candidates: &[PathBuf], place: &Cursor) -> Option<(PathBuf, Tail)> {
    let mut copy = None;
    for path in candidates {
        // Only plain files: to open a pipe may wait forever.
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        if !metadata.is_file() {
            continue;
        }
        let same = Identity::from(&metadata) == place.identity;
        if !same && (copy.is_some() || !place.is_enough()) {
            continue;
        }
        match Tail::resume(path, place) {
            Ok(Some(tail)) if tail.identity() == place.identity => return Some((path.clone(), tail)),
            Ok(Some(tail)) if place.is_enough() => copy = Some((path.clone(), tail)),
            _ => {}
        }
    }
    copy
}

/// The files beside this one whose names begin with its name; without itself.
pub(super) fn beside(path: &Path) -> Vec<PathBuf> {
    let (Some(own), Some(folder)) = (path.file_name(), path.parent()) else { return Vec::new() };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let own = own.as_encoded_bytes();
    let longer = |name: &[u8]| name.len() > own.len() && name.starts_with(own);
    let found = entries.take(FILES).flatten().filter(|entry| longer(entry.file_name().as_encoded_bytes()));
    found.map(|entry| entry.path()).collect()
}

/// The file to read after `current`, which is not the one at `path` any more: one that was rotated since, else `path`.
/// `read` are the files that were read before; none of them comes again.
pub(super) fn after(path: &Path, current: &Tail, read: impl Fn(Identity) -> bool) -> io::Result<Successor> {
    let rotated: Vec<Rotated> = beside(path).into_iter().filter_map(|other| rotated(path, other)).collect();
    let own = Age { born: current.identity().born, modified: current.modified()?, name: None };
    let own_file = rotated.iter().find(|file| file.identity == current.identity());
    let own = own_file.map_or(own, Rotated::age);
    let mut lost = false;
    let mut between: Vec<&Rotated> = Vec::new();
    for file in rotated.iter().filter(|file| file.identity != current.identity() && !read(file.identity)) {
        match file.age().later_than(&own) {
            ..=-1 => {}
            // A rotator that dropped ours may have dropped the next one too; and without ours there is no telling what of the
            // others was read.
            1.. if own_file.is_some() => between.push(file),
            _ => lost = true,
        }
    }
    // How many of the others are older: an order even if three of them disagree.
    let rank = |file: &Rotated| between.iter().filter(|other| file.age().later_than(&other.age()) > 0).count();
    let mut ranked: Vec<_> = between.iter().map(|file| (rank(file), &file.name, *file)).collect();
    ranked.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    for (_, _, file) in ranked {
        if !file.compressed {
            return Ok(Successor { path: file.path.clone(), lost });
        }
        lost = true;
    }
    Ok(Successor { path: path.to_owned(), lost })
}

/// What tells which of two files was written later.
struct Age<'a> {
    born: Option<u64>,
    modified: i128,
    name: Option<&'a Name>,
}

impl Age<'_> {
    /// More than 0: later. Less: earlier. 0: it cannot be told.
    fn later_than(&self, other: &Self) -> i8 {
        let vote = |order: Ordering| order as i8;
        let born = self.born.zip(other.born).map_or(0, |(own, other)| vote(own.cmp(&other)));
        let modified = vote(self.modified.cmp(&other.modified));
        let name = self.name.zip(other.name).and_then(|(own, other)| own.order(other)).map_or(0, vote);
        match (modified, name) {
            // Within one tick of the clock a copy and what follows it in the original: only the name knows.
            (0, 1 | -1) => name,
            _ => born + modified + name,
        }
    }
}

impl Rotated {
    fn age(&self) -> Age<'_> {
        Age { born: self.identity.born, modified: self.modified, name: Some(&self.name) }
    }
}

/// Reads what a file beside the log is; `None` if its name is not one that a rotator gives.
fn rotated(path: &Path, other: PathBuf) -> Option<Rotated> {
    let own = path.file_name()?.as_encoded_bytes().len();
    let name = other.file_name()?.to_str()?.get(own..)?;
    let plain = COMPRESSED.iter().find_map(|ending| name.strip_suffix(ending));
    let name = name_of(plain.unwrap_or(name))?;
    let metadata = std::fs::metadata(&other).ok().filter(|metadata| metadata.is_file())?;
    let (identity, modified) = (Identity::from(&metadata), modified(&metadata));
    let compressed = plain.is_some();
    Some(Rotated { path: other, identity, modified, name, compressed })
}

fn name_of(added: &str) -> Option<Name> {
    let is_separator = |letter: char| matches!(letter, '.' | '-' | '_');
    let text = added.strip_prefix(is_separator)?;
    if text.len() <= COUNTER_DIGITS && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(|number| Name::Counter(Reverse(number)));
    }
    let in_a_date = |letter: char| letter.is_ascii_digit() || is_separator(letter) || matches!(letter, ':' | 'T' | 'Z');
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    (has_digit && text.chars().all(in_a_date)).then(|| Name::Date(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_that_rotators_give() {
        let counter = |number| Some(Name::Counter(Reverse(number)));
        let date = |text: &str| Some(Name::Date(text.to_owned()));
        for (added, expected) in [
            (".1", counter(1)),
            ("-12", counter(12)),
            ("-20261123", date("20261123")),
            (".2026-11-23T00:39:15Z", date("2026-11-23T00:39:15Z")),
            ("1", None),
            (".", None),
            ("-", None),
            (".bak", None),
            (".1.bak", None),
            (".T", None),
        ] {
            assert_eq!(name_of(added), expected, "{added}");
        }
        let (first, second) = (Name::Counter(Reverse(1)), Name::Counter(Reverse(2)));
        assert_eq!(first.order(&second), Some(Ordering::Greater));
        let (old, new) = (Name::Date("20261123".to_owned()), Name::Date("20261124".to_owned()));
        assert_eq!(new.order(&old), Some(Ordering::Greater));
        assert_eq!(new.order(&second), None);
    }
}
