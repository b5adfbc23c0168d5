//! What was published while nobody looked, word by word: from release 1.17 on opencode keeps the durable events of each
//! session, numbered, and `POST /sync/history` gives those after a number.
//!
//! Sessions that the question does not name come back whole, so it names every session there is, those that are not
//! wanted with the highest number. Where that cannot be done (too many sessions, no such question, a failure), the state
//! is compared instead, which knows the last state of everything but not what was in between.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::aspect::{Aspect, SessionId};
use super::compare::{ShapeError, shape};
use super::shadow::{PartInfo, SessionInfo};
use super::{Effect, Now, Reconcile};
use crate::event::{Event, Origin, Place, quote};

/// Most sessions that a question names. opencode's database takes 996 and fails with 997 (measured on 1.17.11, 1.18.34).
const MOST: usize = 900;

/// Most events remembered as told by their ids.
const TOLD: usize = 20_000;

/// How long they are remembered after the last was told, in milliseconds: the stream may bring them that much later.
const REMEMBER: u64 = 60_000;

/// The highest number that the question takes: of this session nothing is wanted.
const NOTHING: u64 = 9_007_199_254_740_991;

/// What is to be asked, and what was told of the answer.
#[derive(Debug, Default)]
pub(super) struct History {
    /// This opencode counts its durable events, as it does from 1.17 on (FACTS §1).
    pub(super) is_there: bool,
    stage: Stage,
    /// The sessions to ask about.
    wanted: BTreeMap<SessionId, Wanted>,
    /// Those to ask about when that is answered.
    later: BTreeSet<SessionId>,
    /// Those that are to be named because nothing of them is wanted.
    others: Vec<SessionId>,
    /// The ids of events that were told from an answer: the stream may bring some of them, too.
    told: HashSet<Box<str>>,
    /// The ids of parts whose whole text was told from an answer: the stream may bring its deltas once more.
    texts: HashSet<Box<str>>,
    /// When the last of them was told, on the steady clock.
    told_at: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The sessions to ask about are being found.
    #[default]
    Gathering,
    /// All sessions are being listed.
    Listing,
    /// The question is on its way.
    Asking,
}

/// What clients have of a session's events.
#[derive(Debug, Default)]
struct Wanted {
    /// The number of the last before the question; `None` for a session that began meanwhile.
    since: Option<u64>,
    /// Those that the stream brought since.
    heard: BTreeSet<u64>,
}

#[derive(Deserialize)]
struct Row<'a> {
    id: &'a str,
    aggregate_id: &'a str,
    seq: u64,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Data {
    info: Option<SessionInfo>,
    part: Option<PartInfo>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "partID")]
    part: &'a str,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

impl History {
    /// Forgets what was told long ago.
    pub(super) fn forget(&mut self, now: u64) {
        if !self.told.is_empty() && self.told_at + REMEMBER < now {
            (self.told, self.texts) = (HashSet::new(), HashSet::new());
        }
    }

    /// The body of the question.
    pub(super) fn body(&self) -> String {
        let wanted = self.wanted.iter().filter_map(|(id, wanted)| Some((id, wanted.since?)));
        let others = self.others.iter().map(|id| (id, NOTHING));
        let mut body = String::from("{");
        for (index, (id, seq)) in wanted.chain(others).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{}:{seq}", quote(id));
        }
        body.push('}');
        body
    }
}

