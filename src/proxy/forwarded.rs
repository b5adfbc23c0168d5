//! What a hop says about the one before it: `Via`, `Forwarded` and `X-Forwarded-*`; no I/O.

use std::net::IpAddr;

use http::Version;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};

use super::caller::Peer;
use super::headers::tokens;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What this hop says about the client: who it was, how it came, which host it asked for.
pub(super) struct Came<'a> {
    pub(super) peer: Peer,
    pub(super) version: Version,
    pub(super) via: &'a str,
}

/// Adds `Via`, `Forwarded` and `X-Forwarded-*`; call it after [`strip`], so that no `Connection` line can remove them.
pub(super) fn add(headers: &mut HeaderMap, came: &Came<'_>) {
    let peer = match came.peer {
        Peer::Ip(address) => Some(address.ip().to_canonical()),
        Peer::Unix => None,
    };
    let received = if came.version == Version::HTTP_10 { "1.0" } else { "1.1" };
    append(headers, VIA, &format!("{received} {}", came.via));

    let host = headers.get(HOST).cloned();
    let mut element = match peer {
        Some(IpAddr::V4(ip)) => format!("for={ip};proto=http"),
        Some(IpAddr::V6(ip)) => format!("for=\"[{ip}]\";proto=http"),
        None => "for=unknown;proto=http".to_owned(),
    };
    if let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()) {
        element.push_str(";host=");
        element.push_str(&quoted(host));
    }
    append(headers, FORWARDED, &element);
    append(headers, X_FORWARDED_FOR, &peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string()));
    // A hop before this one knows better how the client came; these two are single values by custom.
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Whether a `Via` line shows that the message already passed through `name`.
pub(super) fn passed_through(headers: &HeaderMap, name: &str) -> bool {
    tokens(headers, &VIA).any(|hop| hop.rsplit(|&byte| byte == b' ').next() == Some(name.as_bytes()))
}

/// Appends to a list field, as one line: some receivers read only the first or only the last line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let mut line: Vec<u8> = Vec::with_capacity(value.len());
    for before in headers.get_all(&name) {
        line.extend_from_slice(before.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(value.as_bytes());
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(name, line);
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn tells_the_upstream_who_came() {
        let mut map = headers(&[("host", "a\"b:1"), ("x-forwarded-for", "9.9.9.9"), ("via", "1.0 fred")]);
        let peer = Peer::Ip("[::ffff:10.0.0.1]:5".parse().unwrap());
        add(&mut map, &Came { peer, version: Version::HTTP_11, via: "relay-1" });
        assert_eq!(map["x-forwarded-for"], "9.9.9.9, 10.0.0.1");
        assert_eq!(map["via"], "1.0 fred, 1.1 relay-1");
        assert_eq!(map["forwarded"], r#"for=10.0.0.1;proto=http;host="a\"b:1""#);
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["x-forwarded-host"], "a\"b:1");
        assert!(passed_through(&map, "relay-1"));
        assert!(!passed_through(&map, "relay-2"));
        add(&mut map, &Came { peer: Peer::Ip("[fe80::1]:5".parse().unwrap()), version: Version::HTTP_10, via: "x" });
        assert!(map["forwarded"].to_str().unwrap().contains(r#", for="[fe80::1]";proto=http"#));
    }
}
