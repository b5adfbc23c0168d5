//! The kit proves itself on bare releases before anything is proved with it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::fold::Fold;
use crate::support::http::{Api, get_json, post_json};
use crate::support::model::{ScriptedModel, TITLE};
use crate::support::opencode::{Home, published_type};
use crate::support::situations::{self, Stage};
use crate::support::sse::{End, Stream};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_model_says_what_it_is_told() {
    let model = ScriptedModel::start().await.unwrap();
    let url = format!("{}/chat/completions", model.base_url());
    let ask = async |messages: Value, tools: Value| {
        post_json(&url, &json!({"messages": messages, "tools": tools})).await["choices"][0]["message"].clone()
    };
    let user = |text: &str| json!({"role": "user", "content": [{"type": "text", "text": text}]});

    let words = ask(json!([user("TOOL=x"), user("WORDS=2")]), json!([{}])).await;
    assert_eq!(words["content"], "word0 word1");

    let order = r#"TOOL=bash ARGS=`{"command": "a b"}`"#;
    let call = ask(json!([user(order)]), json!([{}])).await["tool_calls"][0]["function"].clone();
    assert_eq!(call, json!({"name": "bash", "arguments": r#"{"command": "a b"}"#}));
    let after = ask(json!([user(order), {"role": "tool", "content": "done"}]), json!([{}])).await;
    assert_eq!(after["content"], "word0 word1 word2");

    let title = ask(json!([{"role": "system", "content": "You make a title."}, user("WORDS=2")]), Value::Null).await;
    assert_eq!(title["content"], TITLE);
    assert!(get_json(&format!("{}/models", model.base_url())).await["data"][0]["id"].is_string());
}

/// One run of all situations on a bare release, looked at from every side.
#[tokio::test]
async fn a_fold_of_global_event_is_what_rest_says() {
    let model = ScriptedModel::start().await.unwrap();
    let opencode = Home::new("1.14.41", &model).start().await;
    let api = opencode.api();
    let recorder = Stream::open(&api, "/global/event").await.unwrap();
    let stage = Stage::set(&opencode, &model, &api).await;
    let mut fold = Fold::default();
    for (name, situation) in situations::ALL {
        let idle = |fold: &Fold, session: &String| fold.idles.get(session).copied().unwrap_or_default();
        let did = situation(&stage).await;
        situations::settle(&recorder).await;
        fold.catch_up(&recorder);
        let differences = fold.compare(&api, &stage.directories()).await;
        assert_eq!(differences, Vec::<String>::new(), "{name}");
        for (session, turns) in &did.turns {
            // opencode says twice that an aborted turn is over.
            assert_eq!(idle(&fold, session), turns + did.aborted, "{name}, {session}");
        }
    }
    assert_eq!(recorder.end(), None);
    assert_eq!(fold.deltas_unlike(&api).await, Vec::<String>::new());
    assert_eq!(fold.orphans, Vec::<String>::new());

    // The log's types are the stream's, but for those that are never logged.
    let unlogged = ["server.connected", "server.heartbeat", "server.instance.disposed", "project.updated", "sync"];
    let mut streamed = Vec::from_iter(recorder.frames().iter().map(|frame| frame.kind()));
    streamed.retain(|kind| !unlogged.contains(&kind.as_str()));
    assert_eq!(opencode.published(), streamed);

    // The comparison bites: whoever misses any of these is told so.
    let frames = recorder.frames();
    for missed in [
        &["session.updated"][..],
        &["session.deleted"],
        &["session.status", "session.idle"],
        &["message.updated"],
        &["message.part.updated"],
        &["permission.replied"],
        &["question.rejected"],
        &["todo.updated"],
    ] {
        let mut fold = Fold::default();
        for event in frames.iter().map(|frame| frame.payload_json()) {
            let kind = event["type"].as_str().unwrap_or_default();
            // A missed end of a turn shows only while its beginning was seen.
            if !missed.contains(&kind) || event["properties"]["status"]["type"] == "busy" {
                fold.apply(&event);
            }
        }
        assert_ne!(fold.compare(&api, &stage.directories()).await, Vec::<String>::new(), "without {missed:?}");
    }
}

/// What the relay exists for.
#[tokio::test]
async fn the_event_stream_of_1_14_48_ends_after_one_frame() {
    let model = ScriptedModel::start().await.unwrap();
    let opencode = Home::new("1.14.48", &model).with_password("secret").with_log_file().start().await;
    assert!(Stream::open(&Api::new(opencode.base()), "/event").await.is_err_and(|error| error.contains("401")));
    let stream = Stream::open(&opencode.api(), "/event").await.unwrap();
    assert_eq!(stream.wait_end(SOON).await, End::Clean);
    let kinds = Vec::from_iter(stream.frames().iter().map(|frame| frame.kind()));
    assert_eq!(kinds, ["server.connected"]);

    opencode.api().post("/session", &json!({})).await;
    let log = situations::until("the log file", || async {
        let file = fs::read_dir(opencode.home.log_folder()).ok()?.next()?.ok()?;
        let types = Vec::from_iter(fs::read_to_string(file.path()).ok()?.lines().filter_map(published_type));
        types.contains(&"session.created".to_owned()).then_some(types)
    });
    assert_eq!(log.await.first().map(String::as_str), Some("session.created"));
    let printed = opencode.stderr().from(0).iter().any(|line| published_type(&line.text).is_some());
    assert!(!printed, "nothing of the log is on stderr");

    let id = opencode.id();
    drop(opencode);
    assert!(!fs::exists(format!("/proc/{id}")).unwrap(), "it is gone when dropped");
}

#[tokio::test]
async fn a_stream_tells_how_it_ended() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let frame = "id: 7\ndata: {\"a\":\ndata: 1}\n: c\n\n";
    let whole = format!("{head}{:x}\r\n{frame}\r\n", frame.len());
    for (tail, clean) in [("0\r\n\r\n", true), ("", false), ("5\r\nda", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/event", listener.local_addr().unwrap());
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let read = socket.read(&mut [0; 1_000]).await.unwrap();
            assert_ne!(read, 0);
            socket.write_all(format!("{whole}{tail}").as_bytes()).await.unwrap();
        };
        let (stream, ()) = tokio::join!(Stream::open_url(&url, &[]), serve);
        let stream = stream.unwrap();
        assert_eq!(stream.wait_end(SOON).await == End::Clean, clean, "{tail:?}");
        let frame = stream.wait_for(|frame| frame.id.is_some(), SOON).await;
        assert_eq!(frame.json(), json!({"a": 1}));
        assert_eq!((frame.id.as_deref(), frame.comments.len(), frame.lines.len()), (Some("7"), 1, 4));
    }
}

#[tokio::test]
async fn a_release_that_is_not_here_says_how_to_fetch_it() {
    let model = ScriptedModel::start().await.unwrap();
    let home = Home::new("0.0.1", &model);
    let panic = catch_unwind(AssertUnwindSafe(|| home.command(1))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("scripts/fetch-opencode 0.0.1"), "{message}");
}
