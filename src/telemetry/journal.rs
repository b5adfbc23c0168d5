//! Lines for systemd's journal: it keeps the time itself, shows no colours, and takes a line's priority from `<N>` in front
//! of it (sd-daemon(3)).

use std::fmt;
use std::os::fd::AsFd as _;

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as the journal likes it.
#[derive(Debug)]
pub(super) struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        // The priority tells the level.
        Self(Format::default().without_time().with_level(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// Whether standard error leads to the journal: systemd says in `JOURNAL_STREAM` which file that is, and standard error must
/// still be that file (systemd.exec(5)).
pub(super) fn is_behind_stderr() -> bool {
    let Ok(stat) = fstat(std::io::stderr().as_fd()) else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| names(&stream, stat.st_dev, stat.st_ino))
}

/// Whether `device:inode`, in decimal, is this file.
fn names(stream: &str, device: u64, inode: u64) -> bool {
    let parsed = stream.split_once(':').and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    parsed == Some((device, inode))
}

/// The priorities of syslog. Nothing of ours is a notice (5).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(names("8:123", 8, 123));
        for other in ["8:124", "9:123", "8", "", "8:123:1", "8:", ":123", "x:y", " 8:123"] {
            assert!(!names(other, 8, 123), "{other:?}");
        }
    }

    #[test]
    fn levels_are_priorities_of_syslog() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }
}
