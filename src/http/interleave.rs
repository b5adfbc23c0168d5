//! The connection as hyper's HTTP/1 sees it: hyper's bytes go through, and the relay's own go out between hyper's messages.
//!
//! hyper calls `poll_flush` when it has nothing left to write, and does so each time its connection is polled: nowhere else
//! is it certain that no message of hyper's is half written. Two more things follow from hyper 1.12's dispatcher: the
//! final head is written as soon as the service returned it, so the service waits for [`Exchange::settled`]; and hyper's
//! own 100 may come while a message of ours is half written, so that one is finished first.
//!
//! hyper refuses what it cannot read as a request with an empty body. It writes that while no answer is underway, when it
//! writes nothing else; so it can be told from any answer, and ours goes out instead.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::exchange::{Exchange, Phase, State};
use super::refusal;

/// A connection with the relay's own messages in between.
#[derive(Debug)]
pub(super) struct Interleaved<S> {
    inner: S,
    exchange: Exchange,
}

impl<S> Interleaved<S> {
    pub(super) fn new(inner: S, exchange: Exchange) -> Self {
        Self { inner, exchange }
    }

    pub(super) fn into_inner(self) -> S {
        self.inner
    }
}

/// Writes the relay's own messages to the end.
fn write_own<S: AsyncWrite + Unpin>(
    inner: &mut S,
    state: &mut State,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if state.own.is_empty() {
        return Poll::Ready(Ok(()));
    }
    while !state.own.is_empty() {
        let count = ready!(Pin::new(&mut *inner).poll_write(context, &state.own))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        state.own.advance(count);
        state.begun = true;
    }
    state.begun = false;
    // The service may wait for this.
    context.waker().wake_by_ref();
    Poll::Ready(Ok(()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Interleaved<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut state = this.exchange.lock();
        if state.phase == Phase::Refused {
            ready!(write_own(&mut this.inner, &mut state, context))?;
            // An end: hyper closes.
            return Poll::Ready(Ok(()));
        }
        drop(state);
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            let mut state = this.exchange.lock();
            if state.phase == Phase::Idle {
                state.enter(Phase::Head);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Interleaved<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut state = this.exchange.lock();
        if state.begun {
            ready!(write_own(&mut this.inner, &mut state, context))?;
        }
        match (state.phase, data) {
            (Phase::Idle | Phase::Head, [head, rest @ ..]) if rest.iter().all(|slice| slice.is_empty()) => {
                if let Some(message) = refusal::instead_of(head) {
                    state.refuse(&message);
                    return Poll::Ready(Ok(head.len()));
                }
            }
            // hyper has more to say, but the connection ends here.
            (Phase::Refused, _) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            _ => {}
        }
        drop(state);
        Pin::new(&mut this.inner).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut state = this.exchange.lock();
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        ready!(write_own(&mut this.inner, &mut state, context))?;
        match state.phase {
            Phase::Answered => state.enter(Phase::Idle),
            Phase::Handing => state.enter(Phase::Handed),
            _ => {}
        }
        drop(state);
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(write_own(&mut this.inner, &mut this.exchange.lock(), context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Request, Response, StatusCode};
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::proxy::Interim;
    use crate::stop::Tasks;

    const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\nx-byte: \u{e9}\r\n\r\n";

    fn hint(interim: &Interim) {
        let mut fields = HeaderMap::new();
        fields.append("link", "</a>".parse().unwrap());
        fields.append("x-byte", http::HeaderValue::from_bytes("\u{e9}".as_bytes()).unwrap());
        fields.append("link", "</b>".parse().unwrap());
        interim(StatusCode::EARLY_HINTS, &fields);
    }

    /// hyper's server on one end of a pipe that holds `room` bytes; the other end.
    fn serve<F, A>(room: usize, answer: F) -> DuplexStream
    where
        F: Fn(Request<Incoming>, Interim) -> A + Send + Clone + 'static,
        A: Future<Output = ()> + Send,
    {
        let (near, far) = tokio::io::duplex(room);
        let exchange = Exchange::new(Phase::Answered);
        let io = TokioIo::new(Interleaved::new(far, exchange.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let (exchange, answer) = (exchange.clone(), answer.clone());
            let underway = exchange.ask();
            let interim = exchange.interim();
            async move {
                answer(request, interim.clone()).await;
                exchange.settled().await;
                // Too late for this one, and for any other.
                hint(&interim);
                drop(underway);
                hint(&interim);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"final"))))
            }
        });
        Tasks::new().spawn("server", async move {
            let _ = http1::Builder::new().auto_date_header(false).serve_connection(io, service).await;
        });
        near
    }

    async fn talk(pipe: DuplexStream, request: &str) -> String {
        let mut text = String::new();
        let (mut read, mut write) = tokio::io::split(pipe);
        let talked = async {
            let (read, written) = tokio::join!(read.read_to_string(&mut text), write.write_all(request.as_bytes()));
            read.unwrap();
            written.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(5), talked).await.unwrap_or_else(|_| panic!("no end"));
        text
    }

    const FINAL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal";
    const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nfinal";

    #[tokio::test]
    async fn interim_answers_come_whole_and_before_the_final_one() {
        for room in [1, 3, 7, 60, 4096] {
            let pipe = serve(room, |_, interim| async move { hint(&interim) });
            let requests = "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nconnection: close\r\n\r\n";
            assert_eq!(talk(pipe, requests).await, [EARLY, FINAL, EARLY, LAST].concat(), "{room}");
        }
    }

    #[tokio::test]
    async fn another_task_may_send_them() {
        let pipe = serve(4096, |_, interim| async move {
            let sent = Tasks::new().spawn("hint", async move {
                // By then the connection's task waits for nothing but this.
                tokio::time::sleep(Duration::from_millis(20)).await;
                hint(&interim);
                std::future::pending::<()>().await;
            });
            let _ = tokio::time::timeout(Duration::from_millis(200), sent).await;
        });
        let (mut near, mut text) = (pipe, vec![0; EARLY.len()]);
        near.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
        // At once, not with the final answer.
        let early = tokio::time::timeout(Duration::from_millis(150), near.read_exact(&mut text)).await;
        early.unwrap().unwrap();
        assert_eq!(text, EARLY.as_bytes());
        assert_eq!(talk(near, "").await, LAST);
    }

    #[tokio::test]
    async fn they_do_not_mix_with_the_100_of_hyper() {
        for room in [1, 3, 7, 60, 4096] {
            let pipe = serve(room, |request, interim| async move {
                hint(&interim);
                // Lets a part of it be written before the body is asked for.
                tokio::task::yield_now().await;
                assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "ok");
                hint(&interim);
            });
            let request = "POST / HTTP/1.1\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nok";
            let text = talk(pipe, request).await;
            let rest = text.replacen("HTTP/1.1 100 Continue\r\n\r\n", "", 1);
            assert_ne!(rest, text);
            assert_eq!(rest, [EARLY, EARLY, LAST].concat(), "{room}");
        }
    }

    #[tokio::test]
    async fn a_flood_of_them_is_bounded() {
        let pipe = serve(1 << 20, |_, interim| async move {
            for _ in 0..100_000 {
                hint(&interim);
            }
        });
        let text = talk(pipe, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
        let count = text.matches("103 Early Hints").count();
        assert!((500..2_000).contains(&count), "{count}");
    }
}
