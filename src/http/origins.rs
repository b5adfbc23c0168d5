//! What opencode last said to the pages of each origin, for when it cannot be asked.
//!
//! opencode alone knows which origins it allows, so nothing is decided here: while it is down, its last word to an origin is
//! said again to the same one. A page that is told nothing may not read its answer, and the browser's EventSource never
//! comes back after a single one of these.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY};

/// Most origins that are known; the one that was heard of longest ago goes first. Ports of loopback are origins of their own,
/// and opencode allows them all.
const ORIGINS: usize = 64;

/// Most bytes of an origin and what was said to it; longer ones are not kept. Real ones have less than a hundred.
const BYTES: usize = 1024;

/// Origins that opencode lets read, those heard of last at the end.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<VecDeque<Word>>);

#[derive(Debug)]
struct Word {
    origin: HeaderValue,
    /// Always with `access-control-allow-origin`.
    fields: HeaderMap,
}

impl Origins {
    /// Takes the CORS fields of an answer that admitted whoever asked with these headers.
    pub(super) fn hear(&self, asked: &HeaderMap, fields: &HeaderMap) {
        let Some(origin) = only_origin(asked) else { return };
        let mut words = self.lock();
        let at = words.iter().position(|word| word.origin == origin);
        if let Some(before) = at.and_then(|at| words.remove(at))
            && before.fields != *fields
        {
            // opencode was started with other settings; whom else they concern is not known.
            words.clear();
        }
        let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        let bytes = origin.len() + fields.iter().map(length).sum::<usize>();
        if fields.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) && bytes <= BYTES {
            if words.len() == ORIGINS {
                words.pop_front();
            }
            words.push_back(Word { origin: origin.clone(), fields: fields.clone() });
        }
    }

    /// What opencode last said to the origin of a request with these headers.
    pub(super) fn last(&self, asked: &HeaderMap) -> HeaderMap {
        let known = only_origin(asked)
            .and_then(|origin| self.lock().iter().find(|word| word.origin == origin).map(|word| word.fields.clone()));
        let mut fields = known.unwrap_or_default();
        // Also without a word: a cache must not give one origin's answer to another.
        fields.entry(VARY).or_insert(HeaderValue::from_static("Origin"));
        fields
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Word>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The origin, unless there are several: no browser sends that, and opencode's reading of it is its own.
fn only_origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut origins = headers.get_all(ORIGIN).iter();
    origins.next().filter(|_| origins.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<const N: usize>(lines: [(HeaderName, &str); N]) -> HeaderMap {
        lines.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    fn allowing(origin: &str) -> HeaderMap {
        headers([(ACCESS_CONTROL_ALLOW_ORIGIN, origin), (VARY, "Origin")])
    }

    fn hear(origins: &Origins, origin: &str) {
        origins.hear(&headers([(ORIGIN, origin)]), &allowing(origin));
    }

    fn knows(origins: &Origins, origin: &str) -> bool {
        origins.last(&headers([(ORIGIN, origin)])) == allowing(origin)
    }

    #[test]
    fn keeps_few_and_those_that_come_back() {
        let origins = Origins::default();
        hear(&origins, "https://app.example");
        for port in 1..=1_000 {
            hear(&origins, &format!("http://localhost:{port}"));
            hear(&origins, "https://app.example");
        }
        assert_eq!(origins.lock().len(), ORIGINS);
        assert!(knows(&origins, "https://app.example") && knows(&origins, "http://localhost:1000"));
        assert!(!knows(&origins, "http://localhost:1"));
    }

    #[test]
    fn keeps_no_more_than_a_word() {
        let origins = Origins::default();
        hear(&origins, &format!("http://{}.example", "x".repeat(BYTES / 2)));
        let many = headers([(ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (VARY, &"x".repeat(BYTES))]);
        origins.hear(&headers([(ORIGIN, "http://localhost:1")]), &many);
        // The last word counts, also one that is not kept.
        hear(&origins, "http://localhost:2");
        origins.hear(&headers([(ORIGIN, "http://localhost:2")]), &many);
        assert!(origins.lock().is_empty());
    }

    #[test]
    fn keeps_nothing_that_lets_nobody_read() {
        let origins = Origins::default();
        let asked = headers([(ORIGIN, "https://evil.example")]);
        origins.hear(&asked, &headers([(VARY, "Origin")]));
        origins.hear(&HeaderMap::new(), &allowing("*"));
        let mut two = asked.clone();
        two.append(ORIGIN, HeaderValue::from_static("http://localhost:1"));
        origins.hear(&two, &allowing("*"));
        assert!(origins.lock().is_empty());
        assert_eq!(origins.last(&asked), headers([(VARY, "Origin")]));
    }
}
