//! An opencode that publishes what a probe causes, and whose streams are broken in one of the known ways; and the doctor
//! as a process.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast;

use crate::support::process::Process;
use crate::upstream::{Head, Routes, Upstream, Wire};

/// The only session there is.
pub(crate) const SESSION: &str = "ses_probe1";

/// What the doctor may take at most.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// How a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    Healthy,
    /// Ends properly after its greeting.
    EndsAtOnce,
    /// Shows only what has no sync twin.
    Lacks,
    /// Ends when the first `session.status` is due.
    EndsBeforeStatus,
    /// Open without a greeting.
    Ungreeted,
    /// Open, greeted, and nothing more.
    Mute,
    /// No head.
    Headless,
    /// 502.
    Refused,
    /// A web page.
    Page,
}

/// How an opencode is.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    pub(crate) version: &'static str,
    pub(crate) global: Fault,
    pub(crate) event: Fault,
    pub(crate) api: Fault,
    /// The answer to `POST /session`, if it is not the right one.
    pub(crate) creation: Option<&'static str>,
    /// How long `POST /session` takes to make the session; also when nobody waits for it any more.
    pub(crate) creating: Duration,
    /// `POST …/abort` is not answered.
    pub(crate) is_stuck: bool,
    /// `DELETE` does nothing.
    pub(crate) keeps: bool,
    /// Every read of the state is a web page.
    pub(crate) no_state: bool,
    /// Fields of the head of every stream.
    pub(crate) fields: &'static str,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            version: "1.14.41",
            global: Fault::Healthy,
            event: Fault::Healthy,
            api: Fault::Healthy,
            creation: None,
            creating: Duration::ZERO,
            is_stuck: false,
            keeps: false,
            no_state: false,
            fields: "",
        }
    }
}

