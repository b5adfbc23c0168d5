//! Which header fields pass a hop, and which a hop adds; no I/O.
//!
//! Both directions use the same [`strip`], so that a field which speaks to one neighbour never reaches the other.

use http::Uri;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

/// Fields that speak to the next hop only (RFC 9110 §7.6.1), and those that older peers mean so.
/// `Trailer` is not among them: without it hyper would not send the trailers on.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What the stripped fields asked of this hop.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hop {
    /// The protocols asked for (request) or chosen (101), if `Connection` really names `upgrade`.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether the sender can take trailers.
    pub(super) trailers: bool,
}

/// Removes what speaks to this hop only: the known fields, and everything that any `Connection` line names.
///
/// `Host` stays even when named: without it the request would get another meaning, not a shorter head.
pub(super) fn strip(headers: &mut HeaderMap) -> Hop {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != HOST)
        .collect();
    let hop = Hop {
        upgrade: if named.contains(&UPGRADE) { protocols(headers) } else { None },
        trailers: tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers")),
    };
    // A length beside a transfer coding is a lie to one of the readers; the coding was what hyper read by.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    hop
}

/// Removes from trailers what has no business there: a receiver that merges trailers into the head must not be told
/// anything about framing, routing or this hop by them.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    let _ = strip(trailers);
    for name in [CONTENT_LENGTH, HOST] {
        trailers.remove(name);
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

pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().flat_map(|value| split(value.as_bytes()))
}

fn split(list: &[u8]) -> impl Iterator<Item = &[u8]> {
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
        assert_eq!(strip(&mut map), Hop::default());
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
    fn a_length_beside_a_coding_goes() {
        let mut map = headers(&[("transfer-encoding", "chunked"), ("content-length", "4")]);
        strip(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let mut map = headers(&[("host", "other")]);
        host_of_absolute_target(&"http://user@here:8/x".parse().unwrap(), &mut map);
        assert_eq!(map["host"], "here:8");
    }
}
