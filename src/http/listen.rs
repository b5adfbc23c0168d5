//! Where the relay listens: hosts' ports, with or without TLS, and unix sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener};

use super::passed::Passed;
use super::socket::Accepted;
use super::tls::Tls;
use super::unix::{self, SocketFile, UnixError};
use crate::proxy::Peer;

/// Where to listen. Written `127.0.0.1:4097` or `http://127.0.0.1:4097`, `https://127.0.0.1:4443`, or
/// `unix:/run/relay.sock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A port.
    Tcp {
        /// The address; port 0 is any free one.
        address: SocketAddr,
        /// Whether clients speak TLS there.
        is_tls: bool,
    },
    /// A unix socket.
    Unix {
        /// Its file, an absolute path.
        path: PathBuf,
    },
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address to listen on")]
pub struct EndpointError;

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.file_name().is_some() {
                Ok(Self::Unix { path })
            } else {
                Err(EndpointError)
            };
        }
        let (is_tls, address) = match text.split_once("://") {
            Some(("http", address)) => (false, address),
            Some(("https", address)) => (true, address),
            Some(_) => return Err(EndpointError),
            None => (false, text),
        };
        let address = address.parse().map_err(|_| EndpointError)?;
        Ok(Self::Tcp { address, is_tls })
    }
}

impl Endpoint {
    /// Whether both are one place, whatever is spoken there.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { address, .. }, Self::Tcp { address: other, .. }) => address == other,
            (Self::Unix { path }, Self::Unix { path: other }) => path == other,
            _ => false,
        }
    }

    fn tls_of(&self, is_tls: bool, tls: Option<&Tls>) -> Result<Option<Tls>, ListenError> {
        match (is_tls, tls) {
            (false, _) => Ok(None),
            (true, Some(tls)) => Ok(Some(tls.clone())),
            (true, None) => Err(ListenError::NoTls(self.clone())),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp { address, is_tls: false }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, is_tls: false } => write!(formatter, "http://{address}"),
            Self::Tcp { address, is_tls: true } => write!(formatter, "https://{address}"),
            Self::Unix { path } => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// A place where clients can connect already. Dropping it closes it, and removes a unix socket's file.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, Option<Tls>),
    Unix(UnixListener, SocketFile),
    /// Its file is whose who opened it.
    PassedUnix(UnixListener, PathBuf),
}

/// Failed to listen. Each message says where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// On a port.
    #[error("listen on {endpoint}: {error}; is another relay or opencode there? Choose another with --listen")]
    Port {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        error: io::Error,
    },
    /// On a unix socket.
    #[error(transparent)]
    Unix(#[from] UnixError),
    /// On a socket that was open before.
    #[error("listen on {endpoint}, which was passed: {error}")]
    Passed {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        error: io::Error,
    },
    /// There is no certificate for it.
    #[error("listen on {0}: TLS needs --tls-certificate and --tls-key")]
    NoTls(Endpoint),
}

impl Listener {
    /// Listens. `mode` is for the file of a unix socket, `tls` for `https://`.
    ///
    /// # Errors
    ///
    /// When the place is taken or cannot be had.
    pub async fn bind(endpoint: &Endpoint, mode: u32, tls: Option<&Tls>) -> Result<Self, ListenError> {
        match endpoint {
            Endpoint::Unix { path } => {
                let (listener, file) = unix::bind(path, mode)?;
                Ok(Self(Kind::Unix(listener, file)))
            }
            Endpoint::Tcp { address, is_tls } => {
                let tls = endpoint.tls_of(*is_tls, tls)?;
                let listener = TcpListener::bind(address).await;
                let port = |error| ListenError::Port { endpoint: endpoint.clone(), error };
                Ok(Self(Kind::Tcp(listener.map_err(port)?, tls)))
            }
        }
    }

    /// Listens on a socket that was open before; `tls` is for `https://`.
    ///
    /// # Errors
    ///
    /// When the system does not let it, or there is no certificate.
    pub fn take(passed: Passed, tls: Option<&Tls>) -> Result<Self, ListenError> {
        let Passed { endpoint, socket } = passed;
        let failed = |error| ListenError::Passed { endpoint: endpoint.clone(), error };
        socket.set_nonblocking(true).map_err(failed)?;
        match &endpoint {
            Endpoint::Unix { path } => {
                let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
                Ok(Self(Kind::PassedUnix(listener, path.clone())))
            }
            Endpoint::Tcp { is_tls, .. } => {
                let tls = endpoint.tls_of(*is_tls, tls)?;
                Ok(Self(Kind::Tcp(TcpListener::from_std(socket.into()).map_err(failed)?, tls)))
            }
        }
    }

    /// Where it listens, with the port that was chosen.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        match &self.0 {
            Kind::Tcp(listener, tls) => Ok(Endpoint::Tcp { address: listener.local_addr()?, is_tls: tls.is_some() }),
            Kind::Unix(_, file) => Ok(Endpoint::Unix { path: file.path().to_owned() }),
            Kind::PassedUnix(_, path) => Ok(Endpoint::Unix { path: path.clone() }),
        }
    }

    /// What its clients are to be shown first.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match &self.0 {
            Kind::Tcp(_, tls) => tls.as_ref(),
            Kind::Unix(..) | Kind::PassedUnix(..) => None,
        }
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match &self.0 {
            Kind::Tcp(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Accepted::Tcp(stream.into_std()?), Peer::Ip(peer)))
            }
            Kind::Unix(listener, _) | Kind::PassedUnix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream.into_std()?), Peer::Unix))
            }
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Kind::Tcp(listener, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for (text, written) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("http://[::1]:2", "http://[::1]:2"),
            ("https://0.0.0.0:3", "https://0.0.0.0:3"),
            ("unix:/run/relay.sock", "unix:/run/relay.sock"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), written);
            assert_eq!(written.parse(), Ok(endpoint));
        }
        for wrong in
            ["", "localhost:1", "127.0.0.1", "ftp://127.0.0.1:1", "unix:", "unix:relay.sock", "unix:/", "https://"]
        {
            assert_eq!(wrong.parse::<Endpoint>(), Err(EndpointError), "{wrong}");
        }
    }
}
