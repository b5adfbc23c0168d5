//! The shadow: what clients were last told, as far as it takes to tell what the state adds to it.
//!
//! Contents are kept as fingerprints; texts are kept only where an event has to be made from what is gone (a deleted
//! session) or told again after a gap (open permissions and questions, busy sessions).

mod observe;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::aspect::{Directory, Group, SessionId};
use super::json::Told;
use super::watch::Followed;
use crate::event::Place;

/// Most sessions remembered; the longest unchanged is forgotten first. What is forgotten is told again when it moves.
const SESSIONS: usize = 1024;

/// Most messages remembered of one session, newest kept.
const MESSAGES: usize = 2048;

/// Most deletions remembered, of sessions and within a session. One is needed while an older answer is on its way.
const GONE: usize = 64;

/// What went away, with the step: an older answer may still show it.
#[derive(Debug, Default)]
pub(super) struct Gone(VecDeque<(Arc<str>, u64)>);

/// What clients were told.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// Counts the stream's events, and the ends that were told without it. A thing told at a later step than a read began is
    /// newer than the read's answer.
    pub(super) step: u64,
    pub(super) sessions: HashMap<SessionId, Session>,
    /// The longest untouched first; every key of `sessions` once.
    order: VecDeque<SessionId>,
    pub(super) instances: BTreeMap<Directory, Instance>,
    /// Sessions that were deleted.
    pub(super) gone: Gone,
}

/// What clients were told about one session.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) place: Place,
    /// The session's object, as text, and its fingerprint.
    pub(super) info: Option<(String, u64)>,
    /// When the session began and last changed, in milliseconds of Unix time.
    pub(super) created: u64,
    pub(super) updated: u64,
    /// The status other than idle, as JSON text.
    pub(super) busy: Option<String>,
    /// The stream told the status idle and not yet `session.idle`, which follows it.
    pub(super) owes_idle: bool,
    /// The turn was told because of an answer, not because of the status map.
    pub(super) was_proved: bool,
    /// An answer began since the session is busy.
    pub(super) has_answer: bool,
    /// The status map does not have the session any more, but its turn is not told to be over.
    pub(super) ending: Option<Ending>,
    pub(super) messages: HashMap<Arc<str>, Message>,
    /// Messages and parts that were removed.
    pub(super) gone: Gone,
    /// The messages' ids in the order they were told.
    message_order: VecDeque<Arc<str>>,
    /// Everything that happened in the session was told: it was created under our eyes or read before.
    pub(super) known: bool,
    pub(super) todo: Option<u64>,
    pub(super) diff: Option<u64>,
    /// The last `session.error`.
    pub(super) error: Option<u64>,
    /// The step of the last event about the session's object, status, todo list, changes.
    pub(super) stepped: Steps,
    /// The number of its newest durable event that was told, on releases that count them.
    pub(super) history: Option<u64>,
    /// The list showed its object changed without an event; when the stream had last told something about it.
    pub(super) suspected: Option<u64>,
    /// The fingerprint of the object for which opencode's record was asked last.
    pub(super) recorded: Option<u64>,
    /// It moved, and nothing names it as one that this opencode works on.
    pub(super) is_unread: bool,
    /// Its changes are found by reading alone.
    pub(super) followed: Option<Followed>,
    /// When the stream last told something about it, on the steady clock; 0 for never.
    pub(super) heard: u64,
    /// Read its messages until then, in milliseconds, whenever a notice could be about it.
    pub(super) active: u64,
}

/// When the stream last told something about each part of a session.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) info: u64,
    pub(super) status: u64,
    pub(super) todo: u64,
    pub(super) diff: u64,
}

/// A turn that seems to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// When the status map was first seen without the session, in milliseconds.
    pub(super) since: u64,
    /// How many reads of the map in a row said so.
    pub(super) reads: u32,
    /// Its messages were not read since the map was. Later the map may have changed again.
    pub(super) is_fresh: bool,
}

/// What clients were told about one message.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// The fingerprint of its object; 0 while clients were told of its parts alone.
    pub(super) info: u64,
    /// When it began, in milliseconds of Unix time.
    pub(super) created: u64,
    /// When the message was complete, in milliseconds of Unix time, if it is an assistant's and complete or failed.
    pub(super) finished: Option<u64>,
    /// It ended with a call of tools.
    pub(super) is_step: bool,
    pub(super) parts: HashMap<Arc<str>, Part>,
    pub(super) step: u64,
}

