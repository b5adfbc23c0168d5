//! What happens in a session, one function per situation. They drive any [`Api`], opencode's own or the relay's,
//! and come back when opencode's REST says that it is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join3};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::http::Api;
use super::model::ScriptedModel;
use super::opencode::Opencode;
use super::sse::Stream;

const LIMIT: Duration = Duration::from_secs(40);
/// Between two looks at the state.
const PAUSE: Duration = Duration::from_millis(40);
/// No event for so long: there is nothing more to come. A save of the session's summary comes up to 300 ms late.
const QUIET: Duration = Duration::from_millis(700);

/// Where situations happen.
pub(crate) struct Stage {
    pub(crate) first: Api,
    pub(crate) second: Api,
    /// The directory of `first`.
    pub(crate) first_directory: String,
    pub(crate) second_directory: String,
    words_sent: Arc<AtomicUsize>,
}

/// What a situation did.
#[derive(Debug, Default)]
pub(crate) struct Did {
    /// The sessions it made and how many turns each had; also those it deleted again.
    pub(crate) turns: BTreeMap<String, usize>,
    /// The turns among them that were aborted: opencode may say twice that such a turn is over.
    pub(crate) aborted: usize,
    pub(crate) deleted: Vec<String>,
}

impl Did {
    fn merge(&mut self, other: Did) {
        for (session, turns) in other.turns {
            *self.turns.entry(session).or_default() += turns;
        }
        self.aborted += other.aborted;
        self.deleted.extend(other.deleted);
    }
}

pub(crate) type Situation = for<'a> fn(&'a Stage) -> BoxFuture<'a, Did>;

/// All of them, in the order in which they go best: what disposes of the instance comes last.
pub(crate) const ALL: &[(&str, Situation)] = &[
    ("text turn", |stage| Box::pin(text_turn(stage))),
    ("tool turn", |stage| Box::pin(tool_turn(stage))),
    ("abort", |stage| Box::pin(abort(stage))),
    ("permission asked", |stage| Box::pin(permission_asked(stage))),
    ("question asked", |stage| Box::pin(question_asked(stage))),
    ("todo", |stage| Box::pin(todo(stage))),
    ("file edit", |stage| Box::pin(file_edit(stage))),
    ("pty", |stage| Box::pin(pty(stage))),
    ("create, rename, delete", |stage| Box::pin(create_rename_delete(stage))),
    ("three sessions, two directories", |stage| Box::pin(three_sessions(stage))),
    ("instance disposed", |stage| Box::pin(instance_disposed(stage))),
    ("config changed", |stage| Box::pin(config_changed(stage))),
];

impl Stage {
    /// Two directories of an opencode, driven through `api`. Boots both instances, so that what comes later is about
    /// the situations alone.
    pub(crate) async fn set(opencode: &Opencode, model: &ScriptedModel, api: &Api) -> Self {
        let first_directory = opencode.home.project();
        let second_directory = opencode.home.add_project("second");
        let stage = Self {
            first: api.within(&first_directory),
            second: api.within(&second_directory),
            first_directory,
            second_directory,
            words_sent: model.words_sent(),
        };
        for api in [&stage.first, &stage.second] {
            api.get("/session").await;
            api.get("/config").await;
        }
        stage
    }

    pub(crate) fn directories(&self) -> [&str; 2] {
        [&self.first_directory, &self.second_directory]
    }
}

/// Waits until opencode published nothing more.
pub(crate) async fn settle(recorder: &Stream) {
    recorder.settle(QUIET, LIMIT).await;
}

pub(crate) async fn text_turn(stage: &Stage) -> Did {
    let session = create(&stage.first, "text turn").await;
    turn(&stage.first, &session, "say hello WORDS=12 DELAY=15").await;
    turn(&stage.first, &session, "and again WORDS=4 DELAY=0").await;
    did(session, 2)
}

pub(crate) async fn tool_turn(stage: &Stage) -> Did {
    let arguments = json!({"command": "echo hi; sleep 0.3; echo there", "description": "say hi"});
    tool_session(stage, "tool turn", "bash", &arguments).await
}

pub(crate) async fn todo(stage: &Stage) -> Did {
    let arguments = json!({"todos": [
        {"id": "1", "content": "one", "status": "pending", "priority": "high"},
        {"id": "2", "content": "two", "status": "in_progress", "priority": "low"},
    ]});
    tool_session(stage, "todo", "todowrite", &arguments).await
}

