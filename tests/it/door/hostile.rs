//! Whatever comes from outside, in whatever place, does no harm: no log line is forged, the status stays one, nothing dies
//! of depth, and nobody's memory of size.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::standin::capture::frame;
use crate::standin::{DIRECTORY, Mode, SOON, StandIn};
use crate::support::bounded;
use crate::support::http::send;
use crate::support::process::Cost;
use crate::support::relay::Relay;
use crate::support::situations::until;
use crate::support::sse::Stream;
use crate::upstream::{Routes, Wire};

/// Breaks a line, looks like one of the log's, colours it, turns it around, ends it.
const HOSTILE: &str = "x\n2026-01-01T00:00:00.000Z  INFO opencode_relay: forged\r\u{1b}[31m\u{1b}]0;t\u{7}\u{202e}\u{2066}\u{2028}\u{85}\u{0}\u{7f}\"}\\";

/// Far deeper than any parser's stack.
const DEPTH: usize = 100_000;

/// What the relay may take beside what it carries, in a build for debugging.
const MEMORY: u64 = 256 << 20;

async fn start(standin: &StandIn, more: &[&str]) -> Relay {
    let (url, log, state) = (standin.url(), standin.log_source(), standin.state_dir());
    let arguments = [&["--upstream", &url, "--log", &log, "--state-dir", &state], more].concat();
    let relay = Relay::start(&arguments, &[], &std::env::temp_dir()).await;
    until("the relay to be ready", || async {
        let status = status(&relay).await;
        let follows = status["witnesses"]["log"]["state"] == "following";
        (follows && status["witnesses"]["stream"]["state"] == "connected").then_some(())
    })
    .await;
    relay
}

async fn status(relay: &Relay) -> Value {
    relay.api().get("/_relay/status").await
}

fn address(relay: &Relay) -> SocketAddr {
    relay.base().strip_prefix("http://").unwrap().parse().unwrap()
}

/// An event of a type, with these properties, from a directory.
fn event(kind: &str, directory: &str, properties: &Value) -> String {
    json!({"directory": directory, "payload": {"id": "evt_1", "type": kind, "properties": properties}}).to_string()
}

/// An event that a client can wait for.
fn idle(session: &str) -> String {
    event("session.idle", DIRECTORY, &json!({"sessionID": session}))
}

