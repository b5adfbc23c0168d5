//! The proxy: every request that is not the relay's own goes to opencode and back, untouched but for this hop's fields.
//!
//! It knows nothing of events: whatever happens on that side, a request here must not notice. What passed can be
//! observed (see [`Passed`]), by a queue that is never waited for. The listening side is `http`'s; this module starts
//! where a request has been read and ends where its answer is ready to be written.

mod body;
mod caller;
mod failure;
mod forwarded;
mod headers;
mod observe;
pub mod query;
mod target;
mod tunnel;

use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use tokio::sync::{mpsc, watch};

pub use self::body::ProxyBody;
pub use self::caller::{Caller, Interim, Peer, TrustedProxy, TrustedProxyError};
pub use self::failure::{Failure, answer};
pub use self::observe::{BODY_LIMIT, DIRECTORIES, Passed, directory};
pub use self::target::{Address, AddressError, Target};

use self::body::Outgoing;
use self::forwarded::Came;
use self::observe::{Observer, Watch};
use crate::stop::{Stop, Tasks};

/// How often the kernel asks a silent upstream whether it is still there: a long poll has no other limit.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How many unused connections to opencode are kept.
const IDLE_CONNECTIONS: usize = 32;

/// The proxy's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a request waits for an opencode that is still starting; then it gets 503.
    pub start_timeout: Duration,
    /// How long a connection to opencode may take to be made; then the request gets 504.
    pub connect_timeout: Duration,
    /// How long an unused connection to opencode is kept. Node closes after 5 s: staying below that avoids the race
    /// between its closing and our next request.
    pub idle_timeout: Duration,
    /// How long opencode may take to begin its answer; then the request gets 504. `None` for as long as it wants: a turn
    /// that is waited for takes minutes.
    pub answer_timeout: Option<Duration>,
    /// How long a client may pause while it sends a body; then the request is broken off.
    pub body_timeout: Duration,
    /// Most bytes of a request's body; a longer one gets 413.
    pub body: Option<u64>,
    /// Most requests at opencode at a time; more get 503.
    pub requests: usize,
    /// Most upgraded connections at a time; more get 503.
    pub sockets: usize,
    /// Whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted: Vec<TrustedProxy>,
    /// Where to tell what passed.
    pub observer: Option<mpsc::Sender<Passed>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(4),
            answer_timeout: None,
            body_timeout: Duration::from_secs(120),
            body: None,
            requests: 1024,
            sockets: 1024,
            trusted: Vec::new(),
            observer: None,
        }
    }
}

/// The proxy; cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client<HttpConnector, Outgoing>,
    target: watch::Receiver<Target>,
    observer: Option<Arc<Observer>>,
    start_timeout: Duration,
    connect_timeout: Duration,
    /// Our name in `Via`, different in every process: two relays in a row are no loop.
    name: String,
    tasks: Tasks,
    stop: Stop,
}

