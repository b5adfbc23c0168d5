//! The relay's own log: what systemd's journal makes of it, and what never stands in it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::standin::{DIRECTORY, StandIn};
use crate::support::bounded;
use crate::support::relay::Relay;
use crate::support::situations::until;
use crate::support::sse::Stream;

/// In every property of every event.
const SECRET: &str = "what-the-model-said";

/// A relay whose standard error is a file; killed when dropped.
struct Logging(Child);

impl Logging {
    /// `journal` is the value of `JOURNAL_STREAM`, made from the file.
    fn start(folder: &Path, arguments: &[&str], journal: impl Fn(&fs::Metadata) -> String) -> Self {
        let log = File::create(folder.join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_opencode-relay"), "run", "--journal", "memory"])
            .args(["--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9", "--log", "none"])
            .args(arguments)
            .env_clear()
            .env("JOURNAL_STREAM", journal(&log.metadata().unwrap()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first lines of a relay's log.
async fn lines(arguments: &[&str], journal: impl Fn(&fs::Metadata) -> String) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let _relay = Logging::start(folder.path(), arguments, journal);
    until("the log to begin", || async {
        let text = fs::read_to_string(folder.path().join("log")).unwrap();
        // It warns of an opencode that is not there, and that is its second word.
        (text.contains("listening on") && text.lines().count() > 1 && text.ends_with('\n')).then_some(text)
    })
    .await
    .lines()
    .map(str::to_owned)
    .collect()
}

fn this_file(log: &fs::Metadata) -> String {
    format!("{}:{}", log.dev(), log.ino())
}

/// For the journal: a priority, whose, and what; no time.
fn is_for_journal(line: &str) -> bool {
    let rest = ["<3>", "<4>", "<6>", "<7>"].iter().find_map(|priority| line.strip_prefix(priority));
    rest.is_some_and(|rest| rest.starts_with("opencode_relay"))
}

#[tokio::test]
async fn the_journal_is_given_priorities_and_no_times() {
    bounded(async {
        let another = |log: &fs::Metadata| format!("{}:{}", log.dev(), log.ino() + 1);
        let nothing = |_: &fs::Metadata| String::new();
        let debug = ["--log-level", "debug"];
        for (arguments, journal, expected) in [
            (&debug[..], &this_file as &dyn Fn(&fs::Metadata) -> String, true),
            (&["--log-format", "auto"], &this_file, true),
            (&["--log-format", "journal"], &nothing, true),
            // What another process' journal stream left in the environment, and what was asked for.
            (&debug, &another, false),
            (&debug, &nothing, false),
            (&["--log-format", "text"], &this_file, false),
        ] {
            let lines = lines(arguments, journal).await;
            assert!(lines.iter().all(|line| is_for_journal(line) == expected), "{arguments:?}: {lines:#?}");
            assert!(!lines.iter().any(|line| line.contains('\u{1b}')), "{lines:#?}");
            let info = lines.iter().find(|line| line.contains("listening on")).unwrap();
            assert!(!expected || info.starts_with("<6>opencode_relay::app: listening on http://"), "{info}");
        }
        let json = lines(&["--log-format", "json"], this_file).await;
        assert!(json.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{json:#?}");
    })
    .await;
}

/// An event whose every property is secret.
fn secret(kind: &str, session: &str, number: usize) -> String {
    let info = json!({"id": session, "title": SECRET, "directory": DIRECTORY, "time": {"updated": 1, "created": 1}, "error": SECRET});
    let part = json!({"id": format!("prt_{number}"), "sessionID": session, "messageID": "msg_1", "type": "text", "text": SECRET});
    let properties = json!({
        "sessionID": session, "info": info, "part": part, "delta": SECRET, "text": SECRET, "field": SECRET, "file": SECRET,
        "error": {"name": SECRET, "data": {"message": SECRET}}, "status": {"type": "retry", "message": SECRET},
        "requestID": SECRET, "permission": SECRET, "questions": [SECRET], "todos": [{"content": SECRET}], "diff": [SECRET],
    });
    let payload = json!({"id": format!("evt_{number}"), "type": kind, "properties": properties});
    json!({"directory": DIRECTORY, "project": "p", "payload": payload}).to_string()
}

const KINDS: [&str; 16] = [
    "session.created",
    "session.updated",
    "session.status",
    "session.idle",
    "session.error",
    "session.diff",
    "todo.updated",
    "message.updated",
    "message.part.updated",
    "message.part.delta",
    "permission.asked",
    "question.asked",
    "file.edited",
    "tui.toast.show",
    "session.deleted",
    "of.a.plugin",
];

async fn nothing_is_told(witness: &str, format: &str) {
    let standin = StandIn::start("1.14.48").await;
    let (url, log, state) = (standin.url(), standin.log_source(), standin.state_dir());
    let from = if witness == "stream" { "none" } else { log.as_str() };
    let arguments =
        ["--upstream", &url, "--log", from, "--witness", witness, "--state-dir", &state, "--log-format", format];
    let relay = Relay::start(&arguments, &[], &std::env::temp_dir()).await;
    until("the relay to be ready", || async {
        let status = relay.api().get("/_relay/status").await;
        let witness = if witness == "log" { "log" } else { "stream" };
        let state = &status["witnesses"][witness]["state"];
        (status["ready"] == true && (state == "following" || state == "connected")).then_some(())
    })
    .await;
    let client = Stream::open(&relay.api(), "/global/event").await.unwrap();
    for (number, kind) in KINDS.iter().enumerate() {
        // Half of them are in the log and the state only, so that they are read and made.
        let event = secret(kind, &format!("ses_{number}"), number);
        if number % 2 == 0 {
            standin.publish(&event);
        } else {
            standin.publish_undelivered(&event);
        }
    }
    // What is broken is told in the log; not what is in it.
    standin.send_bytes(format!("data: {{\"payload\":{{\"type\":\"session.idle\",\"{SECRET}\n\n").as_bytes());
    standin.send_bytes(format!("data: {SECRET}\n\n").as_bytes());
    // Of another shape than it should have: the usual words for that quote what was found.
    standin.send(&json!({"directory": DIRECTORY, "payload": SECRET}).to_string());
    let mut odd: Value = serde_json::from_str(&secret("session.updated", "ses_1", 60)).unwrap();
    odd["payload"]["properties"]["info"]["time"] = json!(SECRET);
    standin.publish_undelivered(&odd.to_string());
    standin.log_bytes(format!("{SECRET} service=bus\n").as_bytes());
    for rest in [crate::standin::Rest::HalfJson, crate::standin::Rest::Page, crate::standin::Rest::Healthy] {
        standin.set_rest(rest);
        standin.publish_undelivered(&secret("session.updated", "ses_1", 50));
        standin.beat();
        let asked = relay.api().send(http::Method::GET, "/session", None).await;
        assert!(asked.is_ok() || rest != crate::standin::Rest::Healthy, "{asked:?}");
    }
    standin.cut();
    until("a client to be told", || async {
        standin.beat();
        client.frames().iter().any(|frame| frame.payload().contains(SECRET)).then_some(())
    })
    .await;
    drop(client);
    let ends = relay.api().get("/_relay/status").await;
    assert!(ends["ledger"].is_object() || witness == "stream", "{ends}");
    until("what is broken to be told", || async {
        let said = relay.output();
        let expected: &[&str] = match witness {
            "log" => &["failed to read the answer as"],
            "stream" => &["failed to read a frame"],
            _ => &["failed to read a frame", "failed to read the answer as"],
        };
        expected.iter().all(|words| said.contains(words)).then_some(())
    })
    .await;
    let said = relay.output();
    assert!(said.contains("listening on") && said.lines().count() > 2, "it talks at all: {said}");
    assert!(!said.contains(SECRET), "{witness}: {said}");
}

#[tokio::test]
async fn the_log_holds_no_content_of_events() {
    bounded(nothing_is_told("auto", "text")).await;
}

#[tokio::test]
async fn the_log_holds_no_content_with_the_log_alone() {
    bounded(nothing_is_told("log", "journal")).await;
}

#[tokio::test]
async fn the_log_holds_no_content_with_the_stream_alone() {
    bounded(nothing_is_told("stream", "json")).await;
}
