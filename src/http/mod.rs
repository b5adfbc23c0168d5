//! The front: what clients connect to. Event streams and `/_relay/…` are answered here, everything else is proxied.
//!
//! It follows the hub and never feeds it; it hands requests to the proxy and never looks into them.

mod admission;
mod body;
mod clients;
mod connection;
mod credentials;
mod delivery;
mod exchange;
mod exposition;
mod host;
#[cfg(feature = "tls")]
mod http2;
mod interleave;
mod joint;
mod listen;
mod origins;
mod outlet;
mod page;
mod passed;
mod refusal;
mod relay;
mod room;
mod server;
mod socket;
mod sse;
mod strict;
mod threads;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod unix;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{HeaderValue, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tracing::Level;

pub use self::clients::{Client, Clients};
pub use self::credentials::Credentials;
pub use self::exposition::Exposition;
pub use self::listen::{Endpoint, EndpointError, ListenError, Listener};
pub use self::passed::{Named, Passed, PassedError};
pub use self::relay::{Metrics, Ready, Status};
pub use self::room::Connections;
pub use self::server::serve;
pub use self::threads::Threads;
pub use self::tls::{Tls, TlsError};
pub use self::unix::UnixError;

use self::admission::{Admission, Grant, Refusal, Wants};
use self::body::AnswerBody;
use self::host::Hosts;
use self::relay::{Page, Pages};
use self::socket::Socket;
use self::sse::Wish;
use crate::event::View;
use crate::hub::Hub;
use crate::proxy::{Caller, Proxy, ProxyBody, TrustedProxy, answer};
use crate::stop::Stop;

/// The front's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// The password opencode was started with, if the relay knows it: it admits clients while opencode is down.
    pub credentials: Option<Credentials>,
    /// A client of a stream that takes nothing for so long is cut off.
    pub stall_timeout: Duration,
    /// The pause between the data heartbeats of a stream; opencode's is 10 s, and clients give up after 20 s of silence.
    pub heartbeat: Duration,
    /// How long requests may go on once the relay stops; then they are cut off.
    pub grace: Duration,
    /// Most connections at a time; further callers wait in the kernel's backlog.
    pub connections: usize,
    /// Most connections of one client address (IPv6: of a /64) at a time; more are closed at once. Not for unix sockets.
    pub connections_per_address: Option<usize>,
    /// How long a request's head, or a TLS handshake, may take; then it is answered with 408 and the connection closed.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests, or take nothing of an answer; then it is closed. Not for
    /// event streams (see `stall_timeout`) and upgraded connections.
    pub idle_timeout: Duration,
    /// Proxies in front of the relay, to which `connections_per_address` does not apply.
    pub trusted: Vec<TrustedProxy>,
    /// Names by which browsers may reach the relay's own pages and streams while opencode has no password, besides
    /// `localhost` and the addresses it listens on. `*` is any.
    pub allowed_hosts: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            stall_timeout: Duration::from_secs(30),
            heartbeat: sse::HEARTBEAT,
            grace: Duration::from_secs(10),
            connections: 16384,
            connections_per_address: Some(8192),
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            trusted: Vec::new(),
            allowed_hosts: Vec::new(),
        }
    }
}

/// What the front is made of.
pub struct Parts {
    /// Where the streams come from.
    pub hub: Hub,
    /// Where everything else goes.
    pub proxy: Proxy,
    /// Whether this opencode has `/api/event`; until it is set the path is proxied like any other.
    pub api_event: Arc<AtomicBool>,
    /// Counts the streams; keep a clone to show it.
    pub clients: Clients,
    /// Counts the connections; keep a clone to show it.
    pub connections: Connections,
    /// Told the directory of every client that is admitted to a stream: an instance runs there.
    pub admitted: Admitted,
    /// Makes `/_relay/status`.
    pub status: Status,
    /// Decides about `/_relay/ready`.
    pub ready: Ready,
    /// Makes `/_relay/metrics`.
    pub metrics: Metrics,
    /// The settings.
    pub options: Options,
}

/// Takes the directory of a client that was admitted; called on its connection's task, must not block.
pub type Admitted = Arc<dyn Fn(Arc<str>) + Send + Sync>;

/// Answers requests.
pub(crate) struct Front {
    hub: Hub,
    proxy: Proxy,
    admission: Admission,
    api_event: Arc<AtomicBool>,
    clients: Clients,
    admitted: Admitted,
    pages: Pages,
    stall_timeout: Duration,
    heartbeat: Duration,
    /// Ends the event streams.
    streams: Stop,
}

/// Who answers a request.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    /// A stream; `session` is the raw segment of the path.
    Stream {
        view: View,
        session: Option<&'a str>,
    },
    Page(Page),
    /// A path of ours with a method that it does not have.
    WrongMethod,
    /// A path of ours that there is not.
    NoPage,
    Proxy,
}

