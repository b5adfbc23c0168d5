//! What stands for TLS in a relay that was built without the feature `tls`.

use tokio::net::TcpStream;

/// Failed to speak TLS.
#[derive(Debug, thiserror::Error)]
#[error("this relay was built without it; ask its http:// or unix: address, or build it with `--features tls`")]
pub struct TlsError;

/// Fails.
pub(super) async fn connect(_: &str, socket: TcpStream) -> Result<TcpStream, TlsError> {
    drop(socket);
    Err(TlsError)
}
