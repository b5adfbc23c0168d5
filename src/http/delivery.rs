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
mod tests {
    use http::Response;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::super::clients::Clients;
    use super::super::socket::Stream;
    use super::*;
    use crate::event::{Epoch, Event, Form, Origin, Place, Scope, Types, View};
    use crate::hub::Hub;
    use crate::journal::{Batch, Journal, Options};
    use crate::proxy::Peer;
    use crate::stop::Tasks;

    const SOON: Duration = Duration::from_secs(5);

    struct Fixture {
        journal: Arc<Journal>,
        hub: Hub,
        clients: Clients,
        streams: Stop,
        cut: Stop,
    }

    impl Fixture {
        fn new() -> Self {
            let options = Options { bytes: 64 << 20, age: Duration::from_secs(60) };
            let journal = Arc::new(Journal::new(Epoch::new(1), options));
            let (clients, streams, cut) = (Clients::default(), Stop::new(), Stop::new());
            Self { hub: Hub::new(journal.clone(), Tasks::new()), journal, clients, streams, cut }
        }

        fn publish(&self, size: usize) {
            let place = Place { directory: Some("/p".into()), project: None };
            let properties = format!(r#"{{"x":"{}"}}"#, "x".repeat(size));
            let event = Event::made(Origin::State, "a", &place, None, "evt_1", &properties);
            let records = self.journal.append(Batch { events: vec![event], ..Batch::default() }, 0);
            self.hub.publish(records, None);
        }

        fn end(&self) {
            self.streams.pull();
            self.hub.rouse();
        }

        /// With nothing between it and the socket, so that the hub writes too.
        fn deliver_plainly(&self, socket: Socket, stall: Duration) -> JoinHandle<()> {
            let way = Way { io: socket.clone(), socket, is_plain: true, stall, cut: self.cut.clone(), has_more: false };
            self.deliver(way, Version::HTTP_11)
        }

        fn deliver<S>(&self, way: Way<S>, version: Version) -> JoinHandle<()>
        where
            S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        {
            let scope = Scope { view: View::Instance, directory: None, session: None, types: Types::default() };
            let follower = self.hub.follow(scope, None, Form { ids: false, origin: false });
            let place = self.clients.enter(Peer::Unix, None, follower.standing());
            let stream = EventStream::new(follower, place, Duration::from_secs(60), self.streams.clone());
            let (parts, ()) = Response::new(()).into_parts();
            let handover = Handover::new(parts, Box::new(stream), version);
            Tasks::new().spawn("event stream", Delivery::new(handover, way))
        }

        /// The client's end of a pipe that holds `room` bytes.
        fn pipe(&self, room: usize, version: Version) -> (DuplexStream, JoinHandle<()>) {
            let (near, far) = tokio::io::duplex(room);
            let socket = Socket::new(Stream::Unix(UnixStream::pair().unwrap().0), None);
            let way = Way { io: far, socket, is_plain: false, stall: SOON, cut: self.cut.clone(), has_more: false };
            (near, self.deliver(way, version))
        }
    }

    /// Reads up to where there are so many ends.
    async fn until(client: &mut (impl AsyncRead + Unpin), text: &mut String, end: &str, count: usize) {
        while text.matches(end).count() < count {
            let mut byte = [0];
            timeout(SOON, client.read_exact(&mut byte)).await.unwrap_or_else(|_| panic!("{text}")).unwrap();
            text.push(char::from(byte[0]));
        }
    }

    /// What is in whole chunks; there must be nothing else.
    fn unchunked(mut text: &str) -> String {
        let mut all = String::new();
        while !text.is_empty() {
            let (size, rest) = text.split_once("\r\n").unwrap();
            let (data, rest) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
            all.push_str(data);
            text = rest.strip_prefix("\r\n").unwrap();
        }
        all
    }

    #[tokio::test]
    async fn chunks_are_whole_however_little_is_taken_at_once() {
        for room in [1, 2, 3, 7, 60, 4096] {
            let fixture = Fixture::new();
            let (mut client, task) = fixture.pipe(room, Version::HTTP_11);
            let mut head = String::new();
            until(&mut client, &mut head, "\r\n\r\n", 1).await;
            let mut lines = head.lines();
            assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
            assert!(head.contains("transfer-encoding: chunked\r\n") && head.contains("date: "), "{head}");
            let mut body = String::new();
            until(&mut client, &mut body, "\n\n\r\n", 1).await;
            for (count, size) in [0, 10, 300].into_iter().enumerate() {
                fixture.publish(size);
                until(&mut client, &mut body, "\n\n\r\n", count + 2).await;
            }
            let frames = unchunked(&body);
            assert!(frames.starts_with("data: ") && frames.contains("server.connected"), "{frames}");
            assert_eq!(frames.matches("\n\n").count(), 4, "{room}: {frames}");
            // No last chunk: the end is an error to the client.
            fixture.end();
            let mut rest = String::new();
            timeout(SOON, client.read_to_string(&mut rest)).await.unwrap().unwrap();
            assert_eq!(rest, "");
            timeout(SOON, task).await.unwrap().unwrap();
            assert!(fixture.clients.open().is_empty());
        }
    }

