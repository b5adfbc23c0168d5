//! What belongs to the connection: §9, §11, and RFC 9110 §7.6, §7.8 and §10.1.1.

use super::Fate::{Answered, Passed, Refused};
use super::{SMUGGLED, Vector, get, last, meant, passed, post, vector};

/// Requests that the relay answers without reading their bodies.
fn unread() -> Vec<Vector> {
    let sized = |body: &str| format!("content-length: {}\r\n\r\n{body}", body.len());
    let coded = |body: &str| format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let long = SMUGGLED.repeat(5_000);
    let mut all = Vec::new();
    for (name, rest) in [
        ("a body with a length", sized(SMUGGLED)),
        ("a chunked body", coded(SMUGGLED)),
        ("a long body with a length", sized(&long)),
        ("a long chunked body", coded(&long)),
        ("a body that was to wait", format!("expect: 100-continue\r\n{}", sized(SMUGGLED))),
        ("a chunked body that breaks", format!("transfer-encoding: chunked\r\n\r\nx\r\n{SMUGGLED}")),
    ] {
        for (start, status) in [("GET /_relay/health", 200), ("POST /_relay/health", 405), ("PUT /_relay/none", 404)] {
            let bytes = format!("{start} HTTP/1.1\r\nhost: relay\r\n{rest}");
            all.push(vector("9.3", format!("{start} with {name}"), bytes, Answered(status)));
        }
    }
    all
}

pub(super) fn vectors() -> Vec<Vector> {
    let mut all = unread();
    all.extend(others());
    all
}

fn others() -> Vec<Vector> {
    let plain = || passed("GET /v", "");
    let whole = || passed("POST /v", "abcde");
    vec![
        vector("9.3", "keep-alive", get("connection: keep-alive\r\n"), plain()),
        vector("9.6", "close", get("connection: close\r\n"), last("GET /v", "")),
        vector("9.6", "close in a list", get("connection: x-a, CLOSE\r\n"), last("GET /v", "")),
        vector(
            "9.6",
            "close, and keep-alive after it",
            get("connection: close\r\nconnection: keep-alive\r\n"),
            last("GET /v", ""),
        ),
        vector(
            "9.3.2",
            "two requests at once",
            format!("{}{}", get(""), get("")),
            Passed(meant("GET /v", "").then("GET /v")),
        ),
        vector(
            "9.3.2",
            "a refused request before the next",
            format!("{}{}", get("host: b\r\n"), get("")),
            Refused(400),
        ),
        vector("9110 7.6.1", "Connection names a field", get("connection: x-hop\r\nx-hop: 1\r\n"), plain()),
        vector(
            "9110 7.6.1",
            "a second Connection names a field",
            get("connection: keep-alive\r\nconnection: , ,X-Hop\r\nx-hop: 1\r\n"),
            plain(),
        ),
        vector(
            "9110 7.6.1",
            "Connection names content-length",
            post("connection: content-length\r\ncontent-length: 5\r\n", "abcde"),
            whole(),
        ),
        vector(
            "9110 7.6.1",
            "Connection names a body's coding",
            post("connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
            last("POST /v", "abcde"),
        ),
        vector(
            "9110 7.6.1",
            "Connection names host",
            get("connection: host\r\n"),
            Passed(meant("GET /v", "").with("host", "relay")),
        ),
        vector(
            "9110 7.6.1",
            "Connection names content-length of a GET",
            get(&format!("connection: content-length\r\ncontent-length: {}\r\n", SMUGGLED.len())) + SMUGGLED,
            passed("GET /v", SMUGGLED),
        ),
        vector(
            "9110 7.6.1",
            "Connection names what the relay adds",
            get("connection: via, forwarded, x-forwarded-for, x-forwarded-host\r\n"),
            Passed(meant("GET /v", "").with("x-forwarded-host", "relay")),
        ),
        vector(
            "9110 7.8",
            "an upgrade to h2c",
            get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"),
            plain(),
        ),
        vector(
            "9110 7.8",
            "an upgrade to h2c with a body",
            post("connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 5\r\n", "abcde"),
            whole(),
        ),
        vector(
            "9110 7.8",
            "an upgrade that opencode does not take",
            get("connection: upgrade\r\nupgrade: websocket\r\n"),
            plain(),
        ),
        vector(
            "9110 7.8",
            "an upgrade in HTTP/1.0",
            "GET /v HTTP/1.0\r\nhost: relay\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            last("GET /v", ""),
        ),
        vector(
            "9110 10.1.1",
            "an expectation that nobody knows",
            post("expect: 200-ok\r\ncontent-length: 5\r\n", "abcde"),
            Refused(417),
        ),
        vector(
            "9110 10.1.1",
            "two expectations",
            post("expect: 100-continue\r\nexpect: x\r\ncontent-length: 5\r\n", "abcde"),
            Refused(417),
        ),
        vector(
            "9110 10.1.1",
            "an expectation that is met at once",
            post("expect: 100-continue\r\ncontent-length: 5\r\n", "abcde"),
            whole(),
        ),
        vector("9110 7.6.3", "a Via that somebody sent", get("via: 1.0 fred\r\n"), plain()),
        vector("11.1", "a response for a request", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Refused(400)),
        vector(
            "11.1",
            "line ends in a target as bytes beyond ASCII",
            "GET /v\u{10d}\u{10a}x HTTP/1.1\r\nhost: relay\r\n\r\n",
            passed("GET /v\u{c4}\u{8d}\u{c4}\u{8a}x", ""),
        ),
        vector(
            "11.2",
            "a body that is a head",
            post(&format!("content-length: {}\r\n", 2 * SMUGGLED.len()), &SMUGGLED.repeat(2)),
            passed("POST /v", &SMUGGLED.repeat(2)),
        ),
        vector(
            "11.2",
            "a body without a length is the next request",
            format!("{}{}", post("", ""), get("")),
            Passed(meant("POST /v", "").then("GET /v")),
        ),
    ]
}
