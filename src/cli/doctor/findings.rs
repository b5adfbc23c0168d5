//! What an examination found, all of it; [`super::show`] writes it down.

use std::time::Duration;

use serde_json::{Value, json};

use super::judge::{self, Level};
use super::probe::{Called, Session};
use super::stream::Watched;
use super::verdict::Verdict;
use super::{log, text};
use crate::ingest::release::{Breakage, Release};

/// What an examination found.
#[derive(Debug)]
pub(super) struct Findings {
    /// Whom it asked.
    pub(super) place: String,
    /// The relay's version, if it is one.
    pub(super) relay: Option<Relay>,
    /// opencode's version, if something told it.
    pub(super) release: Option<Release>,
    /// What to know about whom it asked.
    pub(super) remark: Option<String>,
    pub(super) took: Duration,
    /// `None` if nothing was to be written.
    pub(super) calls: Option<Vec<Called>>,
    pub(super) session: Session,
    pub(super) streams: Vec<Stream>,
    pub(super) log: Log,
    pub(super) reads: Vec<Read>,
    pub(super) known: Vec<(Breakage, Shown)>,
    pub(super) verdict: Verdict,
}

/// A stream, and what is to be said of it.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) seen: Watched,
    pub(super) sight: judge::Sight,
    pub(super) lateness: Option<Duration>,
}

/// The log, and what is to be said of it.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) source: String,
    pub(super) is_named: bool,
    pub(super) sight: log::Sight,
}

/// A read of the state.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) path: &'static str,
    pub(super) took: Duration,
    /// Why it brought no JSON.
    pub(super) failure: Option<String>,
}

/// Whether something that is known of a release was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Yes,
    /// What would have shown it was looked at.
    No,
    /// Nothing that was done could have shown it.
    Untried,
}

/// What a relay says of itself.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) version: String,
    /// Its status before the probe and after it.
    pub(super) before: Value,
    pub(super) after: Value,
}

impl Relay {
    /// A text of its status.
    pub(super) fn text(&self, pointer: &str) -> Option<String> {
        self.after.pointer(pointer).and_then(Value::as_str).map(text::plain)
    }

    /// A number of its status, and by how much it grew.
    pub(super) fn number(&self, pointer: &str) -> (u64, u64) {
        let number = |status: &Value| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        (number(&self.after), number(&self.after).saturating_sub(number(&self.before)))
    }

    /// What is wrong with it, in its own words.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let reason = |pointer| self.text(pointer).unwrap_or_else(|| "it does not say why".into());
        if self.after["ready"] != true {
            troubles.push(format!("the relay is not ready; opencode is {}", reason("/upstream/state")));
        }
        if self.text("/journal/state").as_deref() == Some("degraded") {
            troubles.push(format!("the relay's journal is degraded: {}", reason("/journal/reason")));
        }
        if self.text("/witnesses/stream/state").as_deref() == Some("down") {
            troubles.push(format!("the relay's stream witness is down: {}", reason("/witnesses/stream/error")));
        }
        if self.text("/witnesses/log/state").as_deref() == Some("waiting") {
            troubles.push(format!("the relay's log witness waits: {}", reason("/witnesses/log/source")));
        }
        troubles
    }

    /// Its parts in a few lines: mark, name, words.
    pub(super) fn lines(&self) -> Vec<(Level, &'static str, String)> {
        let word = |pointer| self.text(pointer).unwrap_or_else(|| "unknown".into());
        let level = |is_bad: bool| if is_bad { Level::Broken } else { Level::Ok };
        let (log, stream, journal) =
            (word("/witnesses/log/state"), word("/witnesses/stream/state"), word("/journal/state"));
        let source = self.text("/witnesses/log/source").map(|source| format!(" {source}")).unwrap_or_default();
        let (notices, new) = self.number("/witnesses/log/notices");
        let log_level = match log.as_str() {
            "following" => Level::Ok,
            "waiting" => Level::Broken,
            _ => Level::None,
        };
        let (events, came) = self.number("/witnesses/stream/events");
        let (made, told) = self.number("/witnesses/state/events");
        let (reads, failed) = (self.number("/witnesses/state/reads").0, self.number("/witnesses/state/failed").0);
        let sum = |pointer: &str| {
            let kinds = self.after["ledger"].as_object().into_iter().flat_map(|kinds| kinds.values());
            kinds.filter_map(|count| count.pointer(pointer)?.as_u64()).fold(0_u64, u64::saturating_add)
        };
        let lost = sum("/unrecoverable/overwritten").saturating_add(sum("/unrecoverable/no_source"));
        let clients = self.after["clients"].as_object().into_iter().flat_map(|views| views.values());
        let clients = clients.filter_map(Value::as_u64).fold(0_u64, u64::saturating_add);
        vec![
            (
                level(self.after["ready"] != true),
                "relay",
                format!(
                    "{}, --witness {}, journal {journal} ({}), open streams: {clients}, announced events lost so far: {lost}",
                    if self.after["ready"] == true { "ready" } else { "not ready" },
                    word("/witness"),
                    word("/journal/form"),
                ),
            ),
            (log_level, "its log", format!("{log}{source}; {notices} announced, {new} of them now")),
            (
                if stream == "off" { Level::None } else { level(stream != "connected") },
                "its stream",
                format!("{stream}; {events} events, {came} of them now"),
            ),
            (
                Level::Ok,
                "its state",
                format!("{reads} reads, {failed} failed; {made} events made of it, {told} of them now"),
            ),
        ]
    }
}