fn route<'a>(method: &Method, path: &'a str, has_api: bool) -> Route<'a> {
    if let Some(rest) = path.strip_prefix("/_relay").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        // opencode alone knows which origins it allows, whatever path a browser asks about.
        if *method == Method::OPTIONS {
            return Route::Proxy;
        }
        return match Page::of(rest) {
            Some(page) if matches!(*method, Method::GET | Method::HEAD) => Route::Page(page),
            Some(_) => Route::WrongMethod,
            None => Route::NoPage,
        };
    }
    if *method != Method::GET {
        return Route::Proxy;
    }
    let stream = |view| Route::Stream { view, session: None };
    match path {
        "/event" => stream(View::Instance),
        "/global/event" => stream(View::Global),
        "/api/event" if has_api => stream(View::Api),
        _ => match path.strip_prefix("/session/").and_then(|rest| rest.strip_suffix("/event")) {
            Some(session) if !session.is_empty() && !session.contains('/') => {
                Route::Stream { view: View::Session, session: Some(session) }
            }
            _ => Route::Proxy,
        },
    }
}

impl Front {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            admission: Admission::new(
                parts.proxy.clone(),
                parts.options.credentials,
                Hosts::new(parts.options.allowed_hosts),
            ),
            hub: parts.hub,
            proxy: parts.proxy,
            api_event: parts.api_event,
            clients: parts.clients,
            admitted: parts.admitted,
            pages: Pages { status: parts.status, ready: parts.ready, metrics: parts.metrics },
            stall_timeout: parts.options.stall_timeout,
            heartbeat: parts.options.heartbeat,
            streams: Stop::new(),
        }
    }

    /// Ends the event streams, and what waits to become one.
    fn end_streams(&self) {
        self.streams.pull();
        self.hub.rouse();
    }

    /// Answers one request of the connection `socket`. Every request in flight has room for this future, so what it is made
    /// of is put together with combinators: an `async` block would have room for each of its parts twice. Logs never show queries: they can hold `auth_token`.
    fn answer<'a>(
        &'a self,
        request: Request<Incoming>,
        caller: Caller,
        socket: &'a Socket,
    ) -> impl Future<Output = Response<AnswerBody>> + Send + 'a {
        let (version, peer) = (request.version(), caller.peer);
        let (method, path) = (request.method(), request.uri().path());
        let is_proxied = strict::check(&request).is_ok() && self.route(method, path) == Route::Proxy;
        let told = tracing::enabled!(Level::DEBUG).then(|| (method.clone(), path.to_owned()));
        let response = if is_proxied {
            Either::Left(self.forward(request, &caller))
        } else {
            // Boxed, because every request would be as large as these are.
            Either::Right(Box::pin(self.serve(request, caller, socket)))
        };
        response.map(move |response| {
            if let Some((method, path)) = told {
                tracing::debug!(%method, path, status = response.status().as_u16(), %peer, "answered");
            }
            if version == Version::HTTP_10 {
                response.map(|body| body.reset_on_error(socket.clone()))
            } else {
                response
            }
        })
    }

    fn route<'a>(&self, method: &Method, path: &'a str) -> Route<'a> {
        route(method, path, self.api_event.load(Ordering::Relaxed))
    }

    /// Answers any request, also those that are not for the proxy.
    async fn serve(&self, request: Request<Incoming>, caller: Caller, socket: &Socket) -> Response<AnswerBody> {
        if let Err(fault) = strict::check(&request) {
            tracing::debug!(peer = %caller.peer, %fault, "a request was refused by its head");
            return fault.answer(request.version());
        }
        match self.route(request.method(), request.uri().path()) {
            Route::Proxy => self.forward(request, &caller).await,
            Route::Stream { view, session } => self.stream(view, session, &request, &caller, socket).await,
            Route::Page(page) => self.page(page, &request, &caller).await.map(AnswerBody::from),
            Route::WrongMethod => {
                let message = "the relay's own pages can only be read; use GET";
                let refusal = own(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowedError", message);
                self.refuse(refusal, &request, &caller).await
            }
            Route::NoPage => {
                let message = "the relay has no such page; there are /_relay/, /_relay/health, /_relay/metrics, \
                               /_relay/ready and /_relay/status";
                self.refuse(own(StatusCode::NOT_FOUND, "NotFoundError", message), &request, &caller).await
            }
        }
    }

    fn forward<'a>(
        &'a self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> impl Future<Output = Response<AnswerBody>> + Send + use<'a> {
        let origins: Vec<HeaderValue> = request.headers().get_all(ORIGIN).iter().cloned().collect();
        self.proxy.forward(request, caller).map(|answer| {
            let answer = answer.unwrap_or_else(|own| {
                let page = origins.into_iter().map(|origin| (ORIGIN, origin)).collect();
                *self.admission.readable(own, &page)
            });
            answer.map(AnswerBody::from)
        })
    }

    /// Asks opencode, but not beyond a stop: what it would admit to has ended then.
    async fn admit(&self, wants: Wants, request: &Request<Incoming>, caller: &Caller) -> Result<Grant, Refusal> {
        let verdict = self.admission.admit(wants, request.uri(), request.headers(), caller);
        self.streams.or(verdict).await.unwrap_or_else(|| Err(stopping()))
    }

    /// Gives a refusal of the relay's own to those who may know that much, with the CORS fields that let a page read it.
    async fn refuse(
        &self,
        mut refusal: Response<AnswerBody>,
        request: &Request<Incoming>,
        caller: &Caller,
    ) -> Response<AnswerBody> {
        match self.admit(Wants::Server, request, caller).await {
            Ok(grant) => {
                refusal.headers_mut().extend(grant.cors);
                refusal
            }
            Err(refused) => (*refused).map(AnswerBody::from),
        }
    }

    async fn page(&self, page: Page, request: &Request<Incoming>, caller: &Caller) -> Response<ProxyBody> {
        let cors = if page.is_guarded() {
            match self.admit(Wants::Server, request, caller).await {
                Ok(grant) => grant.cors,
                Err(refusal) => return *refusal,
            }
        } else {
            HeaderMap::new()
        };
        let mut response = page.answer(&self.pages, request.uri(), request.headers()).map(ProxyBody::from);
        response.headers_mut().extend(cors);
        response
    }

    async fn stream(
        &self,
        view: View,
        session: Option<&str>,
        request: &Request<Incoming>,
        caller: &Caller,
        socket: &Socket,
    ) -> Response<AnswerBody> {
        let (uri, headers) = (request.uri(), request.headers());
        let wants = match view {
            View::Instance | View::Session => Wants::Instance,
            View::Global => Wants::Server,
            View::Api => Wants::Api,
        };
        let grant = match self.admit(wants, request, caller).await {
            Ok(grant) => grant,
            Err(refusal) => return (*refusal).map(AnswerBody::from),
        };
        let wish = match Wish::read(view, session, uri, headers) {
            Ok(wish) => wish,
            Err(error) => {
                let mut refusal = own(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string());
                refusal.headers_mut().extend(grant.cors);
                return refusal;
            }
        };
        if let Err(error) = socket.carry_stream(self.stall_timeout) {
            tracing::debug!(peer = %caller.peer, %error, "a stream's socket keeps its usual limits");
        }
        if let Some(directory) = &grant.directory {
            (self.admitted)(directory.clone());
        }
        let directory = grant.directory.filter(|_| view == View::Instance);
        sse::open(self, wish, directory, caller.peer, grant.cors)
    }
}

