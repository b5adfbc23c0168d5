//! A proxied request does not notice that there is a relay, and the door is exactly as wide as opencode's.

mod door;
mod failures;
pub(crate) mod fixture;
mod framing;
#[cfg(feature = "tls")]
mod http2;
mod interim;
mod limits;
mod messages;
mod pool;
mod streaming;
mod streams;
mod trust;