struct State {
    faults: Faults,
    bus: broadcast::Sender<(usize, &'static str)>,
    published: Mutex<usize>,
    title: Mutex<Option<String>>,
    log: Mutex<Option<PathBuf>>,
}

/// The stand-in, and the home of the doctor that examines it.
pub(crate) struct Fake {
    pub(crate) upstream: Upstream,
    state: Arc<State>,
    pub(crate) home: TempDir,
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn json_answer(body: &Value) -> String {
    answer("200 OK", "application/json", &body.to_string())
}

fn page() -> String {
    answer("200 OK", "text/html;charset=UTF-8", "<!doctype html><title>OpenCode</title>")
}

impl State {
    fn publish(&self, kinds: &[&'static str]) {
        for kind in kinds {
            let number = {
                let mut published = self.published.lock().unwrap();
                *published += 1;
                *published
            };
            if let Some(path) = &*self.log.lock().unwrap() {
                let mut file = File::options().append(true).open(path).unwrap();
                if *kind == "session.created" {
                    writeln!(file, "INFO  2026-11-23T00:39:15 +0ms service=session id={SESSION} slug=x created")
                        .unwrap();
                }
                writeln!(file, "INFO  2026-11-23T00:39:15 +1ms service=bus type={kind} publishing").unwrap();
            }
            let _ = self.bus.send((number, *kind));
        }
    }

    fn session(&self) -> Option<Value> {
        let title = self.title.lock().unwrap().clone()?;
        Some(json!({ "id": SESSION, "title": title }))
    }

    /// One of the probe's calls, or a read.
    async fn rest(&self, head: &Head, mut wire: Wire) -> Option<Wire> {
        let body = wire.body(head).await.ok()?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (method, path) = (head.start.split(' ').next()?, head.second().split('?').next()?);
        let one = format!("/session/{SESSION}");
        let rest = path.strip_prefix(one.as_str());
        let said = match (method, path, rest) {
            ("GET", "/global/health", _) => json_answer(&json!({ "healthy": true, "version": self.faults.version })),
            ("POST", "/session", _) if self.faults.creation.is_some() => self.faults.creation?.to_owned(),
            ("POST", "/session", _) => {
                tokio::time::sleep(self.faults.creating).await;
                *self.title.lock().unwrap() = body["title"].as_str().map(str::to_owned);
                self.publish(&["session.created", "session.updated"]);
                json_answer(&self.session()?)
            }
            ("PATCH", _, Some("")) => {
                *self.title.lock().unwrap() = body["title"].as_str().map(str::to_owned);
                self.publish(&["session.updated"]);
                json_answer(&self.session()?)
            }
            ("POST", _, Some("/abort")) if self.faults.is_stuck => {
                wire.ended().await;
                return None;
            }
            ("POST", _, Some("/abort")) => {
                self.publish(&["session.status", "session.idle"]);
                json_answer(&json!(true))
            }
            ("POST", _, Some("/message")) => {
                assert_eq!(body["noReply"], true, "a model would be asked: {body}");
                self.publish(&["message.updated", "message.part.updated", "session.updated"]);
                json_answer(&json!({ "info": {} }))
            }
            ("DELETE", _, Some("")) => {
                if !self.faults.keeps {
                    *self.title.lock().unwrap() = None;
                    self.publish(&["session.deleted"]);
                }
                json_answer(&json!(true))
            }
            ("GET", _, Some("")) => match self.session() {
                Some(session) => json_answer(&session),
                None => answer("404 Not Found", "application/json", r#"{"name":"NotFoundError"}"#),
            },
            ("GET", _, Some("/message")) => json_answer(&json!([{ "info": {} }])),
            ("GET", "/session", _) => json_answer(&json!(self.session().into_iter().collect::<Vec<_>>())),
            _ if self.faults.no_state => page(),
            ("GET", "/path", _) => json_answer(&json!({ "directory": "/d" })),
            ("GET", "/session/status", _) => json_answer(&json!({})),
            ("GET", "/permission" | "/question" | "/experimental/session", _) => json_answer(&json!([])),
            _ => page(),
        };
        wire.send(said).await;
        Some(wire)
    }

    async fn stream(&self, head: &Head, mut wire: Wire, fault: Fault) -> Option<Wire> {
        let path = head.second().to_owned();
        let mut bus = self.bus.subscribe();
        match fault {
            Fault::Headless => {
                wire.ended().await;
                return None;
            }
            Fault::Refused => {
                wire.send(answer("502 Bad Gateway", "text/plain", "no")).await;
                return Some(wire);
            }
            Fault::Page => {
                wire.send(page()).await;
                return Some(wire);
            }
            _ => {}
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
        wire.send(format!("{head}{}\r\n", self.faults.fields)).await;
        if fault != Fault::Ungreeted {
            wire.send_chunk(&frame(&path, 0, "server.connected", "")).await;
        }
        if fault == Fault::EndsAtOnce {
            wire.send("0\r\n\r\n").await;
            return Some(wire);
        }
        loop {
            let Ok((number, kind)) = bus.recv().await else { return None };
            let is_shown = match fault {
                Fault::Lacks => matches!(kind, "session.status" | "session.idle" | "session.diff"),
                Fault::Mute | Fault::Ungreeted => false,
                _ => true,
            };
            if fault == Fault::EndsBeforeStatus && kind == "session.status" {
                wire.send("0\r\n\r\n").await;
                return Some(wire);
            }
            let session = if kind == "session.diff" { "ses_another" } else { SESSION };
            let text = frame(&path, number, kind, session);
            if is_shown && !wire.try_send(format!("{:x}\r\n{text}\r\n", text.len())).await {
                return None;
            }
        }
    }
}

fn frame(path: &str, number: usize, kind: &str, session: &str) -> String {
    let (id, content) = (format!("evt_{number}"), json!({ "sessionID": session }));
    let event = match path {
        "/api/event" => json!({ "id": id, "type": kind, "location": { "directory": "/d" }, "data": content }),
        "/event" => json!({ "id": id, "type": kind, "properties": content }),
        _ => json!({ "directory": "/d", "payload": { "id": id, "type": kind, "properties": content } }),
    };
    format!("data: {event}\n\n")
}

impl Fake {
    pub(crate) async fn start(faults: Faults) -> Self {
        let state = Arc::new(State {
            faults: faults.clone(),
            bus: broadcast::Sender::new(1024),
            published: Mutex::default(),
            title: Mutex::default(),
            log: Mutex::default(),
        });
        let mut routes = Routes::default();
        let streams = [("/global/event", faults.global), ("/event", faults.event), ("/api/event", faults.api)];
        for (path, fault) in streams {
            let state = Arc::clone(&state);
            routes = routes.on(path, move |head, wire| {
                let state = Arc::clone(&state);
                async move { state.stream(&head, wire, fault).await }
            });
        }
        let rest = Arc::clone(&state);
        routes = routes.on("*", move |head, wire| {
            let state = Arc::clone(&rest);
            async move { state.rest(&head, wire).await }
        });
        Self { upstream: routes.start().await, state, home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.upstream.address())
    }

    /// The session's title while it is there.
    pub(crate) fn title(&self) -> Option<String> {
        self.state.title.lock().unwrap().clone()
    }

    /// Publishes events that are of no probe.
    pub(crate) fn publish(&self, kinds: &[&'static str]) {
        self.state.publish(kinds);
    }

    /// opencode's log folder in the doctor's home.
    pub(crate) fn log_folder(&self) -> PathBuf {
        self.home.path().join(".local/share/opencode/log")
    }

    /// A log of a server of this name there.
    pub(crate) fn add_log(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.log_folder()).unwrap();
        let path = self.log_folder().join(name);
        let first = "INFO  2026-11-23T00:39:14 +1ms service=default version=1.14.41 args=[\"serve\"] opencode\n";
        fs::write(&path, first.to_owned() + "INFO  2026-11-23T00:39:14 +1ms service=bus type=* subscribing\n").unwrap();
        path
    }

    /// What is published is announced there from now on.
    pub(crate) fn log_to(&self, path: &Path) {
        *self.state.log.lock().unwrap() = Some(path.to_owned());
    }

    /// Examines it.
    pub(crate) async fn doctor(&self, arguments: &[&str]) -> Said {
        let url = self.url();
        doctor(&[&[url.as_str()], arguments].concat(), &[("HOME", self.home.path().to_str().unwrap())]).await
    }

    /// The methods and paths that the doctor asked, as often as it did.
    pub(crate) fn asked(&self) -> HashMap<String, usize> {
        let mut asked = HashMap::new();
        for head in self.upstream.heads() {
            *asked.entry(head.start.trim_end_matches(" HTTP/1.1").to_owned()).or_default() += 1;
        }
        asked
    }
}

/// What the doctor said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The text without its folding.
    pub(crate) fn flat(&self) -> String {
        self.out.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Starts `opencode-relay doctor ARGUMENTS…` in an environment of its own.
pub(crate) fn begin(arguments: &[&str], env: &[(&str, &str)]) -> Process {
    let mut command = vec![env!("CARGO_BIN_EXE_opencode-relay").to_owned(), "doctor".to_owned()];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let mut all = vec![("PATH".to_owned(), std::env::var("PATH").unwrap())];
    all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Process::start(&command, &all, Path::new("/"), None).unwrap()
}

/// Runs it to its end.
pub(crate) async fn doctor(arguments: &[&str], env: &[(&str, &str)]) -> Said {
    finish(begin(arguments, env)).await
}

pub(crate) async fn finish(mut process: Process) -> Said {
    let exited = process.wait(LIMIT).await;
    let Some(exited) = exited else { panic!("the doctor did not end within {LIMIT:?}\n{}", process.output()) };
    for lines in [&process.stdout, &process.stderr] {
        assert!(lines.wait_closed(LIMIT).await);
    }
    let text = |lines: &crate::support::process::Lines| {
        lines.from(0).into_iter().map(|line| line.text + "\n").collect::<String>()
    };
    Said { code: exited.code(), out: text(&process.stdout), err: text(&process.stderr) }
}
