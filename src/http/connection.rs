//! One client's connection, from the first byte to the last: TLS if it is to be, HTTP/1 or HTTP/2, its times, its end.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Front;
use super::body::AnswerBody;
use super::delivery::{Delivery, Handover, Way};
use super::exchange::{Exchange, Phase};
use super::interleave::Interleaved;
use super::refusal;
use super::socket::Socket;
use super::tls::Tls;
use crate::proxy::{Caller, Interim, Peer};
use crate::stop::{Stop, Tasks};

/// How long a connection that was told to go may take to be gone. Also how long the client of an event stream may take for
/// what was sent before the stream's end: one that never reads must not use up the grace of a stop.
pub(super) const LAST_WAIT: Duration = Duration::from_secs(1);

/// How old a connection is at least when a stop tells it to go. hyper closes one at once that has said nothing, and its first
/// request may be on its way: whoever was let in would get no answer, where a moment later he would have waited for the next relay.
const FIRST: Duration = Duration::from_secs(1);

/// How long a client may take for its part; see [`Options`](super::Options).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    /// [`Limits::idle`] for connections with event streams that take nothing.
    pub(super) stall: Duration,
}

/// What ends connections, and what runs beside them.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// Ends them between two requests.
    pub(super) drain: Stop,
    /// Ends them wherever they are.
    pub(super) drop: Stop,
    pub(super) tasks: Tasks,
}

/// A client.
pub(super) struct Client {
    pub(super) front: Arc<Front>,
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    /// The address that it connected to, unless by a unix socket.
    pub(super) local: Option<SocketAddr>,
    pub(super) limits: Limits,
    pub(super) ends: Ends,
    /// Shows that the connection is there.
    pub(super) token: TaskTrackerToken,
}

