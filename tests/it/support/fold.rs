//! A client that folds events into state, the way opencode's own SDK and screens do, and compares it with what REST says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::http::Api;
use super::sse::Stream;

/// A message with its parts by id.
#[derive(Debug, Default, Clone)]
struct Message {
    info: Value,
    parts: BTreeMap<String, Value>,
}

/// The state a client has after the events it got.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    sessions: BTreeMap<String, Value>,
    messages: BTreeMap<String, BTreeMap<String, Message>>,
    /// Only the sessions that are not idle, as in REST.
    statuses: BTreeMap<String, Value>,
    permissions: BTreeMap<String, Value>,
    questions: BTreeMap<String, Value>,
    todos: BTreeMap<String, Value>,
    pub(crate) diffs: BTreeMap<String, Value>,
    /// The deltas of each part's text, joined.
    deltas: BTreeMap<String, String>,
    /// How often each session's turn was said to be over.
    pub(crate) idles: BTreeMap<String, usize>,
    /// How often each type came.
    pub(crate) types: BTreeMap<String, usize>,
    /// Deltas of parts that were not announced: opencode sends none, its screens pass over them.
    pub(crate) orphans: Vec<String>,
    taken: usize,
}

impl Fold {
    /// Takes every frame of a stream that came since the last time.
    pub(crate) fn catch_up(&mut self, stream: &Stream) {
        for frame in stream.frames_from(self.taken) {
            self.taken += 1;
            self.apply(&frame.payload_json());
        }
    }

    /// The client reconnected: the next frames are another stream's.
    pub(crate) fn go_on_with_another_stream(&mut self) {
        self.taken = 0;
    }

    /// Takes one event.
    pub(crate) fn apply(&mut self, event: &Value) {
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "sync" {
            return;
        }
        *self.types.entry(kind.to_owned()).or_default() += 1;
        let properties = &event["properties"];
        let session = || key(&properties["sessionID"]);
        match kind {
            "session.created" | "session.updated" => {
                self.sessions.insert(key(&properties["info"]["id"]), properties["info"].clone());
            }
            "session.deleted" => self.delete(&key(&properties["info"]["id"])),
            "session.status" if properties["status"]["type"] == "idle" => {
                self.statuses.remove(&session());
            }
            "session.status" => {
                self.statuses.insert(session(), properties["status"].clone());
            }
            "session.idle" => {
                self.statuses.remove(&session());
                *self.idles.entry(session()).or_default() += 1;
            }
            "session.diff" => {
                self.diffs.insert(session(), properties["diff"].clone());
            }
            "todo.updated" => {
                self.todos.insert(session(), properties["todos"].clone());
            }
            "permission.asked" => {
                self.permissions.insert(key(&properties["id"]), properties.clone());
            }
            "permission.replied" => {
                self.permissions.remove(&key(&properties["requestID"]));
            }
            "question.asked" => {
                self.questions.insert(key(&properties["id"]), properties.clone());
            }
            "question.replied" | "question.rejected" => {
                self.questions.remove(&key(&properties["requestID"]));
            }
            "message.updated" => {
                let info = &properties["info"];
                self.message(&key(&info["sessionID"]), &key(&info["id"])).info = info.clone();
            }
            "message.removed" => {
                self.messages.entry(session()).or_default().remove(&key(&properties["messageID"]));
            }
            "message.part.updated" => {
                let part = &properties["part"];
                let message = self.message(&key(&part["sessionID"]), &key(&part["messageID"]));
                message.parts.insert(key(&part["id"]), part.clone());
            }
            "message.part.removed" => {
                self.message(&session(), &key(&properties["messageID"])).parts.remove(&key(&properties["partID"]));
            }
            "message.part.delta" => self.append(properties),
            _ => {}
        }
    }

    fn delete(&mut self, session: &str) {
        self.sessions.remove(session);
        self.messages.remove(session);
        self.statuses.remove(session);
        self.todos.remove(session);
    }

    fn message(&mut self, session: &str, message: &str) -> &mut Message {
        self.messages.entry(session.to_owned()).or_default().entry(message.to_owned()).or_default()
    }

    fn append(&mut self, properties: &Value) {
        let [message, part, field] = ["messageID", "partID", "field"].map(|name| key(&properties[name]));
        let delta = key(&properties["delta"]);
        if field == "text" {
            self.deltas.entry(part.clone()).or_default().push_str(&delta);
        }
        let parts = &mut self.message(&key(&properties["sessionID"]), &message).parts;
        // opencode's own clients pass over a delta of an unknown part: the part comes whole right behind.
        if let Some(part) = parts.get_mut(&part) {
            let grown = format!("{}{delta}", part[&field].as_str().unwrap_or_default());
            part[field] = Value::String(grown);
        }
    }

