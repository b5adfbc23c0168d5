//! Who may have a stream or a look at the relay: whoever opencode would let in, asked each time.
//!
//! The relay has one rule of its own, about names (see [`Hosts`]). Otherwise it sends `GET /path` upstream with the
//! client's own credentials, directory and Origin, and hands a refusal through. Only when opencode cannot be asked, and the
//! relay holds the password itself, does it compare on its own; which pages may read the answer then, see [`Origins`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::credentials::Credentials;
use super::host::{self, Hosts};
use super::joint::Joint;
use super::origins::Origins;
use crate::proxy::{self, Caller, Failure, Peer, Proxy, ProxyBody, answer, query};

/// How long opencode may take to say whom it admits. The first question for a directory boots an instance: seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one question about a client may take; then it is asked again. While opencode starts, it takes connections
/// that it never answers; booting an instance takes seconds, and the next question finds it further on.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The longest answer to `GET /path` that is read; real ones have a few hundred bytes.
const ANSWER_LIMIT: usize = 64 << 10;

/// What a request wants to be admitted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// One instance: the directory matters.
    Instance,
    /// The whole server.
    Server,
    /// The whole server, by its v2 API, which words a refusal in its own way.
    Api,
}

/// An admitted client.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The directory as opencode resolved it, for [`Wants::Instance`].
    pub(super) directory: Option<Arc<str>>,
    /// What opencode said to the client's Origin: `access-control-*` and `vary`.
    pub(super) cors: HeaderMap,
}

/// The whole answer that turns a client away; boxed, because it is the rare case.
pub(super) type Refusal = Box<Response<ProxyBody>>;

/// What came of a question: the refusal is an answer with a body, which one of those who asked can have.
#[derive(Clone, Debug)]
enum Verdict {
    Granted(Grant),
    Refused(Arc<Mutex<Option<Refusal>>>),
    /// There was no answer within [`ATTEMPT`].
    Late,
}

/// The guard.
pub(super) struct Admission {
    guard: Arc<Guard>,
    questions: Joint<Verdict>,
}

struct Guard {
    proxy: Proxy,
    credentials: Option<Credentials>,
    hosts: Hosts,
    /// What opencode resolved for a client that named no directory.
    default_directory: Mutex<Option<Arc<str>>>,
    origins: Origins,
}

#[derive(Deserialize)]
struct PathAnswer {
    directory: String,
}

impl Admission {
    pub(super) fn new(proxy: Proxy, credentials: Option<Credentials>, hosts: Hosts) -> Self {
        let default_directory = Mutex::default();
        let guard = Guard { proxy, credentials, hosts, default_directory, origins: Origins::default() };
        Self { guard: Arc::new(guard), questions: Joint::default() }
    }

    /// Lets the client in, or gives the answer that refuses it.
    pub(super) async fn admit(
        &self,
        wants: Wants,
        uri: &Uri,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Grant, Refusal> {
        let until = Instant::now() + PATIENCE;
        let words = words(wants, uri, headers, caller);
        while Instant::now() < until {
            let ask = || {
                let (guard, uri, headers, caller) = (self.guard.clone(), uri.clone(), headers.clone(), caller.clone());
                async move { guard.verdict(wants, &uri, &headers, &caller).await }
            };
            let verdict = match self.questions.ask(&words, ask).await {
                // Somebody else has it already.
                Verdict::Refused(refusal) if lock(&refusal).is_none() => ask().boxed().await,
                verdict => verdict,
            };
            match verdict {
                Verdict::Granted(grant) => return Ok(grant),
                Verdict::Refused(refusal) => {
                    if let Some(refusal) = lock(&refusal).take() {
                        return Err(refusal);
                    }
                }
                Verdict::Late => {}
            }
        }
        let message = format!("opencode did not say within {PATIENCE:?} whether you are admitted; is it overloaded?");
        let refusal = own(StatusCode::GATEWAY_TIMEOUT, "UpstreamTimeoutError", &message);
        Err(self.readable(refusal, headers))
    }

    /// An answer of the relay's own instead of opencode's, for the pages that opencode last let read.
    pub(super) fn readable(&self, refusal: Refusal, headers: &HeaderMap) -> Refusal {
        self.guard.readable(refusal, headers)
    }
}

impl Guard {
    async fn verdict(&self, wants: Wants, uri: &Uri, headers: &HeaderMap, caller: &Caller) -> Verdict {
        match timeout(ATTEMPT, self.ask(wants, uri, headers, caller)).await {
            Ok(Ok(grant)) => Verdict::Granted(grant),
            Ok(Err(refusal)) => Verdict::Refused(Arc::new(Mutex::new(Some(refusal)))),
            Err(_) => Verdict::Late,
        }
    }

