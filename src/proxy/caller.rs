//! Who sent a request, how it came, and whom to believe about that.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use ipnet::IpNet;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A host.
    Ip(SocketAddr),
    /// A process on this machine, by a unix socket.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
}

/// Sends an answer with a 1xx status ahead of the final one; its fields are those for the client.
pub type Interim = Arc<dyn Fn(StatusCode, &HeaderMap) + Send + Sync>;

/// How a request came.
#[derive(Clone)]
pub struct Caller {
    /// Who sent it.
    pub peer: Peer,
    /// Our end of the connection; `None` over a unix socket.
    pub local: Option<SocketAddr>,
    /// Whether it came by TLS.
    pub is_tls: bool,
    /// How to send it interim answers; `None` where that cannot be done.
    pub interim: Option<Interim>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Caller").field("peer", &self.peer).field("is_tls", &self.is_tls).finish_non_exhaustive()
    }
}

/// A proxy in front of the relay whose `Forwarded` and `X-Forwarded-*` fields are believed. Written as an address, a
/// network (`10.0.0.0/8`), or `unix` for whoever comes by a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Hosts.
    Network(IpNet),
    /// Processes on this machine that come by a unix socket.
    Unix,
}

/// Why a text is no [`TrustedProxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a network")]
pub struct TrustedProxyError;

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(|network| Self::Network(network.trunc())).map_err(|_| TrustedProxyError)
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
}

impl TrustedProxy {
    /// Whether this is (one of) those. An IPv4 client of a dual-stack listener is an IPv4 client.
    #[must_use]
    pub fn is(&self, peer: Peer) -> bool {
        match (self, peer) {
            (Self::Network(network), Peer::Ip(address)) => network.contains(&address.ip().to_canonical()),
            (Self::Unix, Peer::Unix) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let is = |proxy: &str, peer: &str| proxy.parse::<TrustedProxy>().unwrap().is(Peer::Ip(peer.parse().unwrap()));
        assert!(
            is("10.0.0.0/8", "10.9.8.7:1") && is("10.1.2.3/8", "10.9.8.7:1") && is("10.0.0.0/8", "[::ffff:10.1.1.1]:1")
        );
        assert!(is("::1", "[::1]:1") && is("127.0.0.1", "127.0.0.1:1") && is("0.0.0.0/0", "9.9.9.9:1"));
        assert!(!is("10.0.0.0/8", "11.0.0.1:1") && !is("127.0.0.1", "127.0.0.2:1") && !is("0.0.0.0/0", "[::1]:1"));
        let unix: TrustedProxy = "unix".parse().unwrap();
        assert!(unix.is(Peer::Unix) && !unix.is(Peer::Ip("127.0.0.1:1".parse().unwrap())));
        assert!(!"0.0.0.0/0".parse::<TrustedProxy>().unwrap().is(Peer::Unix));
        for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0", "UNIX", "10.0.0.1:80"] {
            assert_eq!(wrong.parse::<TrustedProxy>(), Err(TrustedProxyError), "{wrong}");
        }
    }
}
