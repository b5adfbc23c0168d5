//! Where files are looked for: one path, or a folder; what to begin with there, and what comes next.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::position::{Identity, Saved};
use super::rotated::{self, Successor};
use super::tail::{From, Tail};
use super::{Item, Start};

/// Where files are looked for.
#[derive(Debug)]
pub(super) enum Place {
    File(PathBuf),
    Directory(Folder),
}

/// Where to begin, checked.
#[derive(Clone, Debug)]
pub(super) enum Begin {
    End,
    Beginning,
    After(Box<Saved>),
}

impl Begin {
    /// What a start means for this source. A position that is not understood is a gap, and then the end: what is there was
    /// perhaps read before.
    pub(super) fn new(start: Start, source: &str, items: &mut Vec<Item>) -> Self {
        match start {
            Start::End => Self::End,
            Start::Beginning => Self::Beginning,
            Start::After(position) => match Saved::read(&position, source) {
                Some(saved) => Self::After(Box::new(saved)),
                None => {
                    items.push(Item::Gap { reason: "position-unknown" });
                    Self::End
                }
            },
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) tail: Tail,
    /// The path that it was opened by.
    pub(super) path: PathBuf,
    /// The name that tells its turn in a folder; it may have been renamed since.
    pub(super) name: OsString,
}

impl Current {
    pub(super) fn new(tail: Tail, path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or_default().to_owned();
        Self { tail, path, name }
    }
}

impl Place {
    /// The folder whose changes matter.
    pub(super) fn folder(&self) -> &Path {
        match self {
            Self::File(path) => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            },
            Self::Directory(folder) => folder.path(),
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Opens the file to begin with; fails with the reason why there is none and what to do about it.
    pub(super) fn open(&mut self, begin: &Begin, items: &mut Vec<Item>) -> Result<Current, String> {
        let from = match begin {
            Begin::After(saved) => return self.resume(saved, items),
            Begin::End => From::End,
            Begin::Beginning => From::Beginning,
        };
        let path = match self {
            Self::File(path) => path.clone(),
            Self::Directory(folder) => match folder.newest() {
                Ok(Some(path)) => path,
                Ok(None) => return Err(folder.why_none()),
                Err(error) => return Err(why(folder.path(), &error)),
            },
        };
        let current = open(path, from)?;
        if from == From::Beginning && self.is_directory() {
            items.push(Item::Started);
        }
        Ok(current)
    }

    /// The file to read on at, when there is one after the file that is being read. `read` are those before it.
    pub(super) fn successor(&mut self, current: &Current, read: impl Fn(Identity) -> bool) -> Option<Successor> {
        match self {
            // While nothing is there, the old file may still be written to.
            Self::File(path) => {
                let now = Identity::from(&std::fs::metadata(&*path).ok()?);
                if now == current.tail.identity() {
                    return None;
                }
                rotated::after(path, &current.tail, read).ok()
            }
            Self::Directory(folder) => folder.after(&current.name).map(|path| Successor { path, lost: false }),
        }
    }

    pub(super) fn describe(&self, path: &Path) -> String {
        match self {
            Self::File(_) => format!("file:{}", path.display()),
            Self::Directory(_) => format!("dir:{}", path.display()),
        }
    }

    /// Goes on where reading ended before a restart: in the same file, wherever it is now, or in a copy of it.
    fn resume(&mut self, saved: &Saved, items: &mut Vec<Item>) -> Result<Current, String> {
        match self {
            Self::File(path) => {
                let mut candidates = vec![path.clone()];
                candidates.extend(rotated::beside(path));
                if let Some((path, tail)) = rotated::find(&candidates, &saved.cursor) {
                    return Ok(Current::new(tail, path));
                }
                reopen(path.clone(), saved, items)
            }
            Self::Directory(folder) => {
                let named = folder.path().join(&saved.name);
                let mut candidates = vec![named.clone()];
                candidates.extend(folder.files().map_err(|error| why(folder.path(), &error))?);
                if let Some((path, tail)) = rotated::find(&candidates, &saved.cursor) {
                    return Ok(Current { tail, path, name: saved.name.clone().into() });
                }
                if named.exists() {
                    // opencode empties a log when it opens it.
                    let current = reopen(named, saved, items)?;
                    items.push(Item::Started);
                    return Ok(current);
                }
                let current = match folder.after(OsStr::new(&saved.name)) {
                    Some(path) => open(path, From::Beginning)?,
                    // Only older ones, which may have been read before ours.
                    None => match folder.newest() {
                        Ok(Some(path)) => open(path, From::End)?,
                        Ok(None) => return Err(folder.why_none()),
                        Err(error) => return Err(why(folder.path(), &error)),
                    },
                };
                items.push(Item::Gap { reason: "rotated-away" });
                items.push(Item::Started);
                Ok(current)
            }
        }
    }
}

fn open(path: PathBuf, from: From) -> Result<Current, String> {
    match Tail::open(&path, from) {
        Ok(tail) => Ok(Current::new(tail, path)),
        Err(error) => Err(why(&path, &error)),
    }
}

/// Opens a file of the same path that is not the one that was read, or not as it was.
fn reopen(path: PathBuf, saved: &Saved, items: &mut Vec<Item>) -> Result<Current, String> {
    let tail = Tail::open_changed(&path, &saved.cursor).map_err(|error| why(&path, &error))?;
    let same = tail.identity() == saved.cursor.identity;
    items.push(Item::Gap { reason: if same { "truncated" } else { "rotated-away" } });
    Ok(Current::new(tail, path))
}

/// Why a file cannot be read, and what to do about it.
pub(super) fn why(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "it is read as soon as it is there; check the path if opencode runs already",
        io::ErrorKind::PermissionDenied => "give the relay's user the right to read it",
        io::ErrorKind::IsADirectory => "use dir:PATH to follow the newest log in a folder",
        io::ErrorKind::NotADirectory => "use file:PATH to follow one file",
        _ => "it is tried again and again",
    };
    format!("{shown}: {}; {remedy}", describe(error))
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "not there".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder".to_owned(),
        _ => error.to_string(),
    }
}
