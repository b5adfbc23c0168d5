//! Where the bus log comes from, as a person writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the bus log comes from. Written `file:PATH`, `dir:PATH`, `stdin` or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// One file, by its path: whatever file is there, now and after a rotation.
    File(PathBuf),
    /// opencode's log folder: the newest log of a server in it, then the next one when opencode starts again. With several
    /// servers at once the newest is followed, and that the others publish is told as [`Elsewhere`](super::Item::Elsewhere).
    Directory(PathBuf),
    /// The relay's own standard input, until it ends.
    Stdin,
    /// No log is read.
    #[default]
    None,
}

/// Failed to read a source; the message can follow "failed to read the source: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSourceError {
    /// `file:` or `dir:` without a path.
    #[error("`{0}:` needs a path, as in `{0}:/var/log/opencode`")]
    NoPath(&'static str),
    /// A source that is planned.
    #[error(
        "journald is not supported in this release yet; let opencode write its log to a file and use `dir:PATH`, or pipe it in: `journalctl -f -o cat -u UNIT | opencode-relay run --log stdin …`"
    )]
    Journald,
    /// Anything else.
    #[error("not a log source; write `file:PATH`, `dir:PATH`, `stdin` or `none`")]
    Unknown,
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = |path: &str, word| match path {
            "" => Err(ParseSourceError::NoPath(word)),
            path => Ok(PathBuf::from(path)),
        };
        match text.split_once(':') {
            Some(("file", rest)) => Ok(Self::File(path(rest, "file")?)),
            Some(("dir", rest)) => Ok(Self::Directory(path(rest, "dir")?)),
            Some(("journald", _)) => Err(ParseSourceError::Journald),
            None if text == "stdin" => Ok(Self::Stdin),
            None if text == "none" => Ok(Self::None),
            None if text == "journald" => Err(ParseSourceError::Journald),
            _ => Err(ParseSourceError::Unknown),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Stdin => f.write_str("stdin"),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["file:/a b/c:d.log", "dir:relative", "stdin", "none"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!("file:".parse::<Source>(), Err(ParseSourceError::NoPath("file")));
        assert_eq!("dir:".parse::<Source>(), Err(ParseSourceError::NoPath("dir")));
        assert_eq!("journald:opencode".parse::<Source>(), Err(ParseSourceError::Journald));
        for text in ["", "/var/log", "Stdin", "http://x"] {
            assert_eq!(text.parse::<Source>(), Err(ParseSourceError::Unknown), "{text}");
        }
    }
}
