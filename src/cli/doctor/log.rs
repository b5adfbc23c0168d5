//! The log witness, looked at by itself: whether what the probe published stands in a log that the relay would read.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::judge::{Due, Level};
use super::text::plain;
use crate::ingest::log::decode::{Lines, Piece};
use crate::ingest::log::line::{Meaning, is_bus, parse};
use crate::ingest::log::{Source, choose};

/// Most files of a folder that are looked at, the newest; opencode keeps about ten.
const FILES: usize = 64;

/// Most bytes that are read of what one file got during the probe.
const NEWS: u64 = 8 << 20;

/// How far back a file is searched for any bus line, in bytes.
const PAST: u64 = 256 << 10;

/// A log as it was before the probe.
#[derive(Debug)]
pub(super) struct Look {
    source: Source,
    /// How long each file was.
    files: BTreeMap<PathBuf, u64>,
    /// Which file the relay would read, or why none.
    chosen: Result<PathBuf, Sight>,
}

/// What is to be said of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// None was to be looked at.
    NotAsked,
    /// opencode runs on another machine, and no log was named.
    Elsewhere,
    /// A source that cannot be looked at from here.
    Unseen,
    /// It cannot be read.
    Unreadable { path: PathBuf, kind: io::ErrorKind, error: String },
    /// The folder has no log to follow.
    Empty(String),
    /// It announced all of so many events.
    Announces { path: PathBuf, count: usize },
    /// It announced some of them.
    Partly { path: PathBuf, count: usize, of: usize },
    /// This opencode writes one file, and the relay would follow another.
    OtherFile { followed: PathBuf, own: PathBuf },
    /// It is this opencode's, and announces nothing.
    Silent { path: PathBuf },
    /// Nothing of the probe is in it.
    Foreign { path: PathBuf, has_bus: bool },
    /// Nothing was published to look for.
    Unproven { path: PathBuf, has_bus: bool },
}

/// What one file got during the probe.
#[derive(Debug, Default)]
struct News {
    notices: HashMap<String, usize>,
    names_session: bool,
}

impl Look {
    /// Looks before anything is published. Without a source at opencode's own place.
    pub(super) fn before(source: Option<&Source>, own: Option<PathBuf>, is_here: bool) -> Self {
        let is_named = source.is_some();
        let source = match (source, own) {
            (Some(source), _) => source.clone(),
            (None, Some(own)) if is_here => Source::Directory(own),
            (None, _) => Source::None,
        };
        let (mut files, chosen) = match &source {
            Source::File(path) => (vec![path.clone()], check(path).map(|()| path.clone())),
            Source::Directory(path) => (logs(path), in_folder(path)),
            Source::None if !is_named && !is_here => (Vec::new(), Err(Sight::Elsewhere)),
            Source::None => (Vec::new(), Err(Sight::NotAsked)),
            // Whoever reads it has it alone.
            _ => (Vec::new(), Err(Sight::Unseen)),
        };
        files.extend(chosen.as_ref().ok().cloned());
        let length = |path: PathBuf| {
            let length = fs::metadata(&path).map_or(0, |data| data.len());
            (path, length)
        };
        Self { files: files.into_iter().map(length).collect(), chosen, source }
    }

