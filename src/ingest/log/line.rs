//! What one line of opencode's log means. Pure: no async, no I/O, no clock.
//!
//! A line is read from its first byte and a bus line has to match to its last one, so a torn line, a line with something
//! before its level, or a value that merely contains the words says nothing. A *whole* forged line cannot be told from a
//! real one (FACTS §2); that is why nothing here carries content.

use std::ops::Range;

use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The longest event type and session id that are believed, in bytes. Real ones stay under 40.
const LONGEST_WORD: usize = 64;

/// The levels, padded to a column as opencode writes them.
const LEVELS: [&[u8]; 4] = [b"INFO  ", b"WARN  ", b"ERROR ", b"DEBUG "];

/// The services whose lines name the session they work on.
const BUSY_SERVICES: [&[u8]; 3] = [b"session.prompt ", b"session.processor ", b"llm "];

/// `2026-11-23T00:39:15`, as opencode writes it: UTC, without a zone.
const TIME: &[u8; 19] = b"0000-00-00T00:00:00";

/// How many of its bytes are the date.
const DATE: usize = 10;

/// What a line means, borrowed from the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// An event of this type is being published.
    Notice {
        /// The event's type.
        kind: &'a str,
    },
    /// This session is being worked on.
    Hint {
        /// The session's id.
        session: &'a str,
    },
    /// An opencode process begins.
    Started,
}

/// The part that all lines of the log begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The second it was written in, in the shape of `2026-11-23T00:39:15`; whether there is such a time is not known.
    pub time: &'a [u8; TIME.len()],
    /// Milliseconds since the process's previous line; negative when the machine's clock was set back.
    pub since_previous: i64,
}

/// Reads a line, without its newline. `None`: the line says nothing about events.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Meaning<'_>> {
    let (_, body) = split_head(line)?;
    meaning(body)
}

/// Splits a line, without its newline, into the part that all lines of the log begin with and what the line says. `None`:
/// it does not begin so.
#[must_use]
pub fn split_head(line: &[u8]) -> Option<(Head<'_>, &[u8])> {
    let rest = LEVELS.iter().find_map(|level| line.strip_prefix(*level))?;
    let (time, rest) = rest.split_first_chunk()?;
    if !is_time(time) {
        return None;
    }
    let rest = rest.strip_prefix(b" +")?;
    let (sign, rest) = match rest.strip_prefix(b"-") {
        Some(rest) => (-1, rest),
        None => (1, rest),
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // 15 digits of milliseconds are 31,000 years, and cannot overflow.
    if digits == 0 || digits > 15 {
        return None;
    }
    let (number, rest) = rest.split_at(digits);
    let number = number.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some((Head { time, since_previous: sign * number }, rest.strip_prefix(b"ms ")?))
}

/// Reads what stands behind a line's head. `None`: it says nothing about events.
#[must_use]
pub fn meaning(body: &[u8]) -> Option<Meaning<'_>> {
    let body = body.strip_prefix(b"service=")?;
    if let Some(rest) = body.strip_prefix(b"bus type=") {
        let kind = rest.strip_suffix(b" publishing")?;
        return Some(Meaning::Notice { kind: word(kind, is_kind_byte)? });
    }
    if let Some(rest) = body.strip_prefix(b"session id=") {
        return rest.ends_with(b" created").then(|| session(rest)).flatten();
    }
    if body.starts_with(b"default version=") {
        return body.ends_with(b" opencode").then_some(Meaning::Started);
    }
    for service in BUSY_SERVICES {
        if let Some(rest) = body.strip_prefix(service) {
            return session_field(rest);
        }
    }
    None
}

/// The arguments that an opencode process was started with, from its first line.
#[must_use]
pub fn started_with(line: &[u8]) -> Option<Vec<String>> {
    const FIELD: &[u8] = b" args=";
    if parse(line) != Some(Meaning::Started) {
        return None;
    }
    let at = memchr::memmem::find(line, FIELD)? + FIELD.len();
    // The array ends where it ends; other fields follow.
    serde_json::Deserializer::from_slice(&line[at..]).into_iter().next()?.ok()
}

/// Whether a line is one of the bus, also one that announces nothing (`subscribing`).
#[must_use]
pub fn is_bus(line: &[u8]) -> bool {
    split_head(line).is_some_and(|(_, body)| body.starts_with(b"service=bus "))
}