impl Message {
    /// The step at which the stream last told something of it or of a part of it.
    pub(super) fn last_step(&self) -> u64 {
        self.parts.values().map(|part| part.step).fold(self.step, u64::max)
    }
}

/// What clients were told about one part.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) print: u64,
    /// How far its text was told, for parts that have one.
    pub(super) text: Told,
    pub(super) step: u64,
}

/// What clients were told about one instance.
#[derive(Debug, Default)]
pub(super) struct Instance {
    pub(super) project: Option<Arc<str>>,
    /// What of its permissions, questions and statuses was read at least once: what is open is known when all was.
    pub(super) read: BTreeSet<Group>,
    /// Open permissions by id.
    pub(super) permissions: BTreeMap<String, Ask>,
    /// Open questions by id.
    pub(super) questions: BTreeMap<String, Ask>,
    /// Asks that the stream said are answered, with the step: an older answer may still show them.
    pub(super) answered: VecDeque<(String, u64)>,
    pub(super) terminals: BTreeMap<String, u64>,
    pub(super) terminals_step: u64,
    pub(super) branch: Option<u64>,
    pub(super) branch_step: u64,
    pub(super) servers: Option<u64>,
}

/// An open permission or question.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) session: Option<String>,
    /// The whole object, as JSON text.
    pub(super) text: String,
    pub(super) step: u64,
    /// Clients were told; otherwise it was only learnt, for those who have a gap.
    pub(super) told: bool,
}

/// The parts of a session's object that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct SessionInfo {
    pub(super) id: String,
    #[serde(default)]
    pub(super) directory: Option<String>,
    #[serde(default, rename = "projectID")]
    pub(super) project: Option<String>,
    #[serde(default)]
    pub(super) time: Times,
}

/// A session's or message's times, in milliseconds of Unix time.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Times {
    #[serde(default)]
    pub(super) created: f64,
    #[serde(default)]
    pub(super) updated: f64,
    #[serde(default)]
    pub(super) completed: Option<f64>,
}

/// The parts of a message's object that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct MessageInfo<'a> {
    pub(super) id: String,
    #[serde(default)]
    pub(super) role: String,
    #[serde(default)]
    pub(super) time: Times,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) finish: Option<String>,
}

impl MessageInfo<'_> {
    /// Whether an assistant's message ended with a call of tools, after which its turn usually goes on.
    pub(super) fn is_step(&self) -> bool {
        self.error.is_none() && self.finish.as_deref() == Some("tool-calls")
    }

    /// When an assistant's message was complete; 0 if it failed before that.
    pub(super) fn finished(&self) -> Option<u64> {
        let is_over = self.role == "assistant" && (self.time.completed.is_some() || self.error.is_some());
        is_over.then(|| millis(self.time.completed.unwrap_or_default()))
    }
}

/// The parts of a message part's object that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct PartInfo {
    pub(super) id: String,
    #[serde(default, rename = "messageID")]
    pub(super) message: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) text: Option<String>,
}

impl PartInfo {
    /// Whether opencode streams the part's text in deltas.
    pub(super) fn streams(&self) -> bool {
        matches!(self.kind.as_str(), "text" | "reasoning")
    }
}

impl Shadow {
    /// The session, made if need be.
    pub(super) fn session(&mut self, id: &str) -> &mut Session {
        let id: SessionId = match self.sessions.get_key_value(id) {
            Some((known, _)) => known.clone(),
            None => {
                if self.sessions.len() >= SESSIONS {
                    self.forget_one();
                }
                self.order.push_back(id.into());
                id.into()
            }
        };
        self.sessions.entry(id).or_default()
    }

    /// Forgets the longest known session that is not busy.
    fn forget_one(&mut self) {
        let idle = |id: &SessionId| self.sessions.get(id).is_none_or(|session| session.busy.is_none());
        if let Some(place) = self.order.iter().position(idle)
            && let Some(id) = self.order.remove(place)
        {
            self.sessions.remove(&id);
        }
    }

