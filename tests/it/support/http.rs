//! A small HTTP client for tests: one connection per request, nothing pooled, nothing followed.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::timeout;

/// A cold opencode instance takes seconds to boot; nothing takes a minute.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }
}

/// Sends one request and reads the whole answer.
pub(crate) async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let mut request = Request::builder().method(method.clone()).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).map_err(|error| format!("{method} {url}: {error}"))?;
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let exchange = async {
        let answer = client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| format!("the body broke off: {error:?}"))?;
        Ok::<_, String>(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    match timeout(REQUEST_LIMIT, exchange).await {
        Ok(result) => result.map_err(|error| format!("{method} {url}: {error}")),
        Err(_) => Err(format!("{method} {url}: no answer within {REQUEST_LIMIT:?}")),
    }
}

/// One HTTP API, opencode's own or the relay's in front of it, seen from one directory.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    base: String,
    directory: Option<String>,
    authorization: Option<String>,
}

impl Api {
    pub(crate) fn new(base: impl Into<String>) -> Self {
        Self { base: base.into().trim_end_matches('/').to_owned(), directory: None, authorization: None }
    }

    /// The same API, every request with `?directory=`.
    pub(crate) fn within(&self, directory: &str) -> Self {
        Self { directory: Some(directory.to_owned()), ..self.clone() }
    }

    /// The same API, every request with Basic credentials.
    pub(crate) fn with_password(&self, password: &str) -> Self {
        Self { authorization: Some(basic("opencode", password)), ..self.clone() }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The value of the `authorization` header, if there is one.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The URL of a path, with this API's directory in it.
    pub(crate) fn url(&self, path: &str) -> String {
        let Some(directory) = &self.directory else {
            return format!("{}{path}", self.base);
        };
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{}{path}{mark}directory={}", self.base, utf8_percent_encode(directory, NON_ALPHANUMERIC))
    }

    /// Sends a request, with a JSON body if one is given, whatever the answer says.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let mut headers = vec![];
        if let Some(authorization) = &self.authorization {
            headers.push((header::AUTHORIZATION.as_str(), authorization.as_str()));
        }
        if body.is_some() {
            headers.push((header::CONTENT_TYPE.as_str(), "application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        send(method, &self.url(path), &headers, body).await
    }

    /// `GET` that must succeed with JSON.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await
    }

    /// `POST` that must succeed; an empty answer is `null`.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// `PATCH` that must succeed; an empty answer is `null`.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Value {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// `DELETE` that must succeed; an empty answer is `null`.
    pub(crate) async fn delete(&self, path: &str) -> Value {
        self.ask(Method::DELETE, path, None).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let what = format!("{method} {}", self.url(path));
        let answer = self.send(method, path, body).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(answer.status.is_success(), "{what}: {} {}", answer.status, answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }
}

/// The value of an `authorization` header for a user and a password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// `GET` of a URL that must succeed with JSON.
pub(crate) async fn get_json(url: &str) -> Value {
    Api::new(url).get("").await
}

/// `POST` of JSON to a URL that must succeed.
pub(crate) async fn post_json(url: &str, body: &Value) -> Value {
    Api::new(url).post("", body).await
}
