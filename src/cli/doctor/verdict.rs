//! From what was seen to what to do. Pure.

use super::findings::{Log, Read, Relay, Shown, Stream};
use super::judge::{Level, Sight};
use super::log;
use super::probe::Session;
use crate::ingest::release::{Breakage, Release};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What is broken, each in a sentence.
    pub(super) broken: Vec<String>,
    /// What the relay does about it, and what it cannot, each in a sentence.
    pub(super) advice: Vec<String>,
    /// What to run, if something is to be run.
    pub(super) command: Option<String>,
    /// Whether nothing is broken, or the relay makes up for all of it.
    pub(super) is_mended: bool,
}

/// What the verdict rests on.
pub(super) struct Case<'a> {
    pub(super) place: &'a str,
    pub(super) password_file: Option<&'a str>,
    pub(super) has_password: bool,
    pub(super) relay: Option<&'a Relay>,
    pub(super) release: Option<&'a Release>,
    pub(super) streams: &'a [Stream],
    pub(super) log: &'a Log,
    pub(super) reads: &'a [Read],
    pub(super) session: &'a Session,
    /// Whether a session was to be made, and why none was.
    pub(super) is_probed: bool,
    pub(super) failure: Option<String>,
}

impl Case<'_> {
    fn sight(&self, is_relays: bool, path: &str) -> Option<&Sight> {
        let mut streams = self.streams.iter().filter(|stream| stream.seen.is_relays == is_relays);
        streams.find(|stream| stream.seen.path == path).map(|stream| &stream.sight)
    }

    fn is_broken(&self, is_relays: bool, path: &str) -> bool {
        self.sight(is_relays, path).is_some_and(|sight| sight.level() == Level::Broken)
    }

    /// What to do.
    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { is_mended: true, ..Verdict::default() };
        self.streams_at(false, &mut verdict);
        let reads_failed = self.reads.iter().filter(|read| read.failure.is_some()).count();
        if reads_failed > 0 {
            verdict.broken.push(format!("{reads_failed} of {} reads of the state fail", self.reads.len()));
            verdict.advice.push("Without the state the relay cannot make up for what a stream lacks.".into());
            verdict.is_mended = false;
        }
        if let Some(failure) = &self.failure {
            verdict.broken.push(format!("the probe could create no session: POST /session {failure}"));
            verdict.is_mended = false;
        }
        match self.relay {
            Some(relay) => self.through_the_relay(relay, &mut verdict),
            None => self.beside(&mut verdict),
        }
        if let Session::Left(left) = self.session {
            verdict.broken.push(format!("the probe's session {left} could not be deleted; delete it by hand"));
            verdict.is_mended = false;
        }
        verdict
    }

    /// The streams of opencode itself.
    fn streams_at(&self, is_relays: bool, verdict: &mut Verdict) {
        let own = self.streams.iter().filter(|stream| stream.seen.is_relays == is_relays);
        let whose = if is_relays { "the relay's " } else { "" };
        for stream in own.filter(|stream| stream.sight.level() == Level::Broken) {
            let what = match &stream.sight {
                // Its line above has the types.
                Sight::Lacks { missing, .. } => {
                    format!("stays open and silently lacks {} types of events", missing.len())
                }
                sight => sight.words(),
            };
            verdict.broken.push(format!("{whose}{} {what}", stream.seen.path));
        }
        let mut own = self.streams.iter().filter(|stream| stream.seen.is_relays == is_relays);
        if own.any(|stream| matches!(stream.sight, Sight::Behind { .. })) {
            verdict.advice.push("Not all could be compared in time: examine again when there is less to do.".into());
        }
        let held_back = self.streams.iter().filter(|stream| stream.seen.is_relays == is_relays);
        let mut held_back = held_back.filter(|stream| stream.sight.is_held_back());
        if let Some(stream) = held_back.next().filter(|_| self.reads.iter().all(|read| read.failure.is_none())) {
            let by = stream.seen.between.as_ref().map(|by| format!(" ({by})")).unwrap_or_default();
            verdict.advice.push(format!(
                "Everything else is answered, so something between may hold the stream back{by}: let it not buffer \
                 (nginx: proxy_buffering off)."
            ));
        }
    }

    fn through_the_relay(&self, relay: &Relay, verdict: &mut Verdict) {
        let is_upstream_broken = !verdict.broken.is_empty();
        let before = verdict.broken.len();
        verdict.broken.extend(relay.troubles());
        self.streams_at(true, verdict);
        if verdict.broken.len() > before {
            verdict.is_mended = false;
            verdict.advice.push("The relay's own log says more; GET /_relay/status has the figures.".into());
        } else if is_upstream_broken && verdict.is_mended {
            verdict.advice.push("The relay makes up for it: what clients see through it is whole.".into());
        }
        if verdict.is_mended {
            let shown = if self.is_probed { "" } else { " (as far as watching shows)" };
            verdict.advice.push(format!("Nothing is to be done: point clients at {}{shown}.", self.place));
        }
    }

    /// The relay is not there yet.
    fn beside(&self, verdict: &mut Verdict) {
        let is_blind = self.is_broken(false, "/global/event");
        let announces = matches!(self.log.sight, log::Sight::Announces { .. } | log::Sight::Partly { .. });
        let mended: Vec<&str> =
            ["/event", "/api/event"].into_iter().filter(|path| self.is_broken(false, path)).collect();
        if is_blind {
            verdict.is_mended = false;
            verdict.advice.push(if announces {
                "/global/event is what the relay reads. Its log witness can stand in for it: --witness log rebuilds the \
                 streams from log and state; the README says what that lacks."
                    .to_owned()
            } else {
                "/global/event is what the relay reads, and no log stands in for it: the relay can only look at the state \
                 now and then. Mend that first."
                    .to_owned()
            });
        } else if !mended.is_empty() {
            verdict.advice.push(format!(
                "The relay mends it: it reads /global/event, which is whole, and serves {} of its own.",
                mended.join(" and ")
            ));
        } else if verdict.broken.is_empty() {
            verdict.advice.push(match self.is_probed {
                true => {
                    "Nothing is broken that the probe could show. The relay adds ids to come back with, and streams \
                         that survive restarts."
                        .to_owned()
                }
                false => {
                    "Nothing broken was seen by watching only; a probe (without --read-only) shows more.".to_owned()
                }
            });
        }
        let is_silent = self.release.is_some_and(|release| release.known().contains(&Breakage::LogSilent));
        let is_log_missing =
            !announces && !is_silent && !matches!(self.log.sight, log::Sight::Unproven { has_bus: true, .. });
        if is_log_missing && self.release.is_some() {
            verdict.advice.push(
                "This release announces its events in its log, and a second witness finds what a stream loses: give the \
                 relay the log (--log), or let it start opencode itself (opencode-relay run -- opencode serve --port 0)."
                    .to_owned(),
            );
        }
        if !is_blind || announces {
            verdict.command = Some(self.command(is_blind));
        }
    }

    /// The relay's command line that fits.
    fn command(&self, is_blind: bool) -> String {
        let mut command = format!("opencode-relay run --upstream {}", self.place);
        let source = match &self.log.sight {
            log::Sight::OtherFile { own, .. } => Some(format!("file:{}", own.display())),
            log::Sight::Announces { .. } | log::Sight::Partly { .. } => Some(self.log.source.clone()),
            log::Sight::Unproven { has_bus: true, .. } => Some(self.log.source.clone()),
            _ => None,
        };
        if let Some(source) = source {
            command.push_str(&format!(" --log {}", quoted(&source)));
        }
        if is_blind {
            command.push_str(" --witness log");
        }
        match self.password_file {
            Some(file) => command.push_str(&format!(" --password-file {}", quoted(file))),
            // It is in the environment, and the relay reads it there.
            None if self.has_password => command.insert_str(0, "OPENCODE_SERVER_PASSWORD=… "),
            None => {}
        }
        command
    }
}

