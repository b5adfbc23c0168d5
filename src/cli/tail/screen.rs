//! Events as lines for people: time, type, session, and a few words.
//!
//! Everything in an event is a stranger's: nothing of it reaches the terminal but as letters that can be seen, and no line
//! of it can look like another event's.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::Value;
use unicode_width::UnicodeWidthChar as _;

use super::event::{self, Event};
use super::summary;
use crate::printable;

/// The width of a line where no terminal says its own.
pub(super) const WIDTH: usize = 200;

/// Columns of a type; longer ones push what follows to the right, up to twice as many.
const KIND: usize = 20;

/// Columns of a session: what is the same in all of them is left out.
const SESSION: usize = 7;

/// Where the words begin: time, type and session, with spaces between.
const WORDS: usize = 12 + 1 + KIND + 1 + SESSION + 1;

/// However narrow the terminal is, the words have so many columns.
const LEAST: usize = 20;

/// Most letters of one piece of text that are shown. Models send a few at a time; a whole answer comes at once only when it
/// was read from the state.
const PIECE: usize = 4_000;

/// Writes lines.
#[derive(Debug)]
pub(super) struct Screen {
    is_coloured: bool,
    zone: TimeZone,
    /// In columns.
    width: usize,
    /// The day of the last line; the lines have the time alone.
    day: Option<Date>,
    /// A line to which more of the same text can be added.
    open: Option<Open>,
}

/// A line that has not ended.
#[derive(Debug)]
struct Open {
    /// What it is the text of: part, field, and who supplied it.
    text: [String; 3],
    column: usize,
    /// The text went to a new line, or the line is full: what comes next begins one.
    is_broken: bool,
}

impl Screen {
    pub(super) fn new(is_coloured: bool, zone: TimeZone) -> Self {
        Self { is_coloured, zone, width: WIDTH, day: None, open: None }
    }

    /// How many columns a line may have from now on.
    pub(super) fn set_width(&mut self, width: usize) {
        self.width = width.max(WORDS + LEAST);
    }

    /// Writes an event; `now` is when it came, for those that do not say when they were.
    pub(super) fn event(&mut self, event: &Event<'_>, now: Timestamp, out: &mut String) {
        let content = event.content();
        let told = event.told.as_ref();
        let at = told.and_then(|told| Timestamp::from_millisecond(told.at?).ok()).unwrap_or(now);
        let at = at.to_zoned(self.zone.clone());
        // The stream is what everybody expects.
        let tag = told.map_or("", |told| &*told.origin).trim();
        let tag = if tag == "stream" { "" } else { tag };
        if event.kind == "message.part.delta" && self.text(event, &content, &at, tag, out) {
            return;
        }
        self.close(out);
        let column = self.head(&event.kind, event::session(&content), &at, tag, now, out);
        fit(&summary::of(event, &content), self.width.saturating_sub(column).max(1), out);
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }

    /// Ends the line to which more could have been added.
    pub(super) fn close(&mut self, out: &mut String) {
        if self.open.take().is_some() {
            out.push('\n');
        }
    }

    /// Writes what stands before the words; gives the column where they begin.
    fn head(
        &mut self,
        kind: &str,
        session: Option<&str>,
        at: &Zoned,
        tag: &str,
        now: Timestamp,
        out: &mut String,
    ) -> usize {
        let today = now.to_zoned(self.zone.clone()).date();
        if self.day.replace(at.date()).unwrap_or(today) != at.date() {
            self.dim(&format!("-- {} --", at.date()), out);
            out.push('\n');
        }
        self.dim(&at.strftime("%H:%M:%S.%3f").to_string(), out);
        out.push(' ');
        let mut column = 13 + self.coloured(colour(kind), KIND, 2 * KIND, kind, out) + 1;
        out.push(' ');
        let session = match session {
            None => "-".to_owned(),
            Some(id) if id.chars().count() <= SESSION => id.to_owned(),
            Some(id) => {
                let shown = id.char_indices().rev().nth(SESSION - 2).map_or(id, |(at, _)| &id[at..]);
                format!("…{shown}")
            }
        };
        column += self.coloured("2", SESSION, SESSION + 8, &session, out) + 1;
        out.push(' ');
        if !tag.is_empty() {
            column += self.coloured("2", 0, KIND, &format!("[{tag}]"), out) + 1;
            out.push(' ');
        }
        column
    }

