//! A session's newest messages.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::answers::PAUSE_READS;
use super::super::early::Evidence;
use super::super::json::{Told, fingerprint};
use super::super::plan::Flight;
use super::super::shadow::{Message, MessageInfo, PartInfo, Session, Shadow, millis};
use super::{Draft, ShapeError, shape};
use crate::event::quote;

/// Most messages asked for at once.
const MOST: usize = 1024;

/// What the caller knows besides the answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile) struct Facts {
    /// Messages that began or ended since, in milliseconds of Unix time, are news also in a session never read before.
    pub(in crate::reconcile) since: u64,
    /// What it means that the session is idle and has a new answer of the assistant.
    pub(in crate::reconcile) evidence: Evidence,
    /// How many ends the log announced that were not told: turns may follow each other without a pause.
    pub(in crate::reconcile) ends_announced: u64,
    /// Nobody looked since, in milliseconds of Unix time: the answer has to reach back further than that.
    pub(in crate::reconcile) unseen_since: Option<u64>,
    /// Something about the session's messages was announced or missed, so its last turn is news even if it is old.
    pub(in crate::reconcile) is_announced: bool,
    /// Whether the session's turn is over is for the stream's waiting events to tell.
    pub(in crate::reconcile) is_end_foreseen: bool,
    /// Unix time, in milliseconds.
    pub(in crate::reconcile) wall: u64,
}

/// What the answer is good for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Found {
    /// It was told.
    Told,
    /// It shows a turn that may still be announced: ask again.
    Early,
    /// It does not reach back to what clients know: ask for so many.
    Ask(usize),
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    info: &'a RawValue,
    #[serde(borrow, default)]
    parts: Vec<&'a RawValue>,
}

struct Read<'a> {
    info: MessageInfo<'a>,
    text: &'a str,
    parts: Vec<&'a RawValue>,
}

impl Shadow {
    /// A session's newest messages, with their parts.
    pub(in crate::reconcile) fn compare_messages(
        &mut self,
        id: &str,
        text: &str,
        flight: &Flight,
        facts: Facts,
        out: &mut Vec<Draft>,
    ) -> Result<Found, ShapeError> {
        let entries: Vec<Entry<'_>> = serde_json::from_str(text).map_err(shape("a list of messages"))?;
        let mut reads = Vec::with_capacity(entries.len());
        for entry in entries {
            let info = serde_json::from_str(entry.info.get()).map_err(shape("a message"))?;
            reads.push(Read { info, text: entry.info.get(), parts: entry.parts });
        }
        let session = self.session(id);
        let full = reads.len() >= flight.limit;
        let is_seen = |oldest: &Read<'_>| {
            let created = millis(oldest.info.time.created);
            if session.known {
                session.messages.contains_key(oldest.info.id.as_str())
                    && facts.unseen_since.is_none_or(|since| created < since)
            } else {
                created < facts.since
            }
        };
        let has_prompt = !session.known || reads.iter().any(|read| read.info.role == "user");
        if full && !(has_prompt && reads.first().is_none_or(is_seen)) && flight.limit < MOST {
            return Ok(Found::Ask((flight.limit * 4).min(MOST)));
        }
        let mut comparison = Comparison { id, session, flight, facts, out };
        let live = comparison.first_news(&reads);
        if facts.evidence == Evidence::Early && reads[live..].iter().any(|read| comparison.shows_turn(read)) {
            return Ok(Found::Early);
        }
        comparison.removed(&reads, full);
        for (index, read) in reads.iter().enumerate() {
            if comparison.session.gone.since(&read.info.id, flight.began) {
                continue;
            }
            // What changed of a message that clients know is always news.
            let is_known = comparison.session.messages.get(read.info.id.as_str()).is_some_and(|told| told.info != 0);
            comparison.message(read, index >= live || is_known && !flight.silent)?;
        }
        session.known |= !flight.silent;
        Ok(Found::Told)
    }
}

struct Comparison<'a> {
    id: &'a str,
    session: &'a mut Session,
    flight: &'a Flight,
    facts: Facts,
    out: &'a mut Vec<Draft>,
}

