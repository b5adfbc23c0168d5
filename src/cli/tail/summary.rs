//! What an event says, in a few words. The words are strangers' text as it came: whoever shows them makes them safe.

use serde_json::Value;

use super::event::Event;

/// The event in a few words.
pub(super) fn of(event: &Event<'_>, content: &Value) -> String {
    let known = match &*event.kind {
        "session.created" | "session.updated" | "session.deleted" => title(&content["info"]),
        "session.status" => status(&content["status"]),
        "session.idle" => Some(String::new()),
        "session.error" => error(&content["error"]),
        "session.diff" => list(&content["diff"], "file", "files"),
        "session.next.agent.switched" => word(&content["agent"]),
        "session.next.model.switched" => word(&content["model"]["id"]),
        "message.updated" => message(&content["info"]),
        "message.removed" => word(&content["messageID"]),
        "message.part.updated" => part(&content["part"]),
        "message.part.removed" => word(&content["partID"]),
        "permission.asked" => permission(content),
        "permission.updated" => word(&content["title"]),
        "permission.replied" => reply(content, "reply"),
        "question.asked" => question(&content["questions"]),
        "question.replied" => answers(content),
        "question.rejected" => word(&content["requestID"]),
        "todo.updated" => todo(&content["todos"]),
        "file.edited" => word(&content["file"]),
        "file.watcher.updated" => pair(&content["event"], &content["file"]),
        "server.instance.disposed" => word(&content["directory"]),
        "project.updated" => word(&content["worktree"]),
        "vcs.branch.updated" => word(&content["branch"]),
        "command.executed" => pair(&content["name"], &content["arguments"]),
        "pty.created" | "pty.updated" => pair(&content["info"]["title"], &content["info"]["command"]),
        "pty.exited" => exited(content),
        "sync" => word(&content["type"]),
        _ => None,
    };
    known.unwrap_or_else(|| rest(event, content))
}

/// The content as it came, but for the session, which is shown already.
fn rest(event: &Event<'_>, content: &Value) -> String {
    match content {
        Value::Object(fields) if fields.contains_key("sessionID") => {
            let mut fields = fields.clone();
            fields.remove("sessionID");
            Value::Object(fields).to_string()
        }
        _ => event.properties.map_or_else(String::new, |text| text.get().to_owned()),
    }
}

