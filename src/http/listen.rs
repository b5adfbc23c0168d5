//! Where the relay listens: hosts' ports, with or without TLS, and unix sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::TcpListener;

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

/// A place where clients can connect already.
#[derive(Debug)]
pub struct Listener(pub(super) TcpListener);

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(listener)
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