impl Head<'_> {
    /// The day it was written on, in the shape of `2026-11-23`; whether there is such a day is not known.
    #[must_use]
    pub fn date(&self) -> [u8; DATE] {
        std::array::from_fn(|at| self.time[at])
    }

    /// When that day began, in seconds since 1970; `None` when there is no such day.
    #[must_use]
    pub fn midnight(&self) -> Option<i64> {
        let year = i16::try_from(self.number(0..4)).ok()?;
        let date =
            Date::new(year, i8::try_from(self.number(5..7)).ok()?, i8::try_from(self.number(8..10)).ok()?).ok()?;
        let zoned = date.to_zoned(TimeZone::UTC).ok()?;
        Some(zoned.timestamp().as_second()).filter(|seconds| *seconds >= 0)
    }

    /// When on that day it was written, in whole seconds since its beginning; `None` when there is no such time.
    #[must_use]
    pub fn since_midnight(&self) -> Option<i64> {
        let (hour, minute, second) = (self.number(11..13), self.number(14..16), self.number(17..19));
        (hour < 24 && minute < 60 && second < 60).then_some((hour * 60 + minute) * 60 + second)
    }

    fn number(&self, digits: Range<usize>) -> i64 {
        self.time[digits].iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
    }
}

/// Whether the bytes have the shape of [`TIME`]. All are looked at whatever the first ones are, which compilers turn into a
/// few instructions.
fn is_time(bytes: &[u8; TIME.len()]) -> bool {
    bytes
        .iter()
        .zip(TIME)
        .fold(true, |good, (have, want)| good & if *want == b'0' { have.is_ascii_digit() } else { have == want })
}

/// The first ` session.id=…` field. The first, because what follows may be text that a user chose.
fn session_field(fields: &[u8]) -> Option<Meaning<'_>> {
    const FIELD: &[u8] = b"session.id=";
    let at = if fields.starts_with(FIELD) { 0 } else { memchr::memmem::find(fields, b" session.id=")? + 1 };
    session(&fields[at + FIELD.len()..])
}

/// The session id that `text` begins with, up to a space or the end.
fn session(text: &[u8]) -> Option<Meaning<'_>> {
    let id = &text[..memchr::memchr(b' ', text).unwrap_or(text.len())];
    let id = word(id, |byte| byte.is_ascii_alphanumeric() || byte == b'_')?;
    (id.len() > "ses_".len() && id.starts_with("ses_")).then_some(Meaning::Hint { session: id })
}

fn word(bytes: &[u8], allowed: impl Fn(u8) -> bool) -> Option<&str> {
    if bytes.is_empty() || bytes.len() > LONGEST_WORD {
        return None;
    }
    // As in `is_time`, all are looked at.
    let good = bytes.iter().fold(true, |good, byte| good & allowed(*byte));
    good.then(|| std::str::from_utf8(bytes).ok()).flatten()
}

