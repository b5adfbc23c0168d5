//! An accepted connection that others can still set options on while hyper owns the reading and writing: a request that
//! turns into an event stream needs other limits than one that does not.
//!
//! It also knows what no layer above it can tell: since when the client takes nothing.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::room::Place;

/// Most bytes the kernel holds for one event stream. Without it, clients that never read cost megabytes each (measured:
/// 783 MB for 200 of them), and hyper does not notice, because it stops asking the body.
const STREAM_BUFFER: usize = 64 << 10;

/// Most unsent bytes the kernel takes for a TCP connection. It asks for more when half of them are gone, however large its
/// buffer has grown: so a client that takes this slowly is seen to take something, down to 550 bytes a second with the
/// usual idle time. With [`STREAM_BUFFER`] it asks when a third of that (which the kernel doubles) is gone: 1.4 KB a second
/// with the usual stall time. Not less for streams: what the kernel has taken reaches a client in spite of a stop.
const UNSENT: u32 = 128 << 10;

/// The kernel gives an event stream's client up after so many stall times without a word. Later than the relay itself, which
/// sees whether the client takes anything: the kernel counts what a busy machine dropped and sends it again ever later, so
/// that it would give up clients that read again (seen with a stall time of 2 s and a thousand clients on two busy cores).
const GONE: u32 = 2;

/// How often the kernel asks a silent client whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Since when times are counted. One for all, because every idle client would have its own.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The connection. Clones are the same socket; only one of them may read and write.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: Stream,
    /// Set once and never taken back: on HTTP/1 an event stream is the last answer on its connection.
    carries_stream: AtomicBool,
    /// Milliseconds from [`BEGIN`], plus one, to when the kernel had no room; 0 while it has.
    blocked: AtomicU64,
    /// With the socket and not with the task that serves it: an upgraded connection outlives that.
    _place: Option<Place>,
}

/// What clients connect by.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that does not block, and belongs to no runtime yet.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// Makes it one of the runtime that this is called on.
    pub(super) fn register(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

/// Calls the method that both kinds of stream have.
macro_rules! each {
    ($stream:expr, $name:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($name) => $call,
            Stream::Unix($name) => $call,
        }
    };
}

impl Stream {
    /// The address that the client connected to.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl Socket {
    /// Its place is given back when the socket is closed.
    pub(super) fn new(stream: Stream, place: Option<Place>) -> Self {
        let shared =
            Shared { stream, carries_stream: AtomicBool::new(false), blocked: AtomicU64::new(0), _place: place };
        let socket = Self(Arc::new(shared));
        if socket.is_tcp() {
            // None of these is worth losing a client for.
            let _ = socket.options().set_tcp_nodelay(true);
            let _ = socket.options().set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
            let _ = socket.options().set_tcp_notsent_lowat(UNSENT);
        }
        socket
    }

    /// From now on this connection carries an event stream: the kernel holds little for it, and ends it when the other end
    /// is gone without a word. `stall` is how long it may take nothing, which its task watches by
    /// [`Socket::blocked_since`].
    pub(super) fn carry_stream(&self, stall: Duration) -> io::Result<()> {
        self.0.carries_stream.store(true, Ordering::Relaxed);
        self.options().set_send_buffer_size(STREAM_BUFFER)?;
        if self.is_tcp() {
            self.options().set_tcp_user_timeout(Some(stall * GONE))?;
        }
        Ok(())
    }

    /// Whether it carries an event stream.
    pub(super) fn carries_stream(&self) -> bool {
        self.0.carries_stream.load(Ordering::Relaxed)
    }

