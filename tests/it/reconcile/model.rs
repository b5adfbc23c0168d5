//! What opencode holds, and what a client that folds events holds: the same words, so that they can be compared.

use std::collections::BTreeMap;

use bytes::Bytes;
use opencode_relay::event::Event;
use opencode_relay::reconcile::Failure;
use serde_json::{Value, json};

/// The default instance.
pub(super) const HOME: &str = "/srv/home";
/// A second one.
pub(super) const AWAY: &str = "/srv/away";
/// Unix time when the virtual clock began.
pub(super) const EPOCH: u64 = 1_795_394_354_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) info: Value,
    pub(super) parts: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct World {
    pub(super) sessions: BTreeMap<String, Value>,
    pub(super) messages: BTreeMap<String, BTreeMap<String, Message>>,
    pub(super) statuses: BTreeMap<String, Value>,
    pub(super) todos: BTreeMap<String, Value>,
    pub(super) diffs: BTreeMap<String, Value>,
    /// With the directory.
    pub(super) permissions: BTreeMap<String, (String, Value)>,
    pub(super) questions: BTreeMap<String, (String, Value)>,
}

/// A change of the state.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Session(Value),
    Deleted(String),
    Message(String, Value),
    Removed(String, String),
    Part(String, Value),
    Status(String, Option<Value>),
    Todo(String, Value),
    Diff(String, Value),
    Permission(String, Value),
    Question(String, Value),
    Answered(String),
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

impl World {
    pub(super) fn change(&mut self, change: Change) {
        match change {
            Change::Session(info) => {
                self.sessions.insert(text(&info, "id"), info);
            }
            Change::Deleted(id) => {
                self.sessions.remove(&id);
                self.messages.remove(&id);
                self.statuses.remove(&id);
                self.todos.remove(&id);
                self.diffs.remove(&id);
            }
            Change::Message(session, info) => {
                let id = text(&info, "id");
                self.messages.entry(session).or_default().entry(id).or_default().info = info;
            }
            Change::Removed(session, id) => {
                self.messages.entry(session).or_default().remove(&id);
            }
            Change::Part(session, part) => {
                let message = self.messages.entry(session).or_default().entry(text(&part, "messageID")).or_default();
                message.parts.insert(text(&part, "id"), part);
            }
            Change::Status(id, Some(status)) => {
                self.statuses.insert(id, status);
            }
            Change::Status(id, None) => {
                self.statuses.remove(&id);
            }
            Change::Todo(id, todos) => {
                self.todos.insert(id, todos);
            }
            Change::Diff(id, diff) => {
                self.diffs.insert(id, diff);
            }
            Change::Permission(directory, ask) => {
                self.permissions.insert(text(&ask, "id"), (directory, ask));
            }
            Change::Question(directory, ask) => {
                self.questions.insert(text(&ask, "id"), (directory, ask));
            }
            Change::Answered(id) => {
                self.permissions.remove(&id);
                self.questions.remove(&id);
            }
        }
    }

