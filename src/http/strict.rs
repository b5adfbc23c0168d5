//! What hyper lets through and HTTP forbids or leaves open to two readings: refused before anybody acts on it.
//!
//! hyper has parsed the head by then and refuses by itself what is no head at all, a coding that does not end in `chunked`
//! and lengths that are no number or differ. It takes a length beside a coding away unseen (RFC 9112 §6.3 reads by the
//! coding) and closes after the answer; it also cuts a fragment off the target. Neither is left to be seen here.

use std::fmt;
use std::net::Ipv6Addr;

use http::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::{AnswerBody, own};

/// Why a head is not acted on. The connection ends with the answer: whoever sent it may mean something else by the bytes
/// that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// HTTP/1.1 without `Host`, or HTTP/2 without any authority.
    NoHost,
    /// More than one `Host` line.
    Hosts,
    /// A `Host` that names no host, or no single one.
    Host,
    /// An absolute target that is not `http://host…` or `https://host…`, without a user.
    Absolute,
    /// `*` with another method than `OPTIONS`.
    Asterisk,
    /// A bare `host:port`, which is for `CONNECT`.
    Authority,
    /// `CONNECT`. The connection has to go: who does not wait for the answer sends a tunnel's bytes already, and they would be
    /// read as requests.
    Tunnel,
    /// A transfer coding in another form than one line `chunked`.
    Coding,
    /// A transfer coding that this relay does not know.
    UnknownCoding,
    /// Another expectation than `100-continue`.
    Expectation,
}

impl Fault {
    fn status(self) -> StatusCode {
        match self {
            Self::UnknownCoding | Self::Tunnel => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::UnknownCoding | Self::Tunnel => "NotImplementedError",
            Self::Expectation => "ExpectationFailedError",
            _ => "BadRequest",
        }
    }

    /// The refusal, which also closes the connection.
    pub(super) fn answer(self, version: Version) -> Response<AnswerBody> {
        let mut refusal = own(self.status(), self.name(), &self.to_string());
        // HTTP/2 has no such field, and its requests cannot run into each other.
        if version <= Version::HTTP_11 {
            refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        refusal
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoHost => "the request has no Host; send exactly one",
            Self::Hosts => "the request has more than one Host; send exactly one",
            Self::Host => "the request's Host is not of the form host or host:port",
            Self::Absolute => "the request target is neither a path nor an http:// or https:// URL without a user",
            Self::Asterisk => "the request target * is for OPTIONS only",
            Self::Authority => "the request target has no path; send an absolute path such as /session",
            Self::Tunnel => "CONNECT is not supported: this is a relay in front of one opencode, not a forward proxy",
            Self::Coding => "the request's Transfer-Encoding is not exactly one \"chunked\"",
            Self::UnknownCoding => "the request has a transfer coding besides \"chunked\"; this relay knows no other",
            Self::Expectation => "the request expects something else than 100-continue",
        })
    }
}

/// Checks a head; allocates nothing.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Fault> {
    let headers = request.headers();
    target(request.method(), request.uri())?;
    host(request.version(), request.uri(), headers)?;
    coding(headers)?;
    expectation(headers)
}

/// The forms of a target (RFC 9112 §3.2).
fn target(method: &Method, uri: &Uri) -> Result<(), Fault> {
    if *method == Method::CONNECT {
        return Err(Fault::Tunnel);
    }
    // What is left of `http://host#fragment`: it reads as a path, but is none that can be sent on.
    let is_cut = |path: &PathAndQuery| path.as_str() == "/" && *path != PathAndQuery::from_static("/");
    match (uri.scheme(), uri.authority()) {
        (None, None) => {}
        (None, Some(_)) => return Err(Fault::Authority),
        (Some(scheme), Some(authority))
            if (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
                && !uri.path_and_query().is_none_or(is_cut)
                && is_host(authority.as_str().as_bytes()) => {}
        _ => return Err(Fault::Absolute),
    }
    // With an authority the path `*` is HTTP/2's way of writing it (RFC 9113 §8.3.1).
    if uri.path() == "*" && *method != Method::OPTIONS { Err(Fault::Asterisk) } else { Ok(()) }
}

/// One `Host`, or none where there may be none (RFC 9112 §3.2). An empty one is refused as §3.3 allows: an `http` URL has a
/// host, and the default would be a guess. HTTP/1.0 without one does mean the default.
fn host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
    let mut lines = headers.get_all(HOST).iter();
    match (lines.next(), lines.next()) {
        (None, _) if version == Version::HTTP_11 => Err(Fault::NoHost),
        (None, _) if version > Version::HTTP_11 && uri.authority().is_none() => Err(Fault::NoHost),
        (None, _) => Ok(()),
        (_, Some(_)) => Err(Fault::Hosts),
        (Some(line), None) if !is_host(line.as_bytes()) => Err(Fault::Host),
        // An absolute target wins over it (§3.2.2), and HTTP/2's authority does: the proxy sends on that one only.
        _ => Ok(()),
    }
}

/// `chunked` alone, once (RFC 9112 §6.1): everything else that may be written there is read differently by somebody.
fn coding(headers: &HeaderMap) -> Result<(), Fault> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = lines.next() else { return Ok(()) };
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(first.as_bytes()) && lines.next().is_none() {
        return Ok(());
    }
    let mut chunked = 0;
    let codings =
        headers.get_all(TRANSFER_ENCODING).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    for coding in codings.map(<[u8]>::trim_ascii) {
        if !is_token(coding) {
            return Err(Fault::Coding);
        }
        chunked += usize::from(is_chunked(coding));
    }
    // hyper has seen to it that the last one is `chunked`.
    if chunked == 1 { Err(Fault::UnknownCoding) } else { Err(Fault::Coding) }
}