fn stopping() -> Refusal {
    let message = "the relay is stopping; try again in a moment";
    let mut refusal = answer(StatusCode::SERVICE_UNAVAILABLE, "RelayStoppingError", message).map(ProxyBody::from);
    refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Box::new(refusal)
}

fn own(status: StatusCode, name: &str, message: &str) -> Response<AnswerBody> {
    answer(status, name, message).map(|body| ProxyBody::from(body).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let to = |method: &str, path| route(&method.parse().unwrap(), path, true);
        let stream = |view| Route::Stream { view, session: None };
        assert_eq!(to("GET", "/event"), stream(View::Instance));
        assert_eq!(to("GET", "/global/event"), stream(View::Global));
        assert_eq!(to("GET", "/api/event"), stream(View::Api));
        assert_eq!(to("GET", "/session/ses_1/event"), Route::Stream { view: View::Session, session: Some("ses_1") });
        assert_eq!(route(&Method::GET, "/api/event", false), Route::Proxy);
        for path in ["/", "/event/", "/events", "/session//event", "/session/a/b/event", "/_relayed", "/session/event"]
        {
            assert_eq!(to("GET", path), Route::Proxy, "{path}");
        }
        for method in ["HEAD", "POST", "OPTIONS"] {
            assert_eq!(to(method, "/event"), Route::Proxy, "{method}");
        }
        assert_eq!(to("GET", "/_relay/health"), Route::Page(Page::Health));
        assert_eq!(to("POST", "/_relay/status"), Route::WrongMethod);
        assert_eq!(to("OPTIONS", "/_relay/status"), Route::Proxy);
        assert_eq!(to("GET", "/_relay/"), Route::Page(Page::Live));
        assert_eq!(to("GET", "/_relay"), Route::Page(Page::Slashless));
        for path in ["/_relay/other", "/_relay/health/"] {
            assert_eq!(to("GET", path), Route::NoPage, "{path}");
        }
    }
}
