//! The live page in a browser: what it shows is what the relay does, whatever that is, and nothing that it shows is more
//! than text.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::faults::relay;
use crate::faults::resume::numbered;
use crate::standin::capture::{frames, kind};
use crate::standin::{DIRECTORY, SOON, StandIn};
use crate::support::bounded;
use crate::support::browser::Browser;
use crate::support::http::{Answer, Api, send};
use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, free_port};
use crate::support::programs::{source, tool};
use crate::support::relay::Relay;

/// The pictures stay here when the variable is set, for people to look at.
const PICTURES: &str = "PAGE_PICTURES";

/// A script of `tests/clients/page` with its browser.
struct Script {
    browser: Browser,
    /// How many of its lines were heard.
    heard: usize,
    _folder: TempDir,
}

impl Script {
    fn start(name: &str, base: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pictures = std::env::var_os(PICTURES).map_or_else(|| folder.path().to_owned(), PathBuf::from);
        let url = format!("{base}/_relay/");
        let arguments = [&[url.as_str(), pictures.to_str().unwrap()], more].concat();
        let browser = Browser::start(&format!("../page/{name}.mjs"), &arguments, folder.path());
        Self { browser, heard: 0, _folder: folder }
    }

    /// Waits until it says what it does now.
    async fn says(&mut self, word: &str) {
        let word = json!(word).to_string();
        self.hear(&word, |line| line == word).await;
    }

    async fn hear(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let stdout = self.browser.script.stdout.clone();
        let start = self.heard;
        let mut heard = start;
        let limit = 3 * SOON;
        let line = stdout.wait(start, limit, |line| {
            heard += 1;
            fits(&line.text).then(|| line.text.clone())
        });
        let Some(line) = line.await else {
            panic!("the script did not say {what}:\n{}", self.browser.script.output());
        };
        self.heard = heard;
        line
    }

    /// Waits for its end, which must be a good one.
    async fn end(mut self) {
        let status = self.browser.script.wait(3 * SOON).await;
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.browser.script.output());
    }
}

/// An event whose row says `number N`.
fn number(number: usize) -> String {
    numbered(number, "ses_1")
}

