//! Where and how clients connect: ports, unix sockets, TLS, HTTP/2; and what a connection may take of time and room.

#[cfg(feature = "tls")]
mod certificates;
#[cfg(feature = "tls")]
pub(crate) mod fixture;
#[cfg(feature = "tls")]
mod http2;
mod limits;
mod process;
mod refusals;
mod times;
#[cfg(feature = "tls")]
mod tls;
mod unix;