pub(crate) async fn file_edit(stage: &Stage) -> Did {
    let session = create(&stage.first, "file edit").await;
    let path = format!("{}/hello.txt", stage.first_directory);
    let write = json!({"filePath": path, "content": "hello\n"});
    turn(&stage.first, &session, &order("write", &write)).await;
    let edit = json!({"filePath": path, "oldString": "hello", "newString": "good day"});
    turn(&stage.first, &session, &order("edit", &edit)).await;
    did(session, 2)
}

/// Aborts a long answer after some words of it.
pub(crate) async fn abort(stage: &Stage) -> Did {
    let session = create(&stage.first, "abort").await;
    let before = stage.words_sent.load(Ordering::Relaxed);
    prompt(&stage.first, &session, "long WORDS=400 DELAY=25").await;
    until("some words of the answer", || async {
        let begun = messages(&stage.first, &session).await.iter().any(|message| {
            message["info"]["role"] == "assistant"
                && message["parts"].as_array().is_some_and(|parts| parts.iter().any(|part| part["type"] == "text"))
        });
        (begun && stage.words_sent.load(Ordering::Relaxed) > before + 10).then_some(())
    })
    .await;
    stage.first.post(&format!("/session/{session}/abort"), &json!({})).await;
    until_idle(&stage.first, &session, 1).await;
    Did { aborted: 1, ..did(session, 1) }
}

/// A permission granted, and one refused.
pub(crate) async fn permission_asked(stage: &Stage) -> Did {
    let mut done = Did::default();
    for (file, reply) in [("asked.txt", "once"), ("refused.txt", "reject")] {
        let session = create(&stage.first, "permission").await;
        let arguments = json!({"command": format!("touch {file}"), "description": "touch"});
        prompt(&stage.first, &session, &order("bash", &arguments)).await;
        let request = pending(&stage.first, "/permission", &session).await;
        stage.first.post(&format!("/permission/{request}/reply"), &json!({"reply": reply})).await;
        until_idle(&stage.first, &session, 1).await;
        done.merge(did(session, 1));
    }
    done
}

/// A question answered, and one rejected.
pub(crate) async fn question_asked(stage: &Stage) -> Did {
    let mut done = Did::default();
    let arguments = json!({"questions": [{"question": "Pick one?", "header": "Pick", "options": [
        {"label": "A", "description": "a"}, {"label": "B", "description": "b"}]}]});
    for (answer, body) in [("reply", json!({"answers": [["A"]]})), ("reject", json!({}))] {
        let session = create(&stage.first, "question").await;
        prompt(&stage.first, &session, &order("question", &arguments)).await;
        let request = pending(&stage.first, "/question", &session).await;
        stage.first.post(&format!("/question/{request}/{answer}"), &body).await;
        until_idle(&stage.first, &session, 1).await;
        done.merge(did(session, 1));
    }
    done
}

/// A terminal that ends by itself.
pub(crate) async fn pty(stage: &Stage) -> Did {
    let info = stage.first.post("/pty", &json!({"command": "/bin/sh", "args": ["-c", "echo hi; sleep 0.5"]})).await;
    let id = text(&info["id"]);
    until("the terminal to end", || async {
        let list = stage.first.get("/pty").await;
        let running =
            list.as_array().is_some_and(|list| list.iter().any(|pty| pty["id"] == id && pty["status"] != "exited"));
        (!running).then_some(())
    })
    .await;
    Did::default()
}

/// Sessions without a turn: one stays, one is deleted.
pub(crate) async fn create_rename_delete(stage: &Stage) -> Did {
    let stays = create(&stage.first, "stays").await;
    let goes = create(&stage.first, "goes").await;
    for session in [&stays, &goes] {
        stage.first.patch(&format!("/session/{session}"), &json!({"title": "renamed"})).await;
    }
    stage.first.delete(&format!("/session/{goes}")).await;
    let mut done = did(stays, 0);
    done.merge(Did { deleted: vec![goes.clone()], ..did(goes, 0) });
    done
}

