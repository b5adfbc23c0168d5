//! Answers to what never became a request: hyper refuses a head that it cannot read with an empty body, and a head that
//! never ends is not refused by it at all. They get a body in opencode's error shape here, and say what the limits are.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::Full;
use memchr::memmem;

use crate::proxy::answer;

/// Most bytes of a request's head, also what hyper holds of a request at a time; a longer head is answered with 431.
pub(super) const HEAD: usize = 64 << 10;

/// Most fields of a request's head; more are answered with 431. hyper's own number: setting it, even to the same, costs an
/// allocation per request.
const FIELDS: usize = 100;

/// Our answer instead of what hyper is about to write, if that is one of its refusals: a whole head with a status of 4xx
/// and no body. Ask only while no answer of the front is underway.
pub(super) fn instead_of(written: &[u8]) -> Option<Bytes> {
    let rest = written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok().filter(StatusCode::is_client_error)?;
    let is_whole = memmem::find(written, b"\r\n\r\n") == Some(written.len() - 4);
    let is_empty = memmem::find(written, b"\r\ncontent-length: 0\r\n").is_some();
    (is_whole && is_empty).then(|| refuse(status))
}

/// The answer to a head that did not end in time.
pub(super) fn too_slow(limit: Duration) -> Bytes {
    let message = format!(
        "the head of the request did not end within {limit:?}; send it at once, or raise --head-timeout of the relay"
    );
    message_of(&answer(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutError", &message))
}

/// The answer to whoever speaks plain HTTP where TLS is spoken.
#[cfg(feature = "tls")]
pub(super) fn no_tls() -> Bytes {
    let message = "this port speaks TLS; write https:// instead of http://";
    message_of(&answer(StatusCode::BAD_REQUEST, "BadRequest", message))
}

fn refuse(status: StatusCode) -> Bytes {
    let kib = HEAD >> 10;
    let (name, message) = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
            "HeadTooLargeError",
            format!(
                "the head of the request, its target included, is longer than {kib} KiB or has more than {FIELDS} \
                 fields; send less, for example fewer cookies, and put long values into the body"
            ),
        ),
        _ => (
            "BadRequest",
            "this is not a request of HTTP/1.1 (RFC 9112); check method, target, version and fields for bytes that \
             must not be there"
                .to_owned(),
        ),
    };
    message_of(&answer(status, name, &message))
}

/// The bytes of a last answer on a connection of HTTP/1.
fn message_of(answer: &Response<Full<Bytes>>) -> Bytes {
    let mut fields = answer.headers().clone();
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(answer.body().size_hint().lower()));
    fields.extend(date().map(|date| (DATE, date)));
    let mut message = BytesMut::new();
    write_head(&mut message, answer.status(), &fields);
    if let Some(body) = body(answer.body().clone()) {
        message.extend_from_slice(&body);
    }
    message.freeze()
}

/// The time, as the field of that name has it (RFC 9110 §6.6.1).
pub(super) fn date() -> Option<HeaderValue> {
    let now = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
    now.ok().and_then(|now| HeaderValue::try_from(now).ok())
}

/// What a body of ours holds; it is there at once.
fn body(body: Full<Bytes>) -> Option<Bytes> {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    body.collect().now_or_never()?.ok().map(http_body_util::Collected::to_bytes)
}

/// A head of HTTP/1.1. Values are bytes; `HeaderValue` has no line breaks in them.
pub(super) fn write_head(out: &mut BytesMut, status: StatusCode, fields: &HeaderMap) {
    // Writing to memory does not fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_refusals_are_replaced() {
        for head in [
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n",
            "HTTP/1.0 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ] {
            let ours = String::from_utf8(instead_of(head.as_bytes()).unwrap().to_vec()).unwrap();
            let (fields, body) = ours.split_once("\r\n\r\n").unwrap();
            assert_eq!(fields.split(' ').nth(1), head.split(' ').nth(1));
            assert!(fields.contains("\r\nconnection: close\r\n") && fields.contains("\r\ndate: "), "{fields}");
            assert!(fields.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{fields}");
            assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["data"]["message"].is_string());
        }
        for other in [
            "",
            "HTTP/1.1 4",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore",
        ] {
            assert_eq!(instead_of(other.as_bytes()), None, "{other}");
        }
    }
}
