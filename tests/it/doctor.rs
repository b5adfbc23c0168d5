//! The doctor on stand-ins: each breakage has its own verdict, nothing that is healthy is called broken, and the session it
//! makes never stays.

pub(crate) mod fixture;

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use self::fixture::{Fake, Fault, Faults, LIMIT, SESSION, begin, doctor, finish};
use crate::support::bounded;
use crate::support::relay::Relay;
use crate::upstream::Routes;

/// The screen that the findings shall fit.
const COLUMNS: usize = 100;
const ROWS: usize = 32;

fn stream<'a>(found: &'a Value, at: &str, path: &str) -> &'a Value {
    let mut streams = found["streams"].as_array().unwrap().iter();
    streams
        .find(|stream| stream["at"] == at && stream["path"] == path)
        .unwrap_or_else(|| panic!("no {path}: {found:#}"))
}

fn sights(found: &Value) -> Vec<(&str, &str)> {
    let streams = found["streams"].as_array().unwrap().iter();
    streams.map(|stream| (stream["path"].as_str().unwrap(), stream["sight"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_healthy_opencode_is_healthy_and_is_left_as_it_was() {
    bounded(async {
        let fake = Fake::start(Faults { version: "1.17.11", ..Faults::default() }).await;
        let said = fake.doctor(&[]).await;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
        for expected in ["opencode 1.17.11 at http://", "Nothing is broken", "opencode-relay run --upstream http://"] {
            assert!(said.flat().contains(expected), "{expected:?} is not in\n{}", said.out);
        }
        assert!(said.out.lines().count() <= ROWS, "{}", said.out);
        assert!(said.out.lines().all(|line| line.chars().count() <= COLUMNS), "{}", said.out);
        assert!(!said.out.contains('\u{1b}'), "no terminal, no colour: {:?}", said.out);
        assert_eq!(fake.title(), None, "the session is gone");
        let asked = fake.asked();
        assert_eq!((asked["POST /session"], asked[&format!("DELETE /session/{SESSION}")]), (1, 1), "{asked:?}");

        let secret = [("OPENCODE_SERVER_PASSWORD", "very-secret")];
        let said = doctor(&[&fake.url(), "--json"], &secret).await;
        assert!(fake.upstream.last().get("authorization").is_some());
        assert!(!said.out.contains("secret") && !said.out.contains("dmVyeS1zZWNyZXQ"), "{}", said.out);
        let found = said.json();
        assert!(found["command"].as_str().unwrap().starts_with("OPENCODE_SERVER_PASSWORD=… opencode-relay run"));

        assert_eq!(
            sights(&found),
            [("/global/event", "whole"), ("/event", "whole"), ("/api/event", "whole")],
            "{found:#}"
        );
        assert_eq!((&found["mended"], &found["probe"]["deleted"]), (&json!(true), &json!(true)), "{found:#}");
    })
    .await;
}

#[tokio::test]
async fn a_silent_omission_is_told_with_the_types_that_are_missing() {
    bounded(async {
        let fake = Fake::start(Faults { version: "1.15.0", event: Fault::Lacks, ..Faults::default() }).await;
        let said = fake.doctor(&[]).await;
        assert_eq!(said.code, Some(0), "the relay makes up for it: {said:?}");
        for expected in
            ["stays open, but silently lacks session.created", "message.updated", "The relay mends it", "shown"]
        {
            assert!(said.flat().contains(expected), "{expected:?} is not in\n{}", said.out);
        }
        let found = fake.doctor(&["--json"]).await.json();
        assert_eq!(sights(&found), [("/global/event", "whole"), ("/event", "lacks")], "{found:#}");
        let missing = stream(&found, "opencode", "/event")["missing"].as_object().unwrap();
        let kinds: Vec<&str> = missing.keys().map(String::as_str).collect();
        let expected =
            ["message.part.updated", "message.updated", "session.created", "session.deleted", "session.updated"];
        assert_eq!(kinds, expected);
        assert_eq!(missing["session.updated"], json!({ "seen": 0, "due": 3 }));
        assert_eq!(found["known"][0]["shown"], "shown");
    })
    .await;
}

#[tokio::test]
async fn each_way_a_stream_is_broken_has_its_word() {
    bounded(async {
        for (version, fault, word, words) in [
            ("1.14.48", Fault::EndsAtOnce, "ends-at-once", "after server.connected, before any event"),
            ("1.14.41", Fault::EndsBeforeStatus, "ends-before", "ends before the first session.status"),
            ("1.14.41", Fault::Mute, "mute", "none of 9 events came"),
            ("1.14.41", Fault::Refused, "none", "answers 502"),
            ("1.14.41", Fault::Page, "none", "text/html;charset=UTF-8 instead of a stream"),
        ] {
            let fake = Fake::start(Faults { version, event: fault, ..Faults::default() }).await;
            let said = fake.doctor(&["--json"]).await;
            assert_eq!(said.code, Some(0), "{fault:?}: {said:?}");
            let found = said.json();
            let event = stream(&found, "opencode", "/event");
            assert_eq!(event["sight"], word, "{fault:?}: {found:#}");
            assert!(event["words"].as_str().unwrap().contains(words), "{fault:?}: {found:#}");
            assert_eq!(fake.title(), None);
        }
    })
    .await;
}

/// On 1.18 only `/api/event` is broken.
#[tokio::test]
async fn the_v2_stream_is_judged_where_there_is_one() {
    bounded(async {
        let fake = Fake::start(Faults { version: "1.18.34", api: Fault::EndsBeforeStatus, ..Faults::default() }).await;
        let found = fake.doctor(&["--json"]).await.json();
        assert_eq!(sights(&found), [("/global/event", "whole"), ("/event", "whole"), ("/api/event", "ends-before")]);
        let known: Vec<_> =
            found["known"].as_array().unwrap().iter().map(|known| known["shown"].as_str().unwrap()).collect();
        assert_eq!(known, ["untried", "shown"], "{found:#}");
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_held_back_is_blamed_on_what_stands_between() {
    bounded(async {
        let fields = "server: nginx/1.20\r\nvia: 1.1 front\r\n";
        let all = |fault| Faults { global: fault, event: fault, fields, ..Faults::default() };
        for fault in [Fault::Ungreeted, Fault::Headless, Fault::Mute] {
            let fake = Fake::start(all(fault)).await;
            let said = fake.doctor(&[]).await;
            assert_eq!(said.code, Some(1), "{fault:?}: {said:?}");
            let flat = said.flat();
            assert!(flat.contains("something between may hold the stream back"), "{fault:?}\n{}", said.out);
            assert!(fault == Fault::Headless || flat.contains("(via: 1.1 front, server: nginx/1.20)"), "{}", said.out);
            assert!(!flat.contains("Run:"), "there is nothing that fits: {}", said.out);
            assert_eq!(fake.title(), None);
        }
    })
    .await;
}

/// Without `/global/event`, a log that announces stands in for it.
#[tokio::test]
async fn a_dead_global_stream_is_what_the_log_witness_is_for() {
    bounded(async {
        let fake = Fake::start(Faults { global: Fault::Refused, event: Fault::Refused, ..Faults::default() }).await;
        fake.log_to(&fake.add_log("2026-11-23T003914.log"));
        let said = fake.doctor(&["--json"]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        let found = said.json();
        assert_eq!(found["log"]["sight"], "announces", "{found:#}");
        let command = found["command"].as_str().unwrap();
        assert!(command.contains(" --log dir:") && command.ends_with(" --witness log"), "{command}");
    })
    .await;
}

#[tokio::test]
async fn logs_are_told_apart_by_what_the_probe_left_in_them() {
    bounded(async {
        let fake = Fake::start(Faults::default()).await;
        let log = async |arguments: &[&str]| {
            let found = fake.doctor(&[arguments, &["--json"]].concat()).await.json();
            let log = &found["log"];
            (log["sight"].as_str().unwrap().to_owned(), log["mark"].as_str().unwrap().to_owned(), found)
        };
        let (sight, mark, found) = log(&[]).await;
        assert_eq!((sight.as_str(), mark.as_str()), ("unreadable", "none"), "{found:#}");
        assert!(found["log"]["words"].as_str().unwrap().contains("--print-logs"), "{found:#}");

        // Another opencode's.
        let other = fake.add_log("2026-11-23T003914.log");
        let (sight, mark, found) = log(&[]).await;
        assert_eq!((sight.as_str(), mark.as_str()), ("foreign", "none"), "{found:#}");
        assert!(found["log"]["words"].as_str().unwrap().contains("another opencode's"), "{found:#}");
        let named = format!("file:{}", other.display());
        assert_eq!(log(&["--log", &named]).await.1, "broken", "a log that was named must be the one");

        fake.log_to(&other);
        let (sight, mark, found) = log(&[]).await;
        assert_eq!((sight.as_str(), mark.as_str()), ("announces", "ok"), "{found:#}");
        assert!(found["command"].as_str().unwrap().contains("--log dir:"), "{found:#}");

        // A newer server's log beside it is what the relay would follow.
        let newer = fake.add_log("2026-11-23T003915.log");
        let (sight, mark, found) = log(&[]).await;
        assert_eq!((sight.as_str(), mark.as_str()), ("other-file", "broken"), "{found:#}");
        let expected = format!("--log file:{}", other.display());
        assert!(found["command"].as_str().unwrap().contains(&expected), "{found:#}");
        fs::remove_file(newer).unwrap();

        assert_eq!(log(&["--log", "none"]).await.0, "not-asked");
        assert_eq!(log(&["--log", "stdin"]).await.0, "unseen");
        let gone = format!("file:{}", fake.log_folder().join("gone").display());
        let (sight, mark, _) = log(&["--log", &gone]).await;
        assert_eq!((sight.as_str(), mark.as_str()), ("unreadable", "broken"));
    })
    .await;
}

#[tokio::test]
async fn a_state_that_is_a_web_page_is_named() {
    bounded(async {
        let fake = Fake::start(Faults { no_state: true, ..Faults::default() }).await;
        let said = fake.doctor(&[]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(
            said.flat().contains("GET /permission answers with text/html;charset=UTF-8 instead of JSON"),
            "{}",
            said.out
        );
        assert!(said.flat().contains("5 of 5 reads of the state fail"), "{}", said.out);
    })
    .await;
}

#[tokio::test]
async fn read_only_writes_nothing_and_compares_what_happens_to_happen() {
    bounded(async {
        let fake = Fake::start(Faults { version: "1.15.0", event: Fault::Lacks, ..Faults::default() }).await;
        let url = fake.url();
        let home = fake.home.path().to_str().unwrap().to_owned();
        let arguments = [url.as_str(), "--read-only", "--watch", "2s", "--json"];
        let process = begin(&arguments, &[("HOME", &home)]);
        // Everything is open once the state has been read.
        let reads = async {
            while !fake.upstream.heads().iter().any(|head| head.second() == "/question") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, reads).await.unwrap();
        fake.publish(&["session.diff", "message.updated", "session.diff", "session.idle"]);
        let said = finish(process).await;
        let found = said.json();
        assert_eq!(sights(&found), [("/global/event", "whole"), ("/event", "lacks")], "{found:#}");
        assert_eq!(stream(&found, "opencode", "/event")["missing"], json!({"message.updated": {"seen": 0, "due": 1}}));
        assert_eq!(found["probe"], Value::Null);
        for head in fake.upstream.heads() {
            assert!(head.start.starts_with("GET "), "{}", head.start);
        }

        let said = fake.doctor(&["--read-only", "--watch", "100ms"]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.flat().contains("unknown /event open; nothing happened"), "{}", said.out);
        assert!(said.flat().contains("Nothing was written"), "{}", said.out);
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_doctor_deletes_its_session() {
    bounded(async {
        for signal in [Signal::INT, Signal::TERM] {
            let fake = Fake::start(Faults { is_stuck: true, ..Faults::default() }).await;
            let mut process = begin(&[&fake.url()], &[("HOME", "/nonexistent")]);
            let stuck = async {
                while !fake.upstream.heads().iter().any(|head| head.second().ends_with("/abort")) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(LIMIT, stuck).await.unwrap();
            assert!(fake.title().unwrap().starts_with("opencode-relay doctor, probe"));
            process.signal(signal);
            let said = finish(process).await;
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
            assert!(said.err.contains("it was interrupted"), "{said:?}");
            assert_eq!(fake.title(), None, "the session stayed");
        }
    })
    .await;
}

/// The signal comes while the session is being made: its id is waited for.
#[tokio::test]
async fn a_session_that_is_being_made_is_deleted_too() {
    bounded(async {
        let fake = Fake::start(Faults { creating: Duration::from_secs(1), ..Faults::default() }).await;
        let mut process = begin(&[&fake.url()], &[("HOME", "/nonexistent")]);
        let asked = async {
            while !fake.asked().contains_key("POST /session") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, asked).await.unwrap();
        process.signal(Signal::INT);
        let said = finish(process).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(fake.asked().contains_key(&format!("DELETE /session/{SESSION}")), "{:?}", fake.asked());
        assert_eq!(fake.title(), None, "the session stayed");
    })
    .await;
}

/// The answer that names the session is lost; it is found by its title.
#[tokio::test]
async fn a_session_whose_id_never_came_is_deleted_too() {
    bounded(async {
        let (created, deleted) = (std::sync::Arc::new(std::sync::Mutex::new(None::<String>)), std::sync::Arc::default());
        let (title, gone): (_, std::sync::Arc<std::sync::Mutex<bool>>) = (created.clone(), deleted);
        let fixed = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        let seen = gone.clone();
        let upstream = Routes::default()
            .on("/session", move |head, mut wire| {
                let title = title.clone();
                async move {
                    let body: Value = serde_json::from_slice(&wire.body(&head).await.ok()?).unwrap_or_default();
                    if head.start.starts_with("POST") {
                        *title.lock().unwrap() = body["title"].as_str().map(str::to_owned);
                        return None;
                    }
                    let sessions = json!([{"id": "ses_1", "title": "mine"}, {"id": SESSION, "title": *title.lock().unwrap()}]);
                    wire.send(format!("{fixed}{}\r\n\r\n{sessions}", sessions.to_string().len())).await;
                    Some(wire)
                }
            })
            .on("/session/ses_probe1", move |head, mut wire| {
                let gone = gone.clone();
                async move {
                    *gone.lock().unwrap() |= head.start.starts_with("DELETE");
                    wire.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
                    Some(wire)
                }
            })
            .fixed("/global/health", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n{\"version\":\"1.14.41\"}")
            .start()
            .await;
        let said = doctor(&[&format!("http://{}", upstream.address()), "--json"], &[]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(*seen.lock().unwrap(), "{said:?}");
        let starts: Vec<String> = upstream.heads().into_iter().map(|head| head.start).collect();
        assert!(!starts.iter().any(|start| start.starts_with("DELETE /session/ses_1 ")), "not ours: {starts:?}");
    })
    .await;
}

#[tokio::test]
async fn a_session_that_stays_is_named() {
    bounded(async {
        let fake = Fake::start(Faults { keeps: true, ..Faults::default() }).await;
        let said = fake.doctor(&[]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.flat().contains(&format!("session {SESSION} could not be deleted")), "{}", said.out);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_examined_is_said_with_the_remedy() {
    bounded(async {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
        let html = Routes::default().fixed("*", page).start().await;
        let refusal =
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"Secure Area\"\r\ncontent-length: 0\r\n\r\n";
        let locked = Routes::default().fixed("*", refusal).start().await;
        let silent = Routes::default().on("*", |_, mut wire| async move {
            wire.ended().await;
            None
        });
        let silent = silent.start().await;
        for (address, expected) in [
            (closed, "is opencode running"),
            (html.address(), "GET /global/health answered 200 OK with text/html, without a version"),
            (locked.address(), "set OPENCODE_SERVER_PASSWORD"),
            (silent.address(), "get an answer from"),
        ] {
            let said = doctor(&[&format!("http://{address}")], &[]).await;
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
            assert!(said.err.contains(expected), "{expected:?}: {said:?}");
        }
        for arguments in
            [&["http://h/path"][..], &["--log", "nowhere"], &["--watch", "5"], &["--password-file", "/none"]]
        {
            let said = doctor(arguments, &[]).await;
            assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_a_server_says_reaches_the_terminal_as_it_is() {
    bounded(async {
        const HOSTILE: &str = "1.15.0\u{1b}[2J\u{202e}evil";
        for creation in [
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 25\r\n\r\n{\"id\":\"ses_../../global\"}",
            "HTTP/1.1 200 OK\r\ncontent-type: \u{202e}\u{9b}2J\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        ] {
            let faults = Faults { version: HOSTILE, creation: Some(creation), fields: "via: \u{202e}x\r\n", ..Faults::default() };
            let fake = Fake::start(faults).await;
            for arguments in [&[][..], &["--json"]] {
                let said = fake.doctor(arguments).await;
                assert_eq!(said.code, Some(1), "{said:?}");
                assert!(said.flat().contains("the probe could create no session"), "{}", said.out);
                let bad = |letter: &char| letter.is_control() && *letter != '\n' || matches!(letter, '\u{202a}'..='\u{202e}');
                assert_eq!(said.out.chars().find(bad), None, "{said:?}");
            }
            let asked = fake.asked();
            assert!(!asked.keys().any(|asked| asked.contains("..") || asked.starts_with("DELETE")), "{asked:?}");
        }
    })
    .await;
}

/// The relay's status and what clients see through it; opencode behind it is asked directly.
#[tokio::test]
async fn a_relay_is_examined_from_both_sides() {
    bounded(async {
        let fake = Fake::start(Faults { version: "1.15.0", event: Fault::Lacks, ..Faults::default() }).await;
        let env = [("HOME", fake.home.path().to_str().unwrap()), ("PATH", "/usr/bin:/bin")];
        let env: Vec<_> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let arguments = ["--upstream", &fake.url(), "--journal", "memory"];
        let relay = Relay::start(&arguments, &env, fake.home.path()).await;
        let said = doctor(&[relay.base(), "--json"], &[]).await;
        let found = said.json();
        assert_eq!(said.code, Some(0), "{found:#}\n{}", relay.output());
        assert_eq!((&found["is"], &found["version"]), (&json!("relay"), &json!("1.15.0")));
        let sight = |at: &str, path: &str| stream(&found, at, path)["sight"].as_str().unwrap().to_owned();
        assert_eq!(sight("opencode", "/event"), "lacks", "{found:#}");
        assert_eq!((sight("relay", "/event"), sight("relay", "/global/event")), ("whole".into(), "whole".into()));
        assert_eq!(fake.title(), None);

        let said = doctor(&[relay.base()], &[]).await;
        assert!(said.flat().contains("The relay makes up for it"), "{}", said.out);
        assert!(said.out.lines().count() <= ROWS, "{}", said.out);

        // Without URL the relay of these settings is found.
        let listen = relay.base().strip_prefix("http://").unwrap().to_owned();
        let said = doctor(&["--read-only", "--watch", "10ms"], &[("OPENCODE_RELAY_LISTEN", &listen)]).await;
        assert!(said.flat().contains("No URL was given; this answers at"), "{said:?}");
        drop(relay);
        let said = doctor(&[&format!("http://{listen}")], &[]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
    })
    .await;
}