/// Two sessions in the first directory, one in the second, all at once.
pub(crate) async fn three_sessions(stage: &Stage) -> Did {
    let mut done = Did::default();
    let one = |api: &Api| {
        let api = api.clone();
        async move {
            let session = create(&api, "one of three").await;
            turn(&api, &session, "WORDS=30 DELAY=12").await;
            did(session, 1)
        }
    };
    let (first, second, third) = join3(one(&stage.first), one(&stage.first), one(&stage.second)).await;
    for each in [first, second, third] {
        done.merge(each);
    }
    done
}

/// The instance of the first directory is disposed of, and used again.
pub(crate) async fn instance_disposed(stage: &Stage) -> Did {
    stage.first.post("/instance/dispose", &json!({})).await;
    let session = create(&stage.first, "after disposal").await;
    turn(&stage.first, &session, "WORDS=3").await;
    did(session, 1)
}

/// A setting is changed, which disposes of the instance too.
pub(crate) async fn config_changed(stage: &Stage) -> Did {
    stage.second.patch("/config", &json!({"username": "tester"})).await;
    let session = create(&stage.second, "after the change").await;
    turn(&stage.second, &session, "WORDS=3").await;
    did(session, 1)
}

/// Makes and renames a session whose titles print bus lines of these types into the log. Not one of [`ALL`].
pub(crate) async fn forge(stage: &Stage, kinds: &[&str]) -> Did {
    let lines =
        kinds.iter().map(|kind| format!("\nINFO  2026-11-23T00:39:15 +38ms service=bus type={kind} publishing"));
    // The log goes on behind the title: only what a newline follows is a perfect line.
    let title = format!("forged{}\nend", lines.collect::<String>());
    let session = create(&stage.first, &title).await;
    stage.first.patch(&format!("/session/{session}"), &json!({"title": format!("{title} of it")})).await;
    did(session, 0)
}

async fn tool_session(stage: &Stage, title: &str, tool: &str, arguments: &Value) -> Did {
    let session = create(&stage.first, title).await;
    turn(&stage.first, &session, &order(tool, arguments)).await;
    did(session, 1)
}

fn did(session: String, turns: usize) -> Did {
    Did { turns: BTreeMap::from([(session, turns)]), ..Did::default() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}")).to_owned()
}

/// The words that make the scripted model call a tool.
pub(crate) fn order(tool: &str, arguments: &Value) -> String {
    format!("TOOL={tool} ARGS=`{arguments}` WORDS=3")
}

/// Makes a session; with a title of the default kind opencode asks the model for a better one.
pub(crate) async fn create(api: &Api, title: &str) -> String {
    let body = if title == "text turn" { json!({}) } else { json!({"title": title}) };
    text(&api.post("/session", &body).await["id"])
}

/// Sends a prompt and does not wait for the answer.
pub(crate) async fn prompt(api: &Api, session: &str, words: &str) {
    api.post(&format!("/session/{session}/prompt_async"), &json!({"parts": [{"type": "text", "text": words}]})).await;
}

/// Sends a prompt and waits for the end of the turn.
pub(crate) async fn turn(api: &Api, session: &str, words: &str) {
    let asked = users(&messages(api, session).await);
    prompt(api, session, words).await;
    until_idle(api, session, asked + 1).await;
}

/// The messages of a session, as REST has them.
pub(crate) async fn messages(api: &Api, session: &str) -> Vec<Value> {
    api.get(&format!("/session/{session}/message")).await.as_array().cloned().unwrap_or_default()
}

fn users(messages: &[Value]) -> usize {
    messages.iter().filter(|message| message["info"]["role"] == "user").count()
}

/// Waits until the session has so many turns and the last is over.
pub(crate) async fn until_idle(api: &Api, session: &str, turns: usize) {
    until("the end of the turn", || async {
        let messages = messages(api, session).await;
        let last = &messages.last()?["info"];
        // Between two steps the last message is complete too, but the session is not idle.
        let complete = last["role"] == "assistant" && !last["time"]["completed"].is_null();
        let over = users(&messages) >= turns && complete;
        let idle = over && api.get("/session/status").await.get(session).is_none();
        idle.then_some(())
    })
    .await;
}

/// Waits until the list at `path` has an entry of that session, and returns its id.
pub(crate) async fn pending(api: &Api, path: &str, session: &str) -> String {
    until(path, || async {
        let list = api.get(path).await;
        let entry = list.as_array()?.iter().find(|entry| entry["sessionID"] == session)?;
        Some(text(&entry["id"]))
    })
    .await
}

/// Looks again and again until there is something.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        sleep(PAUSE).await;
    }
}