fn is_kind_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUS: &str = "INFO  2026-11-23T00:39:15 +38ms service=bus type=message.part.delta publishing";

    #[test]
    fn reads_a_bus_line() {
        assert_eq!(parse(BUS.as_bytes()), Some(Meaning::Notice { kind: "message.part.delta" }));
    }

    #[test]
    fn refuses_what_only_looks_like_a_bus_line() {
        for line in [
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=* subscribing",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=message.updated subscribing",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=message.updated unsubscribing",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type= publishing",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=* publishing",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=a b publishing",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=Message publishing",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=message.updated publishing ",
            "INFO  2026-11-23T00:39:15 +38ms service=bus type=message.updated publishing\r",
            "INFO  2026-11-23T00:39:15 +ms service=bus type=message.updated publishing",
            "INFO  2026-11-23T00:39:15 38ms service=bus type=message.updated publishing",
            "INFO  2026-11-23 00:39:15 +38ms service=bus type=message.updated publishing",
            "INFO 2026-11-23T00:39:15 +38ms service=bus type=message.updated publishing",
            "NOTE  2026-11-23T00:39:15 +38ms service=bus type=message.updated publishing",
            "x INFO  2026-11-23T00:39:15 +38ms service=bus type=message.updated publishing",
            "INFO  2026-11-23T00:39:15 +38ms title=x service=bus type=message.updated publishing",
            "timestamp=2026-11-23T00:47:30.399Z level=INFO run=178457db message=\"event connected\"",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        let long = BUS.replace("message.part.delta", &"a".repeat(LONGEST_WORD + 1));
        assert_eq!(parse(long.as_bytes()), None);
    }

    #[test]
    fn reads_which_session_is_worked_on() {
        let head = "INFO  2026-11-23T00:39:14 +5ms";
        for line in [
            "service=session.prompt session.id=ses_dfa284 step=0 loop",
            "service=session.prompt session.id=ses_dfa284",
            "service=session.processor session.id=ses_dfa284 messageID=msg_1 process",
            "service=llm providerID=mock modelID=mock-1 session.id=ses_dfa284 small=true agent=title mode=primary stream",
            "service=session id=ses_dfa284 slug=x version=1.14.48 directory=/srv/demo title=New session created",
        ] {
            let line = format!("{head} {line}");
            assert_eq!(parse(line.as_bytes()), Some(Meaning::Hint { session: "ses_dfa284" }), "{line}");
        }
        for line in [
            "service=session.prompt status=started resolveTools",
            "service=session.prompt session.id=ses_ loop",
            "service=session.prompt session.id=ses_../../x loop",
            "service=session.prompt session.id=msg_1 loop",
            "service=session id=ses_dfa284 slug=x deleted",
            "service=server session.id=ses_dfa284",
        ] {
            let line = format!("{head} {line}");
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn reads_the_first_line_of_a_process() {
        let line = "INFO  2026-11-23T00:39:14 +105ms service=default version=1.14.48 args=[\"serve\"] opencode";
        assert_eq!(parse(line.as_bytes()), Some(Meaning::Started));
        let line = line.replace("[\"serve\"]", "[\"serve\",\"a b]\"] process_role=main");
        assert_eq!(started_with(line.as_bytes()), Some(vec!["serve".to_owned(), "a b]".to_owned()]));
        assert_eq!(started_with(BUS.as_bytes()), None);
        let line = "INFO  2026-11-23T00:39:14 +105ms service=default creating instance opencode";
        assert_eq!(parse(line.as_bytes()), None);
    }

    /// When a line was written, and the milliseconds since the one before.
    fn stamp(line: &[u8]) -> Option<(i64, i64)> {
        let (head, _) = split_head(line)?;
        Some((head.midnight()? + head.since_midnight()?, head.since_previous))
    }

    #[test]
    fn reads_the_time() {
        assert_eq!(stamp(BUS.as_bytes()), Some((1_795_394_355, 38)));
        assert_eq!(stamp(b"ERROR 1970-01-01T00:00:01 +-7ms x"), Some((1, -7)));
        for line in [
            "INFO  2026-13-23T00:39:15 +38ms x",
            "INFO  2026-02-30T00:39:15 +38ms x",
            "INFO  2026-11-23T24:39:15 +38ms x",
        ] {
            assert_eq!(stamp(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_torn_line_says_nothing() {
        for end in 0..BUS.len() {
            assert_eq!(parse(&BUS.as_bytes()[..end]), None, "{}", &BUS[..end]);
            assert_eq!(parse(&BUS.as_bytes()[end + 1..]), None, "{}", &BUS[end + 1..]);
        }
    }

    proptest! {
        #[test]
        fn never_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
            let _ = stamp(&line);
        }

        #[test]
        fn never_panics_behind_a_good_head(rest in proptest::collection::vec(any::<u8>(), 0..200), digits in "[0-9-]{0,20}") {
            let mut line = format!("INFO  2026-11-23T00:39:15 +{digits}ms service=").into_bytes();
            line.extend(rest);
            let _ = parse(&line);
            let _ = stamp(&line);
        }

        #[test]
        fn finds_what_a_plain_reading_finds(at in 0..BUS.len(), cut in 0_usize..3, put in "[ -~\\r\0\u{e4}]{0,3}") {
            let plain = regex_lite::Regex::new(
                r"^(?:INFO  |WARN  |ERROR |DEBUG )[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2} \+-?[0-9]{1,15}ms service=bus type=([a-z0-9._-]{1,64}) publishing$",
            )
            .unwrap();
            let mut line = BUS.to_owned();
            line.replace_range(at..(at + cut).min(BUS.len()), &put);
            let kind = plain.captures(&line).map(|found| found.get(1).unwrap().as_str());
            prop_assert_eq!(parse(line.as_bytes()), kind.map(|kind| Meaning::Notice { kind }));
        }

        #[test]
        fn a_changed_byte_never_makes_another_meaning(at in 0..BUS.len(), byte in any::<u8>()) {
            let mut line = BUS.as_bytes().to_vec();
            line[at] = byte;
            let same_kind = matches!(parse(&line), None | Some(Meaning::Notice { .. }));
            prop_assert!(same_kind);
        }
    }
}
