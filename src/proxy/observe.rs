//! What passed, told to whoever reconciles: a write without an echo on any stream is worth a look at the state.
//!
//! Telling never delays or changes a request: a full queue loses the report and counts it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName};
use http::{Method, StatusCode, Uri};
use percent_encoding::percent_decode;
use tokio::sync::mpsc;

use super::query;

/// The longest body that is kept for a report; of a longer one only the passing is reported.
pub const BODY_LIMIT: usize = 64 * 1024;

/// How many directories are remembered as reported. When there are more, all are forgotten and may be reported again.
pub const DIRECTORIES: usize = 256;

/// The longest directory worth reporting: Linux's longest path.
const DIRECTORY_LIMIT: usize = 4096;

const DIRECTORY_HEADER: HeaderName = HeaderName::from_static("x-opencode-directory");

/// One request that passed, with the status of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The method, upper case.
    pub method: String,
    /// The raw path, without the query: queries can hold `auth_token`.
    pub path: String,
    /// The directory the request named, decoded; the query wins over the header.
    pub directory: Option<String>,
    /// The request's body, for the replies whose content nobody else can tell; empty otherwise.
    pub body: Bytes,
    /// The answer's status.
    pub status: u16,
}

/// Where reports go.
#[derive(Debug)]
pub(super) struct Observer {
    queue: mpsc::Sender<Passed>,
    lost: AtomicU64,
    directories: Mutex<HashSet<String>>,
}

impl Observer {
    pub(super) fn new(queue: mpsc::Sender<Passed>) -> Self {
        Self { queue, lost: AtomicU64::new(0), directories: Mutex::default() }
    }

