//! `opencode-relay tail`: what people see of a stream, and that nothing is lost or doubled while they look.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::standin::{DIRECTORY, SOON, StandIn};
use crate::support::bounded;
use crate::support::opencode::free_port;
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::support::sse::Stream;

const RELAY: &str = env!("CARGO_BIN_EXE_opencode-relay");

/// A running `tail`.
struct Tail(Process);

impl Tail {
    fn start(arguments: &[&str]) -> Self {
        let command: Vec<String> = [RELAY, "tail"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let env = [("TZ".to_owned(), "UTC".to_owned()), ("PATH".to_owned(), std::env::var("PATH").unwrap())];
        Self(Process::start(&command, &env, Path::new("/"), None).unwrap())
    }

    /// Starts it and waits until it follows.
    async fn following(arguments: &[&str]) -> Self {
        let tail = Self::start(arguments);
        tail.says(0, "following").await;
        tail
    }

    /// Waits for words on standard error, from this line on; the line after them.
    async fn says(&self, from: usize, words: &str) -> usize {
        let found = self.0.stderr.wait(from, SOON, |line| line.text.contains(words).then_some(())).await;
        assert!(found.is_some(), "{words:?} was not said:\n{}", self.0.output());
        let lines = self.0.stderr.from(from);
        from + lines.iter().position(|line| line.text.contains(words)).unwrap() + 1
    }

    /// Waits for a line of output with these words.
    async fn shows(&self, words: &str) -> String {
        let found = self.0.stdout.wait(0, SOON, |line| line.text.contains(words).then(|| line.text.clone())).await;
        found.unwrap_or_else(|| panic!("{words:?} was not shown:\n{}", self.0.output()))
    }

    fn shown(&self) -> Vec<String> {
        self.0.stdout.from(0).iter().map(|line| line.text.clone()).collect()
    }

    /// The numbers in the events of [`numbered`], from `--json --ids`.
    fn numbers(&self) -> Vec<u64> {
        let number = |line: &String| {
            serde_json::from_str::<Value>(line).unwrap()["data"]["payload"]["properties"]["number"].as_u64()
        };
        self.shown().iter().filter_map(number).collect()
    }
}

async fn relay(standin: &StandIn, port: u16, more: &[&str]) -> Relay {
    let url = standin.url();
    let grants = standin.grants();
    let arguments = [&["--upstream", &url, "--witness", "stream"], more].concat();
    let relay = Relay::start_at(port, &arguments, &[], Path::new("/")).await;
    standin.granted(grants + 1).await;
    relay
}

fn event(kind: &str, properties: &str) -> String {
    format!(
        r#"{{"directory":"{DIRECTORY}","project":"p","payload":{{"id":"evt_1","type":"{kind}","properties":{properties}}}}}"#
    )
}

fn numbered(number: u64) -> String {
    event("test.numbered", &format!(r#"{{"sessionID":"ses_a","number":{number}}}"#))
}

#[tokio::test]
async fn people_see_events_as_lines() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay(&standin, 0, &["--journal", "memory"]).await;
        let tail = Tail::following(&[relay.base()]).await;
        let hostile = r#"x\u001b[2J\u009b1m\u202e\n23:59:59.999 session.idle"#;
        for data in [
            event("session.status", r#"{"sessionID":"ses_0123456789","status":{"type":"busy"}}"#),
            event(
                "message.part.delta",
                r#"{"sessionID":"ses_0123456789","partID":"p","field":"text","delta":"Hello"}"#,
            ),
            event("message.part.delta", r#"{"sessionID":"ses_0123456789","partID":"p","field":"text","delta":" you"}"#),
            event("session.updated", &format!(r#"{{"sessionID":"ses_0123456789","info":{{"title":"{hostile}"}}}}"#)),
            event("session.idle", r#"{"sessionID":"ses_0123456789"}"#),
        ] {
            assert!(standin.send(&data));
        }
        tail.shows("session.idle         …456789").await;
        let shown = tail.shown();
        // The time is the relay's, to the millisecond.
        let rest: Vec<&str> = shown.iter().map(|line| line.split_at(13).1).collect();
        assert_eq!(
            rest,
            [
                "session.status       …456789 busy",
                "message.part.delta   …456789 Hello you",
                "session.updated      …456789 x\\u{1b}[2J\\u{9b}1m\\u{202e}\\n23:59:59.999 session.idle",
                "session.idle         …456789",
            ],
            "{shown:#?}"
        );
        assert!(shown.iter().all(|line| line.as_bytes()[8] == b'.'), "{shown:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_relay_costs_no_event() {
    bounded(async {
        let (standin, state) = (StandIn::start("1.14.48").await, tempfile::tempdir().unwrap());
        let (port, folder) = (free_port(), state.path().to_str().unwrap());
        let mut old = relay(&standin, port, &["--state-dir", folder]).await;
        let tail = Tail::following(&[&format!("http://127.0.0.1:{port}"), "--json", "--ids"]).await;
        let mut heard = 1;
        for round in 0..3 {
            let first = round * 500;
            (first..first + 500).for_each(|number| assert!(standin.send(&numbered(number))));
            // The kill falls into the middle of them, but into no event that the relay has not got.
            tail.shows(&format!("\"number\":{}}}", first + 100)).await;
            let id = old.id();
            old.signal(Signal::KILL);
            old.wait(SOON).await.unwrap();
            heard = tail.says(heard, "lost http").await;
            assert!(!Path::new(&format!("/proc/{id}")).exists());
            old = relay(&standin, port, &["--state-dir", folder]).await;
            heard = tail.says(heard, "resumed; following").await;
        }
        assert!(standin.send(&numbered(9_999)));
        tail.shows("\"number\":9999}").await;
        let numbers = tail.numbers();
        assert!(numbers.is_sorted_by(|one, next| one < next), "twice, or out of order: {numbers:?}");
        // What the relay had journaled is all there; what it had not, no client could have seen.
        let api = old.api().get("/_relay/status").await;
        assert_eq!(api["journal"]["state"], "ok");
        for round in 0..3 {
            assert!((0..=100).all(|number| numbers.contains(&(round * 500 + number))), "{round}: {numbers:?}");
        }
        let epoch = api["journal"]["epoch"].as_str().unwrap();
        let whole = format!("{}/global/event?ids=1&types=test.numbered&since={epoch}-0", old.base());
        let back = Stream::open_url(&whole, &[]).await.unwrap();
        back.wait_for(|frame| frame.data.as_deref().is_some_and(|data| data.contains("9999}")), SOON).await;
        let journaled: Vec<u64> =
            back.frames().iter().filter_map(|frame| frame.payload_json()["properties"]["number"].as_u64()).collect();
        assert_eq!(numbers, journaled, "what tail showed is what the journal has");
    })
    .await;
}

#[tokio::test]
async fn programs_get_the_data_as_it_is() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay(&standin, 0, &["--journal", "memory"]).await;
        let all = Tail::following(&[relay.base(), "--json"]).await;
        let some = Tail::following(&[
            relay.base(),
            "--json",
            "--type",
            "session.*",
            "--type",
            "todo.updated",
            "--session",
            "ses_a",
        ])
        .await;
        let origin = Tail::following(&[relay.base(), "--json", "--origin"]).await;
        let here = Tail::following(&[relay.base(), "--json", "--directory", DIRECTORY]).await;
        let sent = [
            event("session.idle", r#"{"sessionID":"ses_b"}"#),
            event("session.idle", r#"{ "sessionID":"ses_a","x":"é\u202e" }"#),
            event("message.updated", r#"{"sessionID":"ses_a"}"#),
            event("todo.updated", r#"{"sessionID":"ses_a","todos":[]}"#),
            event("session.last", r#"{"sessionID":"ses_a"}"#),
        ];
        sent.iter().for_each(|data| assert!(standin.send(data)));
        for tail in [&all, &some, &origin, &here] {
            tail.shows("session.last").await;
        }
        assert_eq!(all.shown(), sent);
        assert_eq!(some.shown(), [&sent[1], &sent[3], &sent[4]].map(String::clone));
        assert!(origin.shown().iter().all(|line| line.starts_with(r#"{"relay":{"origin":"stream","at":"#)));
        assert!(here.shown()[0].starts_with(r#"{"id":"evt_1","type":"session.idle""#), "{:?}", here.shown());
    })
    .await;
}

#[tokio::test]
async fn a_gap_is_told_to_people_and_programs() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay(&standin, 0, &["--journal", "memory"]).await;
        let tail = Tail::start(&[relay.base(), "--json", "--since", "00000000000000ff-1"]);
        tail.says(0, "gap: restarted, nobody knows how many events were missed").await;
        let line = tail.shows("server.connected").await;
        assert!(line.contains(r#""gap":{"reason":"restarted""#), "{line}");
    })
    .await;
}

#[tokio::test]
async fn a_plain_opencode_is_followed_too() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let tail = Tail::following(&[&standin.url(), "--type", "test.*", "--json", "--ids"]).await;
        let since = Tail::start(&[&standin.url(), "--since", "00000000000000ff-1"]);
        since.says(0, "it is no relay, so nothing older can be had").await;
        drop(since);
        standin.granted(2).await;
        let tail_again = Tail::following(&[&standin.url(), "--type", "test.*", "--json", "--ids"]).await;
        drop(tail);
        assert!(standin.send(&event("session.idle", "{}")) && standin.send(&numbered(1)));
        tail_again.shows("\"number\":1}").await;
        assert_eq!(tail_again.shown().len(), 1, "the filter is tail's own here");
        standin.cut();
        tail_again.says(1, "lost http").await;
        tail_again.says(1, "it gives no ids, so events in between may be lost").await;
        tail_again.shows("server.connected").await;
    })
    .await;
}

/// Gives every caller the same answer while the work goes on.
async fn against<T>(answer: &str, work: impl AsyncFnOnce(String) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4_096]).await;
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    };
    tokio::select! {
        () = serve => unreachable!(),
        done = work(url) => done,
    }
}

/// What `tail` says that ends by itself, and its exit code.
async fn failed(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(RELAY);
    command.arg("tail").args(arguments).envs(env.iter().copied()).env_remove("OPENCODE_SERVER_PASSWORD");
    for (name, value) in env {
        command.env(name, value);
    }
    let output = command.kill_on_drop(true).output().await.unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn what_is_no_stream_ends_it_with_a_clear_word() {
    bounded(async {
        let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
        let refused = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
        let forbidden = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\n\r\n\
            {\"name\":\"ForbiddenHostError\",\"data\":{\"message\":\"start it with --allowed-host x\\u001b[1m\"}}";
        let password = ("OPENCODE_SERVER_PASSWORD", "very-secret");
        for (answer, env, words) in [
            (page, vec![], ["text/html", "neither a relay nor an opencode"]),
            (refused, vec![], ["wants a password", "OPENCODE_SERVER_PASSWORD"]),
            (refused, vec![password], ["refuses this user and password", "OPENCODE_SERVER_PASSWORD"]),
            (forbidden, vec![], ["403", "start it with --allowed-host x\\u{1b}[1m"]),
            ("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n", vec![], ["503", "wait for it with --wait"]),
            ("HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", vec![], ["404", "failed to"]),
            ("SSH-2.0-OpenSSH\r\n", vec![], ["talk HTTP", "failed to"]),
        ] {
            against(answer, async |url: String| {
                let (code, said) = failed(&[&url], &env).await;
                assert_eq!(code, Some(1), "{said}");
                for word in words.iter().copied().chain([&*url]) {
                    assert!(said.contains(word), "{word:?} is not in {said}");
                }
                assert!(!said.contains("very-secret") && said.lines().count() == 1, "{said}");
            })
            .await;
        }
        let nowhere = format!("http://127.0.0.1:{}", free_port());
        let (code, said) = failed(&[&nowhere], &[]).await;
        assert!(code == Some(1) && said.contains(&nowhere) && said.contains("--wait"), "{said}");
        for wrong in [&["--ids"][..], &["--session", "a/b"], &["--type", "a b"], &["nowhere"], &["--color", "pink"]] {
            assert_eq!(failed(wrong, &[]).await.0, Some(2), "{wrong:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn it_waits_for_a_server_if_told_to() {
    bounded(async {
        let (standin, port) = (StandIn::start("1.14.48").await, free_port());
        let tail = Tail::start(&[&format!("http://127.0.0.1:{port}"), "--wait"]);
        tail.says(0, "trying again").await;
        let relay = relay(&standin, port, &["--journal", "memory"]).await;
        tail.says(0, "following").await;
        drop(relay);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_is_a_good_end() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay(&standin, 0, &["--journal", "memory"]).await;
        for more in [true, false] {
            let mut command = Command::new(RELAY);
            command.args(["tail", relay.base()]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut said = String::new();
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            stderr.read_line(&mut said).unwrap();
            assert!(standin.send(&numbered(1)));
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert!(line.contains("test.numbered"), "{line}");
            drop(stdout);
            // Also when nothing comes that could not be written.
            assert!(!more || standin.send(&numbered(2)));
            let deadline = Instant::now() + SOON;
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break status,
                    None if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
                    None => {
                        child.kill().unwrap();
                        panic!("it runs on, and nobody reads (more: {more}): {:?}", child.wait());
                    }
                }
            };
            assert_eq!(status.code(), Some(0));
            said.clear();
            assert_eq!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_interrupt_ends_it_in_silence() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay(&standin, 0, &["--journal", "memory"]).await;
        let mut tail = Tail::following(&[relay.base()]).await;
        tail.0.signal(Signal::INT);
        assert_eq!(tail.0.wait(SOON).await.unwrap().signal(), Some(2));
        assert_eq!(tail.0.stderr.len(), 1, "{}", tail.0.output());
    })
    .await;
}
