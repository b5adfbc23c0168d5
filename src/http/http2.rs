//! HTTP/2 towards clients, on TLS only: with it a browser may have more than six event streams of one host.
//!
//! What differs from HTTP/1: there are no interim answers (hyper has no way to send them) and no upgrades (RFC 8441 is not
//! offered, so browsers open WebSockets on a connection of their own). A stream that the relay ends is reset, never ended.
//! The stall limit is the connection's: it counts what TCP does not take. A client that leaves one stream alone while it
//! reads others is not cut off for it, and hyper asks that stream's body for nothing more. It costs what the flow control
//! of the stream lets out, [`SEND_BUFFER`] and one batch of frames: 116 KB each were measured for 100 streams stuck at the
//! usual window.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::{COOKIE, HOST, HeaderMap, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_rustls::server::TlsStream;

use super::body::AnswerBody;
use super::connection::{Client, Connection};
use super::exchange::{Exchange, Phase};
use super::refusal::HEAD;
use super::socket::Socket;
use crate::stop::{Stop, Tasks};

/// Most requests at a time on one connection, event streams among them; further ones wait at the client.
const STREAMS: u32 = 200;

/// Most bytes of a request's fields, as HTTP/2 counts them (RFC 9113 §6.5.2); more get 431 from h2.
const FIELDS: u32 = HEAD as u32;

/// Most bytes of one answer that wait for the client's flow control.
const SEND_BUFFER: usize = 64 << 10;

/// Most bytes of requests' bodies that may come before opencode takes them: of one, and of all on a connection.
const WINDOW: u32 = 256 << 10;
const WINDOWS: u32 = 1 << 20;

/// How often a client is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Most streams that a client may have reset before the relay has looked at them ("rapid reset", CVE-2023-44487), and most
/// that the relay may have reset for the client's mistakes; then the connection is closed. h2's own numbers.
const RESETS: usize = 20;
const MISTAKES: usize = 1024;

/// Starts what hyper runs for each request.
#[derive(Clone, Debug)]
struct Executor {
    tasks: Tasks,
    /// Pulled with the end of the connection.
    stop: Stop,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, request: F) {
        let stop = self.stop.clone();
        self.tasks.spawn("http2 request", async move {
            stop.or(request).await;
        });
    }
}

/// Pulls the stop when the connection ends, however that is.
struct Pull(Stop);

impl Drop for Pull {
    fn drop(&mut self) {
        self.0.pull();
    }
}

impl<I, S> Connection for http2::Connection<I, S, Executor>
where
    S: hyper::service::HttpService<Incoming, ResBody = AnswerBody, Error = Infallible>,
    S::Future: Send + 'static,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Client {
    pub(super) async fn http2(self: &Arc<Self>, io: TlsStream<Socket>) {
        let exchange = Exchange::new(Phase::Idle);
        let pull = Pull(Stop::new());
        let executor = Executor { tasks: self.ends.tasks.clone(), stop: pull.0.clone() };
        let service = {
            let (client, exchange) = (self.clone(), exchange.clone());
            service_fn(move |mut request: Request<Incoming>| {
                let client = client.clone();
                let underway = exchange.ask();
                as_in_http1(&mut request);
                async move {
                    let answer = client.answer(request, true, None).await;
                    Ok::<_, Infallible>(answer.map(|body| body.holding(underway)))
                }
            })
        };
        let mut builder = http2::Builder::new(executor);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(FIELDS)
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(MISTAKES);
        self.attend(pin!(builder.serve_connection(TokioIo::new(io), service)), &exchange).await;
    }
}

/// Puts into the fields what HTTP/1 has there: the host (RFC 9113 §8.3.1), and all cookies in one line (§8.2.3).
fn as_in_http1(request: &mut Request<Incoming>) {
    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let fields = request.headers_mut();
    if let Some(host) = host {
        // `:authority` wins over a field that says something else.
        fields.insert(HOST, host);
    }
    join_cookies(fields);
}

fn join_cookies(fields: &mut HeaderMap) {
    let mut lines = fields.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        fields.insert(COOKIE, joined);
    }
}
