//! What REST shows: the fold of everything that was published, delivered or not.
//!
//! As in opencode, a text part holds no text before it ends: deltas change nothing here (opencode-relay's FACTS §3).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::DIRECTORY;

#[derive(Default)]
pub(super) struct State {
    /// In the order of their creation.
    sessions: Vec<Session>,
    statuses: BTreeMap<String, Value>,
    permissions: Vec<Value>,
    questions: Vec<Value>,
    terminals: BTreeMap<String, Value>,
    branch: Option<Value>,
}

#[derive(Default)]
struct Session {
    id: String,
    info: Value,
    messages: Vec<Message>,
    todo: Option<Value>,
    diff: Option<Value>,
}

#[derive(Default)]
struct Message {
    id: String,
    info: Value,
    parts: Vec<Value>,
}

impl State {
    /// Takes the data of one frame of `/global/event`.
    pub(super) fn fold(&mut self, frame: &Value) {
        let payload = &frame["payload"];
        let properties = &payload["properties"];
        let id = |name: &str| text(&properties[name]);
        match payload["type"].as_str().unwrap() {
            "session.created" | "session.updated" => {
                self.session(&text(&properties["info"]["id"])).info = properties["info"].clone();
            }
            "session.deleted" => self.sessions.retain(|session| session.id != text(&properties["info"]["id"])),
            "session.status" if properties["status"]["type"] != "idle" => {
                self.statuses.insert(id("sessionID"), properties["status"].clone());
            }
            "session.status" | "session.idle" => {
                self.statuses.remove(&id("sessionID"));
            }
            "session.diff" => self.session(&id("sessionID")).diff = Some(properties["diff"].clone()),
            "todo.updated" => self.session(&id("sessionID")).todo = Some(properties["todos"].clone()),
            "permission.asked" => self.permissions.push(properties.clone()),
            "permission.replied" => self.permissions.retain(|ask| text(&ask["id"]) != id("requestID")),
            "question.asked" => self.questions.push(properties.clone()),
            "question.replied" | "question.rejected" => {
                self.questions.retain(|ask| text(&ask["id"]) != id("requestID"));
            }
            "message.updated" => {
                let info = &properties["info"];
                self.session(&text(&info["sessionID"])).message(&text(&info["id"])).info = info.clone();
            }
            "message.removed" => {
                let message = id("messageID");
                self.session(&id("sessionID")).messages.retain(|kept| kept.id != message);
            }
            "message.part.updated" => {
                let part = &properties["part"];
                let parts = &mut self.session(&text(&part["sessionID"])).message(&text(&part["messageID"])).parts;
                match parts.iter_mut().find(|kept| kept["id"] == part["id"]) {
                    Some(kept) => *kept = part.clone(),
                    None => parts.push(part.clone()),
                }
            }
            "message.part.removed" => {
                let part = id("partID");
                let message = self.session(&id("sessionID"));
                message.message(&id("messageID")).parts.retain(|kept| text(&kept["id"]) != part);
            }
            "pty.created" | "pty.updated" => {
                self.terminals.insert(text(&properties["info"]["id"]), properties["info"].clone());
            }
            "pty.exited" | "pty.deleted" => {
                self.terminals.remove(&id("id"));
            }
            "vcs.branch.updated" => self.branch = Some(properties["branch"].clone()),
            _ => {}
        }
    }

    /// Forgets what opencode keeps in memory only.
    pub(super) fn crash(&mut self) {
        self.statuses.clear();
        self.permissions.clear();
        self.questions.clear();
        self.terminals.clear();
    }

    /// The answer to a GET; `None` for a path that opencode answers with its web app.
    pub(super) fn answer(&self, path: &str, limit: Option<usize>, directory: &str) -> Option<(u16, Value)> {
        let here = |session: &str| self.find(session).is_none_or(|session| session.info["directory"] == directory);
        let asks =
            |asks: &[Value]| -> Value { asks.iter().filter(|ask| here(&text(&ask["sessionID"]))).cloned().collect() };
        let body = match path {
            "/path" => json!({"directory": directory, "worktree": directory, "home": "/srv", "state": "/srv"}),
            "/permission" => asks(&self.permissions),
            "/question" => asks(&self.questions),
            "/session/status" => {
                let shown = self.statuses.iter().filter(|(session, _)| here(session));
                shown
                    .map(|(session, status)| (session.clone(), status.clone()))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
            "/pty" => self.terminals.values().cloned().collect(),
            "/vcs" => json!({"branch": self.branch.clone().unwrap_or_else(|| "main".into())}),
            "/lsp" => json!([]),
            "/session" => {
                let sessions = self.sessions.iter().filter(|session| session.info["directory"] == directory);
                sessions.map(|session| session.info.clone()).collect()
            }
            "/experimental/session" => {
                let mut sessions: Vec<Value> = self.sessions.iter().map(|session| session.info.clone()).collect();
                sessions.reverse();
                sessions.sort_by_key(|info| std::cmp::Reverse(info["time"]["updated"].as_u64()));
                sessions.truncate(limit.unwrap_or(100));
                for info in &mut sessions {
                    info["project"] = json!({"id": info["projectID"], "worktree": DIRECTORY});
                }
                sessions.into()
            }
            _ => return self.of_session(path, limit),
        };
        Some((200, body))
    }

    fn of_session(&self, path: &str, limit: Option<usize>) -> Option<(u16, Value)> {
        let rest = path.strip_prefix("/session/")?;
        let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
        if !["", "message", "todo", "diff"].contains(&what) {
            return None;
        }
        let Some(session) = self.find(id) else {
            return Some((
                404,
                json!({"name": "NotFoundError", "data": {"message": format!("Session not found: {id}")}}),
            ));
        };
        let body = match what {
            "message" => {
                let start = session.messages.len().saturating_sub(limit.unwrap_or(usize::MAX));
                let shown = session.messages[start..].iter().filter(|message| !message.info.is_null());
                shown.map(|message| json!({"info": message.info, "parts": message.parts})).collect()
            }
            "todo" => session.todo.clone().unwrap_or_else(|| json!([])),
            "diff" => session.diff.clone().unwrap_or_else(|| json!([])),
            _ => session.info.clone(),
        };
        Some((200, body))
    }

    fn find(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id && !session.info.is_null())
    }

    fn session(&mut self, id: &str) -> &mut Session {
        let place = self.sessions.iter().position(|session| session.id == id).unwrap_or_else(|| {
            self.sessions.push(Session { id: id.to_owned(), ..Session::default() });
            self.sessions.len() - 1
        });
        &mut self.sessions[place]
    }
}

impl Session {
    fn message(&mut self, id: &str) -> &mut Message {
        let place = self.messages.iter().position(|message| message.id == id).unwrap_or_else(|| {
            self.messages.push(Message { id: id.to_owned(), ..Message::default() });
            self.messages.len() - 1
        });
        &mut self.messages[place]
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
