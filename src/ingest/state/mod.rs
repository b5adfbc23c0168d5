//! The state witness: questions to opencode's REST API.
//!
//! `reconcile` decides what is asked and bounds how many questions are in flight; this module only asks, one task a
//! question, and checks that an answer is one: unknown paths answer 200 with a web page (FACTS §3).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use memchr::memchr2;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Sender, UpstreamWatch};
use crate::event::Unreadable;
use crate::stop::{Stop, Tasks};

/// How many questions may wait to be sent. `reconcile` has fewer in flight.
pub const QUEUE: usize = 16;

/// How long an answer may take, to its last byte.
const ANSWER: Duration = Duration::from_secs(15);

/// How long its head may take. While opencode starts, it takes connections that it never answers.
const HEAD: Duration = Duration::from_secs(5);

/// Most bytes of an answer. The biggest are a session's messages with their tools' output.
const BODY: usize = 64 << 20;

/// A question.
#[derive(Debug)]
pub struct Ask {
    /// Comes back with the answer.
    pub number: u64,
    /// Path and query.
    pub path: String,
    /// Which instance to ask; `None` for the server's own.
    pub directory: Option<Arc<str>>,
    /// JSON text to POST; without it the question is a GET.
    pub body: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Message {
    /// Which question.
    pub number: u64,
    /// JSON text, or why there is none.
    pub answer: Result<Bytes, AskError>,
}

/// Why a question has no answer. Each can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// opencode is not running.
    #[error("ask opencode: it is not running")]
    Down,
    /// No connection, or it broke.
    #[error("ask opencode: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// The answer took too long.
    #[error("ask opencode: no whole answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// An answer other than 200.
    #[error("ask opencode: it answered {0}")]
    Refused(StatusCode),
    /// 200, but something else than JSON.
    #[error("ask opencode: it answered with {0} instead of JSON")]
    NoJson(String),
    /// 200 and called JSON, but not readable, or not whole.
    #[error("ask opencode: its JSON cannot be read: {}", Unreadable(.0))]
    BrokenJson(serde_json::Error),
}

/// Asks until the stop.
pub async fn run(mut asks: mpsc::Receiver<Ask>, upstream: UpstreamWatch, out: Sender, tasks: Tasks, stop: Stop) {
    let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build_http();
    while let Some(Some(ask)) = stop.or(asks.recv()).await {
        let (client, upstream, out, stop) = (client.clone(), upstream.clone(), out.clone(), stop.clone());
        tasks.spawn("question about the state", async move {
            let Ask { number, path, directory, body } = ask;
            let question =
                stop.or(timeout(ANSWER, answer(&client, &upstream, &path, directory.as_deref(), body))).await;
            let answer = match question {
                None => return,
                Some(Err(_)) => Err(AskError::Slow(ANSWER)),
                Some(Ok(answer)) => answer,
            };
            match &answer {
                Ok(body) => tracing::trace!(path, directory = directory.as_deref(), bytes = body.len(), "state read"),
                Err(error) => tracing::debug!(path, directory = directory.as_deref(), "failed to {error}"),
            }
            let _ = out.send(super::Message::State(Message { number, answer })).await;
        });
    }
}

async fn answer(
    client: &Client<HttpConnector, Full<Bytes>>,
    upstream: &UpstreamWatch,
    path: &str,
    directory: Option<&str>,
    body: Option<String>,
) -> Result<Bytes, AskError> {
    let Some(upstream) = upstream.borrow().clone() else { return Err(AskError::Down) };
    let uri = format!("http://{}{path}", upstream.authority);
    let request = if body.is_some() {
        Request::post(uri).header(header::CONTENT_TYPE, "application/json")
    } else {
        Request::get(uri)
    };
    let mut request = request.header(header::ACCEPT, "application/json");
    if let Some(directory) = directory {
        request = request.header("x-opencode-directory", utf8_percent_encode(directory, NON_ALPHANUMERIC).to_string());
    }
    if let Some(authorization) = &upstream.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(Full::from(body.unwrap_or_default())).map_err(|error| AskError::Broken(error.into()))?;
    let head = timeout(HEAD, client.request(request)).await.map_err(|_| AskError::Slow(HEAD))?;
    let response = head.map_err(|error| AskError::Broken(error.into()))?;
    if response.status() != StatusCode::OK {
        return Err(AskError::Refused(response.status()));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
    if !kind.as_ref().is_some_and(|kind| kind.starts_with("application/json")) {
        return Err(AskError::NoJson(kind.map_or("no content type".into(), std::borrow::Cow::into_owned)));
    }
    let body = Limited::new(response.into_body(), BODY).collect().await.map_err(AskError::Broken)?;
    one_line(body.to_bytes())
}

/// Checks that it is JSON, and makes it one line: parts of it go into events as they stand, and a frame is a line.
fn one_line(body: Bytes) -> Result<Bytes, AskError> {
    serde_json::from_slice::<&RawValue>(&body).map_err(AskError::BrokenJson)?;
    if memchr2(b'\n', b'\r', &body).is_none() {
        return Ok(body);
    }
    // Inside a text they would be escaped; these are between.
    Ok(body.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_on_one_line() {
        let read = |text: &'static [u8]| one_line(Bytes::from_static(text));
        assert_eq!(read(b"[1, \"a\\n\"]").unwrap(), "[1, \"a\\n\"]");
        assert_eq!(read(b"{\n\t\"a\":\r\n1}\n").unwrap(), "{ \t\"a\":  1} ");
        for broken in [&b""[..], b"[", b"[1,", b"{\"a\":1", b"tru", b"[] []", b"\"\xff\"", b"<html>"] {
            assert!(matches!(read(broken), Err(AskError::BrokenJson(_))), "{broken:?}");
        }
    }
}