    /// How many reports found the queue full.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Starts a report, if this request is worth one.
    pub(super) fn watch(self: &Arc<Self>, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Watch> {
        let directory = directory(uri, headers);
        let write = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if !write && (*method != Method::GET || !directory.as_ref().is_some_and(|name| self.is_new(name))) {
            return None;
        }
        let keep = *method == Method::POST && is_reply(uri.path());
        Some(Watch(Arc::new(Shared {
            observer: self.clone(),
            state: Mutex::new(State {
                report: Some(Passed {
                    method: method.as_str().to_owned(),
                    path: uri.path().to_owned(),
                    directory,
                    body: Bytes::new(),
                    status: 0,
                }),
                keep,
                body: BytesMut::new(),
                body_passed: !keep,
            }),
        })))
    }

    fn is_new(&self, directory: &str) -> bool {
        !lock(&self.directories).contains(directory)
    }

    fn report(&self, passed: Passed) {
        // A refused request says nothing about its directory: the next one may be allowed.
        if let Some(directory) = &passed.directory
            && passed.status < 400
        {
            let mut directories = lock(&self.directories);
            if directories.len() >= DIRECTORIES && !directories.contains(directory) {
                directories.clear();
            }
            let new = directories.insert(directory.clone());
            if passed.method == "GET" && !new {
                return;
            }
        } else if passed.method == "GET" {
            return;
        }
        if self.queue.try_send(passed).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A report in the making, shared by the request's body and the answer's head; whoever comes last sends it.
#[derive(Clone, Debug)]
pub(super) struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    observer: Arc<Observer>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Taken when it is sent.
    report: Option<Passed>,
    /// Whether the body is still worth keeping.
    keep: bool,
    body: BytesMut,
    body_passed: bool,
}

impl Watch {
    /// Whether the body is to be told with [`Watch::data`] and [`Watch::body_ended`].
    pub(super) fn wants_body(&self) -> bool {
        lock(&self.0.state).keep
    }

    /// Some bytes of the body pass.
    pub(super) fn data(&self, data: &[u8]) {
        let mut state = lock(&self.0.state);
        if state.keep && state.body.len() + data.len() <= BODY_LIMIT {
            state.body.extend_from_slice(data);
        } else {
            state.keep = false;
            state.body = BytesMut::new();
        }
    }

    /// The body ended; `whole` is false when it broke off or the upstream did not want the rest.
    pub(super) fn body_ended(&self, whole: bool) {
        let mut state = lock(&self.0.state);
        if state.body_passed {
            return;
        }
        state.body_passed = true;
        if !whole {
            state.body = BytesMut::new();
        }
        self.send_if_complete(&mut state);
    }

    /// The head of the answer is here.
    pub(super) fn answered(&self, status: StatusCode) {
        let mut state = lock(&self.0.state);
        if let Some(report) = &mut state.report {
            report.status = status.as_u16();
        }
        self.send_if_complete(&mut state);
    }

    fn send_if_complete(&self, state: &mut State) {
        if !state.body_passed || state.report.as_ref().is_none_or(|report| report.status == 0) {
            return;
        }
        if let Some(mut report) = state.report.take() {
            report.body = std::mem::take(&mut state.body).freeze();
            self.0.observer.report(report);
        }
    }
}

/// Whether this is a reply whose content only the client's own request tells (FACTS: a reply is gone once given).
fn is_reply(path: &str) -> bool {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    matches!(
        segments[..],
        ["permission", _, "reply"] | ["question", _, "reply" | "reject"] | ["session", _, "permissions", _]
    )
}

/// The directory a request names: `?directory=`, else the header, both percent-encoded.
#[must_use]
pub fn directory(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = uri.query().and_then(|query| query::first(query, "directory")).or_else(|| {
        let value = headers.get(DIRECTORY_HEADER)?;
        Some(percent_decode(value.as_bytes()).decode_utf8().ok()?.into_owned())
    })?;
    (!named.is_empty() && named.len() <= DIRECTORY_LIMIT).then_some(named)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer(room: usize) -> (Arc<Observer>, mpsc::Receiver<Passed>) {
        let (queue, reports) = mpsc::channel(room);
        (Arc::new(Observer::new(queue)), reports)
    }

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn knows_the_replies() {
        for path in ["/permission/p/reply", "/question/q/reply", "/question/q/reject", "/session/s/permissions/p"] {
            assert!(is_reply(path), "{path}");
        }
        for path in ["/session/s/message", "/permission", "/session/s/permissions", "/permission/p/reply/x"] {
            assert!(!is_reply(path), "{path}");
        }
    }

    #[test]
    fn the_query_names_the_directory_before_the_header() {
        let mut headers = HeaderMap::new();
        headers.insert(DIRECTORY_HEADER, "%2Fb%20c".parse().unwrap());
        assert_eq!(directory(&uri("/x?directory=%2Fa+b"), &headers).as_deref(), Some("/a b"));
        assert_eq!(directory(&uri("/x?other=1"), &headers).as_deref(), Some("/b c"));
        assert_eq!(directory(&uri("/x"), &HeaderMap::new()), None);
    }

    #[test]
    fn a_reply_is_told_with_its_body_once_both_are_there() {
        let (observer, mut reports) = observer(4);
        let watch = observer.watch(&Method::POST, &uri("/permission/p/reply"), &HeaderMap::new()).unwrap();
        watch.data(b"{\"reply\":");
        watch.answered(StatusCode::OK);
        assert!(reports.try_recv().is_err());
        watch.data(b"\"once\"}");
        watch.body_ended(true);
        watch.body_ended(false);
        let passed = reports.try_recv().unwrap();
        assert_eq!((&passed.body[..], passed.status), (&b"{\"reply\":\"once\"}"[..], 200));
    }

    #[test]
    fn a_long_or_broken_body_is_not_kept() {
        let (observer, mut reports) = observer(4);
        let watch = observer.watch(&Method::POST, &uri("/question/q/reply"), &HeaderMap::new()).unwrap();
        watch.data(&vec![0; BODY_LIMIT]);
        watch.data(b"x");
        watch.body_ended(true);
        watch.answered(StatusCode::OK);
        assert!(reports.try_recv().unwrap().body.is_empty());
        let watch = observer.watch(&Method::POST, &uri("/question/q/reply"), &HeaderMap::new()).unwrap();
        watch.data(b"half");
        watch.body_ended(false);
        watch.answered(StatusCode::OK);
        assert!(reports.try_recv().unwrap().body.is_empty());
    }

    #[test]
    fn a_read_is_told_once_for_each_directory_and_only_if_allowed() {
        let (observer, mut reports) = observer(4);
        let get = |path: &str, status| {
            if let Some(watch) = observer.watch(&Method::GET, &uri(path), &HeaderMap::new()) {
                watch.answered(status);
            }
        };
        get("/session", StatusCode::OK);
        get("/session?directory=/a", StatusCode::UNAUTHORIZED);
        assert!(reports.try_recv().is_err());
        get("/session?directory=/a", StatusCode::OK);
        get("/path?directory=/a", StatusCode::OK);
        assert_eq!(reports.try_recv().unwrap().directory.as_deref(), Some("/a"));
        assert!(reports.try_recv().is_err());
    }

    #[test]
    fn a_full_queue_loses_the_report_and_counts_it() {
        let (observer, _reports) = observer(1);
        for _ in 0..3 {
            observer.watch(&Method::POST, &uri("/session"), &HeaderMap::new()).unwrap().answered(StatusCode::OK);
        }
        assert_eq!(observer.lost(), 2);
    }
}
