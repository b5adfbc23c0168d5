//! An accepted connection that its handlers can still set options on: hyper owns the reading and writing, and a
//! request that turns into an event stream needs other limits than one that does not.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most bytes the kernel holds for one event stream. Without it, clients that never read cost megabytes each (measured:
/// 783 MB for 200 of them), and hyper does not notice, because it stops asking the body.
const STREAM_BUFFER: usize = 64 << 10;

/// How often the kernel asks a silent client whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Most bytes taken in one read; a read has to clear this much memory first.
const READ: usize = 64 << 10;

/// The connection. Clones are the same socket; only one of them may read and write.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// Set once and never taken back: an event stream is the last answer on its connection.
    carries_stream: Arc<AtomicBool>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        let socket = Self { stream: Arc::new(stream), carries_stream: Arc::default() };
        // None of these is worth losing a client for.
        let _ = socket.stream.set_nodelay(true);
        let _ = socket.options().set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        socket
    }

    /// From now on this connection carries an event stream: the kernel holds little for it, and ends it when the client
    /// takes nothing for `stall`.
    pub(super) fn carry_stream(&self, stall: Duration) -> io::Result<()> {
        self.carries_stream.store(true, Ordering::Relaxed);
        self.options().set_send_buffer_size(STREAM_BUFFER)?;
        self.options().set_tcp_user_timeout(Some(stall))
    }

    /// Whether it carries an event stream.
    pub(super) fn carries_stream(&self) -> bool {
        self.carries_stream.load(Ordering::Relaxed)
    }

    /// From now on closing is a reset: for HTTP/1.0, where a plain close would look like a complete answer.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        self.options().set_linger(Some(Duration::ZERO))
    }

    fn options(&self) -> SockRef<'_> {
        SockRef::from(&*self.stream)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let room = buffer.remaining().min(READ);
            match self.stream.try_read(buffer.initialize_unfilled_to(room)) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(context, |stream| stream.try_write(data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(context, |stream| stream.try_write_vectored(data))
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

impl Socket {
    fn write_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
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
        (Socket::new(listener.accept().await.unwrap().0), peer)
    }

    #[tokio::test]
    async fn a_stream_has_its_own_limits() {
        let (socket, _peer) = pair().await;
        socket.carry_stream(Duration::from_secs(7)).unwrap();
        // The kernel doubles what it is asked for, to count its own part.
        assert_eq!(socket.options().send_buffer_size().unwrap(), 2 * STREAM_BUFFER);
        assert_eq!(socket.options().tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert!(socket.options().tcp_nodelay().unwrap() && socket.options().keepalive().unwrap());
    }

    #[tokio::test]
    async fn reads_and_writes_more_than_the_kernel_holds() {
        let (mut socket, mut peer) = pair().await;
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
}