/// Puts hostile values wherever somebody outside decides about one.
async fn everywhere(standin: &StandIn, relay: &Relay) {
    let client = Stream::open(&relay.api(), "/global/event").await.unwrap();
    let long = HOSTILE.repeat(20_000);
    for text in [HOSTILE, &long] {
        let info = json!({"id": text, "title": text, "directory": text, "time": {"updated": 1}});
        standin.send(&event(text, DIRECTORY, &json!({"sessionID": text})));
        standin.send(&event("session.updated", text, &json!({"sessionID": "ses_1", "info": info})));
        standin.send(&event("session.error", DIRECTORY, &json!({"sessionID": text, "error": {"name": text}})));
        standin.log_bytes(format!("INFO  2026-11-23T00:39:15 +3ms service=bus type={text} publishing\n").as_bytes());
        standin.log_bytes(
            format!("INFO  2026-11-23T00:39:15 +3ms service=session id={text} directory={text} created\n").as_bytes(),
        );
    }
    for kind in
        ["session.idle\u{202e}", "\u{1b}[31m", "SESSION.IDLE", "a/b", "..", "session.idle\0", &"x".repeat(10_000)]
    {
        standin.log_bytes(format!("INFO  2026-11-23T00:39:15 +3ms service=bus type={kind} publishing\n").as_bytes());
    }
    standin.log_bytes(b"INFO  2026-11-23T00:39:15 +3ms service=bus type=\xff\xfe\x00 publishing\n\xff\xff\x1b[0m\n");
    for bytes in [
        &b"data: \xff\xfe{\x00\n\n"[..],
        b"data: {\"payload\":\n\n",
        b"data: \x1b[31m\n\n",
        b"event: \xff\r\rdata: []\n\n",
    ] {
        standin.send_bytes(bytes);
    }
    // Escaped and raw, as far as a request can carry it: a head's limit is 64 KiB.
    let escaped: String = HOSTILE.bytes().map(|byte| format!("%{byte:02X}")).collect();
    // What a field may hold of it; with more than that a head is refused whole.
    let raw = "\u{202e}\u{85}\u{9b}31m\t\"\\";
    let fields =
        format!("x-opencode-directory: {escaped}\r\nlast-event-id: {raw}\r\nuser-agent: {raw}\r\nx: {raw}\r\n");
    let mut requests = vec![
        format!("GET /event HTTP/1.1\r\nhost: {raw}\r\n\r\n"),
        "GET /event HTTP/1.1\r\nhost: localhost\r\nx: \u{1b}[31m\r\n\r\n".to_owned(),
    ];
    for start in [
        format!("GET /{escaped}"),
        format!("GET /_relay/{escaped}"),
        format!("GET /session/{escaped}/event"),
        format!("GET /event?session={escaped}"),
        format!("GET /event?types={escaped}"),
        format!("GET /event?ids={escaped}"),
        format!("GET /event?directory={escaped}&since={escaped}"),
        format!("GET /session?directory={escaped}"),
        format!("GET /session?directory={}", escaped.repeat(100)),
        format!("GET /{}", "x".repeat(50_000)),
        "X!#$%&'*+-.^_`|~ /session".to_owned(),
        format!("{} /session", "M".repeat(20_000)),
        "GET \u{202e}/session".to_owned(),
    ] {
        requests.extend(["", &fields].map(|fields| format!("{start} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")));
    }
    let mut refusals = 0;
    for request in requests {
        let mut wire = Wire::connect(address(relay)).await;
        wire.send(&request).await;
        let Some(head) = wire.head().await else { continue };
        if head.get("cache-control").as_deref() == Some("no-store") {
            // One of the relay's own: opencode's shape, whatever is told back in it.
            let text = String::from_utf8(wire.body(&head).await.unwrap()).unwrap();
            let value: Value = serde_json::from_str(&text).expect("an error in JSON");
            assert!(
                value["data"]["message"].is_string() && text.chars().all(|letter| !letter.is_control()),
                "{text:?}"
            );
            refusals += 1;
        }
    }
    assert!(refusals >= 10, "only {refusals} requests were refused by the relay");
    // What opencode answers instead of its stream, and after all of it an ordinary event.
    standin.set_mode(Mode::Nonsense);
    standin.cut();
    standin.asked(2).await;
    standin.set_mode(Mode::Healthy);
    standin.granted(2).await;
    until("an ordinary event", || async {
        standin.send(&idle("ses_after"));
        client.frames().iter().any(|frame| frame.payload().contains("ses_after")).then_some(())
    })
    .await;
}

/// A line of the log for people: time, level, whose.
fn is_ours(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let time = words.next().unwrap_or_default();
    let level = words.next().unwrap_or_default();
    let is_time =
        time.len() == "2026-11-23T00:39:15.123Z".len() && time.ends_with('Z') && !time.starts_with("2026-01-01");
    is_time
        && ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level)
        && words.next().is_some_and(|target| target.starts_with("opencode_relay"))
}