/// A client with this name that opens a stream and takes nothing of it.
async fn stalled(base: &str, agent: &str) -> TcpStream {
    let host = base.strip_prefix("http://").unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&host.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut socket = TcpStream::from_std(socket.into()).unwrap();
    let request = format!("GET /global/event HTTP/1.1\r\nhost: {host}\r\nuser-agent: {agent}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn what_it_computes_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = source("page/words.test.mjs");
    let mut tests = tool("node", &["--test", file.to_str().unwrap()], folder.path());
    let status = tests.wait(SOON).await;
    assert!(status.is_some_and(|status| status.success()), "{}", tests.output());
    assert!(tests.output().contains("# pass 10"), "all were run: {}", tests.output());
}

#[tokio::test]
async fn it_comes_with_a_strict_policy_from_either_path() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay::Relay::over(&standin, &[]).await;
        let get = async |path: &str| -> Answer { relay.api().send(Method::GET, path, None).await.unwrap() };
        let field = |answer: &Answer, name: &str| answer.headers[name].to_str().unwrap().to_owned();
        let page = get("/_relay/").await;
        assert_eq!((page.status.as_u16(), field(&page, "content-type").as_str()), (200, "text/html; charset=utf-8"));
        let policy = field(&page, "content-security-policy");
        for part in ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(page.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(!field(&get("/_relay/").await, "content-security-policy").contains(nonce), "a nonce is good once");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(field(&page, name), value, "{name}");
        }
        let moved = get("/_relay?auth_token=eDp5").await;
        assert_eq!((moved.status.as_u16(), field(&moved, "location").as_str()), (307, "_relay/?auth_token=eDp5"));
        assert_eq!(get("/_relay/status").await.json()["reason"], Value::Null);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_what_the_relay_does() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay::Relay::over(&standin, &[("grace", "2s")]).await;
        let mut script = Script::start("shows", relay.base(), &[]);
        script.says("open").await;
        let run = frames("1.14.48", "a_text");
        for data in &run {
            if kind(data) == "session.idle" {
                standin.publish_undelivered(data);
            } else {
                standin.publish(data);
            }
        }
        relay.settled(&standin).await;

        script.says("paused").await;
        (0..30).for_each(|at| assert!(standin.publish(&number(at))));
        script.says("resumed").await;
        let _slow = stalled(relay.base(), "slow-client/1").await;
        relay.until("a second stream", |status| status["clients"]["global"] == 2).await;
        for _ in 0..2 {
            standin.log(&json!({"payload": {"type": "tui.toast.show", "properties": {}}}).to_string());
        }
        let filling = "x".repeat(2000);
        for at in 30..3000 {
            // On the stream alone: the log is not what is tried here.
            assert!(standin.send(&number(at).replace("\"p\"", &format!("\"{filling}\""))));
        }
        relay.settled(&standin).await;
        script.says("watching").await;
        for batch in 0..150 {
            (0..20).for_each(|at| assert!(standin.send(&number(3000 + batch * 20 + at))));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let smooth = script.hear("how smooth it was", |line| line.contains("smooth")).await;
        let smooth = &serde_json::from_str::<Value>(&smooth).unwrap()["smooth"];
        println!("3,000 events in 3 s: {smooth}");
        assert!(smooth["most"].as_u64().unwrap() < 1000, "the page stood still: {smooth}");

        script.says("down").await;
        standin.kill().await;
        script.says("up").await;
        standin.revive("1.14.48").await;
        script.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_used_by_keyboard_alone_and_behind_a_prefix() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay::Relay::over(&standin, &[]).await;
        let mut script = Script::start("keys", relay.base(), &[]);
        script.says("open").await;
        (0..50).for_each(|at| assert!(standin.publish(&number(at))));
        script.says("hidden").await;
        relay.until("no stream", |status| status["clients"]["global"] == 0).await;
        (50..60).for_each(|at| assert!(standin.publish(&number(at))));
        script.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_the_relay_was_killed() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let start = async |state: &str| {
            let (url, log) = (standin.url(), standin.log_source());
            let arguments = ["--upstream", &url, "--log", &log, "--state-dir", state];
            let relay = Relay::start_at(port, &arguments, &[], folder.path()).await;
            let api = Api::new(relay.base());
            while api.get("/_relay/status").await["witnesses"]["stream"]["state"] != "connected" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            relay
        };
        let kill = async |mut relay: Relay| {
            relay.signal(Signal::KILL);
            relay.wait(SOON).await.expect("it is dead");
        };
        let state = standin.state_dir();
        let relay = start(&state).await;
        let mut script = Script::start("restart", relay.base(), &["199"]);
        script.says("open").await;
        (0..100).for_each(|at| assert!(standin.publish(&number(at))));
        script.says("kill").await;
        kill(relay).await;
        script.says("gone").await;
        let relay = start(&state).await;
        (100..150).for_each(|at| assert!(standin.publish(&number(at))));
        script.says("back").await;
        (150..200).for_each(|at| assert!(standin.publish(&number(at))));
        script.says("forget").await;
        kill(relay).await;
        let _relay = start(folder.path().join("other").to_str().unwrap()).await;
        script.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_values_are_only_text() {
    const MARKUP: &str = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = relay::Relay::over(&standin, &[]).await;
        let _client = stalled(relay.base(), "<img src=x onerror=alert(3)>").await;
        let mut script = Script::start("hostile", relay.base(), &[]);
        script.says("open").await;
        let long = "\u{202e}long ".repeat(64 << 10);
        let titles =
            [MARKUP, "\u{202e}txt.exe \u{2066}a\u{2069}\u{0}\u{7f}", &long[..64 << 10], "\"><svg onload=alert(4)>"];
        for title in titles {
            let info = json!({"id": "ses_1", "title": title});
            let payload = json!({"type": "session.updated", "properties": {"sessionID": MARKUP, "info": info}});
            let data = json!({"directory": DIRECTORY, "project": "p", "payload": payload});
            assert!(standin.send(&data.to_string()));
        }
        let types = [MARKUP, "__proto__", "constructor", "\u{202e}odd", &"t".repeat(300)];
        for kind in types {
            let payload = json!({"type": kind, "properties": {kind: kind, "__proto__": [kind]}});
            let data = json!({"directory": MARKUP, "project": "p", "payload": payload});
            assert!(standin.send(&data.to_string()));
        }
        let end = json!({"directory": DIRECTORY, "project": "p", "payload": {"type": "test.end", "properties": {}}});
        assert!(standin.send(&end.to_string()));
        script.end().await;
    })
    .await;
}

/// What the relay exists for, seen by the person who has to trust it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_turn_behind_a_password() {
    const PASSWORD: &str = "kept-between-us";
    bounded(async {
        let model = ScriptedModel::start().await.unwrap();
        let home = Home::new("1.14.48", &model).with_password(PASSWORD);
        let relay = Relay::parent(&home, "auto", &[]).await;
        // The relay listens at once and holds requests until opencode does; nobody else would wait for it.
        relay.api().get("/path").await;
        let bare = send(Method::GET, &format!("{}/_relay/", relay.base()), &[], "").await.unwrap();
        assert_eq!(bare.status.as_u16(), 401);
        assert_eq!(bare.headers["www-authenticate"], "Basic realm=\"Secure Area\"");

        let token = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(format!("opencode:{PASSWORD}"))
        };
        let mut script = Script::start("password", relay.base(), &["opencode", PASSWORD, &token]);
        script.says("open").await;
        let session = relay.api().post("/session", &json!({})).await["id"].as_str().unwrap().to_owned();
        let body = json!({"parts": [{"type": "text", "text": "WORDS=12 DELAY=20 say hello"}]});
        relay.api().post(&format!("/session/{session}/prompt_async"), &body).await;
        script.end().await;
    })
    .await;
}
