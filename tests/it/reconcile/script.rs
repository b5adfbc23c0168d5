//! Scripts: what users and models do, turned into state changes and publications as opencode makes them.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{AWAY, Change, EPOCH, HOME, World};

/// Numbers that only look random.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`, which may be 0.
    pub(super) fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Stop,
    Abort,
    Error,
}

#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// Milliseconds between two steps, at most.
    pub(super) pace: u64,
    pub(super) deltas: u64,
    pub(super) tools: u64,
    pub(super) permission: bool,
    pub(super) question: bool,
    pub(super) todo: bool,
    pub(super) diff: bool,
    /// A second prompt arrives while the first is being answered.
    pub(super) queued: bool,
    /// What opencode does after the turn is published, too.
    pub(super) trailing: bool,
    pub(super) end: End,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Turn(Turn),
    Rename,
    Delete,
    Revert,
    Fork,
}

/// One act in one of the session slots, so long after the slot's last.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) slot: usize,
    pub(super) pause: u64,
    pub(super) act: Act,
}

pub(super) fn turns() -> impl Strategy<Value = Turn> {
    let flags = prop::array::uniform6(prop::bool::weighted(0.25));
    let end = prop_oneof![6 => Just(End::Stop), 2 => Just(End::Abort), 1 => Just(End::Error)];
    let pace = prop_oneof![Just(0u64), 0..6u64, 0..60u64, 100..400u64];
    (pace, 0..12u64, 0..3u64, flags, end).prop_map(|(pace, deltas, tools, flags, end)| {
        let [permission, question, todo, diff, queued, quick] = flags;
        Turn { pace, deltas, tools, permission, question, todo, diff, queued, trailing: !quick, end }
    })
}

pub(super) fn moves() -> impl Strategy<Value = Vec<Move>> {
    let act = prop_oneof![
        8 => turns().prop_map(Act::Turn),
        1 => Just(Act::Rename),
        1 => Just(Act::Delete),
        1 => Just(Act::Revert),
        1 => Just(Act::Fork),
    ];
    let pause = prop_oneof![Just(0u64), 0..10u64, 0..300u64, 0..4000u64];
    let one = (0..4usize, pause, act).prop_map(|(slot, pause, act)| Move { slot, pause, act });
    prop::collection::vec(one, 1..9)
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Change(Change),
    Publish {
        kind: &'static str,
        directory: String,
        properties: Value,
    },
    /// A session and its directory.
    Hint(String, &'static str),
    InUse(String),
    Write(String, Value),
}

/// One turn, for those who check its end.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) session: String,
    /// The texts that a client must have when it hears of the end: message, part, text.
    pub(super) texts: Vec<(String, String, String)>,
    /// When opencode first published the end.
    pub(super) ended: u64,
}

#[derive(Debug, Default)]
pub(super) struct Script {
    /// What is there before anybody looks.
    pub(super) before: World,
    /// By time.
    pub(super) happenings: Vec<(u64, Happening)>,
    pub(super) finished: Vec<Finished>,
    /// Sessions that were deleted or reverted: what was in them may be gone before anybody reads it.
    pub(super) erased: Vec<String>,
    /// Every content that was ever true, with the time from which on it was.
    pub(super) truths: HashMap<String, u64>,
    pub(super) over: u64,
}

struct Slot {
    clock: u64,
    status_clock: u64,
    directory: &'static str,
    /// The session has messages that nobody saw come.
    is_old: bool,
    info: Option<Value>,
    /// Info and parts.
    messages: Vec<(Value, Vec<Value>)>,
}

struct Writer {
    script: Script,
    slots: Vec<Slot>,
    dice: Dice,
    made: u64,
    /// How long the status map lags behind its publication, at most.
    lag: u64,
}

/// How the acts become happenings; `seed` decides the small times.
pub(super) fn write(moves: &[Move], seed: u64) -> Script {
    let slot =
        |directory| Slot { clock: 100, status_clock: 0, directory, is_old: false, info: None, messages: Vec::new() };
    let mut writer = Writer {
        script: Script::default(),
        slots: vec![slot(HOME), slot(HOME), slot(AWAY), slot(HOME)],
        dice: Dice::new(seed),
        made: 1000,
        lag: 20,
    };
    writer.old_session();
    for Move { slot, pause, act } in moves {
        writer.slots[*slot].clock += pause;
        writer.act(*slot, act);
    }
    let mut script = writer.script;
    script.happenings.sort_by_key(|(at, _)| *at);
    script.over = script.happenings.last().map_or(0, |(at, _)| *at);
    script
}

