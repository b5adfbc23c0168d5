//! opencode's log folder: which of its files is the server's.
//!
//! Every opencode command begins a log there, also `opencode run --attach …` and `opencode models`. So the newest file is
//! often a client's, and following it would lose the server's. The first line of each tells how it was started.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::line;

/// How much of a log is read for its first line, in bytes. A first line beyond that says nothing.
const FIRST_LINE: u64 = 16 * 1024;

/// The subcommands that do not serve, up to 1.15.13; later releases write no bus lines.
const CLIENTS: [&str; 22] = [
    "acp",
    "agent",
    "attach",
    "auth",
    "completion",
    "db",
    "debug",
    "export",
    "generate",
    "github",
    "import",
    "mcp",
    "models",
    "plugin",
    "pr",
    "providers",
    "run",
    "session",
    "stats",
    "tui",
    "uninstall",
    "upgrade",
];

/// What kind of process writes a log. A later one is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A command that ends soon, or works for another server.
    Client,
    /// opencode on a terminal, which has a server too, or something unknown.
    Screen,
    /// `opencode serve` or `opencode web`.
    Server,
}

/// The log that `dir:` begins with in this folder, or why there is none, and what to do.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn choose(path: &Path) -> io::Result<Result<PathBuf, String>> {
    let mut folder = Folder::new(path.to_owned());
    Ok(folder.newest()?.ok_or_else(|| folder.why_none()))
}

/// A log folder, and what is known about its files.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Only what is certain: a log whose first line is not whole is looked at again. Has no names that are gone.
    kinds: BTreeMap<OsString, Kind>,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, kinds: BTreeMap::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The log to begin with: the newest of a server, else the newest that is no client's.
    pub(super) fn newest(&mut self) -> io::Result<Option<PathBuf>> {
        self.look()?;
        let candidates = self.kinds.iter().filter(|(_, kind)| **kind > Kind::Client);
        Ok(candidates.max_by_key(|(name, kind)| (**kind, *name)).map(|(name, _)| self.path.join(name)))
    }

    /// The log that follows the one of this name: a server's only by a server's. The next one, not the newest, so that none
    /// is left out when opencode started twice between two looks.
    pub(super) fn after(&mut self, current: &OsStr) -> Option<PathBuf> {
        // A log that opencode has cleared away is still being read; it had been newer than all that are left.
        let kind = self.kinds.get(current).copied();
        self.look().ok()?;
        if let Some(kind) = kind {
            self.kinds.insert(current.to_owned(), kind);
        }
        let least = kind.unwrap_or(Kind::Server).max(Kind::Screen);
        let newer = self.kinds.iter().find(|(name, kind)| name.as_os_str() > current && **kind >= least);
        newer.map(|(name, _)| self.path.join(name))
    }

    /// The names of the logs that are there, as of the last look.
    pub(super) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.kinds.keys().map(OsString::as_os_str)
    }

    /// All files of the folder, logs or not.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        Ok(std::fs::read_dir(&self.path)?.flatten().map(|entry| entry.path()).collect())
    }

    /// Why there is no log to follow, and what to do.
    pub(super) fn why_none(&self) -> String {
        let shown = self.path.display();
        if !self.kinds.is_empty() {
            return format!(
                "{shown} has only logs of commands that do not serve; start `opencode serve` without --print-logs, again if its log was cleared away"
            );
        }
        if self.path.join("opencode.log").exists() {
            return format!(
                "{shown} has only opencode.log, which opencode 1.17 and newer writes without bus lines; use --log none for those versions"
            );
        }
        format!(
            "{shown} has no log of opencode (YYYY-MM-DDTHHMMSS.log); start opencode without --print-logs, and check that this is its log folder"
        )
    }

    /// Reads which logs there are, and of the new ones the first line.
    fn look(&mut self) -> io::Result<()> {
        let mut kinds = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path)? {
            let Ok(name) = entry.map(|entry| entry.file_name()) else { continue };
            if !is_log_name(name.as_encoded_bytes()) {
                continue;
            }
            let known = self.kinds.get(&name).copied().or_else(|| kind_of(&self.path.join(&name)));
            if let Some(kind) = known {
                kinds.insert(name, kind);
            }
        }
        self.kinds = kinds;
        Ok(())
    }
}

/// Logs are named by their start: `2026-11-23T003914.log`. From 1.17 on there is also an `opencode.log` that several
/// processes share and that has no bus lines.
fn is_log_name(name: &[u8]) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T000000.log";
    let same = |(have, want): (&u8, &u8)| if *want == b'0' { have.is_ascii_digit() } else { have == want };
    name.len() == SHAPE.len() && name.iter().zip(SHAPE).all(same)
}

/// What kind of process writes this log; `None` while its first line is not whole.
fn kind_of(path: &Path) -> Option<Kind> {
    let mut first = Vec::new();
    File::open(path).and_then(|file| file.take(FIRST_LINE).read_to_end(&mut first)).ok()?;
    match memchr::memchr(b'\n', &first) {
        Some(end) => first.truncate(end),
        None if (first.len() as u64) < FIRST_LINE => return None,
        None => return Some(Kind::Screen),
    }
    let Some(arguments) = line::started_with(&first) else { return Some(Kind::Screen) };
    let subcommand = arguments.iter().find(|argument| !argument.starts_with('-'));
    if subcommand.is_some_and(|word| CLIENTS.contains(&word.as_str())) {
        return Some(Kind::Client);
    }
    // Anywhere: an option's value may stand before it.
    let serves = arguments.iter().any(|argument| argument == "serve" || argument == "web");
    Some(if serves { Kind::Server } else { Kind::Screen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_servers_from_clients() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("log");
        for (arguments, expected) in [
            ("[\"serve\"]", Kind::Server),
            ("[\"--log-level\",\"DEBUG\",\"serve\"]", Kind::Server),
            ("[\"web\",\"--port\",\"0\"]", Kind::Server),
            ("[]", Kind::Screen),
            ("[\"--port\",\"4096\"]", Kind::Screen),
            ("[\"run\",\"please\",\"serve\"]", Kind::Client),
            ("[\"models\"]", Kind::Client),
            ("[broken", Kind::Screen),
        ] {
            let line =
                format!("INFO  2026-11-23T00:39:20 +1ms service=default version=1.14.48 args={arguments} opencode");
            std::fs::write(&path, &line).unwrap();
            assert_eq!(kind_of(&path), None, "{line}");
            std::fs::write(&path, line.clone() + "\n").unwrap();
            assert_eq!(kind_of(&path), Some(expected), "{line}");
        }
        std::fs::write(&path, vec![b'x'; 20_000]).unwrap();
        assert_eq!(kind_of(&path), Some(Kind::Screen));
        assert_eq!(kind_of(&folder.path().join("gone")), None);
    }
}
