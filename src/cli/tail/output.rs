//! Where events go: standard output, as lines for people or as JSON. What is said about the connection goes to standard
//! error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::event::{self, Event};
use super::frames::Frame;
use super::screen::{Screen, WIDTH};
use crate::event::Types;
use crate::printable;

/// How often is looked whether somebody still reads.
const LOOK: Duration = Duration::from_millis(500);

/// Which events are shown, where the server does not choose itself: a plain opencode knows no filters.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) session: Option<String>,
    pub(super) types: Option<Types>,
}

impl Filter {
    fn admits(&self, kind: &str, content: impl FnOnce() -> Value) -> bool {
        self.types.as_ref().is_none_or(|types| types.admit(kind))
            && self.session.as_deref().is_none_or(|id| event::session(&content()) == Some(id))
    }
}

/// How events are written.
pub(super) enum Form {
    /// Lines for people.
    People(Box<Screen>),
    /// The data of each frame, in a line.
    Json {
        /// With the frame's id around it.
        ids: bool,
    },
}

/// Standard output.
pub(super) struct Output {
    form: Form,
    filter: Filter,
    is_terminal: bool,
    /// What was not written yet.
    text: String,
}

impl Output {
    /// For people. Whether colours are used is up to the caller.
    pub(super) fn people(is_coloured: bool, filter: Filter) -> Self {
        Self::new(Form::People(Box::new(Screen::new(is_coloured, TimeZone::system()))), filter)
    }

    /// For programs.
    pub(super) fn json(ids: bool, filter: Filter) -> Self {
        Self::new(Form::Json { ids }, filter)
    }

    fn new(form: Form, filter: Filter) -> Self {
        Self { form, filter, is_terminal: io::stdout().is_terminal(), text: String::new() }
    }

    /// Takes an event; [`Output::flush`] writes it. `is_filtered` if the server kept to the filter already.
    pub(super) fn take(&mut self, frame: &Frame, event: &Event<'_>, is_filtered: bool) {
        if !is_filtered && !self.filter.admits(&event.kind, || event.content()) {
            return;
        }
        match &mut self.form {
            // A durable event's twin says to people what they have just read, unless they asked for it.
            Form::People(_) if event.is_twin() && self.filter.types.is_none() => {}
            Form::People(screen) => screen.event(event, Timestamp::now(), &mut self.text),
            Form::Json { .. } => self.take_greeting(frame),
        }
    }

    /// Takes the greeting of a stream that does not go on where the one before it ended: for people it is no event.
    pub(super) fn take_greeting(&mut self, frame: &Frame) {
        if let Form::Json { ids } = self.form {
            json(frame, ids, self.is_terminal, &mut self.text);
        }
    }

    /// Nothing happens: a line that is still open is of no use to whoever reads lines.
    pub(super) fn rest(&mut self) {
        if let (Form::People(screen), false) = (&mut self.form, self.is_terminal) {
            screen.close(&mut self.text);
        }
    }

    /// Writes what was taken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(self.text.as_bytes()).and_then(|()| out.flush());
        self.text.clear();
        // One event can have megabytes.
        self.text.shrink_to(1 << 20);
        written
    }

    /// Asks the terminal how wide it is; people change that.
    pub(super) fn measure(&mut self) {
        if let Form::People(screen) = &mut self.form {
            let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
            // The last column is left free: some terminals go to the next line when it is written.
            screen.set_width(if columns == 0 { WIDTH } else { columns - 1 });
        }
    }

    /// Says something about the connection, on standard error. Nobody has to take it.
    pub(super) fn say(&mut self, words: &str) -> io::Result<()> {
        if let Form::People(screen) = &mut self.form {
            screen.close(&mut self.text);
        }
        self.flush()?;
        let _ = writeln!(io::stderr(), "opencode-relay: {words}");
        Ok(())
    }
}

/// One line with the data of a frame, which is JSON.
fn json(frame: &Frame, ids: bool, is_terminal: bool, out: &mut String) {
    if ids {
        let id = frame.id.as_deref().map_or(Value::Null, Value::from);
        out.push_str(&format!("{{\"id\":{id},\"data\":"));
    }
    for letter in String::from_utf8_lossy(&frame.data).chars() {
        match letter {
            // A JSON string has no raw line break, so one stands between tokens.
            '\n' | '\r' => out.push(' '),
            // The same string, in a spelling that a terminal does not obey.
            _ if is_terminal => printable::push_json(letter, out),
            _ => out.push(letter),
        }
    }
    out.push_str(if ids { "}\n" } else { "\n" });
}

/// Waits until nobody can read standard output any more, as after `| head`: without this it would be noticed only by the
/// next event.
pub(super) async fn closed() {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let out = io::stdout();
        // No event is asked for: errors are always told.
        let mut polled = [PollFd::new(&out, PollFlags::empty())];
        if poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::ERR) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_data_in_one_line() {
        let frame = Frame { id: Some("e-1".into()), data: b"{\"a\":\n \"\xc2\x9b31m\"}".to_vec() };
        let line = |ids, is_terminal| {
            let mut out = String::new();
            json(&frame, ids, is_terminal, &mut out);
            out
        };
        assert_eq!(line(false, false), "{\"a\":  \"\u{9b}31m\"}\n");
        assert_eq!(line(true, true), "{\"id\":\"e-1\",\"data\":{\"a\":  \"\\u009b31m\"}}\n");
    }

    #[test]
    fn what_a_plain_opencode_sends_is_filtered_here() {
        let filter = Filter { session: Some("ses_1".into()), types: Some(Types::parse("session.*").unwrap()) };
        let named = |id: &str| serde_json::json!({"sessionID": id});
        assert!(filter.admits("session.idle", || named("ses_1")));
        assert!(!filter.admits("session.idle", || named("ses_2")));
        assert!(!filter.admits("session.idle", || Value::Null));
        assert!(!filter.admits("todo.updated", || named("ses_1")));
        assert!(Filter::default().admits("anything", || Value::Null));
    }
}