    /// Folds an event as opencode's own clients do. Says what is wrong with it, if anything is.
    ///
    /// `strict` is for events that were made: those of the stream may come when what they are about was lost.
    pub(super) fn fold(&mut self, event: &Event, strict: bool) -> Result<(), String> {
        let payload = event.parts().unwrap();
        let properties: Value = serde_json::from_str(payload.properties.unwrap().get()).unwrap();
        let session = text(&properties, "sessionID");
        let directory = event.directory.as_deref().unwrap_or_default().to_owned();
        let known = !strict || self.sessions.contains_key(&session);
        let change = match &*event.kind {
            "session.created" | "session.updated" => Change::Session(properties["info"].clone()),
            "session.deleted" if known => Change::Deleted(session),
            "message.updated" if known => Change::Message(session, properties["info"].clone()),
            "message.removed" if known => Change::Removed(session, text(&properties, "messageID")),
            "message.part.updated" if known => {
                let part = properties["part"].clone();
                if strict && !self.messages.get(&session).is_some_and(|all| all.contains_key(&text(&part, "messageID")))
                {
                    return Err(format!("a part before its message: {properties}"));
                }
                Change::Part(session, part)
            }
            "message.part.removed" if known => {
                let messages = self.messages.entry(session).or_default();
                if let Some(message) = messages.get_mut(&text(&properties, "messageID")) {
                    message.parts.remove(&text(&properties, "partID"));
                }
                return Ok(());
            }
            "message.part.delta" if known => {
                let messages = self.messages.entry(session).or_default();
                // opencode's clients ignore a delta for what they do not have.
                if let Some(message) = messages.get_mut(&text(&properties, "messageID"))
                    && let Some(part) = message.parts.get_mut(&text(&properties, "partID"))
                {
                    let grown = text(part, "text") + &text(&properties, "delta");
                    part["text"] = grown.into();
                }
                return Ok(());
            }
            "session.status" if properties["status"]["type"] == "idle" => Change::Status(session, None),
            "session.status" => Change::Status(session, Some(properties["status"].clone())),
            "session.idle" => Change::Status(session, None),
            "todo.updated" => Change::Todo(session, properties["todos"].clone()),
            "session.diff" => Change::Diff(session, properties["diff"].clone()),
            "permission.asked" => Change::Permission(directory, properties),
            "question.asked" => Change::Question(directory, properties),
            "permission.replied" | "question.replied" | "question.rejected" => {
                let id = text(&properties, "requestID");
                if strict && !self.permissions.contains_key(&id) && !self.questions.contains_key(&id) {
                    return Err(format!("a reply to nothing: {properties}"));
                }
                Change::Answered(id)
            }
            "session.error" | "lsp.updated" => return Ok(()),
            other => return Err(format!("{other} of what is not there: {properties}")),
        };
        self.change(change);
        Ok(())
    }

    /// Without what says nothing.
    pub(super) fn bare(mut self) -> Self {
        self.messages.retain(|_, messages| !messages.is_empty());
        self.todos.retain(|_, todos| *todos != json!([]));
        self.diffs.retain(|_, diff| *diff != json!([]));
        self
    }

    /// Answers as opencode's REST does.
    pub(super) fn answer(&self, path: &str, directory: &str) -> Result<Bytes, Failure> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let limit = query.strip_prefix("limit=").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let here = |asks: &BTreeMap<String, (String, Value)>| -> Value {
            asks.values().filter(|(at, _)| at == directory).map(|(_, ask)| ask.clone()).collect()
        };
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let value: Value = match words.as_slice() {
            ["path"] => json!({"home": "/", "directory": directory}),
            ["experimental", "session"] => {
                let mut all: Vec<&Value> = self.sessions.values().collect();
                all.sort_by_key(|info| std::cmp::Reverse(info["time"]["updated"].as_u64()));
                let listed = all.into_iter().take(limit).cloned().map(|mut info| {
                    info["project"] = json!({"id": "p", "worktree": "/srv"});
                    info
                });
                listed.collect()
            }
            ["session", "status"] => {
                let here = |id: &String| self.sessions.get(id).is_some_and(|info| info["directory"] == directory);
                let listed = self.statuses.iter().filter(|(id, _)| here(id));
                Value::Object(listed.map(|(id, status)| (id.clone(), status.clone())).collect())
            }
            ["permission"] => here(&self.permissions),
            ["question"] => here(&self.questions),
            ["pty" | "lsp"] => json!([]),
            ["vcs"] => json!({"branch": "main"}),
            ["session", id, ..] if !self.sessions.contains_key(*id) => return Err(Failure::Missing),
            ["session", id] => self.sessions[*id].clone(),
            ["session", id, "todo"] => self.todos.get(*id).cloned().unwrap_or_else(|| json!([])),
            ["session", id, "diff"] => self.diffs.get(*id).cloned().unwrap_or_else(|| json!([])),
            ["session", id, "message"] => {
                let all: Vec<&Message> = self.messages.get(*id).into_iter().flat_map(BTreeMap::values).collect();
                let newest = &all[all.len().saturating_sub(limit)..];
                let entry = |message: &&Message| {
                    let parts: Vec<&Value> = message.parts.values().collect();
                    json!({"info": message.info, "parts": parts})
                };
                newest.iter().map(entry).collect()
            }
            _ => panic!("no such question: {path}"),
        };
        Ok(Bytes::from(value.to_string()))
    }
}
