//! `decode`: the bus log as JSON lines, one for each event that it announces.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::ingest::log::decode::{Lines, Piece};
use crate::ingest::log::line::{self, Meaning, Stamp};

/// How much is read at a time, in bytes. The times within one read are worked out together.
const READ: usize = 256 * 1024;

/// What can be written behind `decode`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_long_help = "\
EXAMPLES
  opencode-relay decode ~/.local/share/opencode/log/2026-11-23T003914.log
  opencode serve --print-logs 2>&1 | opencode-relay decode

OUTPUT, one line for each event
  {\"time\":\"2026-11-23T00:39:15.123Z\",\"type\":\"message.updated\",\"line\":7}

The log has whole seconds and the milliseconds between lines; together they give the time to about a millisecond, once the
log has crossed a full second.")]
pub struct Flags {
    /// The log; `-` or nothing is standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Failed to decode a log; the messages can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log is not there, or may not be read.
    #[error("open {path}: {source}")]
    Open {
        /// The log.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Reading stopped in the middle.
    #[error("read the log: {0}")]
    Read(io::Error),
    /// The output took nothing more, and not because its reader had seen enough.
    #[error("write the events: {0}")]
    Write(io::Error),
}

/// Writes the events of a log to standard output.
///
/// # Errors
///
/// When the log cannot be read, or the output not written. A reader that goes away (`| head`) is a good end.
pub fn run(flags: &Flags) -> Result<(), Error> {
    let mut input: Box<dyn Read> = match &flags.file {
        Some(path) if path.as_os_str() != "-" => {
            let open = |source| Error::Open { path: path.display().to_string(), source };
            Box::new(File::open(path).map_err(open)?)
        }
        _ => Box::new(io::stdin().lock()),
    };
    decode(&mut input, &mut BufWriter::with_capacity(READ, io::stdout().lock()))
}

/// Writes the events of a log, those of one read together.
fn decode(input: &mut dyn Read, output: &mut dyn Write) -> Result<(), Error> {
    let mut buffer = vec![0; READ];
    let mut lines = Lines::default();
    let mut events = Events::default();
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::Read(error)),
        };
        match count {
            0 => lines.finish(|piece| events.add(piece)),
            _ => lines.push(&buffer[..count], |piece| events.add(piece)),
        }
        match events.write(output).and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Error::Write(error)),
        }
        if count == 0 {
            return Ok(());
        }
    }
}

/// The events of one read, and the clock that goes through all reads.
#[derive(Debug, Default)]
struct Events {
    clock: Option<Clock>,
    /// How many lines there were so far.
    lines: u64,
    /// Since when, in the order of lines, one offset holds for all times; the last is the current one.
    stretches: Vec<Stretch>,
    found: Vec<Found>,
    second: Shown,
}

#[derive(Debug)]
struct Found {
    kind: String,
    line: u64,
    /// Milliseconds since the beginning of the stretch.
    since: i64,
    stretch: usize,
}

/// Lines between which no line is missing.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// The earliest time at which it can have begun, in milliseconds since 1970.
    begins: i64,
}

/// The time of the last line, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct Clock {
    earliest: i64,
    latest: i64,
    /// Since the beginning of the stretch.
    since: i64,
}

impl Events {
    fn add(&mut self, piece: Piece<'_>) {
        self.lines += 1;
        let Piece::Line(text) = piece else { return };
        let Some(stamp) = line::stamp(text) else { return };
        self.tick(stamp);
        let Some(Meaning::Notice { kind }) = line::parse(text) else { return };
        let (Some(clock), Some(stretch)) = (self.clock, self.stretches.len().checked_sub(1)) else { return };
        self.found.push(Found { kind: kind.to_owned(), line: self.lines, since: clock.since, stretch });
    }