    async fn ask(&self, wants: Wants, uri: &Uri, headers: &HeaderMap, caller: &Caller) -> Result<Grant, Refusal> {
        self.check_host(uri, headers, caller).await?;
        let mut headers = headers.clone();
        if wants != Wants::Instance {
            headers.remove("x-opencode-directory");
        }
        let response = match self.proxy.ask(&question(wants, uri), &headers, caller).await {
            Ok(response) => response,
            Err(failure) if failure.is_outage() => {
                let verdict = self.admit_alone(wants, uri, &headers, &failure);
                return verdict.map_err(|refusal| self.readable(refusal, &headers));
            }
            Err(failure) => return Err(self.readable(unanswered(&failure), &headers)),
        };
        if response.status() != StatusCode::OK {
            return Err(self.in_its_words(wants, uri, &headers, caller, response).await);
        }
        let (head, body) = response.into_parts();
        let is_json = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"application/json"));
        let text = match Limited::new(body, ANSWER_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => Bytes::new(),
        };
        // Some releases answer unknown paths with the web app and 200: only JSON counts.
        let answered = serde_json::from_slice::<PathAnswer>(&text).ok().filter(|_| is_json);
        let Some(PathAnswer { directory }) = answered else { return Err(not_opencode(&head.headers)) };
        let directory: Arc<str> = directory.into();
        if proxy::directory(uri, &headers).is_none() || wants != Wants::Instance {
            *lock(&self.default_directory) = Some(directory.clone());
        }
        let cors = cors(&head.headers);
        // From those only who would be admitted without opencode, too: nobody else shall push their origins out.
        if self.credentials.as_ref().is_none_or(|credentials| credentials.are_shown(uri, &headers)) {
            self.origins.hear(&headers, &cors);
        }
        Ok(Grant { directory: Some(directory), cors })
    }

    /// Refuses a request that asks for a name which is not ours, unless a password guards the server anyway.
    ///
    /// The relay may hold none while opencode has one, and the other way round, so opencode is asked, in nobody's name:
    /// what a client shows of credentials proves nothing here, any page can send some, but for those that the relay
    /// holds itself. Nothing else of the request goes along either but its Origin; a directory would boot an instance
    /// there.
    async fn check_host(&self, uri: &Uri, headers: &HeaderMap, caller: &Caller) -> Result<(), Refusal> {
        let Some(host) = self.hosts.foreign(uri, headers, caller) else { return Ok(()) };
        if self.credentials.as_ref().is_some_and(|credentials| credentials.are_shown(uri, headers)) {
            return Ok(());
        }
        let origin = headers.get(ORIGIN).map(|origin| (ORIGIN, origin.clone()));
        let response = match self.proxy.ask("/path", &origin.into_iter().collect(), caller).await {
            Ok(response) => response,
            // Then the relay compares on its own, or lets nobody in.
            Err(failure) if failure.is_outage() => return Ok(()),
            Err(failure) => return Err(self.readable(unanswered(&failure), headers)),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            return Ok(());
        }
        let name = host::name(&host).unwrap_or_else(|| "NAME".to_owned());
        let message = format!(
            "this relay does not know itself as {host:?}, and without a password it answers to known names only; start \
             it with --allowed-host {name}, or give opencode and the relay a password (OPENCODE_SERVER_PASSWORD or \
             --password-file)"
        );
        let mut refusal = own(StatusCode::FORBIDDEN, "ForbiddenHostError", &message);
        refusal.headers_mut().extend(cors(response.headers()));
        Err(refusal)
    }

    /// A refusal as the asked path itself would word it; `/path` is no part of the v2 API.
    async fn in_its_words(
        &self,
        wants: Wants,
        uri: &Uri,
        headers: &HeaderMap,
        caller: &Caller,
        refusal: Response<ProxyBody>,
    ) -> Refusal {
        if wants != Wants::Api {
            return Box::new(refusal);
        }
        let target = question(wants, uri).replacen("/path", "/api/event", 1);
        match self.proxy.ask(&target, headers, caller).await {
            Ok(own) if own.status() == refusal.status() => Box::new(own),
            _ => Box::new(refusal),
        }
    }

    /// opencode cannot be asked. Whoever shows the password the relay holds is let in; without one nobody knows.
    fn admit_alone(&self, wants: Wants, uri: &Uri, headers: &HeaderMap, failure: &Failure) -> Result<Grant, Refusal> {
        let Some(credentials) = &self.credentials else { return Err(outage(failure)) };
        if !credentials.are_shown(uri, headers) {
            let mut refusal = Response::new(ProxyBody::empty());
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Secure Area\""));
            return Err(Box::new(refusal));
        }
        let directory = match wants {
            Wants::Server | Wants::Api => None,
            Wants::Instance => {
                let known = || lock(&self.default_directory).clone();
                let asked = proxy::directory(uri, headers).map(Arc::from);
                Some(asked.or_else(known).ok_or_else(|| outage(failure))?)
            }
        };
        Ok(Grant { directory, cors: self.origins.last(headers) })
    }

    fn readable(&self, mut refusal: Refusal, headers: &HeaderMap) -> Refusal {
        refusal.headers_mut().extend(self.origins.last(headers));
        refusal
    }
}

