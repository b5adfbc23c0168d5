//! Where requests go: the address of an opencode, or why there is none.

use std::net::SocketAddr;

use http::HeaderValue;
use http::Uri;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};

/// Where opencode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its address is not known yet; requests wait.
    Starting,
    /// It is expected to answer at this address.
    Up(Address),
    /// It is not there, and the reason can be told to clients.
    Down {
        /// Why, as a clause that can follow "opencode is not running:".
        reason: String,
    },
}

/// The address of an upstream, from a URL `http://host:port`.
#[derive(Clone, Debug, Eq)]
pub struct Address(pub(super) Authority);

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        // Mostly written alike, and every request asks this; otherwise letter by letter in either case.
        self.0.as_str() == other.0.as_str() || self.0 == other.0
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address of the form http://host:port")]
pub struct AddressError(String);

impl Address {
    /// As the `Host` of a request that came without one.
    pub(super) fn host(&self) -> HeaderValue {
        #[expect(clippy::expect_used, reason = "an authority is ASCII without control characters")]
        HeaderValue::from_str(self.0.as_str()).expect("an authority is a field's value")
    }

    /// As what a connector takes.
    pub(super) fn uri(&self) -> Uri {
        let mut parts = Parts::default();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(self.0.clone()));
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        #[expect(clippy::expect_used, reason = "scheme, authority and path are all there")]
        Uri::from_parts(parts).expect("an authority makes a URI")
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        match uri.authority() {
            // A user in the URL would be silently ignored; a path would have to be put before every request's.
            Some(authority) if uri.scheme() == Some(&Scheme::HTTP) && bare && !authority.as_str().contains('@') => {
                Ok(Self(authority.clone()))
            }
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "http://{}", self.0)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        #[expect(clippy::expect_used, reason = "a socket address is always a valid authority")]
        Self(address.to_string().parse().expect("a socket address is an authority"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bare_http_url() {
        assert_eq!("http://127.0.0.1:4096".parse::<Address>().unwrap().to_string(), "http://127.0.0.1:4096");
        assert_eq!("http://[::1]:4096/".parse::<Address>().unwrap().to_string(), "http://[::1]:4096");
        for wrong in ["127.0.0.1:4096", "https://a:1", "http://a:1/path", "http://u:p@a:1", "", "http://"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
