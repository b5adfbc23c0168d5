//! TLS towards clients: rustls with ring. The certificate can be read again while the relay runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket::Socket;

/// What may be spoken, the best first. HTTP/2 lets browsers have more than six streams of one host.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The first byte of whatever a client of TLS says first: a record of the type handshake (RFC 8446 §5.1).
pub(super) const HANDSHAKE: u8 = 22;

/// A certificate and its key, from their files. Clones are the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    /// What new connections use.
    config: Mutex<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").field("certificate", &self.0.certificate).finish_non_exhaustive()
    }
}

/// Failed to have a certificate and its key. Each message says which file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not there, or not for us.
    #[error("read {path}: {error}; check the path and its rights", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is nothing usable in the file.
    #[error("find {what} in {path}: {reason}; it has to be in PEM, beginning with {begins}", path = path.display())]
    Content {
        /// What was looked for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// The line that was expected.
        begins: &'static str,
    },
    /// They are no pair.
    #[error(
        "use the certificate {certificate} with the key {key}: {reason}; the first certificate in the file has to be the \
         key's own", certificate = certificate.display(), key = key.display()
    )]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let config = Mutex::new(read(certificate, key)?);
        Ok(Self(Arc::new(Inner { certificate: certificate.to_owned(), key: key.to_owned(), config })))
    }

    /// Reads both files again, for the connections to come.
    ///
    /// # Errors
    ///
    /// As [`Tls::load`]; what was used before is used on.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.0.certificate, &self.0.key)?;
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Agrees on keys and a protocol. Give it a limit of time.
    pub(super) async fn accept(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        let config = self.0.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(config).accept(socket).await
    }
}

/// Whether HTTP/2 was agreed on.
pub(super) fn is_http2(stream: &TlsStream<Socket>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let text = |path: &Path| std::fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error });
    let (certificate_text, key_text) = (text(certificate)?, text(key)?);
    let content =
        |what, path: &Path, reason: String, begins| TlsError::Content { what, path: path.to_owned(), reason, begins };
    let no_certificate = |reason| content("a certificate", certificate, reason, "-----BEGIN CERTIFICATE-----");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate_text)
        .collect::<Result<_, _>>()
        .map_err(|error| no_certificate(reason(&error)))?;
    if chain.is_empty() {
        return Err(no_certificate("there is none".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&key_text)
        .map_err(|error| content("a private key", key, reason(&error), "-----BEGIN PRIVATE KEY-----"))?;
    let pair = |error: rustls::Error| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason: error.to_string(),
    };
    // Named, so that no other crate's features can choose another one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// Without anything of the file: its content is secret.
fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "its end is missing".to_owned(),
        _ => "it is damaged".to_owned(),
    }
}
