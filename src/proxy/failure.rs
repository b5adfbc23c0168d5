//! What this proxy answers when it cannot forward: one list of reasons, one table to status codes.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::target::Address;
use super::upload::UploadError;

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
    /// opencode has the whole request, or takes no more of it, and says nothing for longer than is allowed.
    #[error("opencode did not begin its answer within {0:?}; if it may take longer, set a longer --answer-timeout")]
    AnswerTimeout(Duration),
    /// The answer's body has a coding that this hop neither undoes nor may tell of.
    #[error(
        "opencode's answer has a transfer coding other than chunked, which cannot be handed on; \
         turn that off in whatever stands between the relay and opencode"
    )]
    Coding,
    /// The request's body has a coding that this hop neither undoes nor may tell of.
    #[error("the request has a transfer coding other than chunked, which is not supported; send it without")]
    Coded,
    /// The client broke off while its request was read, or what it sent is no body. Mostly nobody will read this answer.
    #[error("the request's body ended before it was complete, or is malformed; send it whole")]
    Request,
    /// The client paused for too long while its body was waited for.
    #[error(
        "nothing of the request's body came for {0:?}; send it without such pauses, or set a longer --idle-timeout"
    )]
    BodyTimeout(Duration),
    /// The body has more bytes than are allowed.
    #[error("the request's body has more than {0} bytes; send a shorter one, or set a larger --max-body")]
    BodyLimit(u64),
    /// There are as many requests at opencode as are allowed.
    #[error("there are {0} requests at opencode already; try again in a moment, or set a larger --max-requests")]
    Overloaded(usize),
    /// There are as many sockets as are allowed.
    #[error("there are {0} sockets to opencode already; close one, or set a larger --max-sockets")]
    Sockets(usize),
    /// The upstream switched to a protocol that the client did not ask for.
    #[error("opencode switched to a protocol that was not asked for; this request was given up")]
    Switched,
    /// The request has already passed through this relay.
    #[error("this request has already passed through this relay: --upstream leads back to the relay itself")]
    Loop,
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
            Self::AnswerTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "UpstreamTimeoutError"),
            Self::BodyTimeout(_) => (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutError"),
            Self::BodyLimit(_) => (StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLargeError"),
            Self::Overloaded(_) | Self::Sockets(_) => (StatusCode::SERVICE_UNAVAILABLE, "OverloadedError"),
            Self::Broken(_) | Self::Switched | Self::Coding => (StatusCode::BAD_GATEWAY, "UpstreamAnswerError"),
            Self::Loop => (StatusCode::LOOP_DETECTED, "ProxyLoopError"),
            Self::Coded => (StatusCode::NOT_IMPLEMENTED, "NotImplementedError"),
            Self::Request | Self::Target => (StatusCode::BAD_REQUEST, "BadRequest"),
        }
    }

    /// The status this reason is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The name in its answer's error.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.row().1
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

    /// Whether the rest of the request's body must not be waited for: the client should know that its connection ends.
    pub(super) fn leaves_body(&self) -> bool {
        matches!(self, Self::BodyTimeout(_) | Self::BodyLimit(_))
    }

    /// Why there is no connection.
    pub(super) fn from_connect(error: &(dyn std::error::Error + 'static), address: &Address, limit: Duration) -> Self {
        let address = address.0.as_str().to_owned();
        match chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).last().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => Self::Refused(address),
            Some(io::ErrorKind::TimedOut) => Self::ConnectTimeout { address, limit },
            _ => Self::Connect { address, reason: innermost(error) },
        }
    }

    /// Why there is no answer on a connection.
    pub(super) fn from_exchange(error: &hyper::Error) -> Self {
        match chain(error).find_map(|error| error.downcast_ref::<UploadError>()) {
            Some(UploadError::Client(_) | UploadError::Reset) => Self::Request,
            Some(&UploadError::TooLong(limit)) => Self::BodyLimit(limit),
            Some(&UploadError::Paused(limit)) => Self::BodyTimeout(limit),
            Some(UploadError::Refused) | None if error.is_user() => Self::Request,
            Some(UploadError::Refused) | None => Self::Broken(innermost(error)),
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

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
