//! The live page: one document that asks for nothing but the relay's own status and stream.
//!
//! Style and script stand inside it, because a password that came as `?auth_token=` is not sent along when a browser
//! fetches a page's further files.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode, Uri};
use http_body_util::Full;

const INDEX: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
/// One script for the browser. Apart they are: what computes and knows no document, the chart, the list of events, the
/// tables, and what drives them.
const SCRIPT: &str = concat!(
    include_str!("page/words.js"),
    include_str!("page/chart.js"),
    include_str!("page/events.js"),
    include_str!("page/tables.js"),
    include_str!("page/page.js"),
);

/// The page itself.
pub(super) fn live() -> Response<Full<Bytes>> {
    let nonce = nonce();
    let page = INDEX.replace("@nonce@", &nonce).replace("/*style*/", STYLE).replace("/*script*/", SCRIPT);
    let mut answer = Response::new(Full::new(page.into()));
    let headers = answer.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy(&nonce)) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // It holds a nonce that is good once, and the URL it came from can hold a password.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    answer
}

/// The way from `/_relay` to the page: its URLs are relative, so that it works behind a proxy that adds a prefix.
pub(super) fn redirect(uri: &Uri) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(location) = HeaderValue::from_str(&format!("_relay/{query}")) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

/// 128 bits that nobody can foretell: the standard library's hasher is keyed by the system's randomness.
fn nonce() -> String {
    let keyed = RandomState::new();
    format!("{:016x}{:016x}", keyed.hash_one(0), keyed.hash_one(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_marks_what_the_page_brings() {
        let (first, second) = (nonce(), nonce());
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
        assert_eq!(INDEX.matches("@nonce@").count(), 2, "the style and the script");
        for (mark, part) in [("/*style*/", STYLE), ("/*script*/", SCRIPT)] {
            assert_eq!(INDEX.matches(mark).count(), 1);
            // Nothing may end the element early, and no part may hold a mark that is replaced later.
            assert!(!["</style", "</script", "<!--", "/*script*/"].iter().any(|mark| part.contains(mark)));
        }
    }

    #[test]
    fn the_redirect_is_relative_and_keeps_the_query() {
        let to = |uri: &str| redirect(&uri.parse().unwrap()).headers()[LOCATION].to_str().unwrap().to_owned();
        assert_eq!(to("/_relay"), "_relay/");
        assert_eq!(to("/_relay?auth_token=eDp5"), "_relay/?auth_token=eDp5");
    }
}
