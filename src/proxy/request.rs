//! Makes a received head one that can be sent on. Pure: what was received and what is known of the sender go in.

use http::header::{CONNECTION, EXPECT, HeaderName, HeaderValue, TE, UPGRADE};
use http::request::Parts;
use http::{Uri, Version};
use http_body::SizeHint;

use super::failure::Failure;
use super::forwarded::{self, Came, LastSaid};
use super::framing;
use super::headers::{self, Seen};

/// What is left to be done about a request whose head is ready.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The protocols the client asked for.
    pub(super) upgrade: Option<HeaderValue>,
    /// What the client's `Connection` lines named.
    pub(super) named: Box<[HeaderName]>,
    /// Whether the body has to wait for opencode's word, because the client waits for it too.
    pub(super) expects: bool,
}

/// Makes the head of a request that was received, with a body of this size, one of this hop's; its target has neither scheme
/// nor authority then. Of HTTP/2 the listening side has put into the fields already what HTTP/1 has there; what is left are
/// the version, which has no upgrades, and bodies without a length.
pub(super) fn prepare(
    parts: &mut Parts,
    body: &SizeHint,
    came: &Came<'_>,
    last: &LastSaid,
) -> Result<Prepared, Failure> {
    let seen = Seen::of(&parts.headers);
    if seen.via && forwarded::passed_through(&parts.headers, came.via) {
        return Err(Failure::Loop);
    }
    let target = parts.uri.path_and_query().cloned().ok_or(Failure::Target)?;
    let version = std::mem::replace(&mut parts.version, Version::HTTP_11);
    parts.extensions.clear();
    let (written, hop) = seen.take(&mut parts.headers);
    framing::of_request(&mut parts.headers, written, body).map_err(|framing::StillCoded| Failure::Coded)?;
    headers::host_of_absolute_target(&parts.uri, &mut parts.headers);
    forwarded::add(&mut parts.headers, came, last);
    if hop.trailers {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
        parts.headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
    // HTTP/1.0 and HTTP/2 have no upgrades (RFC 9110 §7.8, RFC 9113 §8.6).
    let upgrade = hop.upgrade.filter(|_| version == Version::HTTP_11);
    if let Some(protocols) = &upgrade {
        parts.headers.insert(UPGRADE, protocols.clone());
        parts.headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let expects = seen.expect && expects(parts, version, body);
    parts.uri = Uri::from(target);
    Ok(Prepared { upgrade, named: hop.named, expects })
}

/// Whether the client waits to be asked for its body; if nobody will ask it, opencode is not told of the wish either.
///
/// HTTP/1.0 knows no interim answers (RFC 9110 §10.1.1), and to HTTP/2 hyper can send none: such a client sends its body
/// when it is tired of waiting, and an early answer reaches it all the same.
fn expects(parts: &mut Parts, version: Version, body: &SizeHint) -> bool {
    if !headers::tokens(&parts.headers, &EXPECT).any(|token| token.eq_ignore_ascii_case(b"100-continue")) {
        return false;
    }
    let expects = version == Version::HTTP_11 && body.exact() != Some(0);
    if expects {
        parts.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    } else {
        parts.headers.remove(EXPECT);
    }
    expects
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, VIA};

    use super::super::caller::Peer;
    use super::*;

    fn sent(
        version: Version,
        target: &str,
        fields: &[(&'static str, &'static str)],
        body: &SizeHint,
    ) -> (Parts, Prepared) {
        let mut request = Request::builder().method("POST").version(version).uri(target);
        for &(name, value) in fields {
            request = request.header(name, value);
        }
        let came = Came { peer: Peer::Unix, is_tls: true, is_trusted: false, version, via: "relay-1" };
        let mut parts = request.body(()).unwrap().into_parts().0;
        let prepared = prepare(&mut parts, body, &came, &LastSaid::default()).unwrap();
        (parts, prepared)
    }

    #[test]
    fn http_2_becomes_http_1() {
        let fields = [
            ("host", "other"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
        ];
        let (parts, prepared) = sent(Version::HTTP_2, "https://relay:8/a?b=%20", &fields, &SizeHint::new());
        let Prepared { upgrade, expects, .. } = prepared;
        assert_eq!((parts.version, parts.uri.to_string()), (Version::HTTP_11, "/a?b=%20".to_owned()));
        assert_eq!((upgrade, expects), (None, false));
        for (name, value) in [
            (HOST, "relay:8"),
            (TE, "trailers"),
            (CONNECTION, "te"),
            (TRANSFER_ENCODING, "chunked"),
            (VIA, "2.0 relay-1"),
        ] {
            let lines: Vec<&HeaderValue> = parts.headers.get_all(&name).iter().collect();
            assert_eq!(lines, [value], "{name}");
        }
        assert!(!parts.headers.contains_key(EXPECT) && !parts.headers.contains_key(UPGRADE));
    }

    #[test]
    fn no_connection_line_takes_the_framing_away() {
        let fields = [("connection", "content-length, host, via"), ("content-length", "3"), ("host", "relay")];
        let parts = sent(Version::HTTP_11, "/", &fields, &SizeHint::with_exact(3)).0;
        assert_eq!(
            (&parts.headers[CONTENT_LENGTH], &parts.headers[HOST]),
            (&"3".parse().unwrap(), &"relay".parse().unwrap())
        );
        assert!(parts.headers.contains_key(VIA));
    }

    #[test]
    fn only_a_body_can_be_waited_for() {
        let expects = |version, value, size| {
            let (parts, prepared) = sent(version, "/", &[("expect", value)], &size);
            (prepared.expects, parts.headers.contains_key(EXPECT))
        };
        let (some, none) = (SizeHint::with_exact(3), SizeHint::with_exact(0));
        assert_eq!(expects(Version::HTTP_11, "100-Continue", some), (true, true));
        assert_eq!(expects(Version::HTTP_11, "100-continue", SizeHint::new()), (true, true));
        assert_eq!(expects(Version::HTTP_11, "100-continue", none), (false, false));
        assert_eq!(expects(Version::HTTP_10, "100-continue", some), (false, false));
        // Not ours to judge.
        assert_eq!(expects(Version::HTTP_11, "other", some), (false, true));
    }
}
