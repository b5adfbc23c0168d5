//! What `journalctl -o json` prints, turned back into the lines that a unit wrote. Pure: no async, no I/O, no clock.
//!
//! journald cuts a line that is longer than its `LineMax=` (48 KiB) into entries; they are put together again here, so
//! nothing is lost by it. Fields that begin with `_` are journald's own word and cannot be forged by who writes; the
//! message is as untrusted as any log line.

use std::borrow::Cow;

use serde::Deserialize;

use super::super::Item;
use super::super::decode::{Decoder, Lines, Piece};

/// Whose word an entry is when it is journald's own.
const DRIVER: &str = "driver";

/// An entry, as far as it matters: `journalctl` is asked for these fields only.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "__CURSOR", borrow)]
    cursor: Cow<'a, str>,
    #[serde(rename = "MESSAGE", borrow)]
    message: Option<Message<'a>>,
    /// `line-max` where the line goes on in the next entry of this stream.
    #[serde(rename = "_LINE_BREAK", borrow)]
    line_break: Option<Cow<'a, str>>,
    /// Which connection to journald it came by: one for each service's standard output.
    #[serde(rename = "_STREAM_ID", borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(rename = "_TRANSPORT", borrow)]
    transport: Option<Cow<'a, str>>,
    #[serde(rename = "N_DROPPED", borrow)]
    dropped: Option<Cow<'a, str>>,
}

/// A message is a text, or its bytes as numbers where it is none, or several where a field stands twice.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Bytes(Vec<u8>),
    Other(serde::de::IgnoredAny),
}

/// What some output of `journalctl` said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) items: Vec<Item>,
    /// Whether there was any entry, also one that says nothing.
    pub(super) any: bool,
    /// How many lines journald says it dropped, because the unit wrote more than its rate limit lets pass.
    pub(super) dropped: u64,
}

/// Reads the output of one `journalctl`.
#[derive(Debug, Default)]
pub(super) struct Entries {
    output: Lines,
    decoder: Decoder,
    /// Whose line has begun and not ended.
    stream: Option<String>,
    /// What the first entry has to be: it was read before.
    expected: Option<String>,
    /// Whether it may be another.
    may_be_gone: bool,
    is_lost: bool,
    /// The last entry after which no line is unfinished.
    cursor: Option<String>,
}

impl Entries {
    /// For an output that begins with the entry at this cursor, which was read before. With another one in its place it
    /// [is lost](Self::is_lost).
    pub(super) fn after(cursor: Option<String>) -> Self {
        Self { expected: cursor.clone(), cursor, ..Self::default() }
    }

    /// The same, but another one in its place means that it is gone, and perhaps others after it: a gap.
    pub(super) fn after_if_there(cursor: Option<String>) -> Self {
        Self { may_be_gone: true, ..Self::after(cursor) }
    }

    /// Whether the output does not begin where it should. Nothing of it is read then.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Where reading goes on: after this entry.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Takes the next bytes of the output.
    pub(super) fn push(&mut self, chunk: &[u8], found: &mut Found) {
        // The cutter's callback needs the rest of us.
        let mut output = std::mem::take(&mut self.output);
        output.push(chunk, |piece| self.take(piece, found));
        self.output = output;
    }

    fn take(&mut self, piece: Piece<'_>, found: &mut Found) {
        let line = match piece {
            Piece::Line(line) => line,
            Piece::TooLong(_) => return self.give_up("line-too-long", found),
        };
        // `-- No entries --` and the like are said to people.
        if !line.starts_with(b"{") || self.is_lost {
            return;
        }
        match serde_json::from_slice::<Entry<'_>>(line) {
            Ok(entry) => self.read(&entry, found),
            Err(_) => self.give_up("unreadable", found),
        }
    }

    fn read(&mut self, entry: &Entry<'_>, found: &mut Found) {
        found.any = true;
        let goes_on = entry.line_break.as_deref() == Some("line-max");
        match self.expected.take() {
            None => {}
            Some(expected) if expected == entry.cursor => {
                if goes_on {
                    self.stream = entry.stream.as_deref().map(str::to_owned);
                    self.decoder = Decoder::inside_too_long_line();
                }
                return;
            }
            Some(_) if self.may_be_gone => found.items.push(Item::Gap { reason: "rotated-away" }),
            Some(_) => return self.is_lost = true,
        }
        if entry.transport.as_deref() == Some(DRIVER) {
            found.items.push(Item::Gap { reason: "rate-limited" });
            found.dropped += entry.dropped.as_deref().and_then(|count| count.parse().ok()).unwrap_or(1);
        } else {
            self.read_line(entry, goes_on, found);
        }
        if self.stream.is_none() {
            self.cursor = Some(entry.cursor.clone().into_owned());
        }
    }

    fn read_line(&mut self, entry: &Entry<'_>, goes_on: bool, found: &mut Found) {
        let message = match &entry.message {
            Some(Message::Text(text)) => text.as_bytes(),
            Some(Message::Bytes(bytes)) => bytes,
            Some(Message::Other(_)) | None => return self.give_up("unreadable", found),
        };
        let stream = entry.stream.as_deref().unwrap_or_default();
        if self.stream.as_ref().is_some_and(|begun| begun != stream) {
            self.give_up("unfinished-line", found);
        }
        self.decoder.push(message, &mut found.items);
        if goes_on {
            self.stream.get_or_insert_with(|| stream.to_owned());
        } else {
            self.decoder.push(b"\n", &mut found.items);
            self.stream = None;
        }
    }

    /// Counts what cannot be read, and with it a line that it may have been a part of.
    fn give_up(&mut self, reason: &'static str, found: &mut Found) {
        found.items.push(Item::Gap { reason });
        self.decoder.forget_partial();
        self.stream = None;
    }
}