    /// Each line says its second and its distance from the line before. So each line narrows down when the whole stretch
    /// began, also for the lines before it.
    fn tick(&mut self, stamp: Stamp) {
        let second = stamp.seconds.saturating_mul(1000);
        let next = self.clock.map(|clock| Clock {
            earliest: (clock.earliest.saturating_add(stamp.since_previous)).max(second),
            latest: (clock.latest.saturating_add(stamp.since_previous)).min(second + 999),
            since: clock.since.saturating_add(stamp.since_previous),
        });
        match next.filter(|clock| clock.earliest <= clock.latest) {
            Some(clock) => {
                self.clock = Some(clock);
                let begins = clock.earliest.saturating_sub(clock.since);
                match self.stretches.last_mut() {
                    Some(stretch) => stretch.begins = begins,
                    None => self.stretches.push(Stretch { begins }),
                }
            }
            // The first line, or lines are missing before this one, or another process wrote it.
            None => {
                self.clock = Some(Clock { earliest: second, latest: second + 999, since: 0 });
                self.stretches.push(Stretch { begins: second });
            }
        }
    }

    fn write(&mut self, output: &mut dyn Write) -> io::Result<()> {
        for found in self.found.drain(..) {
            let time = self.stretches[found.stretch].begins.saturating_add(found.since);
            self.second.write(time, output)?;
            // A type that was read has no byte that JSON would escape.
            writeln!(output, "\"type\":\"{}\",\"line\":{}}}", found.kind, found.line)?;
        }
        // Only the current stretch can still get lines.
        let done = self.stretches.len().saturating_sub(1);
        self.stretches.drain(..done);
        Ok(())
    }
}

/// The text of the last second that was written; many events share one.
#[derive(Debug, Default)]
struct Shown {
    second: Option<i64>,
    text: String,
}

impl Shown {
    fn write(&mut self, time: i64, output: &mut dyn Write) -> io::Result<()> {
        let (second, milliseconds) = (time.div_euclid(1000), time.rem_euclid(1000));
        if self.second != Some(second) {
            let shown = Timestamp::from_second(second).unwrap_or_default().to_string();
            self.text = shown.trim_end_matches('Z').to_owned();
            self.second = Some(second);
        }
        write!(output, "{{\"time\":\"{}.{milliseconds:03}Z\",", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(log: &str) -> String {
        let mut output = Vec::new();
        decode(&mut log.as_bytes(), &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    fn line(time: &str, since: i64, rest: &str) -> String {
        format!("INFO  2026-11-23T00:39:{time} +{since}ms {rest}\n")
    }

    #[test]
    fn tells_time_type_and_line() {
        let log = line("14", 5, "service=server x") + "banner\n" + &line("14", 7, "service=bus type=a.b publishing");
        assert_eq!(decoded(&log), "{\"time\":\"2026-11-23T00:39:14.007Z\",\"type\":\"a.b\",\"line\":3}\n");
    }

    #[test]
    fn a_full_second_sets_the_lines_before_it_right() {
        let bus = "service=bus type=a publishing";
        // The third line is in the next second, so the first was at .890 or later; the fourth says: at .890 at the latest.
        let log = line("14", 0, bus) + &line("14", 100, bus) + &line("15", 10, bus) + &line("15", 999, bus);
        let times: Vec<String> = decoded(&log).lines().map(|line| line[26..32].to_owned()).collect();
        assert_eq!(times, ["14.890", "14.990", "15.000", "15.999"]);
    }

    #[test]
    fn a_missing_line_does_not_spoil_what_follows() {
        let bus = "service=bus type=a publishing";
        let log = line("14", 0, bus) + &line("19", 1, bus) + &line("19", 2, bus) + &line("10", 3, bus);
        let times: Vec<String> = decoded(&log).lines().map(|line| line[26..32].to_owned()).collect();
        assert_eq!(times, ["14.000", "19.000", "19.002", "10.000"]);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_a_good_end() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = line("14", 0, "service=bus type=a publishing");
        assert!(decode(&mut log.as_bytes(), &mut Closed).is_ok());
    }
}
