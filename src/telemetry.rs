//! The relay's own log, on standard error; standard output belongs to the commands' results.
//!
//! A log must never harm what it reports on: when nobody takes standard error, or it is closed, lines are lost in silence.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self as layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How the lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
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
}

/// Sets the log of this process up. `filter` is a level, or levels by module: `info,opencode_relay::proxy=debug`.
///
/// # Errors
///
/// When the filter is none, or the log was set up before.
pub fn init(format: Format, filter: &str) -> Result<(), Error> {
    let filter: Targets = filter.parse()?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // `log_internal_errors` would print to the very standard error that failed, and panic over that.
    let layer = layer::layer().with_writer(Stderr).with_timer(Utc).log_internal_errors(false);
    let layer = match format {
        Format::Text => layer.with_ansi(colour).boxed(),
        Format::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

/// Standard error without its failures.
#[derive(Clone, Copy, Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whole lines come here; a part of one is of no use to anybody, so what cannot be written is dropped.
        let _ = io::stderr().write_all(bytes);
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
    fn refuses_a_bad_filter() {
        assert!(matches!(init(Format::Text, "a=b=c"), Err(Error::Filter(_))));
    }
}