fn expectation(headers: &HeaderMap) -> Result<(), Fault> {
    let mut lines = headers.get_all(EXPECT).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(line), None) if line.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => Err(Fault::Expectation),
    }
}

/// Whether `text` is `uri-host [ ":" port ]` (RFC 3986 §3.2), not empty. Narrower in three things: no comma, which some read
/// as two hosts; no address form of the future, and no zone.
fn is_host(text: &[u8]) -> bool {
    let (name, rest) = if text.first() == Some(&b'[') {
        let Some(end) = text.iter().position(|&byte| byte == b']') else { return false };
        let address = std::str::from_utf8(&text[1..end]).ok().and_then(|address| address.parse::<Ipv6Addr>().ok());
        if address.is_none() {
            return false;
        }
        text.split_at(end + 1)
    } else {
        let end = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
        if !is_name(&text[..end]) {
            return false;
        }
        text.split_at(end)
    };
    !name.is_empty() && (rest.is_empty() || is_port(&rest[1..]) && rest[0] == b':')
}

/// The bytes of a `reg-name` that stand for themselves. Every request has a `Host`.
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~!$&'()*+;=";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// `reg-name`, which an IPv4 address is too.
fn is_name(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'%' => {
                let mut is_digit = || bytes.next().is_some_and(u8::is_ascii_hexdigit);
                is_digit() && is_digit()
            }
            &byte => IN_NAME[usize::from(byte)],
        };
        if !good {
            return false;
        }
    }
    true
}

/// Empty is a port by the grammar, and means the scheme's.
fn is_port(text: &[u8]) -> bool {
    text.len() <= 5
        && text.iter().all(u8::is_ascii_digit)
        && text.iter().fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX)
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_host_is_one_name_or_address_with_a_port_or_none() {
        for good in ["a", "a.b", "127.0.0.1:80", "[::1]", "[::1]:65535", "a:", "x_y-z~", "%41", "a%2Fb:1", "a;b=c"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for wrong in [
            "",
            ":80",
            "a:x",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:000080",
            "a b",
            "a\tb",
            "u@a",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "[::1",
            "::1",
            "[]",
            "[::1]a",
            "[::1]80",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "%4",
            "%zz",
            "a\\b",
            "\"a\"",
            "a:80:80",
            "é",
            "<a>",
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_target_has_the_form_of_its_method() {
        let to = |method, target| check(&head(method, target, &[("host", "a")]));
        for (method, good) in
            [("GET", "/"), ("GET", "http://b:1/x"), ("GET", "HTTPS://b"), ("OPTIONS", "*"), ("OPTIONS", "http://b")]
        {
            assert_eq!(to(method, good), Ok(()), "{good}");
        }
        assert_eq!(to("GET", "*"), Err(Fault::Asterisk));
        assert_eq!(to("GET", "a:1"), Err(Fault::Authority));
        assert_eq!(to("CONNECT", "a:1"), Err(Fault::Tunnel));
        for wrong in
            ["ftp://a/x", "http://u@a/x", "http://u:p@a/x", "http://a:x/", "http://a:70000/", "ws://a/", "http://a#f"]
        {
            assert_eq!(to("GET", wrong), Err(Fault::Absolute), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_there_once() {
        let with = |version, hosts: &[&str]| {
            let fields: Vec<(&str, &str)> = hosts.iter().map(|host| ("host", *host)).collect();
            let mut request = head("GET", "/", &fields);
            *request.version_mut() = version;
            check(&request)
        };
        assert_eq!(with(Version::HTTP_11, &[]), Err(Fault::NoHost));
        assert_eq!(with(Version::HTTP_10, &[]), Ok(()));
        assert_eq!(with(Version::HTTP_2, &[]), Err(Fault::NoHost));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(with(version, &["a", "a"]), Err(Fault::Hosts));
            assert_eq!(with(version, &[""]), Err(Fault::Host));
            assert_eq!(with(version, &["a"]), Ok(()));
        }
        let mut request = head("GET", "https://a:1/", &[]);
        *request.version_mut() = Version::HTTP_2;
        assert_eq!(check(&request), Ok(()));
    }

    #[test]
    fn only_chunked_is_a_coding_and_only_100_continue_an_expectation() {
        let with = |name, lines: &[&str]| {
            let mut fields = vec![("host", "a")];
            fields.extend(lines.iter().map(|line| (name, *line)));
            check(&head("POST", "/", &fields))
        };
        let coding = |lines: &[&str]| with("transfer-encoding", lines);
        assert_eq!((coding(&["chunked"]), coding(&["CHUNKED"])), (Ok(()), Ok(())));
        assert_eq!(coding(&["gzip, chunked"]), Err(Fault::UnknownCoding));
        assert_eq!(coding(&["identity", "chunked"]), Err(Fault::UnknownCoding));
        for wrong in
            [&["chunked", "chunked"][..], &["chunked, chunked"], &["chunked,"], &[",chunked"], &["\"x\", chunked"]]
        {
            assert_eq!(coding(wrong), Err(Fault::Coding), "{wrong:?}");
        }
        assert_eq!(with("expect", &["100-Continue"]), Ok(()));
        for wrong in [&["200-ok"][..], &["100-continue, x"], &["100-continue", "100-continue"], &[""]] {
            assert_eq!(with("expect", wrong), Err(Fault::Expectation), "{wrong:?}");
        }
    }
}