/// What decides about a question, its thread too: an answer comes by a connection of one of them. Two clients that ask in the
/// same words differ in nothing that opencode could see, but for their ports.
fn words(wants: Wants, uri: &Uri, headers: &HeaderMap, caller: &Caller) -> Vec<u8> {
    let address = match caller.peer {
        Peer::Ip(address) => Some(address.ip()),
        Peer::Unix => None,
    };
    let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
    let (authority, target) = (uri.authority(), question(wants, uri));
    let words =
        format!("{runtime:?} {wants:?} {authority:?} {target} {address:?} {:?} {}", caller.local, caller.is_tls);
    let mut words = words.into_bytes();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str() != "last-event-id") {
        // Neither has a line end in it.
        for part in [b"\n", name.as_str().as_bytes(), b":", value.as_bytes()] {
            words.extend_from_slice(part);
        }
    }
    words
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `GET /path` with the parts of the client's query that decide about admission, raw as they came.
fn question(wants: Wants, uri: &Uri) -> String {
    let decides = |name: &str| match name {
        "auth_token" => true,
        "directory" | "workspace" => wants == Wants::Instance,
        _ => false,
    };
    let kept: Vec<&str> =
        query::pairs(uri.query().unwrap_or_default()).filter(|pair| decides(&pair.name)).map(|pair| pair.raw).collect();
    if kept.is_empty() { "/path".to_owned() } else { format!("/path?{}", kept.join("&")) }
}

fn cors(headers: &HeaderMap) -> HeaderMap {
    headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-") || **name == VARY).fold(
        HeaderMap::new(),
        |mut kept, (name, value)| {
            kept.append(name.clone(), value.clone());
            kept
        },
    )
}

fn unanswered(failure: &Failure) -> Refusal {
    Box::new(failure.answer().map(ProxyBody::from))
}

fn outage(failure: &Failure) -> Refusal {
    let mut refusal = own(StatusCode::SERVICE_UNAVAILABLE, "UpstreamDownError", &failure.to_string());
    refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    refusal
}

fn not_opencode(answered: &HeaderMap) -> Refusal {
    let message = "GET /path upstream gave no JSON with a directory; check that --upstream is an opencode server";
    let mut refusal = own(StatusCode::BAD_GATEWAY, "UpstreamAnswerError", message);
    refusal.headers_mut().extend(cors(answered));
    refusal
}

fn own(status: StatusCode, name: &str, message: &str) -> Refusal {
    Box::new(answer(status, name, message).map(ProxyBody::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_with_what_decides_and_nothing_else() {
        let uri = "/event?since=x&directory=%2Fa%20b&types=a&auth%5Ftoken=c2VjcmV0&workspace=w".parse().unwrap();
        assert_eq!(question(Wants::Instance, &uri), "/path?directory=%2Fa%20b&auth%5Ftoken=c2VjcmV0&workspace=w");
        assert_eq!(question(Wants::Server, &uri), "/path?auth%5Ftoken=c2VjcmV0");
        assert_eq!(question(Wants::Server, &Uri::from_static("/event")), "/path");
    }
}
