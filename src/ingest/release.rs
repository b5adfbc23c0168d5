//! Which opencode this is, and what is known to be broken in it (FACTS §1, §2).

use std::fmt;
use std::time::Duration;

use http_body_util::Full;
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::time::timeout;

use super::Upstream;
use crate::client::{Client, Place, SendError};

/// How long opencode may take to say its version.
const ANSWER: Duration = Duration::from_secs(5);

/// Most bytes of that answer.
const BODY: usize = 64 << 10;

/// A version of opencode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    text: String,
    /// Major, minor, patch; `None` for a build that has no such number.
    number: Option<(u32, u32, u32)>,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Release {
    /// Reads a version as opencode writes it: `1.14.48`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut numbers = text.split(['-', '+']).next().unwrap_or_default().split('.').map(str::parse::<u32>);
        let number = match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Some((major, minor, patch)),
            _ => None,
        };
        // It goes into logs: it must not bring control characters along.
        let text = text.chars().filter(|letter| !letter.is_control()).take(64).collect();
        Self { text, number }
    }

    /// Whether it has `/api/event`. A build without a number is taken for a new one.
    #[must_use]
    pub fn has_api_event(&self) -> bool {
        self.number.is_none_or(|number| number >= (1, 16, 0))
    }

    /// What is known to be broken there, in plain words.
    #[must_use]
    pub fn breakages(&self) -> Vec<&'static str> {
        self.known().into_iter().map(Breakage::words).collect()
    }

    /// What is known to be broken there.
    #[must_use]
    pub fn known(&self) -> Vec<Breakage> {
        let Some(number) = self.number else { return Vec::new() };
        let known = [
            ((1, 14, 42), (1, 14, 48), Breakage::EventEnds),
            ((1, 14, 49), (1, 15, 1), Breakage::EventLacks),
            ((1, 15, 2), (1, 15, 13), Breakage::EventLacksWatcher),
            ((1, 15, 14), (u32::MAX, 0, 0), Breakage::LogSilent),
            ((1, 17, 19), (1, 18, 34), Breakage::ApiEventEnds),
        ];
        known.into_iter().filter(|(from, to, _)| (*from..=*to).contains(&number)).map(|(.., what)| what).collect()
    }
}

/// Something that is broken in some releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// `/event` ends right after its greeting.
    EventEnds,
    /// `/event` stays open and silently lacks what has a sync twin.
    EventLacks,
    /// `/event` lacks some file watcher events.
    EventLacksWatcher,
    /// The log does not announce events.
    LogSilent,
    /// `/api/event` ends before the first `session.status`.
    ApiEventEnds,
}

impl Breakage {
    /// In plain words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::EventEnds => "its own /event ends right after server.connected",
            Self::EventLacks => "its own /event silently lacks messages, parts and most session events",
            Self::EventLacksWatcher => "its own /event lacks some file watcher events",
            Self::LogSilent => "its log does not announce events, so the stream and the state are the only witnesses",
            Self::ApiEventEnds => "its own /api/event ends before the first session.status",
        }
    }
}

/// Why opencode's version is not known. Can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub enum AskReleaseError {
    /// Nothing answers, or too late.
    #[error(transparent)]
    Unanswered(#[from] SendError),
    /// 401 or 403.
    #[error("ask opencode at {0} for its version: it wants a password; set OPENCODE_SERVER_PASSWORD for the relay too")]
    Unauthorized(String),
    /// Something else answers there.
    #[error("find an opencode at {authority}: GET /global/health answered {status} without a version")]
    Other {
        /// Where it should be.
        authority: String,
        /// What was answered.
        status: StatusCode,
    },
}

/// Asks opencode for its version.
///
/// # Errors
///
/// When nothing, or something else than opencode, answers there.
pub async fn ask(upstream: &Upstream) -> Result<Release, AskReleaseError> {
    let authority = upstream.authority.to_string();
    let place = Place::Http(upstream.authority.clone());
    let client = Client { place: place.clone(), authorization: upstream.authorization.clone() };
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from_static("/global/health");
    let answer = async {
        let answer = client.send(request, ANSWER).await?;
        let status = answer.status();
        let body = answer.into_body().collect(BODY).await;
        Ok((status, body.map_err(|source| SendError::Broken { place: place.clone(), source })?))
    };
    let slow = |_| SendError::Slow { place: place.clone(), limit: ANSWER };
    let (status, body) = timeout(ANSWER, answer).await.map_err(slow).flatten()?;
    #[derive(Deserialize)]
    struct Health {
        version: String,
    }
    match serde_json::from_slice::<Health>(&body) {
        _ if matches!(status.as_u16(), 401 | 403) => Err(AskReleaseError::Unauthorized(authority)),
        Ok(health) if status.is_success() => Ok(Release::new(&health.version)),
        _ => Err(AskReleaseError::Other { authority, status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakages_are_those_that_were_measured() {
        let count = |text: &str| Release::new(text).breakages().len();
        assert_eq!(count("1.14.41"), 0);
        assert!(Release::new("1.14.48").breakages()[0].contains("server.connected"));
        assert!(Release::new("1.15.0").breakages()[0].contains("silently"));
        assert_eq!((count("1.17.11"), count("1.18.34"), count("1.19.0"), count("dev")), (1, 2, 1, 0));
    }

    #[test]
    fn api_event_came_with_1_17() {
        let has = |text: &str| Release::new(text).has_api_event();
        assert!(!has("1.14.48") && !has("1.15.13") && has("1.17.0") && has("1.18.34-beta.1") && has("local"));
        assert_eq!(Release::new("1.2\u{1b}[31m").to_string(), "1.2[31m");
    }
}