    /// Since when something waits to be written that the client does not take.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        let blocked = self.0.blocked.load(Ordering::Relaxed).checked_sub(1)?;
        Some(*BEGIN + Duration::from_millis(blocked))
    }

    /// From now on closing is a reset: for HTTP/1.0, where a plain close would look like a complete answer, and for clients
    /// that take nothing. Unix sockets have no such thing, their end is an end.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        self.options().set_linger(Some(Duration::ZERO))
    }

    /// The first byte that comes, which stays there.
    #[cfg(feature = "tls")]
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        match &self.0.stream {
            Stream::Tcp(stream) => Ok((stream.peek(&mut byte).await? > 0).then_some(byte[0])),
            Stream::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Reads and throws away until the client ends, so that closing does not reset what was written last (RFC 9112 §9.6).
    /// Give it a limit of time.
    pub(super) async fn read_away(&self) -> io::Result<()> {
        let _ = self.options().shutdown(Shutdown::Write);
        let mut bytes = vec![0; 8 << 10];
        loop {
            each!(&self.0.stream, stream => stream.readable().await)?;
            match self.try_read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether something has come that nobody has read.
    pub(super) fn has_unread(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        self.options().peek(&mut byte).is_ok_and(|count| count > 0)
    }

    fn is_tcp(&self) -> bool {
        matches!(self.0.stream, Stream::Tcp(_))
    }

    fn options(&self) -> SockRef<'_> {
        each!(&self.0.stream, stream => SockRef::from(stream))
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(&self.0.stream, stream => stream.try_read(buffer))
    }

    /// Writes what can be written without waiting, on the thread that serves it. Whoever cannot wait for the rest has to see to
    /// it that somebody does.
    pub(super) fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        each!(&self.0.stream, stream => stream.try_write(data))
    }

    fn write_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&Stream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = each!(&self.0.stream, stream => stream.poll_write_ready(context)) else {
                if self.0.blocked.load(Ordering::Relaxed) == 0 {
                    let passed = u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.0.blocked.store(passed.saturating_add(1), Ordering::Relaxed);
                }
                return Poll::Pending;
            };
            ready?;
            match write(&self.0.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.0.blocked.store(0, Ordering::Relaxed);
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(each!(&self.0.stream, stream => stream.poll_read_ready(context)))?;
            let room = buffer.remaining();
            let mut came = None;
            let tried = each!(&self.0.stream, stream => stream.try_io(Interest::READABLE, || {
                let count = stream.try_read_buf(buffer)?;
                came = Some(count);
                // There is nothing more: this saves the next call that would only find that out.
                if (1..room).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            }));
            match (came, tried) {
                (Some(_), _) => return Poll::Ready(Ok(())),
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                (None, _) => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(context, |stream| each!(stream, stream => stream.try_write(data)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(context, |stream| each!(stream, stream => stream.try_write_vectored(data)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.options().shutdown(Shutdown::Write) {
            // The client was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(Stream::Tcp(listener.accept().await.unwrap().0), None), peer)
    }

    fn unix_pair() -> (Socket, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Socket::new(Stream::Unix(near), None), far)
    }

    #[tokio::test]
    async fn a_stream_has_its_own_limits() {
        let (socket, _peer) = pair().await;
        socket.carry_stream(Duration::from_secs(7)).unwrap();
        // The kernel doubles what it is asked for, to count its own part.
        assert_eq!(socket.options().send_buffer_size().unwrap(), 2 * STREAM_BUFFER);
        assert_eq!(socket.options().tcp_user_timeout().unwrap(), Some(Duration::from_secs(14)));
        assert!(socket.options().tcp_nodelay().unwrap() && socket.options().keepalive().unwrap());
        let (socket, _peer) = unix_pair();
        socket.carry_stream(Duration::from_secs(7)).unwrap();
        assert_eq!(socket.options().send_buffer_size().unwrap(), 2 * STREAM_BUFFER);
    }

    async fn talk<P: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket, mut peer: P) {
        socket.carry_stream(Duration::from_secs(7)).unwrap();
        let data: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
        let echoed = async {
            let mut came = vec![0; data.len()];
            peer.read_exact(&mut came).await.unwrap();
            peer.write_all(&came).await.unwrap();
            drop(peer);
        };
        let talked = async {
            socket.write_all(&data).await.unwrap();
            let mut came = Vec::new();
            socket.read_to_end(&mut came).await.unwrap();
            assert!(came == data);
            socket.shutdown().await.unwrap();
        };
        tokio::join!(echoed, talked);
    }

    #[tokio::test]
    async fn reads_and_writes_more_than_the_kernel_holds() {
        let (socket, peer) = pair().await;
        talk(socket, peer).await;
        let (socket, peer) = unix_pair();
        talk(socket, peer).await;
    }

    async fn stalls<P: AsyncRead + Unpin>(mut socket: Socket, mut peer: P) {
        socket.carry_stream(Duration::from_secs(7)).unwrap();
        assert_eq!(socket.blocked_since(), None);
        let data = vec![0; 8 << 20];
        let waited = tokio::time::timeout(Duration::from_millis(200), socket.write_all(&data)).await;
        assert!(waited.is_err());
        assert!(socket.blocked_since().is_some_and(|since| since.elapsed() < Duration::from_secs(5)));
        let mut bytes = vec![0; data.len()];
        let (written, read) = tokio::join!(socket.write(&data), peer.read(&mut bytes));
        assert!(written.unwrap() > 0 && read.unwrap() > 0);
        assert_eq!(socket.blocked_since(), None);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_shows() {
        let (socket, peer) = unix_pair();
        stalls(socket, peer).await;
    }
}
