//! What a hop says about the one before it: `Via`, `Forwarded` and `X-Forwarded-*`; no I/O.
//!
//! Answers get no `Via`: a gateway need not add one (RFC 9110 §7.6.3), and opencode's own clients would see the difference.
//! Each field is continued by itself: a trusted proxy that sends `X-Forwarded-For` alone is not translated into
//! `Forwarded`.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use http::Version;
use http::header::{Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};

use super::caller::Peer;
use super::headers::{remove, tokens};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What this hop says about the client: who it was, how it came, and whether what it says about others is believed.
#[derive(Clone, Copy)]
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

/// What is said of a client, with what it depends on.
#[derive(Debug)]
pub(super) struct Said {
    about: About,
    host: Option<HeaderValue>,
    via: HeaderValue,
    forwarded: HeaderValue,
    name: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct About {
    ip: Option<IpAddr>,
    is_tls: bool,
    version: Version,
}

/// What was said last: mostly all clients come from one place, and want the same host.
pub(super) type LastSaid = Mutex<Option<Said>>;

impl About {
    fn scheme(self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

impl Said {
    /// `None` cannot be: all of this can stand in a field.
    fn new(about: About, host: Option<&HeaderValue>, via: &str) -> Option<Self> {
        let received = match about.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2.0",
            _ => "1.1",
        };
        // The list has an entry for each hop, so a client without an address has one too: the word of RFC 7239 §6.2.
        let name = about.ip.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
        let quoted = if name.contains(':') { format!("\"[{name}]\"") } else { name.clone() };
        let mut forwarded = format!("for={quoted};proto={}", about.scheme());
        if let Some(host) = host.and_then(|host| host.to_str().ok()) {
            forwarded.push_str(";host=");
            push_quoted(&mut forwarded, host);
        }
        Some(Self {
            about,
            // A copy: the value itself would keep all that was read with it.
            host: host.map(|host| HeaderValue::from_bytes(host.as_bytes())).transpose().ok()?,
            via: format!("{received} {via}").try_into().ok()?,
            forwarded: forwarded.try_into().ok()?,
            name: name.try_into().ok()?,
        })
    }
}

/// Adds `Via`, `Forwarded` and `X-Forwarded-*`; call it after `headers::strip`, so that no `Connection` line can remove
/// them. From a client that is not a trusted proxy, only `Via` is continued: that one guards nothing, and loops are
/// found by it.
pub(super) fn add(headers: &mut HeaderMap, came: &Came<'_>, last: &LastSaid) {
    if !came.is_trusted {
        remove(headers, is_ours);
    }
    let ip = match came.peer {
        Peer::Ip(address) => Some(address.ip().to_canonical()),
        Peer::Unix => None,
    };
    let about = About { ip, is_tls: came.is_tls, version: came.version };
    let host = headers.get(HOST);
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if !last.as_ref().is_some_and(|last| last.about == about && last.host.as_ref() == host) {
        *last = Said::new(about, host, came.via);
    }
    let Some(said) = &*last else { return };
    append(headers, VIA, &said.via);
    append(headers, FORWARDED, &said.forwarded);
    append(headers, X_FORWARDED_FOR, &said.name);
    // A trusted hop before this one knows better how the client came; these two are single values by custom.
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(about.scheme()));
    if let Some(host) = &said.host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
}

/// Whether a `Via` line shows that the message already passed through `name`.
pub(super) fn passed_through(headers: &HeaderMap, name: &str) -> bool {
    tokens(headers, &VIA).any(|hop| hop.rsplit(|&byte| byte == b' ').next() == Some(name.as_bytes()))
}

/// Appends to a list field, as one line: some receivers read only the first or only the last line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(field) => {
            field.insert(value.clone());
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
        add(&mut map, &came("[::ffff:10.0.0.1]:5", true), &LastSaid::default());
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
        add(
            &mut map,
            &Came { is_tls: true, version: Version::HTTP_2, ..came("[fe80::1]:5", false) },
            &LastSaid::default(),
        );
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
        add(&mut map, &Came { version: Version::HTTP_10, ..came("unix", true) }, &LastSaid::default());
        assert_eq!(map["x-forwarded-for"], "9.9.9.9, unknown");
        assert_eq!(map["forwarded"], "for=unknown;proto=http");
        assert_eq!(map["via"], "1.0 relay-1");
        assert!(!map.contains_key("x-forwarded-host"));
    }

    #[test]
    fn what_was_said_last_is_only_said_of_the_same() {
        let last = LastSaid::default();
        let said = |host: Option<&'static str>, came: &Came<'_>| {
            let mut map = HeaderMap::new();
            map.extend(host.map(|host| (HOST, HeaderValue::from_static(host))));
            add(&mut map, came, &last);
            let text = |name: HeaderName| map.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
            (text(VIA), text(FORWARDED), text(X_FORWARDED_FOR), text(X_FORWARDED_HOST))
        };
        let one = came("10.0.0.1:5", false);
        let first = said(Some("a"), &one);
        assert_eq!(first.1, r#"for=10.0.0.1;proto=http;host="a""#);
        assert_eq!(said(Some("a"), &came("10.0.0.1:6", false)), first, "the port is not told");
        for (host, other, forwarded) in [
            (Some("b"), &one, r#"for=10.0.0.1;proto=http;host="b""#),
            (None, &one, "for=10.0.0.1;proto=http"),
            (Some("a"), &came("10.0.0.2:5", false), r#"for=10.0.0.2;proto=http;host="a""#),
            (Some("a"), &came("unix", false), r#"for=unknown;proto=http;host="a""#),
            (Some("a"), &Came { is_tls: true, ..one }, r#"for=10.0.0.1;proto=https;host="a""#),
        ] {
            assert_eq!(said(host, other).1, forwarded);
            assert_eq!(said(Some("a"), &one), first);
        }
        assert_eq!(said(Some("a"), &Came { version: Version::HTTP_10, ..one }).0, "1.0 relay-1");
    }
}
