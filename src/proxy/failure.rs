//! What this proxy answers when it cannot forward: one list of reasons, one table to status codes.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

/// Why a request was not forwarded, or its answer not handed on. Each message ends with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The address was not known in time.
    #[error("opencode is still starting and was not ready within {0:?}; try again in a moment")]
    Starting(Duration),
    /// Somebody said that the upstream is down.
    #[error("opencode is not running: {0}; try again in a moment, or look into the relay's log")]
    Down(String),
    /// Nobody listens at the address.
    #[error("nothing accepts connections at {0}; check that opencode runs there and that --upstream is right")]
    Refused(String),
    /// The address does not answer to a connection attempt.
    #[error("{address} did not accept a connection within {limit:?}; check the address and the network between")]
    ConnectTimeout {
        /// Who was called.
        address: String,
        /// How long.
        limit: Duration,
    },
    /// A connection could not be made for another reason, for example an unknown name.
    #[error("cannot connect to {address}: {reason}; check that --upstream is right")]
    Connect {
        /// Who was called.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The upstream ended the connection, or sent something that is not HTTP, before its answer was there.
    #[error("opencode broke off before it answered: {0}; it may have crashed or be restarting")]
    Broken(String),
    /// The client broke off while its request was read. Nobody will read this answer.
    #[error("the request ended before it was complete")]
    Request,
    /// The upstream switched to a protocol that the client did not ask for.
    #[error("opencode switched to a protocol that was not asked for; this request was given up")]
    Switched,
    /// The request has already passed through this relay.
    #[error("this request has already passed through this relay: --upstream leads back to the relay itself")]
    Loop,
    /// Tunnels to anywhere are not this proxy's business.
    #[error("CONNECT is not supported: this is a relay in front of one opencode, not a forward proxy")]
    Tunnel,
    /// A target that names no path.
    #[error("the request target has no path; send an absolute path such as /session")]
    Target,
}

impl Failure {
    /// The table: which status and which name each reason gets.
    fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Starting(_) => (StatusCode::SERVICE_UNAVAILABLE, "UpstreamStartingError"),
            Self::Down(_) => (StatusCode::SERVICE_UNAVAILABLE, "UpstreamDownError"),
            Self::Refused(_) | Self::Connect { .. } => (StatusCode::BAD_GATEWAY, "UpstreamConnectError"),
            Self::ConnectTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "UpstreamConnectTimeoutError"),
            Self::Broken(_) | Self::Switched => (StatusCode::BAD_GATEWAY, "UpstreamAnswerError"),
            Self::Loop => (StatusCode::LOOP_DETECTED, "ProxyLoopError"),
            Self::Tunnel => (StatusCode::NOT_IMPLEMENTED, "NotImplementedError"),
            Self::Request | Self::Target => (StatusCode::BAD_REQUEST, "BadRequest"),
        }
    }

    /// The status this reason is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// Whether the upstream cannot be reached at all, as opposed to having answered badly.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Starting(_)
                | Self::Down(_)
                | Self::Refused(_)
                | Self::ConnectTimeout { .. }
                | Self::Connect { .. }
                | Self::Broken(_)
        )
    }

    /// The whole answer.
    #[must_use]
    pub fn answer(&self) -> Response<Full<Bytes>> {
        let (status, name) = self.row();
        let mut answer = answer(status, name, &self.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }

    /// Sorts what the client library says into the reasons above.
    pub(super) fn from_client(error: &hyper_util::client::legacy::Error, address: &str, limit: Duration) -> Self {
        let address = address.to_owned();
        if error.is_connect() {
            return match io_kind(error) {
                Some(io::ErrorKind::ConnectionRefused) => Self::Refused(address),
                Some(io::ErrorKind::TimedOut) => Self::ConnectTimeout { address, limit },
                _ => Self::Connect { address, reason: innermost(error) },
            };
        }
        match hyper_kind(error) {
            Some(inner) if inner.is_user() => Self::Request,
            _ => Self::Broken(innermost(error)),
        }
    }
}

/// An answer of the relay's own in opencode's error shape: `{"name":…,"data":{"message":…}}`.
#[must_use]
pub fn answer(status: StatusCode, name: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "name": name, "data": { "message": message } });
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn io_kind(error: &hyper_util::client::legacy::Error) -> Option<io::ErrorKind> {
    chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).last().map(io::Error::kind)
}

fn hyper_kind(error: &hyper_util::client::legacy::Error) -> Option<&hyper::Error> {
    error.source().and_then(|source| chain(source).find_map(|error| error.downcast_ref::<hyper::Error>()))
}

fn innermost(error: &hyper_util::client::legacy::Error) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