    /// Everything in which this state is not what REST of that opencode says about the directories.
    pub(crate) async fn compare(&self, api: &Api, directories: &[&str]) -> Vec<String> {
        let mut differences = Vec::new();
        for directory in directories {
            let api = api.within(directory);
            let mut report = |what: String, folded: &Value, state: &Value| {
                if folded != state {
                    differences.push(format!("{what}: {}", difference(folded, state)));
                }
            };
            report(
                format!("permissions in {directory}"),
                &within(&self.permissions, self, directory),
                &by_id(&api.get("/permission").await),
            );
            report(
                format!("questions in {directory}"),
                &within(&self.questions, self, directory),
                &by_id(&api.get("/question").await),
            );
            let statuses = self.statuses.iter().filter(|(session, _)| self.is_in(session, directory));
            report(
                format!("status in {directory}"),
                &json!(BTreeMap::from_iter(statuses)),
                &api.get("/session/status").await,
            );
            let listed = by_id(&api.get("/session").await);
            let known = self.sessions.keys().filter(|session| self.is_in(session, directory)).cloned();
            let mut sessions = BTreeSet::from_iter(known);
            sessions.extend(listed.as_object().into_iter().flat_map(|listed| listed.keys().cloned()));
            for session in sessions {
                report(
                    format!("session {session}"),
                    self.sessions.get(&session).unwrap_or(&Value::Null),
                    &listed[&session],
                );
                if listed[&session].is_null() {
                    continue;
                }
                let todos = api.get(&format!("/session/{session}/todo")).await;
                report(format!("todo of {session}"), self.todos.get(&session).unwrap_or(&json!([])), &todos);
                let messages = api.get(&format!("/session/{session}/message")).await;
                report(format!("messages of {session}"), &self.folded_messages(&session), &rest_messages(&messages));
            }
        }
        differences
    }

    /// The texts of answers which are not what their deltas were. opencode may cut white space off the end.
    pub(crate) async fn deltas_unlike(&self, api: &Api) -> Vec<String> {
        let mut unlike = Vec::new();
        for session in self.sessions.keys() {
            let messages = api.get(&format!("/session/{session}/message")).await;
            let answers =
                messages.as_array().into_iter().flatten().filter(|message| message["info"]["role"] == "assistant");
            for part in answers
                .filter_map(|message| message["parts"].as_array())
                .flatten()
                .filter(|part| part["type"] == "text")
            {
                let (deltas, text) =
                    (self.deltas.get(&key(&part["id"])).map_or("", String::as_str), key(&part["text"]));
                if deltas.trim_end() != text.trim_end() {
                    unlike.push(format!("{}: deltas {deltas:?}, text {text:?}", part["id"]));
                }
            }
        }
        unlike
    }

    fn is_in(&self, session: &str, directory: &str) -> bool {
        self.sessions.get(session).is_none_or(|info| info["directory"] == directory)
    }

    fn folded_messages(&self, session: &str) -> Value {
        let messages = self.messages.get(session).cloned().unwrap_or_default();
        let shown =
            messages.into_iter().map(|(id, message)| (id, json!({"info": message.info, "parts": message.parts})));
        json!(BTreeMap::from_iter(shown))
    }
}

fn key(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn within(pending: &BTreeMap<String, Value>, fold: &Fold, directory: &str) -> Value {
    json!(BTreeMap::from_iter(pending.iter().filter(|(_, request)| fold.is_in(&key(&request["sessionID"]), directory))))
}

fn by_id(list: &Value) -> Value {
    let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
    json!(BTreeMap::from_iter(entries.iter().map(|entry| (key(&entry["id"]), entry))))
}

fn rest_messages(list: &Value) -> Value {
    let messages = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = messages.iter().map(|message| {
        (key(&message["info"]["id"]), json!({"info": message["info"], "parts": by_id(&message["parts"])}))
    });
    json!(BTreeMap::from_iter(shown))
}

/// The first few places in which two values differ.
fn difference(folded: &Value, state: &Value) -> String {
    let mut places = Vec::new();
    walk(String::new(), folded, state, &mut places);
    let more = places.len().saturating_sub(4);
    places.truncate(4);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", places.join("; "))
}

fn walk(path: String, folded: &Value, state: &Value, places: &mut Vec<String>) {
    if folded == state {
        return;
    }
    if let (Value::Object(folded), Value::Object(state)) = (folded, state) {
        for name in BTreeSet::from_iter(folded.keys().chain(state.keys())) {
            walk(
                format!("{path}/{name}"),
                folded.get(name).unwrap_or(&Value::Null),
                state.get(name).unwrap_or(&Value::Null),
                places,
            );
        }
        return;
    }
    let short = |value: &Value| value.to_string().chars().take(160).collect::<String>();
    places.push(format!("{path} folded {} but REST {}", short(folded), short(state)));
}
