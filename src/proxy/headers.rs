//! Which header fields pass a hop, and which a hop adds; no I/O.
//!
//! Both directions use the same [`strip`], so that a field which speaks to one neighbour never reaches the other.

use http::Uri;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};

use super::forwarded;
use super::framing::{self, Written};

/// Whether a field speaks to the next hop only (RFC 9110 §7.6.1), or is meant so by older peers.
/// `Trailer` is not among them: without it hyper would not send the trailers on.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields that a receiver which merges trailers into the head would read as said about the whole message: its framing,
/// its way, its content, who sent it (RFC 9110 §6.5.1). hyper leaves out some of them, and on HTTP/1 only.
const NEVER_TRAILERS: [HeaderName; 13] = [
    HeaderName::from_static("authorization"),
    HeaderName::from_static("cache-control"),
    HeaderName::from_static("content-encoding"),
    CONTENT_LENGTH,
    HeaderName::from_static("content-range"),
    HeaderName::from_static("content-type"),
    HeaderName::from_static("cookie"),
    HeaderName::from_static("expect"),
    HOST,
    HeaderName::from_static("max-forwards"),
    HeaderName::from_static("set-cookie"),
    HeaderName::from_static("trailer"),
    HeaderName::from_static("via"),
];

/// What a head has of the fields that this hop acts on. Most have none of them, and one look at all names is less than a look
/// for each of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) expect: bool,
    /// How long the body is.
    pub(super) framing: bool,
    /// What speaks to this hop only.
    pub(super) hop: bool,
    pub(super) via: bool,
}

impl Seen {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            seen.framing |= *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
            seen.expect |= *name == EXPECT;
            seen.via |= *name == VIA;
            seen.hop |= is_hop_by_hop(name);
        }
        seen
    }

    /// Takes out of the head what this hop acts on itself: what is said about the body's length, and what is [stripped](strip).
    pub(super) fn take(self, headers: &mut HeaderMap) -> (Written, Hop) {
        let written = if self.framing { framing::take(headers) } else { Written::default() };
        let hop = if self.hop { strip(headers) } else { Hop::default() };
        (written, hop)
    }
}

/// What the stripped fields said to this hop.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hop {
    /// The protocols asked for (request) or chosen (101), if `Connection` really names `upgrade`.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether the sender can take trailers.
    pub(super) trailers: bool,
    /// What the `Connection` lines named: such fields are for this hop also when they come as trailers.
    pub(super) named: Box<[HeaderName]>,
}

/// Removes what speaks to this hop only: the known fields, and everything that any `Connection` line names.
///
/// `Host` stays even when named: without it the request would get another meaning, not a shorter head. What is said
/// about the body's framing is taken before this, see [`framing`].
pub(super) fn strip(headers: &mut HeaderMap) -> Hop {
    let named: Box<[HeaderName]> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != HOST)
        .collect();
    let upgrade = if named.contains(&UPGRADE) { protocols(headers) } else { None };
    let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    remove(headers, |name| is_hop_by_hop(name) || named.contains(name));
    Hop { upgrade, trailers, named }
}

/// Removes from trailers what has no business there, and what the head's `Connection` lines `named`.
pub(super) fn strip_trailers(trailers: &mut HeaderMap, named: &[HeaderName]) {
    let _ = strip(trailers);
    remove(trailers, |name| NEVER_TRAILERS.contains(name) || named.contains(name) || forwarded::is_ours(name));
}

/// Removes from the head of an interim answer what speaks to this hop, and what it cannot have (RFC 9110 §8.6).
pub(super) fn strip_interim(headers: &mut HeaderMap) {
    let _ = strip(headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRAILER);
}

/// Removes the fields of which this holds.
pub(super) fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_unwanted(name)).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// The asked protocols as one line. `h2c` is left out: a tunnel of HTTP/2 would carry requests past this proxy.
fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = tokens(headers, &UPGRADE).filter(|token| !token.eq_ignore_ascii_case(b"h2c")).collect();
    if kept.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&kept.join(&b", "[..])).ok()
}

/// Whether `chosen` (from a 101) is one of the protocols in `asked`.
pub(super) fn was_asked(asked: &HeaderValue, chosen: &HeaderValue) -> bool {
    split(chosen.as_bytes()).all(|one| split(asked.as_bytes()).any(|other| other.eq_ignore_ascii_case(one)))
}

/// The elements of all lines of a list field.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().flat_map(|value| split(value.as_bytes()))
}

/// The elements of a list field's line.
pub(super) fn split(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// RFC 9112 §3.2.2: an absolute target says which host is meant, whatever `Host` says.
pub(super) fn host_of_absolute_target(uri: &Uri, headers: &mut HeaderMap) {
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str().rsplit('@').next().unwrap_or_default())
    {
        headers.insert(HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn strips_what_any_connection_line_names() {
        let mut map = HeaderMap::new();
        map.append(CONNECTION, HeaderValue::from_static("close, X-One ,, bad name"));
        map.append(CONNECTION, HeaderValue::from_static("x-two,host"));
        for name in ["x-one", "x-two", "x-three", "host", "keep-alive", "te"] {
            map.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let hop = strip(&mut map);
        assert_eq!((hop.upgrade, hop.trailers), (None, false));
        assert_eq!(&*hop.named, ["close", "x-one", "x-two"]);
        let mut left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-three"]);
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_is_never_h2c() {
        let asked =
            |connection, upgrade| strip(&mut headers(&[("connection", connection), ("upgrade", upgrade)])).upgrade;
        assert_eq!(asked("keep-alive, Upgrade", "websocket"), Some(HeaderValue::from_static("websocket")));
        assert_eq!(asked("keep-alive", "websocket"), None);
        assert_eq!(asked("upgrade, http2-settings", "h2c"), None);
        assert_eq!(asked("upgrade", "h2c, websocket"), Some(HeaderValue::from_static("websocket")));
        assert!(was_asked(&HeaderValue::from_static("foo, WebSocket"), &HeaderValue::from_static("websocket")));
        assert!(!was_asked(&HeaderValue::from_static("foo"), &HeaderValue::from_static("websocket")));
    }

    #[test]
    fn trailers_say_nothing_about_the_message() {
        let mut map = headers(&[
            ("x-sum", "1"),
            ("x-named", "1"),
            ("te", "1"),
            ("content-length", "1"),
            ("host", "1"),
            ("set-cookie", "1"),
            ("x-forwarded-for", "1"),
            ("transfer-encoding", "chunked"),
        ]);
        strip_trailers(&mut map, &[HeaderName::from_static("x-named")]);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
    }

    #[test]
    fn an_interim_answer_has_no_hop_and_no_body() {
        let mut map = headers(&[("connection", "x-hop"), ("x-hop", "1"), ("content-length", "1"), ("link", "</a>")]);
        strip_interim(&mut map);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["link"]);
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let mut map = headers(&[("host", "other")]);
        host_of_absolute_target(&"http://user@here:8/x".parse().unwrap(), &mut map);
        assert_eq!(map["host"], "here:8");
    }
}
