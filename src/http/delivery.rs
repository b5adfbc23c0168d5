//! An event stream on HTTP/1, written to its client by ourselves.
//!
//! hyper keeps two buffers and the room of its state machine for as long as a connection is there: some 20 KB for a client
//! that waits for the next event. So once the request is read, hyper gives the connection back (see
//! [`Exchange::hand_over`](super::exchange::Exchange::hand_over)), and a task of its own, a few hundred bytes large, writes
//! what the stream gives; while that sleeps, the hub writes what comes by an [`Outlet`]. That is all there is to do: the stream
//! is the last answer on its connection, what the client sends besides is of no interest, and its chunks (RFC 9112 §7.1) are
//! never followed by the last one.
//!
//! HTTP/2 stays with hyper: its streams share a connection whose frames are not ours to write.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut, buf};
use http::header::{CONNECTION, DATE, HeaderValue, TRANSFER_ENCODING};
use http::{Version, response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::poll_write_buf;

use super::connection::LAST_WAIT;
use super::outlet::Outlet;
use super::refusal::{date, write_head};
use super::socket::Socket;
use super::sse::{Ended, EventStream};
use crate::stop::Stop;

/// What of an answer is left to do once hyper is out of the way.
#[derive(Debug)]
pub(super) struct Handover {
    head: Bytes,
    stream: Box<EventStream>,
    is_chunked: bool,
}

impl Handover {
    /// `version` is the request's: HTTP/1.0 knows no chunks, the end of the connection is the end there.
    pub(super) fn new(mut parts: response::Parts, stream: Box<EventStream>, version: Version) -> Self {
        let is_chunked = version == Version::HTTP_11;
        let (name, value) = if is_chunked { (TRANSFER_ENCODING, "chunked") } else { (CONNECTION, "close") };
        parts.headers.insert(name, HeaderValue::from_static(value));
        parts.headers.extend(date().map(|date| (DATE, date)));
        let mut head = BytesMut::new();
        write_head(&mut head, parts.status, &parts.headers);
        Self { head: head.freeze(), stream, is_chunked }
    }
}

/// What a delivery needs besides.
pub(super) struct Way<S> {
    /// Where it writes, and what the client sends comes from.
    pub(super) io: S,
    /// What `io` ends in.
    pub(super) socket: Socket,
    /// Whether `io` is that socket and nothing else, so that the hub can write to it too.
    pub(super) is_plain: bool,
    /// How long the client may take nothing.
    pub(super) stall: Duration,
    /// Cuts it off once the stream was told to end.
    pub(super) cut: Stop,
    /// Whether something came behind the request: see [`Delivery::is_listening`].
    pub(super) has_more: bool,
}

/// Writes a stream until it ends, the client goes or takes nothing for too long.
pub(super) struct Delivery<S> {
    way: Way<S>,
    stream: Box<EventStream>,
    /// What the client did not take at once.
    rest: Option<Box<Rest>>,
    /// How the hub writes while this sleeps.
    outlet: Option<Arc<Outlet>>,
    is_chunked: bool,
    /// Whether the end of what the client sends would be noticed. Whoever sends more behind its request is not listened to
    /// any longer: that stays with the kernel, and the client's going shows when something is written.
    is_listening: bool,
}

/// What is needed only while the client takes nothing. Idle clients are many: they have no room for it.
struct Rest {
    piece: Piece,
    /// Ends when the client has taken nothing for too long.
    stalled: Pin<Box<Sleep>>,
    /// The same once the stream was told to end.
    last: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Why a delivery was over.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the client went: {0}")]
    Gone(#[from] io::Error),
    #[error("the client takes nothing")]
    Stalled,
    #[error("the relay stops, and the client takes nothing")]
    Cut,
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl<S> Delivery<S> {
    pub(super) fn new(handover: Handover, way: Way<S>) -> Self {
        let outlet = way.is_plain.then(|| Arc::new(Outlet::new(way.socket.clone(), handover.is_chunked)));
        if let Some(outlet) = &outlet {
            handover.stream.attach(outlet.clone());
        }
        let mut delivery = Self {
            stream: handover.stream,
            rest: None,
            outlet,
            is_chunked: handover.is_chunked,
            is_listening: !way.has_more,
            way,
        };
        delivery.keep(Piece::plain(handover.head));
        delivery
    }

    /// Keeps what is to be written first.
    fn keep(&mut self, piece: Piece) {
        let (stop, cut) = (self.stream.stop().clone(), self.way.cut.clone());
        let last = Box::pin(async move {
            stop.pulled().await;
            cut.or(sleep(LAST_WAIT)).await;
        });
        self.rest = Some(Box::new(Rest { piece, stalled: Box::pin(sleep(self.way.stall)), last }));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Delivery<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let error = ready!(this.poll_error(context));
        // A plain close would look like a complete answer to HTTP/1.0; and a client that takes nothing is not waited for.
        if matches!(error, Error::Stalled) || !this.is_chunked {
            // Nothing better is left if this fails.
            let _ = this.way.socket.reset_on_close();
        }
        tracing::debug!(peer = %this.stream.peer(), %error, "an event stream ended");
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Delivery<S> {
    fn poll_error(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        if self.is_listening {
            let mut byte = [0];
            let mut came = ReadBuf::new(&mut byte);
            match Pin::new(&mut self.way.io).poll_read(context, &mut came) {
                Poll::Pending => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Ready(Ok(())) if came.filled().is_empty() => {
                    return Poll::Ready(Error::Gone(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(())) => self.is_listening = false,
            }
        }
        if let Some(left) = self.outlet.as_ref().and_then(|outlet| outlet.shut()) {
            self.keep(Piece::plain(left));
        }
        loop {
            if let Some(rest) = &mut self.rest {
                match poll_write(&mut self.way.io, &mut rest.piece, context) {
                    Poll::Pending => return self.poll_patience(context),
                    Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                    Poll::Ready(Ok(())) => self.rest = None,
                }
            }
            let Poll::Ready(data) = self.stream.poll_next(context) else {
                if let Some(outlet) = &self.outlet {
                    outlet.open();
                }
                return Poll::Pending;
            };
            let mut piece = match data {
                Ok(data) if self.is_chunked => Piece::chunk(data),
                Ok(data) => Piece::plain(data),
                Err(ended) => return Poll::Ready(ended.into()),
            };
            match poll_write(&mut self.way.io, &mut piece, context) {
                Poll::Pending => self.keep(piece),
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    /// Ends when the client has taken nothing for too long, which is less during a stop.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let Some(rest) = &mut self.rest else { return Poll::Pending };
        if rest.last.as_mut().poll(context).is_ready() {
            return Poll::Ready(Error::Cut);
        }
        while !self.stream.is_told() {
            ready!(rest.stalled.as_mut().poll(context));
            // It may have taken something since, if not all.
            let since = self.way.socket.blocked_since().unwrap_or_else(Instant::now);
            match since.checked_add(self.way.stall) {
                Some(due) if due > Instant::now() => rest.stalled.as_mut().reset(due),
                _ => return Poll::Ready(Error::Stalled),
            }
        }
        Poll::Pending
    }
}

fn poll_write(
    io: &mut (impl AsyncWrite + Unpin),
    piece: &mut Piece,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while piece.0.has_remaining() {
        if ready!(poll_write_buf(Pin::new(&mut *io), context, &mut piece.0))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
    }
    Pin::new(io).poll_flush(context)
}

/// Data as one chunk.
pub(super) fn chunk(data: &Bytes) -> Bytes {
    let mut piece = Piece::chunk(data.clone()).0;
    piece.copy_to_bytes(piece.remaining())
}

/// Bytes on their way: the size of a chunk, what is in it, and what ends it.
struct Piece(buf::Chain<buf::Chain<Cursor<[u8; SIZE]>, Bytes>, &'static [u8]>);

/// The longest size of a chunk with its line end.
const SIZE: usize = 18;

impl Piece {
    fn chunk(data: Bytes) -> Self {
        let mut size = *b"................\r\n";
        let (mut left, mut begin) = (data.len(), SIZE - 2);
        loop {
            begin -= 1;
            size[begin] = b"0123456789abcdef"[left % 16];
            left /= 16;
            if left == 0 {
                break;
            }
        }
        let mut size = Cursor::new(size);
        size.set_position(begin as u64);
        Self(size.chain(data).chain(b"\r\n"))
    }

    fn plain(data: Bytes) -> Self {
        let mut none = Cursor::new([0; SIZE]);
        none.set_position(SIZE as u64);
        Self(none.chain(data).chain(b""))
    }
}

#[cfg(test)]
mod tests;
