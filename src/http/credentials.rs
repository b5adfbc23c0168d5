//! The password that the relay holds itself, and whether a request shows it the way opencode reads one.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use http::Uri;
use http::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq;

use crate::proxy::query;

/// Room in which secrets are compared, so that a comparison takes as long whatever their lengths are.
const SECRET_ROOM: usize = 1024;

/// What opencode is started with, if the relay knows it.
#[derive(Clone)]
pub struct Credentials {
    /// `OPENCODE_SERVER_USERNAME`, by default `opencode`.
    pub user: String,
    /// `OPENCODE_SERVER_PASSWORD`.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").field("user", &self.user).field("password", &"***").finish()
    }
}

impl Credentials {
    /// Whether a request shows them as opencode wants it: the first `?auth_token=` (it wins unless it is empty), or Basic.
    ///
    /// opencode takes the last of several headers. Here every one has to be right: nobody promises that its next runtime
    /// does not take the first.
    pub(super) fn are_shown(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let token = query::first(uri.query().unwrap_or_default(), "auth_token").filter(|token| !token.is_empty());
        if let Some(token) = token {
            return self.are(token.as_bytes());
        }
        let mut lines = headers.get_all(AUTHORIZATION).iter().peekable();
        lines.peek().is_some() && lines.all(|line| basic(line.as_bytes()).is_some_and(|encoded| self.are(encoded)))
    }

    /// Whether a base64 text is `user:password`. As in opencode its padding has to be there, and its last bits may be any.
    fn are(&self, encoded: &[u8]) -> bool {
        const ENGINE: GeneralPurpose =
            GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
        let shown = ENGINE.decode(encoded).unwrap_or_default();
        same(&shown, format!("{}:{}", self.user, self.password).as_bytes())
    }
}

/// What stands behind the scheme `Basic` in an `authorization` line.
fn basic(line: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = line.split_at(line.iter().position(u8::is_ascii_whitespace)?);
    scheme.eq_ignore_ascii_case(b"basic").then(|| rest.trim_ascii())
}

/// Compares in a time that depends on neither content nor length.
fn same(one: &[u8], other: &[u8]) -> bool {
    let padded = |secret: &[u8]| {
        let mut room = [0; SECRET_ROOM];
        let kept = secret.len().min(SECRET_ROOM);
        room[..kept].copy_from_slice(&secret[..kept]);
        room
    };
    let equal = padded(one).ct_eq(&padded(other)) & one.len().ct_eq(&other.len());
    bool::from(equal) && one.len() <= SECRET_ROOM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_shown_as_opencode_wants_them() {
        let credentials = Credentials { user: "opencode".into(), password: "pass".into() };
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let good = encode("opencode:pass");
        let shown = |uri: &str, lines: &[String]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(AUTHORIZATION, line.parse().unwrap());
            }
            credentials.are_shown(&uri.parse().unwrap(), &headers)
        };
        assert!(shown("/event", &[format!("Basic {good}")]));
        assert!(shown("/event", &[format!("bASIC \t {good} ")]));
        assert!(shown("/event", &[format!("Basic {good}"), format!("Basic {good}")]));
        assert!(shown(&format!("/event?auth_token={good}"), &[]));
        assert!(shown(&format!("/event?auth_token={good}"), &["Basic bad".into()]));
        assert!(shown("/event?auth_token=", &[format!("Basic {good}")]));
        assert!(shown("/event?auth_token", &[format!("Basic {good}")]));
        for line in [
            "Bearer x",
            "Basic",
            "Basic ",
            "Basic !!",
            "",
            &good,
            &format!("Bearer {good}"),
            &format!("Basic {}", good.trim_end_matches('=')),
            &format!("Basic {good}="),
            &format!("Basic {good} x"),
            &format!("Basic {good}, Basic {good}"),
            &format!("Basic {}", encode("other:pass")),
            &format!("Basic {}", encode("opencode:pass\n")),
            &format!("Basic {}", encode(":pass")),
        ] {
            assert!(!shown("/event", &[line.to_owned()]), "{line}");
        }
        assert!(!shown("/event", &[]));
        assert!(!shown("/event?auth_token=bad", &[format!("Basic {good}")]));
        assert!(!shown(&format!("/event?auth_token=x&auth_token={good}"), &[]));
        assert!(!shown("/event", &[format!("Basic {good}"), "Basic eA==".into()]));
        assert!(!shown("/event", &["Basic eA==".into(), format!("Basic {good}")]));
        assert!(!format!("{credentials:?}").contains("pass\""));
    }

    #[test]
    fn secrets_of_any_length_compare() {
        assert!(same(b"a", b"a"));
        for (one, other) in [(&b"a"[..], &b"a\0"[..]), (b"", b"a"), (&[b'x'; 2000], &[b'x'; 2000])] {
            assert!(!same(one, other));
        }
    }
}
