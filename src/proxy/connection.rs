//! One connection to opencode. It has no task of its own: whoever has a request on it moves its bytes, on the task that
//! the request is served by, so that no other task, and no other thread, has to be woken for it.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;

use super::target::Address;
use super::upload::Outgoing;

/// Most bytes of an answer that are read ahead of a client that takes them slowly; also most bytes of an answer's head, a
/// longer one is 502.
const READ_AHEAD: usize = 128 << 10;

/// A connection. Dropping it closes it, whatever goes on on it.
pub(super) struct Connection {
    address: Address,
    sender: SendRequest<Outgoing>,
    /// `None` once it has ended.
    wire: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Connection {
    /// Speaks HTTP/1 on a socket that was connected to `address`.
    pub(super) async fn new(address: Address, socket: TokioIo<TcpStream>) -> hyper::Result<Self> {
        let (sender, wire) = Builder::new().max_buf_size(READ_AHEAD).handshake(socket).await?;
        Ok(Self { address, sender, wire: Some(Box::pin(wire.with_upgrades())) })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    ///
    /// With the request, if nothing of it was written.
    pub(super) async fn send(
        &mut self,
        request: Box<Request<Outgoing>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        // Not held to tokio's budget: whoever runs out of that is woken, and nobody is here, see `drive_for`.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(*request)));
        let mut is_sent = false;
        poll_fn(|context| {
            if std::mem::replace(&mut is_sent, true) {
                return self.drive_for(context, |context| answer.as_mut().poll(context));
            }
            // There can be no answer yet to what is only sent by this, so it is waited for at once.
            self.drive(context);
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Moves the bytes that `wanted` comes from, until it is there or there is nothing to move; the task is woken when there
    /// is again. `wanted` must come from this connection alone, and must not count what it does against tokio's budget.
    ///
    /// The connection and what comes from it are polled by one task here, and each would wake that task for what the other
    /// is polled for anyway. Such a wake is dear: it puts the task in the run queue, for which tokio wakes another thread that
    /// takes the task over. So nobody is woken before it is known that there is something to wait for.
    pub(super) fn drive_for<T>(
        &mut self,
        context: &mut Context<'_>,
        mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let nobody = &mut Context::from_waker(Waker::noop());
        self.drive(nobody);
        if let Poll::Ready(wanted) = wanted(nobody) {
            return Poll::Ready(wanted);
        }
        self.drive(context);
        wanted(nobody)
    }

    /// Moves what can be moved now; the task is woken when there is more. Of an end whoever waits for something on this
    /// connection is told by hyper.
    fn drive(&mut self, context: &mut Context<'_>) {
        let Some(wire) = &mut self.wire else { return };
        if let Poll::Ready(ended) = wire.as_mut().poll(context) {
            self.wire = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to opencode broke off");
            }
        }
    }

    /// Whether another request may be sent: it is open, the last exchange on it is over, and nothing came that nobody asked
    /// for.
    pub(super) fn is_idle(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.may_send()
    }

    /// [`Connection::is_idle`], as far as it was seen by the last look.
    pub(super) fn may_send(&self) -> bool {
        self.wire.is_some() && self.sender.is_ready()
    }

    /// Moves its bytes until the exchange on it is over, and then says whether another may follow.
    pub(super) async fn settle(&mut self) -> bool {
        poll_fn(|context| {
            self.drive(context);
            if self.wire.is_none() {
                Poll::Ready(false)
            } else {
                self.sender.poll_ready(context).map(|ready| ready.is_ok())
            }
        })
        .await
    }

    /// Gives the socket out, once the answer was to speak another protocol.
    pub(super) async fn upgrade(mut self, upgrade: OnUpgrade) -> hyper::Result<Upgraded> {
        let mut upgrade = pin!(upgrade);
        poll_fn(|context| {
            self.drive(context);
            upgrade.as_mut().poll(context)
        })
        .await
    }
}
