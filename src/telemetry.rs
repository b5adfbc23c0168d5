//! The relay's own log, on standard error; standard output belongs to the commands' results.
//!
//! A log must never harm what it reports on: when nobody takes standard error, or it is closed, lines are lost in silence.
//! Nor may what it reports on harm the log. One event is one line, whatever others put into it: names, paths and reasons come
//! from clients, from opencode and from its sessions' titles.

mod journal;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self as layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::printable;

/// The longest line in bytes. A longer one is cut, or in JSON, where a cut one would be none, left out; both say so. The journal
/// splits lines at 48 KiB.
const LINE_LIMIT: usize = 47 << 10;

/// The libraries below say with `debug` and `trace` what passes through them, queries and headers with it, and those can
/// hold passwords. Whatever the filter says, only ours is shown below this level.
const LIBRARIES: Level = Level::INFO;

/// How the lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As [`Format::Journal`] where standard error leads to systemd's journal, as [`Format::Text`] elsewhere.
    #[default]
    Auto,
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object in each line.
    Json,
    /// For systemd's journal: the priority as `<N>` in front, no time.
    Journal,
}

impl Format {
    /// What [`Format::Auto`] means here; never that.
    fn resolve(self) -> Self {
        match self {
            Self::Auto if journal::is_behind_stderr() => Self::Journal,
            Self::Auto => Self::Text,
            chosen => chosen,
        }
    }
}

/// Failed to set the log up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is none.
    #[error("read the log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is a log already.
    #[error("set the log up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The log is gone.
    #[error("change what is logged: {0}")]
    Gone(#[from] reload::Error),
}

/// Sets the log of this process up. `filter` is a level, or levels by module: `info,opencode_relay::proxy=debug`.
///
/// # Errors
///
/// When the filter is none, or the log was set up before.
pub fn init(format: Format, filter: &str) -> Result<Filter, Error> {
    let (filter, level) = reload::Layer::new(filter.parse::<Targets>()?);
    let format = format.resolve();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // `log_internal_errors` would print to the very standard error that failed, and panic over that.
    let escape = match format {
        Format::Auto | Format::Text => Escape::Text { colour },
        Format::Journal => Escape::Text { colour: false },
        Format::Json => Escape::Json,
    };
    let layer = layer::layer().with_writer(Stderr(escape)).with_timer(Utc).log_internal_errors(false);
    let layer = match format {
        Format::Auto | Format::Text => layer.with_ansi(colour).boxed(),
        Format::Journal => layer.with_ansi(false).event_format(journal::Journal::default()).boxed(),
        Format::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let ours = filter_fn(|event| is_shown(event.target(), *event.level()));
    tracing_subscriber::registry().with(layer.with_filter(filter.and(ours))).try_init()?;
    Ok(Filter(level))
}

/// What is shown, to be changed while the relay runs.
#[derive(Clone, Debug)]
pub struct Filter(reload::Handle<Targets, Registry>);

impl Filter {
    /// Shows something else from now on; `filter` is as for [`init`].
    ///
    /// # Errors
    ///
    /// When the filter is none.
    pub fn set(&self, filter: &str) -> Result<(), Error> {
        Ok(self.0.reload(filter.parse::<Targets>()?)?)
    }
}

/// Whether the filter is asked at all.
fn is_shown(target: &str, level: Level) -> bool {
    let is_ours =
        target.strip_prefix(env!("CARGO_CRATE_NAME")).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    is_ours || level <= LIBRARIES
}

/// How characters are written that would do something to a terminal or a reader instead of being shown.
#[derive(Clone, Copy, Debug)]
enum Escape {
    /// `\u{202e}`, and the line break `\n`. With colours, escape sequences are the formatter's own: it escapes those in
    /// values itself.
    Text { colour: bool },
    /// `\u202e`; in JSON such characters stand in strings only.
    Json,
}

/// Standard error without its failures.
#[derive(Clone, Copy, Debug)]
struct Stderr(Escape);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The formatter hands over one whole event at a time; a part of one is of no use to anybody, so what cannot be
        // written is dropped.
        let _ = io::stderr().write_all(one_line(bytes, self.0).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// One event as one line that shows everything in it.
fn one_line(event: &[u8], escape: Escape) -> String {
    let event = String::from_utf8_lossy(event.strip_suffix(b"\n").unwrap_or(event));
    let mut line = String::with_capacity(event.len().min(LINE_LIMIT) + 1);
    for letter in event.chars() {
        if line.len() > LINE_LIMIT {
            line = too_long(line, event.len(), escape);
            break;
        }
        match escape {
            Escape::Text { colour: true } if letter == '\x1b' => line.push(letter),
            Escape::Text { .. } => printable::push_text(letter, &mut line),
            Escape::Json => printable::push_json(letter, &mut line),
        }
    }
    line.push('\n');
    line
}

fn too_long(mut begun: String, length: usize, escape: Escape) -> String {
    match escape {
        Escape::Text { .. } => {
            let _ = write!(begun, "… ({length} bytes, cut)");
            begun
        }
        Escape::Json => format!(
            r#"{{"timestamp":"{:.3}","level":"WARN","message":"a line of the log was left out: it had {length} bytes"}}"#,
            jiff::Timestamp::now()
        ),
    }
}

/// The time in UTC to the millisecond, as opencode's own log has it.
#[derive(Clone, Copy, Debug)]
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut layer::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:.3}", jiff::Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_time_in_utc_to_the_millisecond() {
        let mut text = String::new();
        Utc.format_time(&mut layer::format::Writer::new(&mut text)).unwrap();
        assert_eq!(text.len(), "2026-11-23T00:39:15.123Z".len(), "{text}");
        assert!(text.ends_with('Z'), "{text}");
    }

    #[test]
    fn an_event_is_one_line() {
        let hostile = "a\nb\r\x1b[31m\0\u{85}\u{202e}\u{2028}\u{7f}\té…\n".as_bytes();
        let text = one_line(hostile, Escape::Text { colour: false });
        assert_eq!(text, "a\\nb\\r\\u{1b}[31m\\u{0}\\u{85}\\u{202e}\\u{2028}\\u{7f}\\té…\n");
        assert_eq!(one_line(b"\x1b[2mx\x1b[0m\n", Escape::Text { colour: true }), "\x1b[2mx\x1b[0m\n");
        let json = one_line("{\"a\":\"\u{202e}\u{7f}\"}\n".as_bytes(), Escape::Json);
        assert_eq!(json, "{\"a\":\"\\u202e\\u007f\"}\n");
        assert_eq!(one_line(b"a\xffb", Escape::Json), "a\u{fffd}b\n");
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let long = "x".repeat(10 << 20);
        let text = one_line(long.as_bytes(), Escape::Text { colour: false });
        assert!(text.len() < LINE_LIMIT + 100 && text.ends_with("… (10485760 bytes, cut)\n"));
        let json: serde_json::Value = serde_json::from_str(&one_line(long.as_bytes(), Escape::Json)).unwrap();
        assert_eq!(json["level"], "WARN");
    }

    #[test]
    fn libraries_are_never_heard_below_info() {
        for target in ["opencode_relay", "opencode_relay::proxy"] {
            assert!(is_shown(target, Level::TRACE));
        }
        for target in ["h2::server", "hyper::proto", "opencode_relay_other", ""] {
            assert!(!is_shown(target, Level::DEBUG), "{target}");
            assert!(is_shown(target, Level::INFO));
        }
    }

    #[test]
    fn refuses_a_bad_filter() {
        assert!(matches!(init(Format::Text, "a=b=c"), Err(Error::Filter(_))));
    }
}
