//! `decode`: the bus log as JSON lines, one for each event that it announces.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::ingest::log::decode::{Lines, Piece};
use crate::ingest::log::line::{self, Head, Meaning};

/// How much is read at a time, in bytes. The times within one read are worked out together.
const READ: usize = 128 * 1024;

/// A day, in milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1000;

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
    decode(&mut input, &mut io::stdout().lock())
}

/// Writes the events of a log, those of one read together.
fn decode(input: &mut dyn Read, output: &mut dyn Write) -> Result<(), Error> {
    let mut buffer = vec![0; READ];
    let mut lines = Lines::default();
    let mut events = Events::default();
    let mut text = Vec::new();
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
        text.clear();
        events.take(&mut text);
        match output.write_all(&text).and_then(|()| output.flush()) {
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
    /// The last day that a line had, as it stands there, and when it began, in seconds since 1970.
    day: Option<([u8; 10], i64)>,
    /// How many lines there were so far.
    lines: u64,
    /// Since when, in the order of lines, one offset holds for all times; the last is the current one.
    stretches: Vec<Stretch>,
    found: Vec<Found>,
    /// The types of those found, without anything between them.
    kinds: String,
    shown: Shown,
}

#[derive(Debug)]
struct Found {
    /// Where in `kinds` its type ends.
    kind_end: usize,
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
        let Piece::Line(line) = piece else { return };
        let Some((head, body)) = line::split_head(line) else { return };
        let Some(seconds) = self.seconds(head) else { return };
        self.tick(seconds, head.since_previous);
        let Some(Meaning::Notice { kind }) = line::meaning(body) else { return };
        let (Some(clock), Some(stretch)) = (self.clock, self.stretches.len().checked_sub(1)) else { return };
        self.kinds.push_str(kind);
        self.found.push(Found { kind_end: self.kinds.len(), line: self.lines, since: clock.since, stretch });
    }

    /// When a line was written, in seconds since 1970.
    fn seconds(&mut self, head: Head<'_>) -> Option<i64> {
        let date = head.date();
        let midnight = match self.day {
            Some((known, midnight)) if known == date => midnight,
            _ => {
                let midnight = head.midnight()?;
                self.day = Some((date, midnight));
                midnight
            }
        };
        Some(midnight + head.since_midnight()?)
    }

    /// Each line says its second and its distance from the line before. So each line narrows down when the whole stretch
    /// began, also for the lines before it.
    fn tick(&mut self, seconds: i64, since_previous: i64) {
        let second = seconds.saturating_mul(1000);
        let next = self.clock.map(|clock| Clock {
            earliest: (clock.earliest.saturating_add(since_previous)).max(second),
            latest: (clock.latest.saturating_add(since_previous)).min(second + 999),
            since: clock.since.saturating_add(since_previous),
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

    /// Adds the events found since the last time to `text`, one line each.
    fn take(&mut self, text: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        let mut kind_start = 0;
        for found in self.found.drain(..) {
            let time = self.stretches[found.stretch].begins.saturating_add(found.since);
            text.extend_from_slice(self.shown.at(time));
            // A type that was read has no byte that JSON would escape.
            text.extend_from_slice(&self.kinds.as_bytes()[kind_start..found.kind_end]);
            text.extend_from_slice(b"\",\"line\":");
            text.extend_from_slice(number.format(found.line).as_bytes());
            text.extend_from_slice(b"}\n");
            kind_start = found.kind_end;
        }
        self.kinds.clear();
        // Only the current stretch can still get lines.
        let done = self.stretches.len().saturating_sub(1);
        self.stretches.drain(..done);
    }
}

/// How the line of an event begins, up to its type. Only the digits change, and those of the date once a day.
#[derive(Debug)]
struct Shown {
    text: [u8; 43],
    /// Which day it shows, since 1970.
    day: i64,
}

impl Default for Shown {
    fn default() -> Self {
        Self { text: *br#"{"time":"1970-01-01T00:00:00.000Z","type":""#, day: 0 }
    }
}

impl Shown {
    /// With a time in milliseconds since 1970; years of more than four digits, which only a forged log has, count as 1970.
    fn at(&mut self, time: i64) -> &[u8] {
        let (day, of_day) = (time.div_euclid(DAY), time.rem_euclid(DAY));
        if day != self.day {
            let date = Timestamp::from_millisecond(time).unwrap_or_default().to_zoned(TimeZone::UTC).date();
            let date = if date.year() < 0 { Date::constant(1970, 1, 1) } else { date };
            self.digits(9..13, date.year().into());
            self.digits(14..16, date.month().into());
            self.digits(17..19, date.day().into());
            self.day = day;
        }
        let seconds = of_day / 1000;
        self.digits(20..22, seconds / 3600);
        self.digits(23..25, seconds / 60 % 60);
        self.digits(26..28, seconds % 60);
        self.digits(29..32, of_day % 1000);
        &self.text
    }

    fn digits(&mut self, place: Range<usize>, mut number: i64) {
        for digit in self.text[place].iter_mut().rev() {
            *digit = b"0123456789"[usize::try_from(number % 10).unwrap_or(0)];
            number /= 10;
        }
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

    #[test]
    fn a_time_is_shown_as_the_calendar_has_it() {
        let mut shown = Shown::default();
        for time in [0, 999, 951_782_399_999, 951_782_400_000, 1_795_394_354_007, -1, 253_402_207_199_999, 0] {
            let text = std::str::from_utf8(shown.at(time)).unwrap().to_owned();
            let wanted = Timestamp::from_millisecond(time).unwrap().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
            assert_eq!(text, format!(r#"{{"time":"{wanted}","type":""#));
        }
        assert!(shown.at(i64::MAX).starts_with(br#"{"time":"1970-01-01T"#));
        assert!(shown.at(i64::MIN).starts_with(br#"{"time":"1970-01-01T"#));
    }

    /// Gives a few bytes at a time.
    struct Slow<'a>(std::slice::Chunks<'a, u8>);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.next().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    proptest::proptest! {
        #[test]
        fn finds_what_a_plain_reading_finds(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "INFO  2026-11-23T00:39:14 +5ms ", "ERROR 2026-11-23T00:39:15 +-20ms ", "INFO  2026-11-23T00:39:15 +1200ms ",
                "service=bus type=", "a", "message.part.delta", " publishing\n", " publishing\r\n", " publishing", "\n", "\0", " ",
            ]), 0..60),
            size in 1_usize..300,
        ) {
            let log = parts.concat();
            let plain = regex_lite::Regex::new(
                r"^(?:INFO |ERROR) [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2} \+-?[0-9]+ms service=bus type=([a-z.]{1,64}) publishing$",
            )
            .unwrap();
            let expected: Vec<(String, usize)> = log
                .split('\n')
                .enumerate()
                .filter_map(|(before, line)| Some((plain.captures(line)?[1].to_owned(), before + 1)))
                .collect();
            let mut output = Vec::new();
            decode(&mut Slow(log.as_bytes().chunks(size)), &mut output).unwrap();
            let found: Vec<(String, usize)> = output
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| {
                    let event: serde_json::Value = serde_json::from_slice(line).unwrap();
                    event["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
                    (event["type"].as_str().unwrap().to_owned(), usize::try_from(event["line"].as_u64().unwrap()).unwrap())
                })
                .collect();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