/// Which of the things known of a release were seen.
pub(super) fn known(case: &Case<'_>) -> Vec<(Breakage, Shown)> {
    let seen = |path: &str, is_it: fn(&Sight) -> bool| match case.sight(false, path) {
        Some(sight) if is_it(sight) => Shown::Yes,
        Some(sight) if sight.level() == Level::Unknown => Shown::Untried,
        Some(_) => Shown::No,
        None => Shown::Untried,
    };
    let known = case.release.map(Release::known).unwrap_or_default();
    let shown = known.into_iter().map(|what| {
        let shown = match what {
            Breakage::EventEnds => seen("/event", |sight| matches!(sight, Sight::EndsAtOnce(_))),
            Breakage::EventLacks => seen("/event", |sight| matches!(sight, Sight::Lacks { .. } | Sight::Mute(_))),
            Breakage::EventLacksWatcher => Shown::Untried,
            Breakage::LogSilent => match &case.log.sight {
                log::Sight::Silent { .. } => Shown::Yes,
                log::Sight::Announces { .. } | log::Sight::Partly { .. } => Shown::No,
                _ => Shown::Untried,
            },
            Breakage::ApiEventEnds => {
                seen("/api/event", |sight| matches!(sight, Sight::EndsBefore(_) | Sight::EndsAtOnce(_)))
            }
        };
        (what, shown)
    });
    shown.collect()
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/:._-+,=@%".contains(letter);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
