//! Upgraded connections (opencode's PTY sockets): after a 101 the bytes are none of our business.
//!
//! They are outside hyper's graceful shutdown, so each is a task of its own that watches the stop.

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::limits::Place;
use crate::stop::Stop;

/// Copies both ways until both ends are done; the end of one direction is handed on as a half-close. The socket's place
/// is free again after that.
pub(super) async fn copy(
    client: OnUpgrade,
    upstream: impl Future<Output = hyper::Result<Upgraded>>,
    place: Place,
    stop: Stop,
) {
    let copied = stop.or(async {
        let (client, upstream) = (client.await?, upstream.await?);
        copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await.map_err(Broken::Copy)
    });
    match copied.await {
        None => tracing::debug!("a socket was closed because the relay stops"),
        Some(Ok((sent, received))) => tracing::trace!(sent, received, "a socket ended"),
        Some(Err(error)) => tracing::debug!(%error, "a socket broke off"),
    }
    drop(place);
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Upgrade(#[from] hyper::Error),
    #[error(transparent)]
    Copy(std::io::Error),
}