    /// Adds a piece of a text to its line; `false` if the event has none.
    fn text(&mut self, event: &Event<'_>, content: &Value, at: &Zoned, tag: &str, out: &mut String) -> bool {
        let (Some(part), Some(piece)) = (content["partID"].as_str(), content["delta"].as_str()) else { return false };
        let text = [part, content["field"].as_str().unwrap_or_default(), tag].map(str::to_owned);
        if self.open.as_ref().is_none_or(|open| open.text != text) {
            self.close(out);
            let column = self.head(&event.kind, event::session(content), at, tag, at.timestamp(), out);
            self.open = Some(Open { text, column, is_broken: false });
        }
        let (shown, rest) = match piece.char_indices().nth(PIECE) {
            Some((at, _)) => (&piece[..at], piece.len() - at),
            None => (piece, 0),
        };
        for word in shown.split_inclusive([' ', '\n']) {
            self.word(word, out);
        }
        if rest > 0 {
            self.word(&format!("… ({rest} bytes more)"), out);
        }
        true
    }

    /// Adds a word with what separates it from the next.
    fn word(&mut self, word: &str, out: &mut String) {
        let Some(mut open) = self.open.take() else { return };
        let (word, ends_line) = match word.strip_suffix('\n') {
            Some(word) => (word.strip_suffix('\r').unwrap_or(word), true),
            None => (word, false),
        };
        let columns: usize = word.trim_end_matches(' ').chars().map(width).sum();
        let is_over = open.column + columns.max(usize::from(!word.is_empty())) > self.width;
        if is_over && columns == 0 {
            // A space at the end of a line is not missed.
            open.is_broken = true;
        } else {
            open.is_broken |= is_over && open.column > WORDS;
            for letter in word.chars() {
                if open.is_broken || open.column + width(letter) > self.width {
                    self.go_on(&mut open, out);
                }
                open.column += width(letter);
                printable::push_text(letter, out);
            }
        }
        open.is_broken |= ends_line;
        self.open = Some(open);
    }

    /// Begins a line that is no event's.
    fn go_on(&self, open: &mut Open, out: &mut String) {
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', WORDS - 2));
        self.dim("│ ", out);
        (open.column, open.is_broken) = (WORDS, false);
    }

    fn dim(&self, text: &str, out: &mut String) {
        self.coloured("2", 0, usize::MAX, text, out);
    }

    /// Writes a text of at least and at most so many columns; gives how many they are.
    fn coloured(&self, colour: &str, least: usize, most: usize, text: &str, out: &mut String) -> usize {
        if self.is_coloured {
            out.extend(["\x1b[", colour, "m"]);
        }
        let columns = fit(text, most, out);
        if self.is_coloured {
            out.push_str("\x1b[0m");
        }
        let padding = least.saturating_sub(columns);
        out.extend(std::iter::repeat_n(' ', padding));
        columns + padding
    }
}

/// The colour of a type, as a terminal calls it.
fn colour(kind: &str) -> &'static str {
    match kind.split('.').next().unwrap_or_default() {
        _ if kind == "session.error" => "1;31",
        "permission" | "question" => "33",
        "message" => "32",
        "session" => "34",
        _ => "36",
    }
}

/// How many columns a letter takes as it is shown. At least one, so that letters without a width cannot make a line endless.
fn width(letter: char) -> usize {
    if printable::is_unseen(letter) { letter.escape_default().len() } else { letter.width().unwrap_or(1).max(1) }
}