    #[tokio::test]
    async fn what_was_published_before_the_end_is_given() {
        let fixture = Fixture::new();
        let (mut client, task) = fixture.pipe(4096, Version::HTTP_11);
        let mut text = String::new();
        until(&mut client, &mut text, "\n\n\r\n", 1).await;
        // Several batches, none of which it has looked at when it is told.
        (0..10).for_each(|_| fixture.publish(50_000));
        fixture.end();
        let mut rest = String::new();
        timeout(SOON, client.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert_eq!(unchunked(&rest).matches("\n\n").count(), 10);
        timeout(SOON, task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn http_1_0_gets_no_chunks() {
        let fixture = Fixture::new();
        let (mut client, _task) = fixture.pipe(100, Version::HTTP_10);
        let mut text = String::new();
        until(&mut client, &mut text, "\r\n\r\n", 1).await;
        assert!(text.contains("connection: close\r\n") && !text.contains("chunked"), "{text}");
        fixture.publish(3);
        let mut body = String::new();
        until(&mut client, &mut body, "xxx\"}}\n\n", 1).await;
        assert!(body.starts_with("data: "), "{body}");
    }

    #[tokio::test]
    async fn ends_with_its_client_and_listens_to_nothing_else() {
        let fixture = Fixture::new();
        let (mut client, task) = fixture.pipe(4096, Version::HTTP_11);
        let mut text = String::new();
        until(&mut client, &mut text, "\n\n\r\n", 1).await;
        client.shutdown().await.unwrap();
        timeout(SOON, task).await.unwrap().unwrap();

        let (mut client, task) = fixture.pipe(4096, Version::HTTP_11);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut text = String::new();
        until(&mut client, &mut text, "\n\n\r\n", 1).await;
        fixture.publish(3);
        until(&mut client, &mut text, "xxx\"}}\n\n\r\n", 1).await;
        drop(client);
        fixture.publish(3);
        timeout(SOON, task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_the_hub_could_not_write_to_the_end_comes_first() {
        let fixture = Fixture::new();
        let (near, mut client) = UnixStream::pair().unwrap();
        let socket = Socket::new(Stream::Unix(near), None);
        socket.carry_stream(SOON).unwrap();
        let task = fixture.deliver_plainly(socket.clone(), SOON);
        let mut text = String::new();
        until(&mut client, &mut text, "\n\n\r\n", 1).await;
        // By and by more than the kernel holds, so that each way of writing stops in the middle once.
        for size in [100, 30_000, 20_000, 50_000, 60_000, 40_000, 10, 70_000] {
            fixture.publish(size);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        assert!(socket.blocked_since().is_some());
        drop(socket);
        let mut rest = vec![0; 64 << 10];
        // Those that waited are written together.
        while text.matches("\n\n").count() < 9 {
            let count = timeout(SOON, client.read(&mut rest)).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&rest[..count]).unwrap());
        }
        fixture.publish(5);
        until(&mut client, &mut text, "\n\n", 10).await;
        fixture.end();
        timeout(SOON, client.read_to_string(&mut text)).await.unwrap().unwrap();
        let body = unchunked(text.split_once("\r\n\r\n").unwrap().1);
        let sizes: Vec<usize> = body.split("\n\n").map(|frame| frame.matches('x').count()).collect();
        // The property is an x too, and the greeting has none; the stream does not end with a whole frame.
        assert_eq!(sizes, [0, 101, 30_001, 20_001, 50_001, 60_001, 40_001, 11, 70_001, 6, 0]);
        timeout(SOON, task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let fixture = Fixture::new();
        let stuck = |stall| {
            let (near, far) = UnixStream::pair().unwrap();
            let socket = Socket::new(Stream::Unix(near), None);
            (far, fixture.deliver_plainly(socket, stall))
        };
        let flood = || (0..40).for_each(|_| fixture.publish(50_000));
        let (_client, task) = stuck(Duration::from_millis(50));
        flood();
        timeout(SOON, task).await.unwrap().unwrap();
        // Whoever takes something now and then stays.
        let (_stays, stays) = stuck(Duration::from_secs(600));
        let (mut reads, slow) = stuck(Duration::from_secs(1));
        flood();
        let mut bytes = vec![0; 60_000];
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            reads.read_exact(&mut bytes).await.unwrap();
        }
        assert!(!slow.is_finished());
        fixture.end();
        fixture.cut.pull();
        timeout(LAST_WAIT / 2, stays).await.unwrap().unwrap();
    }

    #[test]
    fn a_stream_costs_little() {
        // What a client that waits costs besides: the socket, the follower, the register of clients, two timers.
        let size = size_of::<Delivery<Socket>>() + size_of::<EventStream>();
        assert!(size <= 512, "{size}");
    }
}
