//! One question to one HTTP server: the commands' way to a relay or an opencode, and the relay's to opencode's version.
//!
//! A connection for each question, driven by whoever reads the answer, so that nothing outlives either. The proxy and the
//! witnesses have connections of their own: they are kept, watched and counted.

#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "client/no_tls.rs"]
mod tls;

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

pub use tls::TlsError;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Who asks, for the logs of whoever stands between.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("opencode-relay/", env!("CARGO_PKG_VERSION")));

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `http://HOST:PORT`; what is kept is `HOST:PORT`.
    Http(Arc<str>),
    /// `https://HOST:PORT`; what is kept is `HOST:PORT`.
    Https(Arc<str>),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a text is no place of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No scheme that is known.
    #[error("{0:?} is neither http://HOST:PORT, https://HOST:PORT nor unix:PATH")]
    Scheme(String),
    /// A user or a password in it: it would be seen in lists of processes.
    #[error("the URL holds a user name; give the password by OPENCODE_SERVER_PASSWORD or --password-file instead")]
    User,
    /// More than a place.
    #[error("{0:?} is more than the address of a server; write http://HOST:PORT without a path")]
    Path(String),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let (make, port, rest): (fn(Arc<str>) -> Self, _, _) = match text.split_once("://") {
            Some(("http", rest)) if !rest.is_empty() => (Self::Http, 80, rest),
            Some(("https", rest)) if !rest.is_empty() => (Self::Https, 443, rest),
            _ => return Err(PlaceError::Scheme(text.to_owned())),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(PlaceError::User);
        }
        let authority: http::uri::Authority = rest.parse().map_err(|_| PlaceError::Path(text.to_owned()))?;
        Ok(make(if authority.port().is_some() { rest.into() } else { format!("{rest}:{port}").into() }))
    }
}

/// Why there is no answer. Each can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection.
    #[error("reach {place}: {source}")]
    Unreachable {
        /// Where the server should be.
        place: Place,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing in time.
    #[error("get an answer from {place} within {} s; does something else listen there?", .limit.as_secs())]
    Slow {
        /// Where the server is.
        place: Place,
        /// How long it was waited for.
        limit: Duration,
    },
    /// No agreement on keys, or the server is not shown to be who it should be.
    #[error("speak TLS with {place}: {source}")]
    Tls {
        /// Where the server is.
        place: Place,
        /// Why not, and what to do.
        source: TlsError,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("talk HTTP with {place}: {source}")]
    Broken {
        /// Where the server is.
        place: Place,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Asks a server.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it is.
    pub place: Place,
    /// The credentials shown with each question. Marked sensitive, so that no log shows them.
    pub authorization: Option<HeaderValue>,
}

impl Client {
    /// Sends a request, whose URI is path and query, and waits for the head of the answer, `limit` at most.
    ///
    /// # Errors
    ///
    /// When there is no answer. One that refuses is an answer.
    pub async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Response<Answer>, SendError> {
        let slow = |limit| SendError::Slow { place: self.place.clone(), limit };
        let unreachable = |source| SendError::Unreachable { place: self.place.clone(), source };
        let request = self.dressed(request);
        match &self.place {
            Place::Http(authority) => {
                let connect = timeout(CONNECT, TcpStream::connect(&**authority));
                let socket = connect.await.map_err(|_| slow(CONNECT))?.map_err(unreachable)?;
                timeout(limit, self.exchange(socket, request)).await.map_err(|_| slow(limit))?
            }
            Place::Https(authority) => {
                let connect = timeout(CONNECT, TcpStream::connect(&**authority));
                let socket = connect.await.map_err(|_| slow(CONNECT))?.map_err(unreachable)?;
                let secure = timeout(CONNECT, tls::connect(authority, socket)).await.map_err(|_| slow(CONNECT))?;
                let socket = secure.map_err(|source| SendError::Tls { place: self.place.clone(), source })?;
                timeout(limit, self.exchange(socket, request)).await.map_err(|_| slow(limit))?
            }
            Place::Unix(path) => {
                let connect = timeout(CONNECT, UnixStream::connect(path));
                let socket = connect.await.map_err(|_| slow(CONNECT))?.map_err(unreachable)?;
                timeout(limit, self.exchange(socket, request)).await.map_err(|_| slow(limit))?
            }
        }
    }

    fn dressed(&self, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
        let host = match &self.place {
            Place::Http(authority) | Place::Https(authority) => HeaderValue::from_str(authority).ok(),
            Place::Unix(_) => None,
        };
        let headers = request.headers_mut();
        headers.insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(USER_AGENT, AGENT);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    async fn exchange(
        &self,
        socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Answer>, SendError> {
        let broken =
            |source: Box<dyn std::error::Error + Send + Sync>| SendError::Broken { place: self.place.clone(), source };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(error.into()))?;
        let mut driver = Driver(Some(Box::pin(async move {
            let _ = connection.await;
        })));
        let response = tokio::select! {
            biased;
            response = sender.send_request(request) => response.map_err(|error| broken(error.into()))?,
            never = std::future::poll_fn(|context| driver.drive(context)) => match never {},
        };
        Ok(response.map(|body| Answer { body, driver }))
    }
}

/// Moves the bytes of a connection; `None` once it has ended.
struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driver {
    /// Never ready: whoever waits for what the connection brings is told by hyper when there is no more.
    fn drive(&mut self, context: &mut Context<'_>) -> Poll<Infallible> {
        if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(context).is_ready()) {
            self.0 = None;
        }
        Poll::Pending
    }
}

/// The body of an answer; its connection lives in it.
pub struct Answer {
    body: Incoming,
    driver: Driver,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Answer {
    /// The whole body, of `most` bytes at most.
    ///
    /// # Errors
    ///
    /// When it breaks off or is longer.
    pub async fn collect(self, most: usize) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Limited::new(self, most).collect().await?.to_bytes())
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let _ = this.driver.drive(context);
        Pin::new(&mut this.body).poll_frame(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("http://127.0.0.1:4097/").unwrap().to_string(), "http://127.0.0.1:4097");
        assert_eq!(place("http://[::1]:4097").unwrap().to_string(), "http://[::1]:4097");
        assert_eq!(place("http://relay").unwrap().to_string(), "http://relay:80");
        assert_eq!(place("https://relay/").unwrap().to_string(), "https://relay:443");
        assert_eq!(place("https://[::1]:1").unwrap(), Place::Https("[::1]:1".into()));
        assert_eq!(place("unix:/run/relay.sock").unwrap(), Place::Unix("/run/relay.sock".into()));
        assert_eq!(place("http://me:secret@host:1").unwrap_err(), PlaceError::User);
        for path in ["http://host:1/event", "http://host:1?x", "http://ho st"] {
            assert!(matches!(place(path), Err(PlaceError::Path(_))), "{path}");
        }
        for scheme in ["", "unix:", "http://", "https://", "host:1", "ftp://host"] {
            assert!(matches!(place(scheme), Err(PlaceError::Scheme(_))), "{scheme}");
        }
    }
}
