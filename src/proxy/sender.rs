//! Sends requests to wherever opencode is now, on connections that are kept.

use std::error::Error;
use std::time::Duration;

use http::header::HOST;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;

use super::connection::Connection;
use super::failure::Failure;
use super::options::Options;
use super::per_thread::PerThread;
use super::pool::Pool;
use super::target::{Address, Target};
use super::upload::Outgoing;
use crate::stop::{Stop, Tasks};

/// How often the kernel asks a silent upstream whether it is still there: a long poll has no other limit.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// An answer, and the connection that the rest of it comes on.
pub(super) type Answered = (Response<Incoming>, Connection);

#[derive(Debug)]
pub(super) struct Sender {
    connector: TowerToHyperService<HttpConnector>,
    pools: PerThread<Pool>,
    target: watch::Receiver<Target>,
    start_timeout: Duration,
    connect_timeout: Duration,
}

impl Sender {
    pub(super) fn new(options: &Options, target: watch::Receiver<Target>, tasks: &Tasks, stop: &Stop) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(options.connect_timeout));
        connector.set_keepalive(Some(KEEPALIVE));
        Self {
            connector: TowerToHyperService::new(connector),
            pools: PerThread::new(|| {
                Pool::new(options.idle_connections, options.idle_timeout, tasks.clone(), stop.clone())
            }),
            target,
            start_timeout: options.start_timeout,
            connect_timeout: options.connect_timeout,
        }
    }

    /// The unused connections of this thread.
    pub(super) fn pool(&self) -> &Pool {
        self.pools.here()
    }

    /// Sends a prepared request.
    pub(super) async fn send(&self, mut request: Box<Request<Outgoing>>) -> Result<Answered, Failure> {
        loop {
            let (mut connection, is_new) = match self.pooled() {
                Some(connection) => (connection, false),
                None => (self.connect(&self.address().await?).await?, true),
            };
            if !request.headers().contains_key(HOST) {
                request.headers_mut().insert(HOST, connection.address().host());
            }
            match connection.send(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => match error.take_message() {
                    // opencode closed it just now, and nothing of the request was written.
                    Some(unsent) if !is_new => request = Box::new(unsent),
                    _ => return Err(Failure::from_exchange(&error.into_error())),
                },
            }
        }
    }

    /// An unused connection to where opencode is now.
    fn pooled(&self) -> Option<Connection> {
        match &*self.target.borrow() {
            Target::Up(address) => self.pool().take(address),
            _ => None,
        }
    }

    async fn connect(&self, address: &Address) -> Result<Connection, Failure> {
        let failed = |error: &(dyn Error + 'static)| Failure::from_connect(error, address, self.connect_timeout);
        let socket = self.connector.call(address.uri()).await.map_err(|error| failed(&error))?;
        Connection::new(address.clone(), socket).await.map_err(|error| failed(&error))
    }

    /// Where opencode is; waits while it starts.
    async fn address(&self) -> Result<Address, Failure> {
        if let Target::Up(address) = &*self.target.borrow() {
            return Ok(address.clone());
        }
        let mut target = self.target.clone();
        let known = target.wait_for(|target| *target != Target::Starting);
        match tokio::time::timeout(self.start_timeout, known).await {
            Err(_) => Err(Failure::Starting(self.start_timeout)),
            Ok(Err(_)) => Err(Failure::Down("the relay is stopping".to_owned())),
            Ok(Ok(target)) => match &*target {
                Target::Up(address) => Ok(address.clone()),
                Target::Down { reason } => Err(Failure::Down(reason.clone())),
                Target::Starting => Err(Failure::Starting(self.start_timeout)),
            },
        }
    }
}