/// Where the last entry of a whole output is.
pub(super) fn last_cursor(output: &[u8]) -> Option<String> {
    let entry =
        output.split(|byte| *byte == b'\n').rev().find_map(|line| serde_json::from_slice::<Entry<'_>>(line).ok());
    entry.map(|entry| entry.cursor.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::super::decode::LONGEST_LINE;
    use super::*;

    const LINE: &str = "INFO  2026-11-23T00:39:14 +5ms service=bus type=session.idle publishing";

    fn idle() -> Item {
        Item::Notice { kind: "session.idle".into() }
    }

    fn gap(reason: &'static str) -> Item {
        Item::Gap { reason }
    }

    /// An entry of the unit's standard output.
    fn entry(cursor: &str, message: impl Into<Value>) -> Value {
        json!({
            "__CURSOR": cursor, "_BOOT_ID": "b", "__REALTIME_TIMESTAMP": "1", "MESSAGE": message.into(),
            "_TRANSPORT": "stdout", "_STREAM_ID": "one",
        })
    }

    /// A part of a line of this stream; `break` as journald writes it.
    fn part(cursor: &str, stream: &str, message: &str, line_break: &str) -> Value {
        let mut entry = entry(cursor, message);
        entry["_STREAM_ID"] = stream.into();
        if !line_break.is_empty() {
            entry["_LINE_BREAK"] = line_break.into();
        }
        entry
    }

    fn output(entries: &[Value]) -> Vec<u8> {
        entries.iter().flat_map(|entry| (entry.to_string() + "\n").into_bytes()).collect()
    }

    fn read(entries: &mut Entries, output: &[u8], size: usize) -> Found {
        let mut found = Found::default();
        for chunk in output.chunks(size) {
            entries.push(chunk, &mut found);
        }
        found
    }

    /// What is found in these entries and where reading goes on then, however they are cut.
    fn found(cursor: Option<&str>, all: &[Value]) -> (Found, Option<String>) {
        let all = output(all);
        let mut results = [1, 7, 1000, all.len().max(1)].into_iter().map(|size| {
            let mut entries = Entries::after(cursor.map(str::to_owned));
            (read(&mut entries, &all, size), entries.cursor.clone())
        });
        let first = results.next().unwrap();
        assert!(results.all(|result| result == first));
        first
    }

    fn items(cursor: Option<&str>, all: &[Value]) -> (Vec<Item>, Option<String>) {
        let (found, cursor) = found(cursor, all);
        (found.items, cursor)
    }

    #[test]
    fn reads_messages_in_each_of_their_forms() {
        let bytes: Vec<u8> = LINE.bytes().collect();
        let strange = [b"\x1b[1m \xff ", LINE.as_bytes()].concat();
        let all = [entry("1", LINE), entry("2", bytes), entry("3", strange), entry("4", "Listening…")];
        assert_eq!(items(None, &all), (vec![idle(), idle()], Some("4".into())));
    }

    #[test]
    fn what_cannot_be_read_is_a_gap() {
        for message in [Value::Null, json!([LINE, LINE]), json!([300]), json!({})] {
            let all = [entry("1", message.clone()), entry("2", LINE)];
            assert_eq!(items(None, &all), (vec![gap("unreadable"), idle()], Some("2".into())), "{message}");
        }
        let mut entries = Entries::default();
        let said = read(&mut entries, b"{\"__CURSOR\":1}\n-- No entries --\n{torn\n", 5);
        assert_eq!(said.items, [gap("unreadable"), gap("unreadable")]);
        assert_eq!(entries.cursor(), None);
    }

    #[test]
    fn the_entry_that_was_read_before_is_left_out() {
        let all = [entry("1", LINE), entry("2", "x"), entry("3", LINE)];
        assert_eq!(items(Some("1"), &all), (vec![idle()], Some("3".into())));
        assert_eq!(items(Some("1"), &[]), (vec![], Some("1".into())));
    }

    #[test]
    fn an_entry_that_is_gone_is_a_gap() {
        let all = [entry("2", LINE)];
        let mut entries = Entries::after(Some("1".to_owned()));
        assert_eq!((read(&mut entries, &output(&all), 7).items, entries.is_lost()), (vec![], true));
        let mut entries = Entries::after_if_there(Some("1".to_owned()));
        assert_eq!(read(&mut entries, &output(&all), 7).items, [gap("rotated-away"), idle()]);
        assert_eq!((entries.cursor(), entries.is_lost()), (Some("2"), false));
    }

    #[test]
    fn a_line_in_parts_is_one_line() {
        for at in 1..LINE.len() {
            let (first, second) = LINE.split_at(at);
            let all = [part("1", "one", first, "line-max"), part("2", "one", second, "")];
            assert_eq!(items(None, &all), (vec![idle()], Some("2".into())), "cut at {at}");
            // Nothing goes on behind a part: after a restart the line has to be read from its beginning.
            assert_eq!(items(Some("0"), &[entry("0", "x"), all[0].clone()]), (vec![], Some("0".into())));
        }
        // A line that looks like one, but is the end of a longer one.
        let all = [part("1", "one", "title=", "line-max"), part("2", "one", LINE, "")];
        assert_eq!(items(None, &all), (vec![], Some("2".into())));
        assert_eq!(items(Some("1"), &all), (vec![], Some("2".into())));
    }

    #[test]
    fn other_breaks_end_a_line() {
        for line_break in ["nul", "eof", "pid-change"] {
            let all = [part("1", "one", LINE, line_break), part("2", "one", LINE, "")];
            assert_eq!(items(None, &all), (vec![idle(), idle()], Some("2".into())), "{line_break}");
        }
    }

    #[test]
    fn a_line_that_another_stream_interrupts_is_a_gap() {
        let all = [part("1", "one", "begun", "line-max"), part("2", "two", LINE, ""), part("3", "one", LINE, "")];
        assert_eq!(items(None, &all), (vec![gap("unfinished-line"), idle(), idle()], Some("3".into())));
    }

    #[test]
    fn a_line_beyond_the_limit_is_one_gap() {
        let long = "x".repeat(LONGEST_LINE / 3);
        let mut all: Vec<Value> = (1..5).map(|at| part(&at.to_string(), "one", &long, "line-max")).collect();
        all.push(part("5", "one", LINE, ""));
        all.push(part("6", "one", LINE, ""));
        assert_eq!(items(None, &all), (vec![gap("line-too-long"), idle()], Some("6".into())));
        let all = [entry("1", "x".repeat(2 * LONGEST_LINE)), entry("2", LINE)];
        assert_eq!(items(None, &all), (vec![gap("line-too-long"), idle()], Some("2".into())));
    }

    #[test]
    fn lines_that_journald_dropped_are_counted() {
        let mut dropped = entry("2", "Suppressed 12 messages from opencode.service");
        dropped["_TRANSPORT"] = "driver".into();
        dropped["N_DROPPED"] = "12".into();
        let (said, cursor) = found(None, &[entry("1", LINE), dropped, entry("3", LINE)]);
        assert_eq!((said.items, said.dropped), (vec![idle(), gap("rate-limited"), idle()], 12));
        assert_eq!(cursor.as_deref(), Some("3"));
        // Who merely writes the words says nothing.
        let mut forged = entry("1", "Suppressed 12 messages from opencode.service");
        forged["N_DROPPED"] = "12".into();
        assert_eq!(found(None, &[forged]).0, Found { any: true, ..Found::default() });
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..50) {
            let _ = read(&mut Entries::after(Some("1".to_owned())), &bytes, size);
        }

        #[test]
        fn a_changed_byte_announces_no_more(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = output(&[entry("1", LINE)]);
            let length = bytes.len();
            bytes[at % length] = byte;
            let said = read(&mut Entries::default(), &bytes, 1000);
            prop_assert!(said.items.len() <= 1 && said.dropped == 0, "{said:?}");
        }
    }
}