    /// Looks afterwards. A log is written in batches, so what is not there yet may come.
    pub(super) fn after(&self, session: Option<&str>, due: &[Due]) -> Sight {
        let followed = match (&self.chosen, &self.source) {
            (Err(sight @ Sight::Empty(_)), Source::Directory(folder)) => {
                // From 1.17 on all processes write this one; that our session is in it tells whose it is.
                let shared = folder.join("opencode.log");
                return match session.is_some_and(|session| self.news(&shared, session).names_session) {
                    true => Sight::Silent { path: shared },
                    false => sight.clone(),
                };
            }
            (Err(sight), _) => return sight.clone(),
            (Ok(path), _) => path,
        };
        let Some(session) = session else {
            return Sight::Unproven { path: followed.clone(), has_bus: has_bus(followed) };
        };
        let of: usize = due.iter().map(|due| due.count).sum();
        let mut best: Option<(usize, bool, &PathBuf)> = None;
        for path in self.files.keys() {
            let news = self.news(path, session);
            let found = |due: &Due| news.notices.get(&due.kind).copied().unwrap_or(0).min(due.count);
            let sight = (due.iter().map(found).sum(), news.names_session, path);
            // The one that names the session, then the one with most, then the one that would be followed.
            let rank = |sight: &(usize, bool, &PathBuf)| (sight.1, sight.0, sight.2 == followed);
            if best.as_ref().is_none_or(|best| rank(&sight) > rank(best)) {
                best = Some(sight);
            }
        }
        match best {
            Some((count, is_named, path)) if path != followed && (is_named || count == of) && of > 0 => match count {
                0 => Sight::Silent { path: path.clone() },
                _ => Sight::OtherFile { followed: followed.clone(), own: path.clone() },
            },
            best => best
                .and_then(|(count, is_named, path)| Sight::of_own(path, count, of, is_named))
                .unwrap_or_else(|| Sight::Foreign { path: followed.clone(), has_bus: has_bus(followed) }),
        }
    }

    fn news(&self, path: &Path, session: &str) -> News {
        let mut news = News::default();
        let before = self.files.get(path).copied().unwrap_or(0);
        let Ok(mut file) = open(path) else { return news };
        let length = file.metadata().map_or(0, |data| data.len());
        // A file that became shorter was emptied.
        let start = if length < before { 0 } else { before };
        let mut text = Vec::new();
        if file.seek(SeekFrom::Start(start)).and_then(|_| file.take(NEWS).read_to_end(&mut text)).is_err() {
            return news;
        }
        news.names_session = memchr::memmem::find(&text, session.as_bytes()).is_some();
        Lines::default().push(&text, |piece| {
            if let Piece::Line(line) = piece
                && let Some(Meaning::Notice { kind }) = parse(line)
            {
                *news.notices.entry(kind.to_owned()).or_default() += 1;
            }
        });
        news
    }

    /// As the relay would be told.
    pub(super) fn source(&self) -> String {
        plain(&self.source.to_string())
    }
}

/// Opens regular files only: opening a pipe would wait for its writer.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::open(path)
}

fn check(path: &Path) -> Result<(), Sight> {
    open(path).map(drop).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Sight {
    Sight::Unreadable { path: path.to_owned(), kind: error.kind(), error: error.to_string() }
}

fn in_folder(folder: &Path) -> Result<PathBuf, Sight> {
    let path = choose(folder).map_err(|error| unreadable(folder, &error))?.map_err(Sight::Empty)?;
    check(&path).map(|()| path)
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).and_then(|data| data.modified()).ok()));
    logs.truncate(FILES);
    logs
}

fn has_bus(path: &Path) -> bool {
    let mut text = Vec::new();
    let read = open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(PAST)))?;
        file.take(PAST).read_to_end(&mut text)
    });
    read.is_ok() && text.split(|byte| *byte == b'\n').any(is_bus)
}