fn is_plain(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

async fn no_line_is_forged(format: &str, is_good: fn(&str) -> bool) {
    let standin = StandIn::start(&format!("1.14.48{HOSTILE}")).await;
    let relay = start(&standin, &["--log-level", "trace", "--log-format", format]).await;
    everywhere(&standin, &relay).await;
    let lines = relay.stderr().from(0);
    for line in &lines {
        assert!(is_good(&line.text) && line.text.chars().all(is_plain), "{:?}", line.text);
        assert!(line.text.len() < 128 << 10, "{} bytes: {:.200}", line.text.len(), line.text);
    }
    assert!(lines.iter().any(|line| line.text.contains("forged")), "hostile values were logged at all");
    let answer = send(Method::GET, &relay.api().url("/_relay/status"), &[], "").await.unwrap();
    let status = answer.json();
    assert!(answer.body.len() < 32 << 10, "the status has {} bytes", answer.body.len());
    assert_eq!(status["ready"], true);
    assert!(status["upstream"]["version"].as_str().unwrap().contains("forged"), "the status tells what it was told");
    let kinds = status["ledger"].as_object().unwrap();
    assert!(kinds.keys().all(|kind| kind.chars().all(is_plain)), "{kinds:?}");
}

#[tokio::test]
async fn no_line_of_a_log_for_people_is_forged() {
    bounded(no_line_is_forged("text", is_ours)).await;
}

#[tokio::test]
async fn no_line_for_the_journal_is_forged() {
    bounded(no_line_is_forged("journal", |line| {
        let rest = ["<3>", "<4>", "<6>", "<7>"].iter().find_map(|priority| line.strip_prefix(priority));
        rest.is_some_and(|rest| rest.starts_with("opencode_relay")) && line.len() < 48 << 10
    }))
    .await;
}

#[tokio::test]
async fn every_line_of_a_log_in_json_is_json() {
    bounded(no_line_is_forged("json", |line| {
        serde_json::from_str::<Value>(line)
            .is_ok_and(|line| line["level"].is_string() && line["timestamp"] != "2026-01-01T00:00:00.000Z")
    }))
    .await;
}

fn deep() -> String {
    format!("{}{}", r#"{"a":["#.repeat(DEPTH), "]}".repeat(DEPTH))
}

#[tokio::test]
async fn depth_kills_nobody() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = start(&standin, &[]).await;
        let client = Stream::open(&relay.api(), "/global/event").await.unwrap();
        let deep = deep();
        for kind in
            ["message.updated", "session.updated", "message.part.updated", "permission.asked", "session.status", "x.y"]
        {
            let properties = format!(r#"{{"sessionID":"ses_1","info":{deep},"part":{deep},"status":{deep}}}"#);
            standin.send(&format!(
                r#"{{"directory":"{DIRECTORY}","payload":{{"id":"evt_1","type":"{kind}","properties":{properties}}}}}"#
            ));
        }
        standin.send(&format!(r#"{{"directory":{deep},"payload":{deep}}}"#));
        standin.send(&idle("ses_after"));
        client.wait_for(|frame| frame.payload().contains("ses_after"), SOON).await;

        // REST both ways: what passes through is looked into for replies, and is passed on whole.
        let body = format!(r#"{{"reply":{deep}}}"#);
        for path in ["/permission/per_1/reply", "/question/que_1/reply", "/session"] {
            let json = [("content-type", "application/json")];
            let answer = send(Method::POST, &relay.api().url(path), &json, body.clone()).await.unwrap();
            assert_eq!(answer.text(), "true", "{path}");
        }
        let status = status(&relay).await;
        assert_eq!(
            (&status["ready"], &status["witnesses"]["stream"]["connects"]),
            (&json!(true), &json!(1)),
            "{status:#}"
        );
    })
    .await;
}

/// The state is asked for, and answers with depth: an answer that cannot be read, as any other.
#[tokio::test]
async fn a_deep_answer_is_passed_on_whole_and_kills_nobody() {
    bounded(async {
        let deep = deep();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{deep}",
            deep.len()
        );
        let upstream = Routes::default()
            .on("*", move |_, mut wire: Wire| {
                let answer = answer.clone();
                async move {
                    wire.send(answer).await;
                    Some(wire)
                }
            })
            .start()
            .await;
        let folder = tempfile::tempdir().unwrap();
        let (url, state) = (format!("http://{}", upstream.address()), folder.path().to_str().unwrap().to_owned());
        let relay =
            Relay::start(&["--upstream", &url, "--log", "none", "--state-dir", &state], &[], folder.path()).await;
        let passed = send(Method::GET, &relay.api().url("/session"), &[], "").await.unwrap();
        assert!(passed.body == deep, "{} bytes of {}", passed.body.len(), deep.len());
        // Asked for admission, too.
        let refused = send(Method::GET, &relay.api().url("/event"), &[], "").await.unwrap();
        assert_eq!(refused.status, 502);
        let health = send(Method::GET, &relay.api().url("/_relay/health"), &[], "").await.unwrap();
        assert_eq!(health.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_big_frame_comes_whole_and_a_huge_one_is_counted() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = start(&standin, &[]).await;
        let client = Stream::open(&relay.api(), "/global/event").await.unwrap();
        let big = event("x.big", DIRECTORY, &json!({"text": "b".repeat(10 << 20)}));
        standin.send(&big);
        let came = client.wait_for(|frame| frame.kind() == "x.big", SOON).await;
        let sent: Value = serde_json::from_str(&big).unwrap();
        assert!(came.payload_json() == sent["payload"], "{} bytes of {}", came.payload().len(), big.len());

        let lost = |status: &Value| status["witnesses"]["stream"]["lost"].as_u64().unwrap();
        let before = lost(&status(&relay).await);
        // In pieces, as a network brings them.
        standin.send_bytes(b"data: {\"payload\":{\"type\":\"x.huge\",\"text\":\"");
        for _ in 0..100 {
            standin.send_bytes(&vec![b'h'; 1 << 20]);
        }
        standin.send_bytes(b"\"}}\n\n");
        standin.send_bytes(frame(&idle("ses_after")).as_bytes());
        client.wait_for(|frame| frame.payload().contains("ses_after"), SOON).await;
        assert!(lost(&status(&relay).await) > before, "what is left out is counted");
        let resident = Cost::of(relay.id()).resident;
        assert!(resident < MEMORY, "{} MiB", resident >> 20);
        println!("after 10 MiB whole and 100 MiB left out: {} MiB resident", resident >> 20);
    })
    .await;
}

/// A hundred mebibytes each way through the proxy.
#[tokio::test]
async fn size_is_not_kept_in_memory() {
    const PIECES: usize = 1_600;
    const PIECE: usize = 64 << 10;
    bounded(async {
        let upstream = Routes::default()
            .on("/big", |_, mut wire: Wire| async move {
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                let piece = "x".repeat(PIECE);
                for _ in 0..PIECES {
                    wire.send_chunk(&piece).await;
                }
                wire.send("0\r\n\r\n").await;
                Some(wire)
            })
            .on("/sink", |head, mut wire: Wire| async move {
                let length: usize = head.get("content-length")?.parse().ok()?;
                let mut left = length;
                while left > 0 {
                    left -= wire.exactly(left.min(PIECE)).await.len();
                }
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                Some(wire)
            })
            .start()
            .await;
        let folder = tempfile::tempdir().unwrap();
        let (url, state) = (format!("http://{}", upstream.address()), folder.path().to_str().unwrap().to_owned());
        let relay =
            Relay::start(&["--upstream", &url, "--log", "none", "--state-dir", &state], &[], folder.path()).await;
        let mut wire = Wire::connect(address(&relay)).await;
        wire.send("GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(wire.answer().await.second(), "200");
        let (mut total, mut most) = (0, 0);
        loop {
            let chunk = wire.chunk().await.unwrap();
            if chunk.is_empty() {
                break;
            }
            total += chunk.len();
            most = most.max(Cost::of(relay.id()).resident);
        }
        assert_eq!(total, PIECES * PIECE);
        wire.send(format!("POST /sink HTTP/1.1\r\nhost: localhost\r\ncontent-length: {total}\r\n\r\n")).await;
        let piece = vec![b'x'; PIECE];
        for _ in 0..PIECES {
            wire.send(&piece).await;
            most = most.max(Cost::of(relay.id()).resident);
        }
        assert_eq!(wire.answer().await.second(), "200");
        assert!(most < 100 << 20, "{} MiB", most >> 20);
        println!("100 MiB each way: at most {} MiB resident", most >> 20);
    })
    .await;
}

/// Lines of the log announce types, and nothing else: no hostile one makes an event, or an account.
#[tokio::test]
async fn forged_lines_of_hostile_types_make_no_event() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = start(&standin, &[]).await;
        let client = Stream::open(&relay.api(), "/global/event").await.unwrap();
        client.wait_for(|frame| frame.kind() == "server.connected", SOON).await;
        let mut lines = String::new();
        for number in 0..1_000 {
            lines += &format!("INFO  2026-11-23T00:39:15 +3ms service=bus type=forged.{number} publishing\n");
        }
        for kind in ["session.deleted", "permission.asked", "tui.command.execute", "server.connected", "pty.exited"] {
            lines += &format!("INFO  2026-11-23T00:39:15 +3ms service=bus type={kind} publishing\n");
        }
        standin.log_bytes(lines.as_bytes());
        let counted = until("the lines to be read", || async {
            standin.beat();
            let status = status(&relay).await;
            (status["witnesses"]["log"]["notices"].as_u64().unwrap() >= 1_004).then_some(status)
        })
        .await;
        let accounts = counted["ledger"].as_object().unwrap();
        assert!(accounts.len() <= 130, "{} accounts", accounts.len());
        assert!(accounts.contains_key("other"), "{:?}", accounts.keys());
        standin.send(&idle("ses_after"));
        client.wait_for(|frame| frame.payload().contains("ses_after"), SOON).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let kinds: Vec<String> = client.frames().iter().map(|frame| frame.kind()).collect();
        let unexpected =
            |kind: &&String| !matches!(kind.as_str(), "server.connected" | "server.heartbeat" | "session.idle");
        assert_eq!(kinds.iter().find(unexpected), None, "{kinds:?}");
    })
    .await;
}