impl Shown {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Yes => "shown",
            Self::No => "unseen",
            Self::Untried => "untried",
        }
    }
}

impl Findings {
    /// All of it, for programs.
    pub(super) fn json(&self) -> Value {
        let since = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let streams = self.streams.iter().map(|stream| {
            let seen = &stream.seen;
            let missing = match &stream.sight {
                judge::Sight::Lacks { missing, .. } => missing
                    .iter()
                    .map(|lack| (lack.kind.clone(), json!({ "seen": lack.seen, "due": lack.due })))
                    .collect(),
                _ => serde_json::Map::new(),
            };
            json!({
                "at": if seen.is_relays { "relay" } else { "opencode" },
                "path": seen.path,
                "mark": stream.sight.level().word(),
                "sight": stream.sight.word(),
                "words": stream.sight.words(),
                "missing": missing,
                "content_type": seen.kind,
                "between": seen.between,
                "head_ms": since(seen.headed.map(|at| at.saturating_sub(seen.asked))),
                "greeting_ms": since(seen.greeted.map(|at| at.saturating_sub(seen.asked))),
                "ended_ms": since(seen.ended.as_ref().map(|(at, _)| at.saturating_sub(seen.asked))),
                "late_ms": since(stream.lateness),
                "heartbeats": seen.heartbeats,
                "events": seen.events.len(),
            })
        });
        let calls = self.calls.as_ref().map(|calls| {
            let call = |call: &Called| {
                json!({ "call": call.call, "ms": since(Some(call.took)), "failure": call.failure, "proves": call.proves })
            };
            calls.iter().map(call).collect::<Vec<_>>()
        });
        let reads = self
            .reads
            .iter()
            .map(|read| json!({ "path": read.path, "ms": since(Some(read.took)), "failure": read.failure }));
        let known = self.known.iter().map(|(what, shown)| json!({ "words": what.words(), "shown": shown.word() }));
        let mut log = self.log.sight.json();
        log["source"] = self.log.source.clone().into();
        log["mark"] = self.log.sight.level(self.log.is_named).word().into();
        log["words"] = self.log.sight.words(self.is_log_silent()).into();
        let mut found = json!({
            "asked": self.place,
            "is": if self.relay.is_some() { "relay" } else { "opencode" },
            "version": self.release.as_ref().map(ToString::to_string),
            "relay": self.relay.as_ref().map(|relay| json!({ "version": relay.version, "status": relay.after })),
            "remark": self.remark,
            "ms": since(Some(self.took)),
            "probe": calls.map(|calls| json!({
                "calls": calls,
                "session": self.session.id(),
                "deleted": !matches!(self.session, Session::Left(_) | Session::Making | Session::Made(_)),
            })),
            "streams": streams.collect::<Vec<_>>(),
            "log": log,
            "state": reads.collect::<Vec<_>>(),
            "known": known.collect::<Vec<_>>(),
            "broken": self.verdict.broken,
            "advice": self.verdict.advice,
            "command": self.verdict.command,
            "mended": self.verdict.is_mended,
        });
        text::plain_json(&mut found);
        found
    }

    /// Whether releases of this kind announce nothing in their logs.
    pub(super) fn is_log_silent(&self) -> bool {
        self.release.as_ref().is_some_and(|release| release.known().contains(&Breakage::LogSilent))
    }
}
