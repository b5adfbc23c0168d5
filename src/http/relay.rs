//! `/_relay/…`: the relay's answers about itself.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::{Value, json};

use super::exposition::Exposition;

/// Makes the JSON of `/_relay/status`.
pub type Status = Arc<dyn Fn() -> Value + Send + Sync>;

/// Says whether the relay does its work now; the error says what is missing.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Makes the text of `/_relay/metrics`.
pub type Metrics = Arc<dyn Fn(Exposition) -> String + Send + Sync>;

/// Where the pages have what they say from.
pub(super) struct Pages {
    pub(super) status: Status,
    pub(super) ready: Ready,
    pub(super) metrics: Metrics,
}

/// The pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Health,
    Ready,
    Status,
    Metrics,
    Live,
    /// The live page without the slash that its relative URLs need.
    Slashless,
}

impl Page {
    /// The page of a path, after `/_relay`.
    pub(super) fn of(rest: &str) -> Option<Self> {
        if rest.is_empty() {
            return Some(Self::Slashless);
        }
        match rest.trim_start_matches('/') {
            "health" => Some(Self::Health),
            "ready" => Some(Self::Ready),
            "status" => Some(Self::Status),
            "metrics" => Some(Self::Metrics),
            "" => Some(Self::Live),
            _ => None,
        }
    }

    /// Whether only those may read it whom opencode admits.
    pub(super) fn is_guarded(self) -> bool {
        match self {
            Self::Health | Self::Ready => false,
            Self::Status | Self::Metrics | Self::Live | Self::Slashless => true,
        }
    }

    pub(super) fn answer(self, pages: &Pages, uri: &Uri, headers: &HeaderMap) -> Response<Full<Bytes>> {
        match self {
            // The same shape as opencode's GET /global/health.
            Self::Health => page(StatusCode::OK, &json!({ "healthy": true, "version": env!("CARGO_PKG_VERSION") })),
            Self::Ready => match (pages.ready)() {
                Ok(()) => page(StatusCode::OK, &json!({ "ready": true })),
                Err(reason) => {
                    let mut answer =
                        page(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason }));
                    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                    answer
                }
            },
            Self::Status => page(StatusCode::OK, &(pages.status)()),
            Self::Metrics => {
                let form = Exposition::of(headers);
                let mut answer = text("text/plain", (pages.metrics)(form));
                answer.headers_mut().insert(CONTENT_TYPE, form.content_type());
                answer
            }
            Self::Live => super::page::live(),
            Self::Slashless => super::page::redirect(uri),
        }
    }
}

fn page(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut answer = text("application/json", format!("{body}\n"));
    *answer.status_mut() = status;
    answer
}

fn text(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
