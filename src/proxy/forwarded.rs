//! What a hop says about the one before it: `Via`, `Forwarded` and `X-Forwarded-*`; no I/O.
//!
//! Answers get no `Via`: a gateway need not add one (RFC 9110 §7.6.3), and opencode's own clients would see the difference.
//! Each field is continued by itself: a trusted proxy that sends `X-Forwarded-For` alone is not translated into
//! `Forwarded`.

use std::net::IpAddr;

use http::Version;
use http::header::{Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};

use super::caller::Peer;
use super::headers::{remove, tokens};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What this hop says about the client: who it was, how it came, and whether what it says about others is believed.
pub(super) struct Came<'a> {
    pub(super) peer: Peer,
    pub(super) is_tls: bool,
    pub(super) is_trusted: bool,
    pub(super) version: Version,
    pub(super) via: &'a str,
}

/// Whether a field tells about the hops before: all `X-Forwarded-*`, and not only those that are written here, because
/// a server that reads `X-Forwarded-Port` or `-Prefix` must not have it from just anybody either. Vendors' own names
/// for the same are not known here; whoever reads them has to know who sets them.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    *name == FORWARDED || name.as_str().starts_with("x-forwarded-") || name == "x-real-ip"
}

/// Adds `Via`, `Forwarded` and `X-Forwarded-*`; call it after `headers::strip`, so that no `Connection` line can remove
/// them. From a client that is not a trusted proxy, only `Via` is continued: that one guards nothing, and loops are
/// found by it.
pub(super) fn add(headers: &mut HeaderMap, came: &Came<'_>) {
    let received = match came.version {
        Version::HTTP_10 => "1.0 ",
        Version::HTTP_2 => "2.0 ",
        _ => "1.1 ",
    };
    append(headers, VIA, [received, came.via].concat());
    if !came.is_trusted {
        remove(headers, is_ours);
    }

    // The list has an entry for each hop, so a client without an address has one too: the word of RFC 7239 §6.2.
    let (peer, is_ipv6) = match came.peer {
        Peer::Ip(address) => name(address.ip().to_canonical()),
        Peer::Unix => ("unknown".to_owned(), false),
    };
    let scheme = if came.is_tls { "https" } else { "http" };
    let host = headers.get(HOST).cloned();
    let host_text = host.as_ref().and_then(|host| host.to_str().ok());
    let mut element = String::with_capacity(64 + peer.len() + host_text.map_or(0, str::len));
    let (open, close) = if is_ipv6 { ("for=\"[", "]\"") } else { ("for=", "") };
    for part in [open, &peer, close, ";proto=", scheme] {
        element.push_str(part);
    }
    if let Some(host) = host_text {
        element.push_str(";host=");
        push_quoted(&mut element, host);
    }
    append(headers, FORWARDED, element);
    append(headers, X_FORWARDED_FOR, peer);
    // A trusted hop before this one knows better how the client came; these two are single values by custom.
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Whether a `Via` line shows that the message already passed through `name`.
pub(super) fn passed_through(headers: &HeaderMap, name: &str) -> bool {
    tokens(headers, &VIA).any(|hop| hop.rsplit(|&byte| byte == b' ').next() == Some(name.as_bytes()))
}

/// Appends to a list field, as one line: some receivers read only the first or only the last line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: String) {
    let Ok(value) = HeaderValue::try_from(value) else { return };
    match headers.entry(name) {
        Entry::Vacant(field) => {
            field.insert(value);
        }
        Entry::Occupied(mut field) => {
            let mut lines: Vec<&[u8]> = field.iter().map(HeaderValue::as_bytes).collect();
            lines.push(value.as_bytes());
            if let Ok(line) = HeaderValue::try_from(lines.join(&b", "[..])) {
                field.insert(line);
            }
        }
    }
}

/// An address as text, and whether it is one of IPv6. Every request has one, and four numbers do not need std's formatter.
fn name(ip: IpAddr) -> (String, bool) {
    match ip {
        IpAddr::V4(ip) => {
            let mut text = String::with_capacity("255.255.255.255".len());
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    text.push('.');
                }
                text.push_str(itoa::Buffer::new().format(octet));
            }
            (text, false)
        }
        IpAddr::V6(ip) => (ip.to_string(), true),
    }
}

/// A quoted string (RFC 9110 §5.6.4).
fn push_quoted(line: &mut String, text: &str) {
    line.push('"');
    for part in text.split_inclusive(['\\', '"']) {
        match part.strip_suffix(['\\', '"']) {
            Some(before) => {
                line.push_str(before);
                line.push('\\');
                line.push_str(&part[before.len()..]);
            }
            None => line.push_str(part),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn came(peer: &str, is_trusted: bool) -> Came<'static> {
        let peer = peer.parse().map_or(Peer::Unix, Peer::Ip);
        Came { peer, is_tls: false, is_trusted, version: Version::HTTP_11, via: "relay-1" }
    }

    #[test]
    fn a_trusted_proxy_is_continued() {
        let mut map = headers(&[
            ("host", "a\"b:1"),
            ("forwarded", "for=9.9.9.9"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "wss"),
            ("x-forwarded-port", "8"),
            ("via", "1.0 fred"),
        ]);
        add(&mut map, &came("[::ffff:10.0.0.1]:5", true));
        assert_eq!(map["x-forwarded-for"], "9.9.9.9, 10.0.0.1");
        assert_eq!(map["via"], "1.0 fred, 1.1 relay-1");
        assert_eq!(map["forwarded"], r#"for=9.9.9.9, for=10.0.0.1;proto=http;host="a\"b:1""#);
        assert_eq!(map["x-forwarded-proto"], "wss");
        assert_eq!(map["x-forwarded-host"], "a\"b:1");
        assert_eq!(map["x-forwarded-port"], "8");
        assert!(passed_through(&map, "relay-1") && !passed_through(&map, "relay-2"));
    }

    #[test]
    fn nobody_else_is() {
        let mut map = headers(&[
            ("host", "a"),
            ("forwarded", "for=9.9.9.9"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-anything", "1"),
            ("x-real-ip", "9.9.9.9"),
            ("via", "1.0 fred"),
        ]);
        add(&mut map, &Came { is_tls: true, version: Version::HTTP_2, ..came("[fe80::1]:5", false) });
        let mut lines: Vec<String> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                r#"forwarded: for="[fe80::1]";proto=https;host="a""#,
                "host: a",
                "via: 1.0 fred, 2.0 relay-1",
                "x-forwarded-for: fe80::1",
                "x-forwarded-host: a",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn a_unix_socket_has_no_address_to_tell() {
        let mut map = headers(&[("x-forwarded-for", "9.9.9.9")]);
        add(&mut map, &Came { version: Version::HTTP_10, ..came("unix", true) });
        assert_eq!(map["x-forwarded-for"], "9.9.9.9, unknown");
        assert_eq!(map["forwarded"], "for=unknown;proto=http");
        assert_eq!(map["via"], "1.0 relay-1");
        assert!(!map.contains_key("x-forwarded-host"));
    }
}