fn name(path: &Path) -> String {
    plain(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

impl Sight {
    /// A log that announced `count` of the probe's `of` events, and that names its session or not; `None` where nothing
    /// shows that it is the asked opencode's.
    pub(super) fn of_own(path: &Path, count: usize, of: usize, names_session: bool) -> Option<Self> {
        let path = path.to_owned();
        match (count, names_session) {
            (count, _) if count == of && of > 0 => Some(Self::Announces { path, count }),
            (0, true) => Some(Self::Silent { path }),
            (count, true) => Some(Self::Partly { path, count, of }),
            (_, false) => None,
        }
    }

    /// How far it goes. A log that was named must be one.
    pub(super) fn level(&self, is_named: bool) -> Level {
        match self {
            Self::Announces { .. } => Level::Ok,
            Self::NotAsked | Self::Silent { .. } => Level::None,
            Self::Elsewhere | Self::Unseen | Self::Unproven { .. } | Self::Partly { .. } => Level::Unknown,
            Self::Unreadable { kind: io::ErrorKind::PermissionDenied, .. } | Self::OtherFile { .. } => Level::Broken,
            Self::Unreadable { .. } | Self::Empty(_) | Self::Foreign { .. } if is_named => Level::Broken,
            Self::Unreadable { .. } | Self::Empty(_) | Self::Foreign { .. } => Level::None,
        }
    }

    /// Whether the words name the place, so that the source need not be told.
    pub(super) fn names_place(&self) -> bool {
        matches!(self, Self::NotAsked | Self::Elsewhere | Self::Unreadable { .. } | Self::Empty(_))
    }

    /// For people. `is_silent`: releases of this kind announce nothing in their logs.
    pub(super) fn words(&self, is_silent: bool) -> String {
        const ELSEWHERE: &str = "with --print-logs it goes to standard error (run opencode as the relay's child, or \
            redirect it to a file for --log file:)";
        match self {
            Self::NotAsked => "none was to be read".into(),
            Self::Elsewhere => "opencode runs elsewhere; --log says where its log is on this machine, if it is".into(),
            Self::Unseen => "only the relay that it is piped into can read it; /_relay/status there says what it sees (witnesses.log)".into(),
            Self::Unreadable { path, kind: io::ErrorKind::PermissionDenied, .. } => format!(
                "{} may not be read by this user; add it to the file's group, or run as opencode's user, and let the \
                 unit see the folder (ReadOnlyPaths=)",
                plain(&path.to_string_lossy())
            ),
            Self::Unreadable { path, kind: io::ErrorKind::NotFound, .. } => {
                format!(
                    "there is no {}; another user's opencode has its own, and {ELSEWHERE}",
                    plain(&path.to_string_lossy())
                )
            }
            Self::Unreadable { path, error, .. } => {
                format!("{} cannot be read: {}", plain(&path.to_string_lossy()), plain(error))
            }
            Self::Empty(why) => plain(why),
            Self::Announces { path, count } => format!("{} announced all {count} events", name(path)),
            Self::Partly { path, count, of } => format!("{} announced {count} of {of} events so far", name(path)),
            Self::OtherFile { followed, own } => format!(
                "this opencode writes {}, but the relay would follow {}, the newest of a server: give each server a data \
                 folder of its own, or use file:{}",
                name(own),
                name(followed),
                plain(&own.to_string_lossy())
            ),
            Self::Silent { path } => format!(
                "{} is this opencode's and announces no events{}",
                name(path),
                if is_silent { " (no release from 1.17 on does)" } else { "; is its level above INFO (--log-level)?" }
            ),
            Self::Foreign { path, has_bus: true } => {
                format!("{} is another opencode's: nothing of the probe is in it; {ELSEWHERE}", name(path))
            }
            Self::Foreign { path, .. } if is_silent => format!("nothing of the probe is in {}", name(path)),
            Self::Foreign { path, .. } => {
                format!("nothing of the probe, and no bus line, is in {}; {ELSEWHERE}", name(path))
            }
            Self::Unproven { path, has_bus: true } => {
                format!("{} has bus lines; whether they are this opencode's, only a probe tells", name(path))
            }
            Self::Unproven { path, .. } => format!("{} has no bus lines at its end", name(path)),
        }
    }

    pub(super) fn json(&self) -> Value {
        let (word, path) = match self {
            Self::NotAsked => ("not-asked", None),
            Self::Elsewhere => ("elsewhere", None),
            Self::Unseen => ("unseen", None),
            Self::Unreadable { path, .. } => ("unreadable", Some(path)),
            Self::Empty(_) => ("empty", None),
            Self::Announces { path, .. } => ("announces", Some(path)),
            Self::Partly { path, .. } => ("partly", Some(path)),
            Self::OtherFile { own, .. } => ("other-file", Some(own)),
            Self::Silent { path } => ("silent", Some(path)),
            Self::Foreign { path, .. } => ("foreign", Some(path)),
            Self::Unproven { path, .. } => ("unproven", Some(path)),
        };
        json!({ "sight": word, "path": path.map(|path| path.to_string_lossy()) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SESSION: &str = "ses_probe";

    fn due() -> Vec<Due> {
        [("session.created", 1), ("session.updated", 2)].map(|(kind, count)| Due { kind: kind.into(), count }).into()
    }

    fn bus(kind: &str) -> String {
        format!("INFO  2026-11-23T00:39:15 +1ms service=bus type={kind} publishing\n")
    }

    fn first() -> String {
        "INFO  2026-11-23T00:39:14 +1ms service=default version=1.14.48 args=[\"serve\"] opencode\n".to_owned()
    }

    fn named() -> String {
        format!("INFO  2026-11-23T00:39:14 +1ms service=session id={SESSION} slug=x created\n")
    }

    fn add(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn log(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            add(&path, text);
            path
        }

        fn look(&self) -> Look {
            Look::before(None, Some(self.0.path().to_owned()), true)
        }
    }

    #[test]
    fn a_log_that_announces_the_probe_is_this_opencodes() {
        let place = Place::new();
        // What was announced before counts for nothing.
        let path = place.log("2026-11-23T003914.log", &(first() + &bus("session.created") + &bus("session.updated")));
        let look = place.look();
        assert_eq!(look.after(Some(SESSION), &due()), Sight::Foreign { path: path.clone(), has_bus: true });
        assert_eq!(look.after(None, &[]), Sight::Unproven { path: path.clone(), has_bus: true });
        add(&path, &(named() + &bus("session.created") + &bus("session.updated")));
        assert_eq!(look.after(Some(SESSION), &due()), Sight::Partly { path: path.clone(), count: 2, of: 3 });
        add(&path, &bus("session.updated"));
        assert_eq!(look.after(Some(SESSION), &due()), Sight::Announces { path, count: 3 });
    }

    #[test]
    fn the_log_of_a_server_that_is_not_the_newest_is_found() {
        let place = Place::new();
        let own = place.log("2026-11-23T003914.log", &first());
        let followed = place.log("2026-11-23T004000.log", &first());
        let look = place.look();
        add(&own, &(named() + &bus("session.created") + &bus("session.updated") + &bus("session.updated")));
        assert_eq!(look.after(Some(SESSION), &due()), Sight::OtherFile { followed, own });
    }

    #[test]
    fn a_log_without_bus_lines_is_known_by_the_session() {
        let place = Place::new();
        let path = place.log("opencode.log", "timestamp=2026-11-23T00:47:30.399Z level=INFO message=x\n");
        let look = place.look();
        assert!(matches!(look.after(Some(SESSION), &due()), Sight::Empty(_)));
        add(&path, &format!("timestamp=2026-11-23T00:47:30.399Z level=INFO message=y session.id={SESSION}\n"));
        assert_eq!(look.after(Some(SESSION), &due()), Sight::Silent { path });
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let place = Place::new();
        let gone = place.0.path().join("gone");
        let look = Look::before(Some(&Source::File(gone.clone())), None, true);
        let sight = look.after(Some(SESSION), &due());
        assert!(matches!(&sight, Sight::Unreadable { kind: io::ErrorKind::NotFound, .. }), "{sight:?}");
        assert_eq!(sight.level(true), Level::Broken);
        assert!(sight.words(false).contains(gone.to_str().unwrap()), "{}", sight.words(false));

        let folder = Look::before(Some(&Source::File(place.0.path().to_owned())), None, true);
        assert!(matches!(folder.after(None, &[]), Sight::Unreadable { .. }));
        assert_eq!(Look::before(None, Some(gone.clone()), false).after(None, &[]), Sight::Elsewhere);
        assert_eq!(Look::before(Some(&Source::Stdin), None, true).after(None, &[]), Sight::Unseen);
        let denied = Sight::Unreadable { path: gone, kind: io::ErrorKind::PermissionDenied, error: String::new() };
        assert_eq!(denied.level(false), Level::Broken);
        assert!(denied.words(false).contains("group"));
    }
}
