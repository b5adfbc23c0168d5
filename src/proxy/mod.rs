//! The proxy: every request that is not the relay's own goes to opencode and back, untouched but for this hop's fields.
//!
//! It knows nothing of events: whatever happens on that side, a request here must not notice. What passed can be
//! observed (see [`Passed`]), by a queue that is never waited for. The listening side is `http`'s; this module starts
//! where a request has been read and ends where its answer is ready to be written.

mod body;
mod caller;
mod connection;
mod failure;
mod forwarded;
mod framing;
mod gate;
mod headers;
mod interim;
mod limits;
mod observe;
mod options;
mod per_thread;
mod pool;
pub mod query;
mod request;
mod sender;
mod target;
mod traffic;
mod tunnel;
mod turn;
mod upload;

use std::future::ready;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, OptionFuture};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;

pub use self::body::ProxyBody;
pub use self::caller::{Caller, Interim, Peer, TrustedProxy, TrustedProxyError};
pub use self::failure::{Failure, answer};
pub use self::observe::{BODY_LIMIT, DIRECTORIES, Passed, directory};
pub use self::options::Options;
pub use self::target::{Address, AddressError, Target};
pub use self::traffic::{ANSWER_BOUNDS, CODES, Traffic};

use self::body::Upstream;
use self::connection::Connection;
use self::forwarded::{Came, LastSaid};
use self::gate::{Gate, Refusal, Wait};
use self::headers::Seen;
use self::limits::{Place, Places};
use self::observe::{Observer, Watch};
use self::per_thread::PerThread;
use self::pool::Lease;
use self::request::{Prepared, prepare};
use self::sender::{Answered, Sender};
use self::turn::{Turns, turns};
use self::upload::{Outgoing, Pause, Upload};
use crate::stop::{Stop, Tasks};

/// The proxy; cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: Sender,
    observer: Option<Arc<Observer>>,
    answer_timeout: Option<Duration>,
    body_timeout: Duration,
    body: Option<u64>,
    requests: Places,
    sockets: Places,
    counts: PerThread<traffic::Counts>,
    trusted: Vec<TrustedProxy>,
    said: PerThread<LastSaid>,
    /// Our name in `Via`, different in every process: two relays in a row are no loop.
    name: String,
    tasks: Tasks,
    stop: Stop,
}