impl Reconcile {
    /// Whether the event, or the text that it adds, was told already, from opencode's own record. The stream's is left out
    /// then.
    #[must_use]
    pub fn is_told(&self, event: &Event) -> bool {
        if self.history.told.is_empty() {
            return false;
        }
        let Ok(payload) = event.parts() else { return false };
        if &*event.kind == "message.part.delta" {
            let delta = payload.properties.and_then(|text| serde_json::from_str::<Delta<'_>>(text.get()).ok());
            return delta.is_some_and(|delta| self.history.texts.contains(delta.part));
        }
        let id = payload.sync.and_then(|sync| sync.id).or(payload.id);
        id.is_some_and(|id| self.history.told.contains(&*id))
    }

    /// Nobody looked for a while: asks for what was published in these sessions. Until the answer is there nothing else
    /// is read of them.
    pub(super) fn want_history(&mut self, sessions: impl IntoIterator<Item = SessionId>) {
        if !self.history.is_there {
            return;
        }
        for id in sessions {
            self.plan.block(id.clone());
            if self.history.stage == Stage::Asking && !self.history.wanted.contains_key(&id) {
                self.history.later.insert(id);
            } else {
                let since = self.shadow.sessions.get(&id).and_then(|session| session.history);
                self.history.wanted.entry(id).or_insert(Wanted { since, heard: BTreeSet::new() });
            }
        }
    }

    /// The stream brought a durable event's twin.
    pub(super) fn hear_twin(&mut self, event: &Event) {
        let Some((session, seq)) = self.shadow.observe_twin(event) else { return };
        self.history.is_there |= seq > 0;
        if let Some(wanted) = self.history.wanted.get_mut(&*session) {
            wanted.heard.insert(seq);
        }
    }

    /// The sessions that changed are known.
    pub(super) fn begin_history(&mut self, now: Now) {
        if !self.history.wanted.is_empty() && self.history.stage == Stage::Gathering {
            self.history.stage = Stage::Listing;
            self.plan.mark(Aspect::Everything, now.steady);
        }
    }

    /// All sessions there are.
    pub(super) fn name_others(&mut self, text: &str, now: Now) -> Result<(), ShapeError> {
        let listed: Vec<Listed> = serde_json::from_str(text).map_err(shape("the list of all sessions"))?;
        if listed.len() > MOST {
            self.give_up_history(now);
            return Ok(());
        }
        let ids = listed.into_iter().map(|listed| SessionId::from(listed.id));
        self.history.others = ids.filter(|id| !self.history.wanted.contains_key(id)).collect();
        self.history.stage = Stage::Asking;
        self.plan.mark(Aspect::History, now.steady);
        Ok(())
    }

    /// Events that were published while nobody looked.
    pub(super) fn tell_history(&mut self, text: &str, now: Now, effects: &mut Vec<Effect>) -> Result<(), ShapeError> {
        let rows: Vec<Row<'_>> = serde_json::from_str(text).map_err(shape("the record of events"))?;
        for row in rows {
            let Some(wanted) = self.history.wanted.get(row.aggregate_id) else { continue };
            if wanted.since.is_none_or(|since| row.seq > since) && !wanted.heard.contains(&row.seq) {
                self.history.told_at = now.steady;
                self.tell_row(&row, effects);
            }
        }
        self.finish_history(now);
        Ok(())
    }

    fn tell_row(&mut self, row: &Row<'_>, effects: &mut Vec<Effect>) {
        let data = serde_json::from_str::<Data>(row.data.get()).ok();
        let (info, part) = data.map_or((None, None), |data| (data.info, data.part));
        let known = self.shadow.session(row.aggregate_id).place.clone();
        let place = if known.directory.is_some() {
            known
        } else {
            let info = info.as_ref();
            Place {
                directory: info.and_then(|info| info.directory.as_deref()).map(Into::into),
                project: info.and_then(|info| info.project.as_deref()).map(Into::into),
            }
        };
        let (id, kind, data) = (quote(row.id), row.kind.rsplit_once('.').map_or(row.kind, |(kind, _)| kind), row.data);
        let event = Event::made(Origin::State, kind, &place, Some(row.aggregate_id), row.id, data.get());
        let twin = format!(
            r#"{{"type":"sync","id":{id},"syncEvent":{{"id":{id},"type":{},"seq":{},"aggregateID":{},"data":{data}}}}}"#,
            quote(row.kind),
            row.seq,
            quote(row.aggregate_id),
        );
        let head = String::from_utf8_lossy(&event.global[..event.payload.start]).into_owned();
        let twin = Event::read(Bytes::from(format!("{head}{twin}}}")));
        self.pending_changed |= self.shadow.observe(&event);
        self.ledger.recover(kind);
        if self.history.told.len() < TOLD {
            self.history.told.insert(row.id.into());
            if let Some(part) = part.filter(|part| part.text.as_ref().is_some_and(|text| !text.is_empty())) {
                self.history.texts.insert(part.id.into());
            }
        }
        let history = &mut self.shadow.session(row.aggregate_id).history;
        *history = (*history).max(Some(row.seq));
        effects.push(Effect::Emit(event));
        effects.extend(twin.ok().map(|twin| Effect::Emit(Event { origin: Origin::State, ..twin })));
    }

    /// The record cannot be had: the state tells what it can.
    pub(super) fn give_up_history(&mut self, now: Now) {
        self.history.is_there = false;
        self.finish_history(now);
    }

    /// The list that says what to ask for cannot be had.
    pub(super) fn give_up_waiting(&mut self, now: Now) {
        if !self.history.wanted.is_empty() {
            self.give_up_history(now);
        }
    }

    /// What the record does not hold, the state does.
    fn finish_history(&mut self, now: Now) {
        self.plan.unblock();
        let wanted = std::mem::take(&mut self.history.wanted);
        let later = std::mem::take(&mut self.history.later);
        self.history.others.clear();
        self.history.stage = Stage::Gathering;
        self.plan.mark(Aspect::Sessions, now.steady);
        for id in wanted.keys().chain(&later) {
            self.moved(id, now);
        }
        self.want_history(later);
        self.begin_history(now);
    }
}

impl super::Shadow {
    /// Takes note of a durable twin: how far which session's events are counted.
    fn observe_twin(&mut self, event: &Event) -> Option<(SessionId, u64)> {
        let sync = event.parts().ok()?.sync?;
        let id = SessionId::from(&*sync.aggregate);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.history = session.history.max(Some(sync.seq));
        }
        Some((id, sync.seq))
    }
}