/// A connection of hyper's, which can be told to end after what it has begun.
pub(super) trait Connection: Future<Output = hyper::Result<()>> {
    fn shut_down(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = AnswerBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// hyper is through with it.
    Done,
    /// It was cut off.
    Cut,
    /// The rest is the relay's to write.
    Handed,
}

impl Client {
    /// Serves it to its end, or to where another protocol begins.
    pub(super) async fn serve(self: Arc<Self>, tls: Option<Tls>) {
        match tls {
            None => self.http1(self.socket.clone(), false).await,
            // Boxed, because every connection would be as large as this one is.
            Some(tls) => Box::pin(self.secured(tls)).await,
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn secured(self: Arc<Self>, tls: Tls) {
        tls.never();
    }

    #[cfg(feature = "tls")]
    async fn secured(self: Arc<Self>, tls: Tls) {
        use super::tls::{HANDSHAKE, is_http2};
        let shaken = async {
            match self.socket.first_byte().await? {
                Some(HANDSHAKE) => tls.accept(self.socket.clone()).await.map(Some),
                Some(first) => {
                    tracing::debug!(peer = %self.peer, first, "no TLS came where TLS is spoken");
                    self.say_no_tls(first).await?;
                    Ok(None)
                }
                None => Ok(None),
            }
        };
        // Whoever stops in a handshake has nothing to lose.
        match self.ends.drain.or(timeout(self.limits.head, shaken)).await {
            Some(Ok(Ok(Some(stream)))) if is_http2(&stream) => self.http2(stream).await,
            Some(Ok(Ok(Some(stream)))) => self.http1(stream, true).await,
            Some(Ok(Err(error))) => tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed"),
            Some(Err(_)) => tracing::debug!(peer = %self.peer, "a TLS handshake took too long"),
            Some(Ok(Ok(None))) | None => {}
        }
    }

    /// Tells those who look like HTTP what is wrong.
    #[cfg(feature = "tls")]
    async fn say_no_tls(&self, first: u8) -> std::io::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        if !first.is_ascii_alphabetic() {
            return Ok(());
        }
        self.socket.clone().write_all(&refusal::no_tls()).await?;
        let _ = timeout(LAST_WAIT, self.socket.read_away()).await;
        Ok(())
    }

    async fn http1<S>(self: &Arc<Self>, io: S, is_tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let exchange = Exchange::new(Phase::Answered);
        let service = {
            let (client, exchange) = (self.clone(), exchange.clone());
            service_fn(move |request: Request<Incoming>| {
                let (client, exchange) = (client.clone(), exchange.clone());
                let underway = exchange.ask();
                // HTTP/1.0 has no interim answers (RFC 9110 §15.2).
                let interim = (request.version() == Version::HTTP_11).then(|| exchange.interim());
                // hyper 1.12 takes a bare line feed in trailers for their end and swallows what follows, also a whole
                // request that somebody before the relay waits for an answer to (RFC 9112 §11.2). So none may follow.
                let is_last = request.headers().contains_key(TRANSFER_ENCODING);
                async move {
                    let version = request.version();
                    let (parts, body) = client.answer(request, is_tls, interim).await.into_parts();
                    exchange.settled().await;
                    let mut answer = match body.into_stream() {
                        Ok(stream) => {
                            exchange.hand_over(Handover::new(parts, stream, version));
                            return pending().await;
                        }
                        Err(body) => Response::from_parts(parts, body),
                    };
                    if is_last {
                        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                        exchange.upgrade();
                    }
                    Ok::<_, Infallible>(answer.map(|body| body.holding(underway)))
                }
            })
        };
        let mut builder = http1::Builder::new();
        builder
            // Ours, by what the connection waits for: hyper's is also the longest idle time between two requests.
            .header_read_timeout(None)
            .max_buf_size(refusal::HEAD)
            // By itself hyper looks at the length of a head only while it is not whole.
            .max_header_size(refusal::HEAD)
            // A client that closes its sending side is gone: that is how an abort shows while its answer is awaited.
            .half_close(false);
        let io = TokioIo::new(Interleaved::new(io, exchange.clone()));
        let mut connection = builder.serve_connection(io, service).with_upgrades();
        let end = self.attend(Pin::new(&mut connection), &exchange).await;
        if let (End::Handed, Some(parts), Some(handover)) = (end, connection.into_parts(), exchange.take_over()) {
            let way = Way {
                io: parts.io.into_inner().into_inner(),
                socket: self.socket.clone(),
                is_plain: !is_tls,
                stall: self.limits.stall,
                cut: self.ends.drop.clone(),
                has_more: !parts.read_buf.is_empty(),
            };
            // A task of its own, because this one is as large as what hyper needed.
            let delivery = self.token.task_tracker().track_future(Delivery::new(handover, way));
            self.ends.tasks.spawn("event stream", delivery);
            return;
        }
        // Closing with unread bytes is a reset, which may overtake what was said last.
        let is_unheard = exchange.is_refused() || (self.socket.has_unread() && !self.ends.drain.is_pulled());
        if end == End::Done && !exchange.is_upgraded() && is_unheard {
            let _ = timeout(LAST_WAIT, self.ends.drop.or(self.socket.read_away())).await;
        }
    }

    pub(super) fn answer(
        &self,
        request: Request<Incoming>,
        is_tls: bool,
        interim: Option<Interim>,
    ) -> impl Future<Output = Response<AnswerBody>> + Send {
        let caller = Caller { peer: self.peer, local: self.local, is_tls, interim };
        self.front.answer(request, caller, &self.socket)
    }

    /// Runs a connection, ends it when its client takes too long for its part, and when the relay stops.
    pub(super) async fn attend<C: Connection>(&self, mut connection: Pin<&mut C>, exchange: &Exchange) -> End {
        let peer = self.peer;
        // Set late instead of at each turn: it goes off before anything can be due, and is put off then.
        let mut timer = pin!(sleep(self.rest()));
        let begun = Instant::now();
        let mut cut = pin!(self.ends.drop.pulled());
        let mut drain = pin!(async {
            self.ends.drain.pulled().await;
            sleep_until(begun + FIRST).await;
        });
        let (mut is_draining, mut last) = (false, None);
        loop {
            tokio::select! {
                biased;
                () = cut.as_mut() => return End::Cut,
                ended = poll_fn(|context| match connection.as_mut().poll(context) {
                    Poll::Pending if exchange.is_handed_over() => Poll::Ready(None),
                    polled => polled.map(Some),
                }) => {
                    match ended {
                        None => return End::Handed,
                        Some(Err(error)) => tracing::debug!(%peer, %error, "a connection ended early"),
                        Some(Ok(())) => {}
                    }
                    return End::Done;
                }
                () = drain.as_mut(), if !is_draining => {
                    is_draining = true;
                    last = Some(Instant::now() + LAST_WAIT);
                    timer.as_mut().reset(Instant::now() + LAST_WAIT);
                    connection.as_mut().shut_down();
                }
                () = timer.as_mut() => {
                    let now = Instant::now();
                    if last.is_some_and(|last| last <= now) && exchange.has_only_streams() {
                        return End::Cut;
                    }
                    // What begins from now on is due then at the earliest; a stop does not wait for long.
                    let mut next = now + if is_draining { LAST_WAIT } else { self.rest() };
                    match self.due(exchange) {
                        Some((when, _)) if when > now => next = next.min(when),
                        Some((_, Due::Nothing)) => {
                            tracing::debug!(%peer, "a client takes nothing; its connection is reset");
                            let _ = self.socket.reset_on_close();
                            return End::Cut;
                        }
                        Some((_, Due::Phase(Phase::Head))) => {
                            tracing::debug!(%peer, "a request's head did not end in time");
                            exchange.refuse(&refusal::too_slow(self.limits.head));
                        }
                        Some((_, Due::Phase(Phase::Refused))) => return End::Cut,
                        // Gently, as a request may be on its way; it is answered then.
                        Some((_, Due::Phase(_))) if last.is_none() => {
                            next = now + LAST_WAIT;
                            last = Some(next);
                            connection.as_mut().shut_down();
                        }
                        _ => {}
                    }
                    timer.as_mut().reset(next.min(last.filter(|last| *last > now).unwrap_or(next)));
                }
            }
        }
    }

    /// How long nothing can become due of which nothing is known yet.
    fn rest(&self) -> Duration {
        self.limits.head.min(self.limits.idle).min(self.limits.stall)
    }

    /// What becomes due next, and when.
    fn due(&self, exchange: &Exchange) -> Option<(Instant, Due)> {
        let waits = exchange.waits();
        if let Some((phase @ Phase::Refused, since)) = waits {
            return Some((since + LAST_WAIT, Due::Phase(phase)));
        }
        if let Some(since) = self.socket.blocked_since() {
            let limit = if self.socket.carries_stream() { self.limits.stall } else { self.limits.idle };
            return Some((since + limit, Due::Nothing));
        }
        let (phase, since) = waits?;
        let limit = if phase == Phase::Head { self.limits.head } else { self.limits.idle };
        Some((since + limit, Due::Phase(phase)))
    }
}

/// What a client did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It took nothing of what was to be written.
    Nothing,
    /// It did not end this.
    Phase(Phase),
}