impl Writer {
    fn id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}_{:06}", self.made)
    }

    /// Slot 3 begins with a session that had a turn long ago.
    fn old_session(&mut self) {
        let time = EPOCH - 100_000;
        let info = json!({"id": "ses_old", "directory": HOME, "projectID": "p", "title": "old",
            "time": {"created": time, "updated": time}});
        let user = json!({"id": "msg_000001", "role": "user", "sessionID": "ses_old", "time": {"created": time}});
        let answer = json!({"id": "msg_000002", "role": "assistant", "sessionID": "ses_old",
            "time": {"created": time, "completed": time}});
        let part = json!({"id": "prt_000001", "messageID": "msg_000002", "sessionID": "ses_old", "type": "text",
            "text": "long ago"});
        for change in [
            Change::Session(info.clone()),
            Change::Message("ses_old".into(), user.clone()),
            Change::Message("ses_old".into(), answer.clone()),
            Change::Part("ses_old".into(), part.clone()),
        ] {
            self.script.before.change(change);
        }
        for value in [&info, &user, &answer, &part] {
            self.script.truths.insert(value.to_string(), 0);
        }
        self.slots[3].is_old = true;
        self.slots[3].info = Some(info);
        self.slots[3].messages = vec![(user, vec![]), (answer, vec![part])];
    }

    fn now(&self, slot: usize) -> u64 {
        self.slots[slot].clock
    }

    fn wait(&mut self, slot: usize, pace: u64) {
        let pause = self.dice.roll(pace + 1);
        self.slots[slot].clock += pause;
    }

    fn happen(&mut self, slot: usize, happening: Happening) {
        let at = self.now(slot);
        self.script.happenings.push((at, happening));
    }

    fn truth(&mut self, slot: usize, value: &Value) {
        let at = self.now(slot);
        let since = self.script.truths.entry(value.to_string()).or_insert(at);
        *since = at.min(*since);
    }

    fn publish(&mut self, slot: usize, kind: &'static str, properties: Value) {
        let directory = self.slots[slot].directory.to_owned();
        self.happen(slot, Happening::Publish { kind, directory, properties });
    }

    fn session_id(&self, slot: usize) -> String {
        self.slots[slot].info.as_ref().unwrap()["id"].as_str().unwrap().to_owned()
    }

    fn session(&mut self, slot: usize, kind: &'static str, info: Value) {
        self.truth(slot, &info);
        self.happen(slot, Happening::Change(Change::Session(info.clone())));
        let id = info["id"].clone();
        self.slots[slot].info = Some(info.clone());
        self.publish(slot, kind, json!({"sessionID": id, "info": info}));
    }

    /// Makes the session if the slot has none.
    fn ensure(&mut self, slot: usize) {
        if self.slots[slot].info.is_some() {
            return;
        }
        let id = self.id("ses");
        let time = EPOCH + self.now(slot);
        let directory = self.slots[slot].directory;
        let info = json!({"id": id, "directory": directory, "projectID": "p", "title": "New",
            "time": {"created": time, "updated": time}});
        self.slots[slot].messages.clear();
        if self.dice.roll(2) == 0 {
            self.happen(slot, Happening::InUse(directory.into()));
        }
        self.happen(slot, Happening::Hint(id, directory));
        self.session(slot, "session.created", info.clone());
        self.session(slot, "session.updated", info);
    }

    /// The session's object changed.
    fn touch(&mut self, slot: usize, key: &str, value: Value) {
        let mut info = self.slots[slot].info.clone().unwrap();
        info["time"]["updated"] = (EPOCH + self.now(slot)).into();
        if value.is_null() {
            info.as_object_mut().unwrap().remove(key);
        } else {
            info[key] = value;
        }
        self.session(slot, "session.updated", info);
    }

    fn message(&mut self, slot: usize, info: &Value) {
        self.truth(slot, info);
        let session = self.session_id(slot);
        self.happen(slot, Happening::Change(Change::Message(session.clone(), info.clone())));
        let messages = &mut self.slots[slot].messages;
        match messages.iter_mut().find(|(known, _)| known["id"] == info["id"]) {
            Some((known, _)) => *known = info.clone(),
            None => messages.push((info.clone(), vec![])),
        }
        self.publish(slot, "message.updated", json!({"sessionID": session, "info": info}));
    }

    fn part(&mut self, slot: usize, part: &Value) {
        self.truth(slot, part);
        let session = self.session_id(slot);
        self.happen(slot, Happening::Change(Change::Part(session.clone(), part.clone())));
        let messages = &mut self.slots[slot].messages;
        let (_, parts) = messages.iter_mut().find(|(info, _)| info["id"] == part["messageID"]).unwrap();
        match parts.iter_mut().find(|known| known["id"] == part["id"]) {
            Some(known) => *known = part.clone(),
            None => parts.push(part.clone()),
        }
        let time = EPOCH + self.now(slot);
        self.publish(slot, "message.part.updated", json!({"sessionID": session, "part": part, "time": time}));
    }

    /// Published first; the map changes later.
    fn status(&mut self, slot: usize, status: &Value) {
        self.truth(slot, status);
        let session = self.session_id(slot);
        self.publish(slot, "session.status", json!({"sessionID": session, "status": status}));
        let at = (self.now(slot) + 1 + self.dice.roll(self.lag)).max(self.slots[slot].status_clock);
        self.slots[slot].status_clock = at;
        let status = Some(status.clone()).filter(|status| status["type"] != "idle");
        self.script.happenings.push((at, Happening::Change(Change::Status(session, status))));
    }

    fn idle(&mut self, slot: usize) {
        self.status(slot, &json!({"type": "idle"}));
        let session = self.session_id(slot);
        self.publish(slot, "session.idle", json!({"sessionID": session}));
    }

    fn user(&mut self, slot: usize) -> Value {
        let (session, id, part) = (self.session_id(slot), self.id("msg"), self.id("prt"));
        let time = EPOCH + self.now(slot);
        let info = json!({"id": id, "role": "user", "sessionID": session, "time": {"created": time}});
        self.message(slot, &info);
        let part = json!({"id": part, "messageID": id, "sessionID": session, "type": "text", "text": "please"});
        self.part(slot, &part);
        self.touch(slot, "agent", json!("build"));
        info
    }

    fn assistant(&mut self, slot: usize) -> Value {
        let (session, id) = (self.session_id(slot), self.id("msg"));
        let time = EPOCH + self.now(slot);
        let info = json!({"id": id, "role": "assistant", "sessionID": session, "time": {"created": time}, "cost": 0});
        self.message(slot, &info);
        self.simple_part(slot, &info, "step-start");
        info
    }

    fn simple_part(&mut self, slot: usize, message: &Value, kind: &str) {
        let id = self.id("prt");
        let part = json!({"id": id, "messageID": message["id"], "sessionID": message["sessionID"], "type": kind});
        self.part(slot, &part);
    }

    fn complete(&mut self, slot: usize, message: &mut Value, finish: &str) {
        self.simple_part(slot, message, "step-finish");
        message["finish"] = finish.into();
        self.message(slot, message);
        message["time"]["completed"] = (EPOCH + self.now(slot)).into();
        self.message(slot, message);
    }

    fn act(&mut self, slot: usize, act: &Act) {
        match act {
            Act::Turn(turn) => self.turn(slot, turn),
            Act::Rename => {
                self.ensure(slot);
                let title = self.id("title");
                self.touch(slot, "title", title.into());
            }
            Act::Delete => {
                if let Some(info) = self.slots[slot].info.take() {
                    let id = info["id"].as_str().unwrap().to_owned();
                    // A session is not deleted while its last status change is still on its way to the map.
                    self.slots[slot].clock = self.now(slot).max(self.slots[slot].status_clock);
                    self.slots[slot].messages.clear();
                    self.slots[slot].is_old = false;
                    self.script.erased.push(id.clone());
                    self.happen(slot, Happening::Change(Change::Deleted(id.clone())));
                    self.publish(slot, "session.deleted", json!({"sessionID": id, "info": info}));
                }
            }
            Act::Revert => self.revert(slot),
            Act::Fork => self.fork(slot),
        }
    }

    fn revert(&mut self, slot: usize) {
        // The removal of messages that the log announced before anybody read the session cannot be told: only their
        // absence is left, and with it no id.
        if self.slots[slot].is_old {
            return;
        }
        let messages = &self.slots[slot].messages;
        let Some(from) = messages.iter().rposition(|(info, _)| info["role"] == "user") else { return };
        let session = self.session_id(slot);
        self.script.erased.push(session.clone());
        self.touch(slot, "revert", json!({"messageID": self.slots[slot].messages[from].0["id"]}));
        self.wait(slot, 300);
        for (info, _) in self.slots[slot].messages.split_off(from) {
            let id = info["id"].as_str().unwrap().to_owned();
            self.happen(slot, Happening::Change(Change::Removed(session.clone(), id.clone())));
            self.publish(slot, "message.removed", json!({"sessionID": session, "messageID": id}));
        }
        self.touch(slot, "revert", Value::Null);
    }

    fn fork(&mut self, slot: usize) {
        let Some(info) = self.slots[slot].info.clone() else { return };
        let messages = self.slots[slot].messages.clone();
        self.slots[slot].info = None;
        // Nobody forks a session in the millisecond in which its answer began.
        self.slots[slot].clock += 1;
        self.ensure(slot);
        let session = self.session_id(slot);
        for (mut info, parts) in messages.clone() {
            let id = self.id("msg");
            info["id"] = id.clone().into();
            info["sessionID"] = session.clone().into();
            self.message(slot, &info);
            for mut part in parts {
                part["id"] = self.id("prt").into();
                part["messageID"] = id.clone().into();
                part["sessionID"] = session.clone().into();
                self.part(slot, &part);
            }
        }
        self.slots[slot].info = Some(info);
        self.slots[slot].messages = messages;
    }

    fn turn(&mut self, slot: usize, turn: &Turn) {
        self.ensure(slot);
        let session = self.session_id(slot);
        self.slots[slot].is_old = false;
        let mut user = self.user(slot);
        self.wait(slot, turn.pace);
        let directory = self.slots[slot].directory;
        self.happen(slot, Happening::Hint(session.clone(), directory));
        self.status(slot, &json!({"type": "busy"}));
        let mut texts = Vec::new();
        let mut answer = self.assistant(slot);
        self.wait(slot, turn.pace);
        for _ in 0..turn.tools {
            self.tool(slot, turn, &answer);
            self.complete(slot, &mut answer, "tool-calls");
            self.wait(slot, turn.pace);
            self.status(slot, &json!({"type": "busy"}));
            answer = self.assistant(slot);
        }
        if turn.queued {
            self.user(slot);
            self.slots[slot].clock += 1;
            texts.push(self.text(slot, turn, &answer));
            self.complete(slot, &mut answer, "stop");
            self.wait(slot, turn.pace);
            self.status(slot, &json!({"type": "busy"}));
            answer = self.assistant(slot);
        }
        let ended = match turn.end {
            End::Stop => {
                texts.push(self.text(slot, turn, &answer));
                self.complete(slot, &mut answer, "stop");
                self.wait(slot, turn.pace);
                self.status(slot, &json!({"type": "busy"}));
                let ended = self.now(slot);
                self.idle(slot);
                ended
            }
            End::Error => {
                self.status(slot, &json!({"type": "retry", "attempt": 1, "message": "overloaded"}));
                self.wait(slot, turn.pace * 3);
                self.status(slot, &json!({"type": "busy"}));
                let error = json!({"name": "APIError", "data": {"message": "no"}});
                self.truth(slot, &error);
                self.publish(slot, "session.error", json!({"sessionID": session, "error": error}));
                answer["error"] = error;
                answer["time"]["completed"] = (EPOCH + self.now(slot)).into();
                self.message(slot, &answer);
                let ended = self.now(slot);
                self.idle(slot);
                ended
            }
            End::Abort => self.abort(slot, turn, &mut answer, &mut texts),
        };
        self.script.finished.push(Finished { session: session.clone(), texts, ended });
        if turn.trailing && turn.end != End::Abort {
            self.wait(slot, turn.pace);
            let diff = if turn.diff { json!([{"file": self.id("file"), "additions": 1}]) } else { json!([]) };
            self.touch(slot, "summary", json!({"files": u8::from(turn.diff)}));
            self.truth(slot, &diff);
            self.happen(slot, Happening::Change(Change::Diff(session.clone(), diff.clone())));
            self.publish(slot, "session.diff", json!({"sessionID": session, "diff": diff}));
            self.wait(slot, turn.pace);
            user["summary"] = json!({"diffs": diff});
            self.message(slot, &user);
        }
    }

    fn open_text(&mut self, slot: usize, turn: &Turn, message: &Value) -> (Value, String) {
        let (id, session) = (self.id("prt"), self.session_id(slot));
        let part = json!({"id": id, "messageID": message["id"], "sessionID": session, "type": "text", "text": ""});
        self.part(slot, &part);
        let mut text = String::new();
        for n in 0..turn.deltas {
            self.wait(slot, turn.pace);
            let delta = format!("wörd{n} ");
            text.push_str(&delta);
            let properties = json!({"sessionID": session, "messageID": message["id"], "partID": part["id"],
                "field": "text", "delta": delta});
            self.publish(slot, "message.part.delta", properties);
        }
        (part, text)
    }

    fn close_text(&mut self, slot: usize, mut part: Value, text: String) -> (String, String, String) {
        part["text"] = text.clone().into();
        part["time"] = json!({"end": EPOCH + self.now(slot)});
        self.part(slot, &part);
        (part["messageID"].as_str().unwrap().into(), part["id"].as_str().unwrap().into(), text)
    }

    fn text(&mut self, slot: usize, turn: &Turn, message: &Value) -> (String, String, String) {
        let (part, text) = self.open_text(slot, turn, message);
        self.close_text(slot, part, text)
    }

    /// The end is published before the text is stored, and once more after it (captures, `c_abort`).
    fn abort(
        &mut self,
        slot: usize,
        turn: &Turn,
        answer: &mut Value,
        texts: &mut Vec<(String, String, String)>,
    ) -> u64 {
        let (part, text) = self.open_text(slot, turn, answer);
        let session = self.session_id(slot);
        let error = json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}});
        self.truth(slot, &error);
        self.publish(slot, "session.error", json!({"sessionID": session, "error": error}));
        let ended = self.now(slot);
        self.idle(slot);
        self.wait(slot, 40);
        texts.push(self.close_text(slot, part, text));
        answer["error"] = error;
        answer["time"]["completed"] = (EPOCH + self.now(slot)).into();
        self.message(slot, answer);
        self.idle(slot);
        ended
    }

    fn tool(&mut self, slot: usize, turn: &Turn, message: &Value) {
        let (id, session) = (self.id("prt"), self.session_id(slot));
        let mut part = json!({"id": id, "messageID": message["id"], "sessionID": session, "type": "tool",
            "state": {"status": "pending"}});
        self.part(slot, &part);
        if turn.permission {
            let ask = self.id("per");
            let asked = json!({"id": ask, "sessionID": session, "permission": "bash"});
            self.ask(slot, turn, "permission", &asked);
            let reply = json!({"sessionID": session, "requestID": ask, "reply": "once"});
            self.publish(slot, "permission.replied", reply);
        }
        part["state"] = json!({"status": "running"});
        self.part(slot, &part);
        self.wait(slot, turn.pace);
        if turn.question {
            let ask = self.id("que");
            let asked = json!({"id": ask, "sessionID": session, "questions": []});
            self.ask(slot, turn, "question", &asked);
            let reply = json!({"sessionID": session, "requestID": ask, "answers": [["A"]]});
            self.publish(slot, "question.replied", reply);
        }
        if turn.todo {
            let todos = json!([{"content": self.id("todo"), "status": "pending"}]);
            self.truth(slot, &todos);
            self.happen(slot, Happening::Change(Change::Todo(session.clone(), todos.clone())));
            self.publish(slot, "todo.updated", json!({"sessionID": session, "todos": todos}));
        }
        part["state"] = json!({"status": "completed", "output": "done"});
        self.part(slot, &part);
    }

    fn ask(&mut self, slot: usize, turn: &Turn, what: &str, asked: &Value) {
        self.truth(slot, asked);
        let directory = self.slots[slot].directory.to_owned();
        let id = asked["id"].as_str().unwrap().to_owned();
        let (kind, change, body) = if what == "permission" {
            ("permission.asked", Change::Permission(directory, asked.clone()), json!({"reply": "once"}))
        } else {
            ("question.asked", Change::Question(directory, asked.clone()), json!({"answers": [["A"]]}))
        };
        self.happen(slot, Happening::Change(change));
        self.publish(slot, kind, asked.clone());
        self.wait(slot, turn.pace * 8);
        if self.dice.roll(2) == 0 {
            self.happen(slot, Happening::Write(format!("/{what}/{id}/reply"), body));
        }
        self.happen(slot, Happening::Change(Change::Answered(id)));
    }
}
