//! Where the bus log comes from, as a person writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the bus log comes from. Written `file:PATH`, `dir:PATH`, `journald:UNIT`, `stdin` or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// One file, by its path: whatever file is there, now and after a rotation.
    File(PathBuf),
    /// opencode's log folder: the newest log of a server in it, then the next one when opencode starts again. With several
    /// servers at once the newest is followed, and that the others publish is told as [`Elsewhere`](super::Item::Elsewhere).
    Directory(PathBuf),
    /// What this systemd unit writes to its standard output and error, as the journal of systemd keeps it. The unit's
    /// whole name: at most 255 of `[A-Za-z0-9:_.@\\-]`.
    Journald(String),
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
    /// `journald:` with something that is no unit.
    #[error("`journald:` needs the name of one systemd unit, as in `journald:opencode.service`")]
    NoUnit,
    /// Anything else.
    #[error("not a log source; write `file:PATH`, `dir:PATH`, `journald:UNIT`, `stdin` or `none`")]
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
            Some(("journald", unit)) => self::unit(unit).map(Self::Journald).ok_or(ParseSourceError::NoUnit),
            None if text == "stdin" => Ok(Self::Stdin),
            None if text == "none" => Ok(Self::None),
            None if text == "journald" => Err(ParseSourceError::NoUnit),
            _ => Err(ParseSourceError::Unknown),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Journald(unit) => write!(f, "journald:{unit}"),
            Self::Stdin => f.write_str("stdin"),
            Self::None => f.write_str("none"),
        }
    }
}

/// The whole name of a unit; `.service` may be left out.
fn unit(name: &str) -> Option<String> {
    /// Of all kinds, those whose processes write something (systemd.unit(5)).
    const KINDS: [&str; 2] = [".service", ".scope"];
    const LONGEST: usize = 255;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b":_.@\\-".contains(&byte);
    let is_whole = KINDS.iter().any(|kind| name.len() > kind.len() && name.ends_with(kind));
    let whole = if is_whole { name.to_owned() } else { format!("{name}.service") };
    (!name.is_empty() && whole.len() <= LONGEST && whole.bytes().all(is_good) && !KINDS.contains(&name))
        .then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["file:/a b/c:d.log", "dir:relative", "journald:a\\x2d@b.service", "stdin", "none"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_unit_is_named_as_for_systemctl() {
        for (text, unit) in [("opencode", "opencode.service"), ("a.b", "a.b.service"), ("x.scope", "x.scope")] {
            assert_eq!(format!("journald:{text}").parse(), Ok(Source::Journald(unit.to_owned())));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!("file:".parse::<Source>(), Err(ParseSourceError::NoPath("file")));
        assert_eq!("dir:".parse::<Source>(), Err(ParseSourceError::NoPath("dir")));
        for unit in ["", ":", ":.service", ":a b", ":open*", ":/run/x"] {
            assert_eq!(format!("journald{unit}").parse::<Source>(), Err(ParseSourceError::NoUnit), "{unit}");
        }
        for text in ["", "/var/log", "Stdin", "http://x"] {
            assert_eq!(text.parse::<Source>(), Err(ParseSourceError::Unknown), "{text}");
        }
    }
}