impl Proxy {
    /// A proxy to `target`. Pull `stop` after the last request was answered: it cuts sockets and upstream connections.
    #[must_use]
    pub fn new(options: Options, target: watch::Receiver<Target>, tasks: Tasks, stop: Stop) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(options.connect_timeout));
        connector.set_keepalive(Some(KEEPALIVE));
        let client = Client::builder(Executor { tasks: tasks.clone(), stop: stop.clone() })
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // Retries only a request of which nothing was written: the pool hands it back whole in that case.
            .retry_canceled_requests(true)
            .build(connector);
        Self(Arc::new(Inner {
            client,
            target,
            observer: options.observer.map(|queue| Arc::new(Observer::new(queue))),
            start_timeout: options.start_timeout,
            connect_timeout: options.connect_timeout,
            name: format!("opencode-relay-{:08x}", random() >> 32),
            tasks,
            stop,
        }))
    }

    /// How many reports to the observer were lost because its queue was full.
    #[must_use]
    pub fn lost_reports(&self) -> u64 {
        self.0.observer.as_ref().map_or(0, |observer| observer.lost())
    }

    /// Hands a request on and its answer back; what cannot be handed on is answered here, see [`Failure`].
    ///
    /// Dropping the future, or the body of its answer, cancels the request at opencode.
    pub async fn forward(&self, request: Request<Incoming>, caller: &Caller) -> Response<ProxyBody> {
        self.try_forward(request, caller).await.unwrap_or_else(|failure| {
            tracing::debug!(%failure, status = failure.status().as_u16(), "a request was not forwarded");
            failure.answer().map(ProxyBody::from)
        })
    }

    async fn try_forward(
        &self,
        mut request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Response<ProxyBody>, Failure> {
        if request.method() == Method::CONNECT {
            return Err(Failure::Tunnel);
        }
        let upgraded = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let watch = self.watch(&parts);
        // hyper takes a body of unknown length on these methods for no body at all, unless the head says otherwise.
        let chunked = matches!(parts.method, Method::GET | Method::HEAD) && body.size_hint().exact().is_none();
        let Prepared { mut parts, upgrade } = self.prepare(parts, caller)?;
        if chunked {
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let response = self.send(Request::from_parts(parts, Outgoing::client(body, watch.clone()))).await?;
        if let Some(watch) = watch {
            watch.answered(response.status());
        }
        self.hand_back(response, upgrade.map(|asked| (asked, upgraded)))
    }

    /// Asks opencode a question in a client's name: `GET` of `target` (path and query) with the client's own headers,
    /// less those that would change the form of the answer.
    ///
    /// # Errors
    ///
    /// When opencode cannot be asked; a refusal is an answer, not an error.
    pub async fn ask(
        &self,
        target: &str,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Response<ProxyBody>, Failure> {
        const NOT_ASKED: [HeaderName; 11] = [
            http::header::ACCEPT,
            http::header::ACCEPT_ENCODING,
            http::header::CONTENT_LENGTH,
            http::header::CONTENT_TYPE,
            http::header::EXPECT,
            http::header::IF_MATCH,
            http::header::IF_MODIFIED_SINCE,
            http::header::IF_NONE_MATCH,
            http::header::IF_UNMODIFIED_SINCE,
            http::header::RANGE,
            HeaderName::from_static("last-event-id"),
        ];
        let target: PathAndQuery = target.parse().map_err(|_| Failure::Target)?;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.uri = Uri::from(target);
        parts.headers = headers.clone();
        for name in &NOT_ASKED {
            parts.headers.remove(name);
        }
        parts.headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        let Prepared { mut parts, .. } = self.prepare(parts, caller)?;
        parts.headers.remove(CONNECTION);
        parts.headers.remove(UPGRADE);
        let response = self.send(Request::from_parts(parts, Outgoing::empty())).await?;
        self.hand_back(response, None)
    }

    fn watch(&self, parts: &Parts) -> Option<Watch> {
        self.0.observer.as_ref()?.watch(&parts.method, &parts.uri, &parts.headers)
    }

    /// Makes a received head one that can be sent on.
    fn prepare(&self, received: Parts, caller: &Caller) -> Result<Prepared, Failure> {
        if forwarded::passed_through(&received.headers, &self.0.name) {
            return Err(Failure::Loop);
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = received.method;
        parts.headers = received.headers;
        let target = received.uri.path_and_query().cloned().ok_or(Failure::Target)?;
        let hop = headers::strip(&mut parts.headers);
        headers::host_of_absolute_target(&received.uri, &mut parts.headers);
        forwarded::add(&mut parts.headers, &Came { peer: caller.peer, version: received.version, via: &self.0.name });
        if hop.trailers {
            parts.headers.insert(TE, HeaderValue::from_static("trailers"));
            parts.headers.append(CONNECTION, HeaderValue::from_static("te"));
        }
        // HTTP/1.0 has no upgrades (RFC 9110 §7.8).
        let upgrade = hop.upgrade.filter(|_| received.version == Version::HTTP_11);
        if let Some(protocols) = &upgrade {
            parts.headers.insert(UPGRADE, protocols.clone());
            parts.headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        parts.uri = Uri::from(target);
        Ok(Prepared { parts, upgrade })
    }

    /// Sends a prepared request to wherever opencode is now.
    async fn send(&self, mut request: Request<Outgoing>) -> Result<Response<Incoming>, Failure> {
        let address = self.address().await?;
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(address.0.clone());
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Failure::Target)?;
        self.0
            .client
            .request(request)
            .await
            .map_err(|error| Failure::from_client(&error, address.0.as_str(), self.0.connect_timeout))
    }

    async fn address(&self) -> Result<Address, Failure> {
        let mut target = self.0.target.clone();
        let known = target.wait_for(|target| *target != Target::Starting);
        match tokio::time::timeout(self.0.start_timeout, known).await {
            Err(_) => Err(Failure::Starting(self.0.start_timeout)),
            Ok(Err(_)) => Err(Failure::Down("the relay is stopping".to_owned())),
            Ok(Ok(target)) => match &*target {
                Target::Up(address) => Ok(address.clone()),
                Target::Down { reason } => Err(Failure::Down(reason.clone())),
                Target::Starting => Err(Failure::Starting(self.0.start_timeout)),
            },
        }
    }

    /// Makes opencode's answer one that can be handed back; a 101 also starts the tunnel.
    fn hand_back(
        &self,
        mut response: Response<Incoming>,
        asked: Option<(HeaderValue, OnUpgrade)>,
    ) -> Result<Response<ProxyBody>, Failure> {
        let upstream = hyper::upgrade::on(&mut response);
        let (mut parts, body) = response.into_parts();
        let hop = headers::strip(&mut parts.headers);
        parts.version = Version::HTTP_11;
        let reason = parts.extensions.remove::<ReasonPhrase>();
        parts.extensions.clear();
        if let Some(reason) = reason {
            parts.extensions.insert(reason);
        }
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Response::from_parts(parts, ProxyBody::upstream(body)));
        }
        let ((protocols, client), chosen) = asked.zip(hop.upgrade).ok_or(Failure::Switched)?;
        if !headers::was_asked(&protocols, &chosen) {
            return Err(Failure::Switched);
        }
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, chosen);
        self.0.tasks.spawn("socket", tunnel::copy(client, upstream, self.0.stop.clone()));
        Ok(Response::from_parts(parts, ProxyBody::empty()))
    }
}

struct Prepared {
    parts: Parts,
    /// The protocols the client asked for.
    upgrade: Option<HeaderValue>,
}

/// Starts hyper's upstream connections as named tasks that end with the stop.
#[derive(Clone, Debug)]
struct Executor {
    tasks: Tasks,
    stop: Stop,
}

impl hyper::rt::Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for Executor {
    fn execute(&self, connection: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let stop = self.stop.clone();
        self.tasks.spawn("upstream connection", async move {
            stop.or(connection).await;
        });
    }
}

/// A number that nobody can guess and no two processes share; std's hasher is seeded so.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