    /// Forgets a session that is gone.
    pub(super) fn remove(&mut self, id: &str) -> Option<Session> {
        self.order.retain(|known| **known != *id);
        self.gone.push(id, self.step);
        self.sessions.remove(id)
    }

    /// The instance, made if need be.
    pub(super) fn instance(&mut self, directory: &Directory) -> &mut Instance {
        self.instances.entry(directory.clone()).or_default()
    }

    /// The place of an instance's own events.
    pub(super) fn place(&self, directory: &Directory) -> Place {
        let project = self.instances.get(directory).and_then(|instance| instance.project.clone());
        Place { directory: Some(directory.clone()), project }
    }

    /// Takes note of a session's object.
    pub(super) fn learn(&mut self, text: &str, print: u64, info: &SessionInfo) -> &mut Session {
        let place = Place {
            directory: info.directory.as_deref().map(Into::into),
            project: info.project.as_deref().map(Into::into),
        };
        if let Some(directory) = &place.directory
            && let Some(instance) = self.instances.get_mut(directory)
            && instance.project.is_none()
        {
            instance.project.clone_from(&place.project);
        }
        let session = self.session(&info.id);
        session.place = place;
        session.info = Some((text.to_owned(), print));
        session.created = millis(info.time.created);
        session.updated = millis(info.time.updated);
        session
    }
}

impl Message {
    /// Takes note of its object.
    pub(super) fn learn(&mut self, info: &MessageInfo<'_>) {
        self.created = millis(info.time.created);
        (self.finished, self.is_step) = (info.finished(), info.is_step());
    }
}

impl Gone {
    fn push(&mut self, id: &str, step: u64) {
        self.0.push_back((id.into(), step));
        if self.0.len() > GONE {
            self.0.pop_front();
        }
    }

    /// Whether it went away after this step.
    pub(super) fn since(&self, id: &str, step: u64) -> bool {
        self.0.iter().any(|(gone, when)| **gone == *id && *when > step)
    }
}

impl Session {
    /// The message, made if need be.
    pub(super) fn message(&mut self, id: &str) -> &mut Message {
        let id: Arc<str> = match self.messages.get_key_value(id) {
            Some((known, _)) => known.clone(),
            None => {
                let id: Arc<str> = id.into();
                self.message_order.push_back(id.clone());
                if self.message_order.len() > MESSAGES
                    && let Some(oldest) = self.message_order.pop_front()
                {
                    self.messages.remove(&oldest);
                }
                id
            }
        };
        self.messages.entry(id).or_default()
    }

    /// Forgets a message that is gone.
    pub(super) fn remove(&mut self, id: &str) {
        self.message_order.retain(|known| **known != *id);
        self.messages.remove(id);
    }

    /// The messages' ids in the order they were told.
    pub(super) fn message_ids(&self) -> impl DoubleEndedIterator<Item = &Arc<str>> {
        self.message_order.iter()
    }

    /// The newest message.
    ///
    /// The stream may tell of an old message late, so the order in which they were told does not say which is newest.
    fn newest(&self) -> Option<&Message> {
        let messages = self.message_order.iter().filter_map(|id| self.messages.get(id));
        messages.max_by_key(|message| message.created)
    }

    /// When the newest message was complete, if it is an assistant's that is complete or failed.
    pub(super) fn answered(&self) -> Option<u64> {
        self.newest().and_then(|message| message.finished)
    }

    /// Whether the newest message says that the turn is over.
    pub(super) fn is_answered(&self) -> bool {
        self.newest().is_some_and(|message| message.finished.is_some() && !message.is_step)
    }

    /// A message or part is gone.
    fn bury(&mut self, id: &str, step: u64) {
        self.gone.push(id, step);
    }
}

/// A JavaScript time as a number of milliseconds.
pub(super) fn millis(time: f64) -> u64 {
    // `as` saturates, and a time before 1970 or NaN becomes 0.
    time as u64
}

/// Whether a status, as JSON text, is idle.
pub(super) fn is_idle(status: &str) -> bool {
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
    }
    serde_json::from_str::<Status<'_>>(status).is_ok_and(|status| status.kind == "idle")
}