impl Proxy {
    /// A proxy to `target`. Pull `stop` after the last request was answered: it cuts sockets and upstream connections.
    #[must_use]
    pub fn new(options: Options, target: watch::Receiver<Target>, tasks: Tasks, stop: Stop) -> Self {
        Self(Arc::new(Inner {
            sender: Sender::new(&options, target, &tasks, &stop),
            observer: options.observer.map(|queue| Arc::new(Observer::new(queue))),
            answer_timeout: options.answer_timeout,
            body_timeout: options.body_timeout,
            body: options.body,
            requests: Places::for_requests(options.requests),
            sockets: Places::for_sockets(options.sockets),
            counts: PerThread::new(traffic::Counts::default),
            trusted: options.trusted,
            said: PerThread::new(LastSaid::default),
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

    /// What went through until now. Questions about admission are not in it: they are not the clients' requests.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        traffic::read(self.0.counts.iter(), self.0.requests.taken(), self.0.sockets.taken(), self.lost_reports())
    }

    /// Hands a request on and its answer back. Interim answers go to the caller before this is ready.
    ///
    /// Dropping the future, or the body of its answer, cancels the request at opencode.
    ///
    /// # Errors
    ///
    /// With the answer to give instead, where there is none of opencode's; see [`Failure`].
    pub fn forward<'a>(
        &'a self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> impl Future<Output = Result<Response<ProxyBody>, Box<Response<ProxyBody>>>> + Send + use<'a> {
        let version = request.version();
        let underway = self.0.counts.here().begin();
        let answer = match self.outbound(request, caller) {
            Ok(outbound) => Either::Left(self.exchange(outbound)),
            Err(failure) => Either::Right(ready(Err(failure))),
        };
        answer.map(move |answer| {
            let answer = answer.map_err(|failure| {
                self.0.counts.here().fail(&failure);
                tracing::debug!(%failure, status = failure.status().as_u16(), "a request was not forwarded");
                let mut answer = failure.answer().map(ProxyBody::from);
                if failure.leaves_body() && version < Version::HTTP_2 {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Box::new(answer)
            });
            underway.answered(answer.as_ref().map_or_else(|own| own.status(), Response::status));
            answer
        })
    }

    /// Makes a client's request ready to be sent.
    fn outbound(&self, mut request: Request<Incoming>, caller: &Caller) -> Result<Outbound, Failure> {
        let upgraded = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        let (method, version) = (parts.method.clone(), parts.version);
        let watch = self.watch(&parts);
        let size = body.size_hint();
        let Prepared { upgrade, named, expects } = self.prepare(&mut parts, &size, caller)?;
        let room = self.0.body.map(|limit| (limit, limit));
        if let Some((_, limit)) = room.filter(|&(room, _)| size.exact().is_some_and(|length| length > room)) {
            return Err(Failure::BodyLimit(limit));
        }
        let place = Arc::new(self.0.requests.take()?);
        let upgrade = match upgrade {
            Some(protocols) => Some(Upgrade { protocols, client: upgraded, place: self.0.sockets.take()? }),
            None => None,
        };

        let gate = expects.then(Gate::default);
        let (turn, limit) = self.0.answer_timeout.map(turns).unzip();
        let upload = Upload {
            body: Some(body),
            is_http2: version == Version::HTTP_2,
            watch: watch.clone(),
            wait: gate.clone().map(Wait::at),
            room,
            pause: Pause::of(self.0.body_timeout),
            named,
            turn,
            _place: place.clone(),
        };
        let mut request = Box::new(Request::from_parts(parts, Outgoing::from(upload)));
        let interim = caller.interim.clone().filter(|_| version > Version::HTTP_10);
        interim::hear(&mut request, gate.clone(), interim);
        Ok(Outbound { request, limit, watch, gate, method, upgrade, place })
    }

    /// Sends a request and makes its answer the client's.
    async fn exchange(&self, outbound: Outbound) -> Result<Response<ProxyBody>, Failure> {
        let Outbound { request, limit, watch, gate, method, upgrade, place } = outbound;
        let (response, connection) = self.send_within(limit, request).await?;
        if let Some(watch) = watch {
            watch.answered(response.status());
        }
        // From here on the body is not let through any more: the client would be asked for it behind its answer.
        let refusal = gate.and_then(|gate| gate.refuse());
        self.hand_back(response, connection, Asked { method, upgrade, place: Some(place), refusal })
    }

    /// Asks opencode a question in a client's name: `GET` of `target` (path and query) with the client's own headers,
    /// less those that would change the form of the answer.
    ///
    /// It needs no place among the requests, so that whoever fills those shuts nobody out of the event streams, and has
    /// no limit in time: whoever asks decides how long.
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
        const NOT_ASKED: [HeaderName; 13] = [
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
            http::header::TE,
            UPGRADE,
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
        self.prepare(&mut parts, &SizeHint::with_exact(0), caller)?;
        let (response, connection) =
            self.0.sender.send(Box::new(Request::from_parts(parts, Outgoing::empty()))).await?;
        self.hand_back(response, connection, Asked { method: Method::GET, upgrade: None, place: None, refusal: None })
    }

    fn watch(&self, parts: &Parts) -> Option<Watch> {
        self.0.observer.as_ref()?.watch(&parts.method, &parts.uri, &parts.headers)
    }

    fn prepare(&self, parts: &mut Parts, body: &SizeHint, caller: &Caller) -> Result<Prepared, Failure> {
        let came = Came {
            peer: caller.peer,
            is_tls: caller.is_tls,
            is_trusted: self.0.trusted.iter().any(|trusted| trusted.is(caller.peer)),
            version: parts.version,
            via: &self.0.name,
        };
        prepare(parts, body, &came, self.0.said.here())
    }

    /// Sends a prepared request and waits for its answer, but not beyond the limit on opencode's silence.
    async fn send_within(&self, limit: Option<Turns>, request: Box<Request<Outgoing>>) -> Result<Answered, Failure> {
        // Boxed, because most relays have no limit.
        let mut silence = OptionFuture::from(limit.map(|turns| Box::pin(turns.silence())));
        tokio::select! {
            biased;
            answered = self.0.sender.send(request) => answered,
            Some(limit) = &mut silence => Err(Failure::AnswerTimeout(limit)),
        }
    }

    /// Who moves the bytes of a connection whose answer has begun: whoever reads that, unless the request is still on its
    /// way. That goes on whether or not the client takes the answer meanwhile, so it gets a task of its own.
    fn lease(&self, mut connection: Connection, place: Option<&Arc<Place>>) -> Option<Lease> {
        let pool = self.0.sender.pool().clone();
        // The request's body holds it too.
        if place.is_none_or(|place| Arc::strong_count(place) == 1) {
            return Some(Lease::new(connection, pool));
        }
        let stop = self.0.stop.clone();
        self.0.tasks.spawn("upstream connection", async move {
            if stop.or(connection.settle()).await == Some(true) {
                pool.put(connection);
            }
        });
        None
    }

    /// Makes opencode's answer one that can be handed back; a 101 also starts the tunnel.
    fn hand_back(
        &self,
        mut response: Response<Incoming>,
        connection: Connection,
        asked: Asked,
    ) -> Result<Response<ProxyBody>, Failure> {
        let upstream = hyper::upgrade::on(&mut response);
        let (mut parts, body) = response.into_parts();
        let (written, hop) = Seen::of(&parts.headers).take(&mut parts.headers);
        framing::of_answer(&mut parts.headers, written, parts.status, &asked.method, &body.size_hint())
            .map_err(|framing::StillCoded| Failure::Coding)?;
        parts.version = Version::HTTP_11;
        let reason = parts.extensions.remove::<ReasonPhrase>();
        parts.extensions.clear();
        if let Some(reason) = reason {
            parts.extensions.insert(reason);
        }
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            if asked.refusal.is_some() {
                parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let lease = self.lease(connection, asked.place.as_ref());
            let body =
                Upstream { body, lease, broken: None, named: hop.named, _place: asked.place, _refusal: asked.refusal };
            return Ok(Response::from_parts(parts, body.into()));
        }
        // Nobody may change the protocol in the middle of a request (RFC 9110 §7.8), asked or not.
        if asked.refusal.is_some() {
            return Err(Failure::Switched);
        }
        let (upgrade, chosen) = asked.upgrade.zip(hop.upgrade).ok_or(Failure::Switched)?;
        if !headers::was_asked(&upgrade.protocols, &chosen) {
            return Err(Failure::Switched);
        }
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, chosen);
        let tunnel = tunnel::copy(upgrade.client, connection.upgrade(upstream), upgrade.place, self.0.stop.clone());
        self.0.tasks.spawn("socket", tunnel);
        Ok(Response::from_parts(parts, ProxyBody::empty()))
    }
}

/// A request that is ready to be sent, and what is kept of it until its answer comes.
struct Outbound {
    /// Boxed, because every future that it goes through has room for it.
    request: Box<Request<Outgoing>>,
    limit: Option<Turns>,
    watch: Option<Watch>,
    gate: Option<Gate>,
    method: Method,
    upgrade: Option<Upgrade>,
    place: Arc<Place>,
}

/// What there is to know of a request when its answer is handed back.
struct Asked {
    method: Method,
    upgrade: Option<Upgrade>,
    place: Option<Arc<Place>>,
    /// Set if the client's body was not let through.
    refusal: Option<Refusal>,
}

/// A request for another protocol.
struct Upgrade {
    protocols: HeaderValue,
    /// The client's connection, once it has its 101.
    client: OnUpgrade,
    place: Place,
}

/// A number that nobody can guess and no two processes share; std's hasher is seeded so.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
