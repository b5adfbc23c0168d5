//! The probe: a session of the doctor's own, whose few events are known before they come. No call of it asks a model.
//!
//! Tried on 1.2.27 to 1.18.34: each of these calls publishes there, also the abort of a session that does nothing
//! (`session.status` and `session.idle`), and a message that wants no reply from a model that does not exist.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::ask::{Answer, ask};
use super::stream::{All, Watched};
use super::text::plain;
use crate::client::Client;

/// How long one call may take. 1.18.34 takes 2 s for its first message.
const CALL: Duration = Duration::from_secs(6);

/// How long an event of the probe may take to `/global/event`; and after one that did not come.
const ARRIVAL: (Duration, Duration) = (Duration::from_millis(2500), Duration::from_millis(300));

/// How long the other streams may show nothing after it before no more is waited for, and how long they may take at all.
const REST: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(4));

/// How long deleting the session may take, or looking whether it is gone.
const DELETE: Duration = Duration::from_secs(2);

/// What became of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Session {
    /// There is none.
    #[default]
    None,
    /// It was asked for; whether it is there is not known.
    Making,
    /// It is there.
    Made(String),
    /// It was there.
    Deleted(String),
    /// It could not be deleted.
    Left(String),
}

impl Session {
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::None | Self::Making => None,
            Self::Made(id) | Self::Deleted(id) | Self::Left(id) => Some(id),
        }
    }
}

/// One call, and what REST showed of it afterwards.
#[derive(Clone, Debug)]
pub(super) struct Called {
    pub(super) call: &'static str,
    /// Since the examination began.
    pub(super) asked: Duration,
    pub(super) took: Duration,
    /// Why it failed.
    pub(super) failure: Option<String>,
    /// The events that must have been published, because REST shows the change.
    pub(super) proves: &'static [&'static str],
}

/// The types of the probe whose last event belongs to one call only: by them a delay can be told.
pub(super) const MARKS: [(&str, &str); 4] = [
    ("POST /session", "session.created"),
    ("POST /session/ID/abort", "session.idle"),
    ("POST /session/ID/message", "message.part.updated"),
    ("DELETE /session/ID", "session.deleted"),
];

/// Everything the probe works with.
pub(super) struct Probe<'a> {
    pub(super) client: &'a Client,
    pub(super) begun: Instant,
    /// When it must be over, the deletion left out.
    pub(super) deadline: Instant,
    pub(super) streams: &'a All,
    pub(super) session: &'a watch::Sender<Session>,
    /// Nobody else's session has it.
    pub(super) title: &'a str,
}

impl Probe<'_> {
    /// Makes the calls, each after the events of the one before have come.
    pub(super) async fn run(&self) -> Vec<Called> {
        let mut calls = Vec::new();
        if self.left(CALL).is_zero() {
            let failure = Some("was not tried: everything before it took too long".to_owned());
            let (asked, took) = (self.begun.elapsed(), Duration::ZERO);
            return vec![Called { call: "POST /session", asked, took, failure, proves: &[] }];
        }
        let Some(id) = self.create(&mut calls).await else {
            calls.extend(delete(self.client, self.begun, self.session, self.title).await);
            return calls;
        };
        let mut patience = ARRIVAL.0;
        self.arrival(&id, "session.created", &mut patience).await;
        let (path, title) = (format!("/session/{id}"), format!("{}, renamed", self.title));
        let title_shows = |shown: &Value| shown["title"] == title.as_str();
        let steps: [(_, Method, String, Value, _, &[&str]); 3] = [
            (
                "PATCH /session/ID",
                Method::PATCH,
                path.clone(),
                json!({ "title": title }),
                "session.updated",
                &["session.updated"],
            ),
            ("POST /session/ID/abort", Method::POST, format!("{path}/abort"), Value::Null, "session.idle", &[]),
            (
                "POST /session/ID/message",
                Method::POST,
                format!("{path}/message"),
                json!({
                    "noReply": true,
                    "model": {"providerID": "opencode-relay", "modelID": "doctor"},
                    "parts": [{"type": "text", "text": "A probe of opencode-relay doctor. It asks no model."}],
                }),
                "message.part.updated",
                &["message.updated", "message.part.updated"],
            ),
        ];
        for (call, method, path, body, mark, proves) in steps {
            if self.left(CALL).is_zero() {
                break;
            }
            let body = (!body.is_null()).then_some(&body);
            let mut called = self.call(call, method, &path, body).await.0;
            let looks_at = match call {
                "PATCH /session/ID" => Some(format!("/session/{id}")),
                "POST /session/ID/message" => Some(format!("/session/{id}/message?limit=1")),
                _ => None,
            };
            if let Some(looked) = looks_at.filter(|_| called.failure.is_none())
                && let Some(shown) = self.read(&looked).await
                && (title_shows(&shown) || shown.as_array().is_some_and(|messages| !messages.is_empty()))
            {
                called.proves = proves;
            }
            let is_done = called.failure.is_none();
            calls.push(called);
            if is_done {
                self.arrival(&id, mark, &mut patience).await;
            }
        }
        calls.extend(delete(self.client, self.begun, self.session, self.title).await);
        self.arrival(&id, "session.deleted", &mut patience).await;
        let everywhere = |all: &Vec<Watched>| {
            all.iter().filter(|stream| stream.is_open()).all(|stream| stream.has(&id, "session.deleted"))
        };
        let _ = timeout(self.left(REST.1), self.quiet(everywhere)).await;
        calls
    }

    /// Waits until this is so, or until no event of the session has come for a while: a slow stream is not a broken one.
    async fn quiet(&self, is_so: impl Fn(&Vec<Watched>) -> bool + Copy) {
        let mut streams = self.streams.subscribe();
        loop {
            let count = |all: &Vec<Watched>| all.iter().map(|stream| stream.events.len()).sum::<usize>();
            let before = count(&streams.borrow());
            let changed = streams.wait_for(|all| is_so(all) || count(all) > before);
            match timeout(REST.0, changed).await {
                Ok(Ok(all)) if !is_so(&all) => {}
                _ => return,
            }
        }
    }

    async fn create(&self, calls: &mut Vec<Called>) -> Option<String> {
        self.session.send_replace(Session::Making);
        let body = json!({ "title": self.title });
        let (mut called, answer) = self.call("POST /session", Method::POST, "/session", Some(&body)).await;
        let id = answer.as_ref().and_then(Answer::json).and_then(|body| body["id"].as_str().map(str::to_owned));
        let id = id.filter(|id| is_id(id));
        match (&id, answer.is_some()) {
            (Some(id), _) => {
                called.proves = &["session.created"];
                self.session.send_replace(Session::Made(id.clone()));
            }
            // A refusal; there is nothing to delete. Without any answer it may be there all the same.
            (None, true) => {
                called.failure.get_or_insert_with(|| "the answer names no session".to_owned());
                self.session.send_replace(Session::None);
            }
            (None, false) => {}
        }
        calls.push(called);
        id
    }

    /// Waits until the events up to this one have come on every `/global/event` that is open.
    async fn arrival(&self, id: &str, kind: &str, patience: &mut Duration) {
        let come = |all: &Vec<Watched>| {
            let mut references = all.iter().filter(|stream| stream.path == "/global/event" && stream.is_open());
            references.all(|stream| stream.has(id, kind))
        };
        if timeout(self.left(*patience), self.streams.subscribe().wait_for(come)).await.is_err() {
            *patience = ARRIVAL.1;
        }
    }

    async fn read(&self, path: &str) -> Option<Value> {
        ask(self.client, Method::GET, path, None, self.left(CALL)).await.ok()?.json()
    }

    async fn call(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (Called, Option<Answer>) {
        call_once(self.client, self.begun, call, method, path, body, self.left(CALL)).await
    }

    fn left(&self, limit: Duration) -> Duration {
        limit.min(self.deadline.saturating_duration_since(Instant::now()))
    }
}

