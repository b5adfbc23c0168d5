//! A proxy of hyper's two codecs and nothing else: what is left to any that is made of them.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::thread;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, client, server};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::listeners;
use crate::arguments::Arguments;
use crate::connection::Url;

/// Serves until standard input ends.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let upstream: Url = arguments.first()?;
    for listener in listeners(arguments)? {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        thread::spawn(move || runtime.block_on(accept(listener, upstream.address)));
    }
    // Whoever started this one is gone then.
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

async fn accept(listener: TcpListener, upstream: SocketAddr) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        #[expect(clippy::disallowed_methods, reason = "the process ends without waiting for clients")]
        tokio::spawn(async move {
            if let Err(error) = serve(client, upstream).await {
                eprintln!("load bare-hyper: {error}");
            }
        });
    }
}

/// Both connections in one task, so that neither has to wake another.
async fn serve(client: TcpStream, upstream: SocketAddr) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let socket = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    socket.set_nodelay(true)?;
    let (sender, upstream) = client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let sender = Mutex::new(sender);
    let pass = |request: Request<Incoming>| sender.lock().unwrap_or_else(PoisonError::into_inner).send_request(request);
    let client = server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service_fn(pass));
    let (mut client, mut upstream) = (pin!(client), pin!(upstream));
    poll_fn(|context| match client.as_mut().poll(context)? {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => upstream.as_mut().poll(context).map_err(Into::into),
    })
    .await
}