impl Comparison<'_> {
    /// From which entry on changes are news. In a session never read before, what is older is only learnt.
    fn first_news(&self, reads: &[Read<'_>]) -> usize {
        if self.flight.silent {
            return reads.len();
        }
        if self.session.known {
            return 0;
        }
        let since = self.facts.since;
        let recent = |read: &Read<'_>| {
            let time = read.info.time;
            let is_open = read.info.role == "assistant" && read.info.finished().is_none();
            millis(time.created) >= since || time.completed.is_some_and(|time| millis(time) >= since) || is_open
        };
        let recent = reads.iter().position(recent);
        let turn = reads.iter().rposition(|read| read.info.role == "user").filter(|_| self.facts.is_announced);
        turn.into_iter().chain(recent).min().unwrap_or(if self.facts.is_announced { 0 } else { reads.len() })
    }

    /// Told messages that the state does not have any more. Only those can be judged that the answer reaches back to.
    fn removed(&mut self, reads: &[Read<'_>], full: bool) {
        let listed = |id: &Arc<str>| reads.iter().any(|read| *read.info.id == **id);
        let oldest = reads.iter().map(|read| millis(read.info.time.created)).min().unwrap_or(0);
        let told: Vec<Arc<str>> = self.session.message_ids().cloned().collect();
        for id in &told {
            let gone = |message: &Message| {
                message.last_step() <= self.flight.began && (!full || message.info != 0 && message.created > oldest)
            };
            if !listed(id) && self.session.messages.get(id).is_some_and(gone) {
                self.session.remove(id);
                self.tell("message.removed", &format!(r#","messageID":{}"#, quote(id)));
            }
        }
    }

    fn message(&mut self, read: &Read<'_>, news: bool) -> Result<(), ShapeError> {
        let info = &read.info;
        let told = self.session.messages.get(info.id.as_str());
        // The stream may have told of its parts alone.
        let is_new = told.is_none_or(|told| told.info == 0);
        let newer = told.is_some_and(|told| told.step > self.flight.began);
        let print = fingerprint(read.text).unwrap_or_default();
        let changed = !newer && told.is_none_or(|told| told.info != print);
        if news && is_new {
            self.turn(info);
        }
        if !newer {
            let message = self.session.message(&info.id);
            message.info = print;
            message.learn(info);
        }
        // A client needs the message before its parts; the word that it is complete comes after them.
        if news && changed && is_new {
            self.updated(read);
        }
        self.parts(read, news)?;
        if news && changed && !is_new {
            self.updated(read);
        }
        Ok(())
    }

    /// A message clients never heard of begins a turn, or proves that one has ended.
    fn turn(&mut self, info: &MessageInfo<'_>) {
        // A prompt that was sent before the answer was complete joined the turn, and one that came between two steps of
        // a turn has no end announced.
        let follows = self.session.answered().is_some_and(|answered| millis(info.time.created) >= answered);
        let in_turn = self.session.busy.is_some() && self.session.has_answer;
        let paused = self.session.ending.is_some() || self.facts.ends_announced > 0;
        if info.role == "user" && in_turn && follows && paused && !self.facts.is_end_foreseen {
            self.facts.ends_announced = self.facts.ends_announced.saturating_sub(1);
            self.session.end(self.id, self.out);
        }
        if self.is_own_answer(info) {
            if self.session.busy.is_none() && self.facts.evidence == Evidence::Turn {
                self.session.begin(self.id, r#"{"type":"busy"}"#, self.out);
                self.session.was_proved = true;
            }
            self.session.has_answer = true;
        }
    }

    /// An answer of the assistant that was made in this session: a fork copies some into a new one, which are older than it.
    fn is_own_answer(&self, info: &MessageInfo<'_>) -> bool {
        info.role == "assistant" && millis(info.time.created) >= self.session.created.max(self.facts.since)
    }

    /// Whether the session is idle and this would be news of a turn in it.
    fn shows_turn(&self, read: &Read<'_>) -> bool {
        let is_new = self.session.messages.get(read.info.id.as_str()).is_none_or(|told| told.info == 0);
        let is_gone = self.session.gone.since(&read.info.id, self.flight.began);
        self.session.busy.is_none() && is_new && !is_gone && self.is_own_answer(&read.info)
    }

    fn updated(&mut self, read: &Read<'_>) {
        if let Some(error) = read.info.error {
            let print = fingerprint(error.get());
            if self.session.error != print {
                self.session.error = print;
                self.tell("session.error", &format!(r#","error":{}"#, error.get()));
            }
        }
        self.tell("message.updated", &format!(r#","info":{}"#, read.text));
    }

    fn parts(&mut self, read: &Read<'_>, news: bool) -> Result<(), ShapeError> {
        let message_id = &read.info.id;
        // While a turn goes on, its text is in the deltas alone. When it is over, what is not stored never will be: opencode
        // died, and what clients have of the text is nowhere else.
        let is_over =
            self.session.busy.is_none() || self.session.ending.is_some_and(|ending| ending.reads >= PAUSE_READS);
        let mut listed = Vec::with_capacity(read.parts.len());
        for raw in &read.parts {
            let info: PartInfo = serde_json::from_str(raw.get()).map_err(shape("a message part"))?;
            if self.session.gone.since(&info.id, self.flight.began) {
                continue;
            }
            let print = fingerprint(raw.get()).unwrap_or_default();
            let part = self.session.message(message_id).parts.entry(info.id.as_str().into()).or_default();
            let text = info.text.as_deref().unwrap_or_default();
            let is_cut = is_over && info.streams() && !part.text.is(text);
            let same = part.print == print && !is_cut;
            if part.step <= self.flight.began && !same {
                let missing = part.text.missing(text).filter(|rest| !rest.is_empty()).map(quote);
                part.print = print;
                part.text = Told::all(text);
                if news {
                    if let Some(delta) = missing.filter(|_| info.streams() && read.info.role == "assistant") {
                        let (message, part) = (quote(message_id), quote(&info.id));
                        let rest = format!(r#","messageID":{message},"partID":{part},"field":"text","delta":{delta}"#);
                        self.tell("message.part.delta", &rest);
                    }
                    self.tell("message.part.updated", &format!(r#","part":{},"time":{}"#, raw.get(), self.facts.wall));
                }
            }
            listed.push(info.id);
        }
        let began = self.flight.began;
        let message = self.session.message(message_id);
        let gone: Vec<Arc<str>> = message
            .parts
            .iter()
            .filter(|(id, part)| part.step <= began && !listed.iter().any(|listed| **listed == ***id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.session.message(message_id).parts.remove(&id);
            let rest = format!(r#","messageID":{},"partID":{}"#, quote(message_id), quote(&id));
            self.tell("message.part.removed", &rest);
        }
        Ok(())
    }

    fn tell(&mut self, kind: &'static str, rest: &str) {
        if !self.flight.silent {
            self.out.push(Draft::of_session(kind, self.session, self.id, rest));
        }
    }
}
