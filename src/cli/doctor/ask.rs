//! Questions with a limit, and who answers: an opencode, a relay, or something else.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, SERVER, VIA};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::timeout;

use super::text::plain;
use crate::client::{Client, SendError};

/// How long the server may take to say who it is.
const WHO: Duration = Duration::from_secs(3);

/// Most bytes of an answer.
const BODY: usize = 4 << 20;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// What the body is, in the server's words.
    pub(super) fn kind(&self) -> String {
        kind(&self.headers)
    }

    /// The body, if it is called JSON and is.
    pub(super) fn json(&self) -> Option<Value> {
        let is_json = self.kind().starts_with("application/json");
        is_json.then(|| serde_json::from_slice(&self.body).ok()).flatten()
    }
}

/// What a body is called.
pub(super) fn kind(headers: &HeaderMap) -> String {
    headers.get(CONTENT_TYPE).map_or_else(|| "nothing".to_owned(), shown)
}

/// Who stands between, as far as the fields say. opencode sends neither, and the relay names itself.
pub(super) fn between(headers: &HeaderMap) -> Option<String> {
    let fields = [VIA, SERVER].into_iter().filter_map(|name| headers.get(&name).map(|value| (name, shown(value))));
    let foreign: Vec<String> = fields
        .filter(|(_, value)| !value.split(',').all(|hop| hop.contains("opencode-relay")))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    (!foreign.is_empty()).then(|| foreign.join(", "))
}

fn shown(value: &HeaderValue) -> String {
    plain(&String::from_utf8_lossy(value.as_bytes()))
}

/// Asks, and waits so long for the whole answer.
pub(super) async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
    limit: Duration,
) -> Result<Answer, SendError> {
    let broken = |source| SendError::Broken { place: client.place.clone(), source };
    let mut request = Request::new(Full::from(body.map(Value::to_string).unwrap_or_default()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| broken(error.into()))?;
    if body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let exchange = async {
        let (head, body) = client.send(request, limit).await?.into_parts();
        let body = body.collect(BODY).await.map_err(broken)?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    let slow = |_| SendError::Slow { place: client.place.clone(), limit };
    timeout(limit, exchange).await.map_err(slow)?
}

/// Who answers.
#[derive(Debug)]
pub(super) enum Who {
    /// opencode itself, and its version.
    Opencode { version: String },
    /// A relay: its version, what its status says, and the version of the opencode behind it.
    Relay { version: String, status: Value, upstream: Option<String> },
}

/// Why it is not known who answers. Can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub(super) enum WhoError {
    /// Nothing does.
    #[error("{0}; is opencode running, and does it listen there?")]
    Unanswered(SendError),
    /// 401 or 403.
    #[error(
        "ask {0}: it wants a password, or another one; set OPENCODE_SERVER_PASSWORD (and OPENCODE_SERVER_USERNAME) as \
         opencode has it, or use --password-file"
    )]
    Unauthorized(String),
    /// A relay that cannot tell.
    #[error("ask the relay at {place}: {reason}; its own log says more")]
    NotReady {
        /// Where it is.
        place: String,
        /// In its words.
        reason: String,
    },
    /// Something else.
    #[error("find an opencode at {place}: GET /global/health answered {status} with {kind}, without a version")]
    Other {
        /// Where it should be.
        place: String,
        /// What was answered.
        status: StatusCode,
        /// And with what.
        kind: String,
    },
}

impl WhoError {
    /// Whether nothing answers at all.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Unanswered(SendError::Unreachable { .. }))
    }
}

/// Finds out who answers.
pub(super) async fn who(client: &Client) -> Result<Who, WhoError> {
    let get = |path| ask(client, Method::GET, path, None, WHO);
    let own = get("/_relay/health").await.map_err(WhoError::Unanswered)?;
    // opencode answers unknown paths with its web page.
    let healthy = own.json().filter(|body| body["healthy"].is_boolean());
    let Some(version) = healthy.as_ref().and_then(|body| body["version"].as_str()) else {
        return opencode(client).await.map(|version| Who::Opencode { version });
    };
    let status = get("/_relay/status").await.map_err(WhoError::Unanswered)?;
    match status.json() {
        _ if is_refusal(status.status) => Err(WhoError::Unauthorized(client.place.to_string())),
        Some(body) if status.status.is_success() => {
            let upstream = opencode(client).await.ok();
            Ok(Who::Relay { version: plain(version), status: body, upstream })
        }
        _ => {
            let ready = get("/_relay/ready").await.map_err(WhoError::Unanswered)?;
            let reason = ready.json().and_then(|body| body["reason"].as_str().map(plain));
            let reason = reason.unwrap_or_else(|| format!("GET /_relay/status answered {}", status.status));
            Err(WhoError::NotReady { place: client.place.to_string(), reason })
        }
    }
}

/// The version of an opencode.
pub(super) async fn opencode(client: &Client) -> Result<String, WhoError> {
    let answer = ask(client, Method::GET, "/global/health", None, WHO).await.map_err(WhoError::Unanswered)?;
    let place = client.place.to_string();
    match answer.json().as_ref().and_then(|body| body["version"].as_str()) {
        _ if is_refusal(answer.status) => Err(WhoError::Unauthorized(place)),
        Some(version) if answer.status.is_success() => Ok(version.to_owned()),
        _ => Err(WhoError::Other { place, status: answer.status, kind: answer.kind() }),
    }
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403)
}
