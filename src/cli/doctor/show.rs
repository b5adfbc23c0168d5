//! The findings for people: one screen, with colour where there is a terminal for it.

use super::findings::{Findings, Shown};
use super::judge::{Level, milliseconds};
use super::probe::Session;
use super::text::{WIDTH, fold, plain};
use crate::printable;

/// How wide the mark and the name before the words are.
const MARK: usize = 10;
const NAME: usize = 15;

/// Writes lines of marks, names and words.
struct Screen {
    text: String,
    has_colour: bool,
}

impl Screen {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn heading(&mut self, words: &str) {
        let words = printable::text(words);
        let (on, off) = if self.has_colour { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        self.line(&format!("{on}{words}{off}"));
    }

    fn item(&mut self, mark: &str, colour: &str, name: &str, words: &str) {
        let words = printable::text(words);
        let (on, off) = if self.has_colour { (colour, "\u{1b}[0m") } else { ("", "") };
        let mark = format!("{mark:<width$}", width = MARK - 2);
        let indent = if name.is_empty() { MARK } else { MARK + NAME.max(name.chars().count() + 1) };
        for (index, words) in fold(&words, WIDTH - indent.min(WIDTH / 2)).into_iter().enumerate() {
            if index == 0 {
                self.line(&format!("  {on}{mark}{off}{name:<width$}{words}", width = indent - MARK));
            } else {
                self.line(&format!("{:indent$}{words}", ""));
            }
        }
    }

    fn marked(&mut self, level: Level, name: &str, words: &str) {
        let colour = match level {
            Level::Ok => "\u{1b}[32m",
            Level::None => "\u{1b}[2m",
            Level::Unknown => "\u{1b}[33m",
            Level::Broken => "\u{1b}[1;31m",
        };
        self.item(level.word(), colour, name, words);
    }

    fn sentence(&mut self, words: &str) {
        for line in fold(&printable::text(words), WIDTH - 2) {
            self.line(&format!("  {line}"));
        }
    }
}

/// Writes the findings down.
pub(super) fn show(found: &Findings, has_colour: bool) -> String {
    let mut screen = Screen { text: String::new(), has_colour };
    let version = found
        .release
        .as_ref()
        .map_or_else(|| "of an unknown version".to_owned(), |release| plain(&release.to_string()));
    screen.heading(&match &found.relay {
        Some(relay) => format!("opencode-relay {} at {}, in front of opencode {version}", relay.version, found.place),
        None => format!("opencode {version} at {}", found.place),
    });
    if let Some(remark) = &found.remark {
        screen.sentence(remark);
    }
    screen.sentence(&what_was_done(found));
    if found.relay.is_some() && found.streams.iter().all(|stream| stream.seen.is_relays) {
        screen.sentence("opencode itself was not asked: it is not reached from here without the relay.");
    }
    if let Some(relay) = &found.relay {
        screen.heading("relay, by its own status");
        for (level, name, words) in relay.lines() {
            screen.marked(level, name, &words);
        }
    }
    for (is_relays, heading) in [(false, "streams of opencode"), (true, "streams through the relay")] {
        let streams: Vec<_> = found.streams.iter().filter(|stream| stream.seen.is_relays == is_relays).collect();
        if streams.is_empty() {
            continue;
        }
        screen.heading(heading);
        for stream in streams {
            let mut words = stream.sight.words();
            if let Some(late) = stream.lateness.filter(|_| stream.sight.level() == Level::Ok) {
                words.push_str(&format!(", at most {} after their calls", milliseconds(late)));
            }
            if stream.seen.heartbeats > 0 {
                words.push_str(&format!("; heartbeats: {}", stream.seen.heartbeats));
            }
            if let Some(between) = &stream.seen.between {
                words.push_str(&format!("; between stands {between}"));
            }
            screen.marked(stream.sight.level(), stream.seen.path, &words);
        }
    }
    let log = &found.log;
    // A relay says above how its log is.
    if found.relay.is_none() || log.is_named {
        screen.heading("log");
        let words = log.sight.words(found.is_log_silent());
        // Some of the words name the place themselves.
        let words = if log.sight.names_place() { words } else { format!("{}: {words}", log.source) };
        screen.marked(log.sight.level(log.is_named), "bus log", &words);
    }
    screen.heading("state");
    let failed: Vec<_> = found.reads.iter().filter_map(|read| Some((read.path, read.failure.as_ref()?))).collect();
    let slowest = found.reads.iter().max_by_key(|read| read.took);
    for (path, failure) in &failed {
        screen.marked(Level::Broken, "REST", &format!("GET {path} {failure}"));
    }
    if let Some(slowest) = slowest.filter(|_| failed.is_empty()) {
        let count = found.reads.len();
        let words =
            format!("all {count} reads brought JSON, the slowest in {} ({})", milliseconds(slowest.took), slowest.path);
        screen.marked(Level::Ok, "REST", &words);
    }
    if !found.known.is_empty() {
        screen.heading("known of this release");
        for (what, shown) in &found.known {
            let colour = if *shown == Shown::Yes { "\u{1b}[1;31m" } else { "\u{1b}[33m" };
            screen.item(shown.word(), colour, "", what.words());
        }
    }
    screen.heading("verdict");
    let verdict = &found.verdict;
    for broken in &verdict.broken {
        screen.sentence(&format!("Broken: {broken}."));
    }
    for advice in &verdict.advice {
        screen.sentence(advice);
    }
    if let Some(command) = &verdict.command {
        // In one line, to be copied.
        screen.line(&format!("  Run: {}", printable::text(command)));
    }
    screen.text
}

fn what_was_done(found: &Findings) -> String {
    let took = milliseconds(found.took);
    let Some(calls) = &found.calls else {
        return format!("Nothing was written; what came on the streams within {took} was compared.");
    };
    let failed: Vec<String> =
        calls.iter().filter_map(|call| Some(format!("{} {}", call.call, call.failure.as_ref()?))).collect();
    let mut words = match &found.session {
        Session::Deleted(_) => format!(
            "Probe: a session was created, renamed, aborted, given a message that asks no model, and deleted; {took}."
        ),
        Session::None => "Probe: no session could be created.".to_owned(),
        _ => "Probe: a session was created, and not deleted again.".to_owned(),
    };
    if !failed.is_empty() {
        words.push_str(&format!(" Failed: {}.", failed.join("; ")));
    }
    words
}