async fn call_once(
    client: &Client,
    begun: Instant,
    call: &'static str,
    method: Method,
    path: &str,
    body: Option<&Value>,
    limit: Duration,
) -> (Called, Option<Answer>) {
    let asked = begun.elapsed();
    let answer = ask(client, method, path, body, limit).await;
    let took = begun.elapsed().saturating_sub(asked);
    let failure = match &answer {
        Ok(answer) if answer.status.is_success() && answer.json().is_some() => None,
        Ok(answer) if answer.status.is_success() => Some(format!("answered with {} instead of JSON", answer.kind())),
        Ok(answer) => Some(format!("answered {}", answer.status)),
        Err(error) => Some(plain(&format!("failed to {error}"))),
    };
    (Called { call, asked, took, failure, proves: &[] }, answer.ok())
}

/// Deletes the session, if there is one; also one that was asked for and whose id never came.
pub(super) async fn delete(
    client: &Client,
    begun: Instant,
    session: &watch::Sender<Session>,
    title: &str,
) -> Option<Called> {
    let known = session.borrow().clone();
    let id = match known {
        Session::None | Session::Deleted(_) => return None,
        Session::Made(id) | Session::Left(id) => id,
        Session::Making => match find(client, title).await {
            Ok(Some(id)) => id,
            Ok(None) => {
                session.send_replace(Session::None);
                return None;
            }
            Err(()) => {
                session.send_replace(Session::Left(title.to_owned()));
                return None;
            }
        },
    };
    session.send_replace(Session::Left(id.clone()));
    let path = format!("/session/{id}");
    let call = "DELETE /session/ID";
    let (mut called, _) = call_once(client, begun, call, Method::DELETE, &path, None, DELETE).await;
    let gone = ask(client, Method::GET, &path, None, DELETE).await;
    if gone.is_ok_and(|answer| answer.status.as_u16() == 404) {
        called.proves = &["session.deleted"];
        session.send_replace(Session::Deleted(id));
    } else {
        called.failure.get_or_insert_with(|| "the session is still there".to_owned());
    }
    Some(called)
}

/// The session of this title.
async fn find(client: &Client, title: &str) -> Result<Option<String>, ()> {
    let answer = ask(client, Method::GET, "/session", None, DELETE).await.map_err(drop)?;
    let sessions = answer.json().ok_or(())?;
    let mut sessions = sessions.as_array().into_iter().flatten();
    let ours = sessions.find(|session| session["title"].as_str().is_some_and(|shown| shown.starts_with(title)));
    Ok(ours.and_then(|session| session["id"].as_str()).filter(|id| is_id(id)).map(str::to_owned))
}

/// It becomes part of a path, so it must be nothing but an id.
fn is_id(id: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    id.len() <= 128 && id.strip_prefix("ses_").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_become_paths() {
        assert!(is_id("ses_df7a34a2cffeStPq2JapfR80TR"));
        for id in ["", "ses_", "ses_../../x", "ses_a/b", "msg_1", "ses_a?x", &format!("ses_{}", "a".repeat(200))] {
            assert!(!is_id(id), "{id}");
        }
    }
}