/// Writes as much of a text as fits into so many columns; gives how many it took.
fn fit(text: &str, room: usize, out: &mut String) -> usize {
    let (mut columns, mut cut, mut columns_at_cut) = (0usize, out.len(), 0);
    for letter in text.chars() {
        if columns + width(letter) > room {
            out.truncate(cut);
            out.push('…');
            return columns_at_cut + 1;
        }
        columns += width(letter);
        printable::push_text(letter, out);
        if columns < room {
            (cut, columns_at_cut) = (out.len(), columns);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is shown of these events, with a line of so many columns.
    fn shown(screen: &mut Screen, events: &[Value]) -> String {
        let mut out = String::new();
        for event in events {
            let data = event.to_string();
            let now = Timestamp::from_millisecond(1_795_394_354_825).unwrap();
            screen.event(&Event::read(data.as_bytes()).unwrap(), now, &mut out);
        }
        screen.close(&mut out);
        out
    }

    fn screen(width: usize) -> Screen {
        let mut screen = Screen::new(false, TimeZone::UTC);
        screen.set_width(width);
        screen
    }

    fn event(kind: &str, properties: Value) -> Value {
        json!({"directory": "/x", "payload": {"id": "evt_1", "type": kind, "properties": properties}})
    }

    fn delta(part: &str, text: &str) -> Value {
        event(
            "message.part.delta",
            json!({"sessionID": "ses_abcdefghijk", "partID": part, "field": "text", "delta": text}),
        )
    }

    #[test]
    fn an_event_is_a_line() {
        let idle = event("session.status", json!({"sessionID": "ses_abcdefghijk", "status": {"type": "idle"}}));
        let file = event("file.edited", json!({"file": "/a"}));
        let long = event("x.a-type-that-is-much-longer-than-others-and-more", json!({}));
        assert_eq!(
            shown(&mut screen(80), &[idle, file, long]),
            "00:39:14.825 session.status       …fghijk idle\n\
             00:39:14.825 file.edited          -       /a\n\
             00:39:14.825 x.a-type-that-is-much-longer-than-other… -       {}\n"
        );
    }

    #[test]
    fn the_relays_word_gives_time_and_origin() {
        let mut one = event("session.idle", json!({"sessionID": "ses_1"}));
        one["relay"] = json!({"origin": "state", "at": 1_795_394_354_826_i64});
        let mut two = one.clone();
        two["relay"] = json!({"origin": "stream", "at": 1_795_494_354_826_i64});
        assert_eq!(
            shown(&mut screen(80), &[one, two]),
            "00:39:14.826 session.idle         ses_1   [state]\n-- 2026-11-24 --\n04:25:54.826 session.idle         ses_1\n"
        );
    }

    #[test]
    fn deltas_of_one_text_are_one_text() {
        let text = ["Hello", " you", " there", ".\n", "\n", "  code", " and words that go on\r\n", "end"];
        let mut events: Vec<Value> = text.iter().map(|text| delta("prt_1", text)).collect();
        events.push(delta("prt_2", "another"));
        events.push(event("session.idle", json!({"sessionID": "ses_abcdefghijk"})));
        let prefix = "00:39:14.825 message.part.delta   …fghijk ";
        let on = "                                        │ ";
        assert_eq!(
            shown(&mut screen(WORDS + 20), &events),
            format!(
                "{prefix}Hello you there.\n{on}  code and words\n{on}that go on\n{on}end\n{prefix}another\n00:39:14.825 session.idle         …fghijk\n"
            )
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let events = [
            delta("p", &"x".repeat(500)),
            delta("p", &"word ".repeat(100)),
            delta("p", &"\u{1b}[31m".repeat(100)),
            delta("p", &"日本語".repeat(40)),
            delta("p", &"\u{301}".repeat(500)),
            event("session.updated", json!({"info": {"title": "日本語".repeat(100)}})),
            event("session.updated", json!({"info": {"title": "\u{202e}".repeat(100)}})),
            event("new", json!({"a": "y".repeat(1_000)})),
        ];
        for limit in [62, 63, 80, 120] {
            let text = shown(&mut screen(limit), &events);
            for line in text.lines() {
                let columns: usize = line.chars().map(width).sum();
                assert!(columns <= limit, "{columns} {line:?}");
            }
            assert_eq!(text.matches('x').count(), 500);
            assert_eq!(text.matches("word").count(), 100);
        }
        assert!(shown(&mut screen(80), &[delta("p", &"x ".repeat(1 << 20))]).len() < 20_000);
    }

    #[test]
    fn strangers_cannot_write_lines_or_colours() {
        let hostile = "a\n00:00:00.000 session.idle \x1b[2J\u{9b}31m\u{202e}\r\u{2028}";
        let text = shown(
            &mut screen(200),
            &[
                event("session.updated", json!({"sessionID": hostile, "info": {"title": hostile}})),
                event(hostile, json!({})),
                delta("p", hostile),
                json!({"relay": {"origin": hostile, "at": i64::MAX}, "payload": {"type": "a", "properties": {}}}),
            ],
        );
        assert!(text.chars().all(|letter| letter == '\n' || !printable::is_unseen(letter)), "{text:?}");
        // The text may go to a new line, which does not begin like an event.
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("00:00:00.000 session.idle")).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| !line.starts_with("00:00:00")), "{text}");
    }

    #[test]
    fn colours_change_no_letter() {
        let events = [delta("p", "some text"), event("session.error", json!({"error": {"name": "E"}}))];
        let mut coloured = Screen::new(true, TimeZone::UTC);
        coloured.set_width(80);
        let mut text = shown(&mut coloured, &events);
        assert!(text.contains("\x1b[1;31msession.error\x1b[0m"));
        for code in ["\x1b[2m", "\x1b[0m", "\x1b[32m", "\x1b[1;31m"] {
            text = text.replace(code, "");
        }
        assert_eq!(text, shown(&mut screen(80), &events));
    }
}