fn word(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn pair(first: &Value, second: &Value) -> Option<String> {
    Some(joined([first.as_str()?, second.as_str().unwrap_or_default()]))
}

/// The words that are not empty, with spaces between.
fn joined<const N: usize>(words: [&str; N]) -> String {
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn list(value: &Value, one: &str, many: &str) -> Option<String> {
    let count = value.as_array()?.len();
    Some(format!("{count} {}", if count == 1 { one } else { many }))
}

/// Since 1.14 the first `session.updated` after a turn carries what has changed alone.
fn title(info: &Value) -> Option<String> {
    word(&info["title"])
}

fn status(status: &Value) -> Option<String> {
    let kind = status["type"].as_str()?;
    if kind != "retry" {
        return Some(kind.to_owned());
    }
    let attempt = status["attempt"].as_u64().map(|attempt| format!("attempt {attempt}")).unwrap_or_default();
    Some(joined(["retry", &attempt, status["message"].as_str().unwrap_or_default()]))
}

fn error(error: &Value) -> Option<String> {
    let name = error["name"].as_str()?;
    match error["data"]["message"].as_str() {
        Some(message) => Some(format!("{name}: {message}")),
        None => Some(name.to_owned()),
    }
}

fn message(info: &Value) -> Option<String> {
    let role = info["role"].as_str()?;
    let model = info["modelID"].as_str().unwrap_or_default();
    let end = match error(&info["error"]) {
        Some(error) => error,
        None => match (info["finish"].as_str(), &info["time"]["completed"]) {
            (Some(finish), _) => format!("finished: {finish}"),
            (None, Value::Number(_)) => "finished".to_owned(),
            (None, _) => String::new(),
        },
    };
    Some(joined([role, model, &end]))
}

fn part(part: &Value) -> Option<String> {
    let kind = part["type"].as_str()?;
    Some(match kind {
        "text" | "reasoning" => match part["text"].as_str() {
            None | Some("") => format!("{kind} begins"),
            Some(text) => format!("{kind}: {text}"),
        },
        "tool" => {
            let state = &part["state"];
            let more = [&state["error"], &state["title"], &state["input"]["command"], &state["input"]["filePath"]];
            let more = more.into_iter().find_map(Value::as_str).unwrap_or_default();
            let words = [part["tool"].as_str().unwrap_or_default(), state["status"].as_str().unwrap_or_default(), more];
            joined(["tool", &joined(words)])
        }
        "step-finish" => joined([kind, part["reason"].as_str().unwrap_or_default()]),
        "file" => joined([kind, part["filename"].as_str().unwrap_or_default()]),
        "agent" | "subtask" => joined([kind, part["name"].as_str().or(part["agent"].as_str()).unwrap_or_default()]),
        "patch" => joined([kind, &list(&part["files"], "file", "files").unwrap_or_default()]),
        _ => kind.to_owned(),
    })
}

fn permission(content: &Value) -> Option<String> {
    let patterns = content["patterns"].as_array().map(Vec::as_slice).unwrap_or_default();
    let patterns: Vec<&str> = patterns.iter().filter_map(Value::as_str).collect();
    Some(joined([content["permission"].as_str()?, &patterns.join(", "), &bracketed(&content["id"])]))
}

/// What whoever answers needs to name.
fn bracketed(id: &Value) -> String {
    id.as_str().map(|id| format!("({id})")).unwrap_or_default()
}

fn reply(content: &Value, key: &str) -> Option<String> {
    let reply = content[key].as_str().unwrap_or("answered");
    Some(joined([reply, &bracketed(&content["requestID"])]))
}

fn question(questions: &Value) -> Option<String> {
    let texts: Vec<&str> = questions.as_array()?.iter().filter_map(|one| one["question"].as_str()).collect();
    Some(texts.join(" / "))
}

fn answers(content: &Value) -> Option<String> {
    let Some(answers) = content["answers"].as_array() else { return reply(content, "answers") };
    let chosen = |answer: &Value| -> String {
        answer.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    Some(answers.iter().map(chosen).collect::<Vec<_>>().join(" / "))
}

fn todo(todos: &Value) -> Option<String> {
    let todos = todos.as_array()?;
    let done = todos.iter().filter(|todo| todo["status"] == "completed").count();
    let current = todos.iter().find(|todo| todo["status"] == "in_progress").and_then(|todo| todo["content"].as_str());
    let current = current.map(|text| format!("now: {text}")).unwrap_or_default();
    Some(joined([&format!("{done} of {} done", todos.len()), &current]))
}

fn exited(content: &Value) -> Option<String> {
    content["exitCode"].as_i64().map(|code| format!("exit code {code}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(kind: &str, properties: &Value) -> String {
        let data = json!({"payload": {"type": kind, "properties": properties}}).to_string();
        let event = Event::read(data.as_bytes()).unwrap();
        of(&event, &event.content())
    }

    #[test]
    fn events_are_told_in_a_few_words() {
        for (kind, properties, expected) in [
            ("session.status", json!({"status": {"type": "busy"}}), "busy"),
            (
                "session.status",
                json!({"status": {"type": "retry", "attempt": 2, "message": "overloaded"}}),
                "retry attempt 2 overloaded",
            ),
            ("session.updated", json!({"info": {"title": "A title"}}), "A title"),
            ("session.idle", json!({"sessionID": "s"}), ""),
            (
                "session.error",
                json!({"error": {"name": "MessageAbortedError", "data": {"message": "Aborted"}}}),
                "MessageAbortedError: Aborted",
            ),
            ("message.updated", json!({"info": {"role": "user"}}), "user"),
            (
                "message.updated",
                json!({"info": {"role": "assistant", "modelID": "m", "finish": "stop", "time": {"completed": 1}}}),
                "assistant m finished: stop",
            ),
            (
                "message.updated",
                json!({"info": {"role": "assistant", "error": {"name": "ApiError"}, "time": {"completed": 1}}}),
                "assistant ApiError",
            ),
            ("message.part.updated", json!({"part": {"type": "text", "text": ""}}), "text begins"),
            ("message.part.updated", json!({"part": {"type": "text", "text": "hello"}}), "text: hello"),
            (
                "message.part.updated",
                json!({"part": {"type": "tool", "tool": "bash", "state": {"status": "running", "input": {"command": "ls"}}}}),
                "tool bash running ls",
            ),
            ("message.part.updated", json!({"part": {"type": "step-finish", "reason": "stop"}}), "step-finish stop"),
            (
                "permission.asked",
                json!({"id": "per_1", "permission": "bash", "patterns": ["touch a", "touch b"]}),
                "bash touch a, touch b (per_1)",
            ),
            ("permission.replied", json!({"requestID": "per_1", "reply": "once"}), "once (per_1)"),
            ("permission.replied", json!({"requestID": "per_1"}), "answered (per_1)"),
            ("question.asked", json!({"questions": [{"question": "Pick one?"}]}), "Pick one?"),
            ("question.replied", json!({"answers": [["A", "B"], ["C"]]}), "A, B / C"),
            (
                "todo.updated",
                json!({"todos": [{"content": "one", "status": "completed"}, {"content": "two", "status": "in_progress"}]}),
                "1 of 2 done now: two",
            ),
            ("file.edited", json!({"file": "/a/b"}), "/a/b"),
            ("session.diff", json!({"diff": [1]}), "1 file"),
            ("pty.exited", json!({"exitCode": 3}), "exit code 3"),
            // Unknown, or not in the shape that is known.
            ("new.type", json!({"sessionID": "s", "a": [1, "b"]}), r#"{"a":[1,"b"]}"#),
            ("session.next.model.switched", json!({"model": {"id": "m"}}), "m"),
            ("session.status", json!({"status": 7}), r#"{"status":7}"#),
            ("todo.updated", json!({"todos": {}}), r#"{"todos":{}}"#),
        ] {
            assert_eq!(summary(kind, &properties), expected, "{kind}");
        }
    }

    #[test]
    fn no_content_is_no_trouble() {
        for data in [r#"{"type":"session.status"}"#, r#"{"type":"x","properties":null}"#, r#"{"type":"x"}"#] {
            let event = Event::read(data.as_bytes()).unwrap();
            assert!(of(&event, &event.content()).len() <= 4);
        }
    }
}
