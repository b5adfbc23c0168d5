//! TLS towards a relay: rustls with ring, and the machine's certificates, or those that `SSL_CERT_FILE` names.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Failed to speak TLS; each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What certificates are compared with cannot be read.
    #[error("no trusted certificates: {0}; name a file with them, in PEM, by SSL_CERT_FILE")]
    Roots(String),
    /// The host is no name that a certificate can have.
    #[error("{0:?} is no name that a certificate can be for")]
    Name(String),
    /// The certificate leads to none that is trusted.
    #[error(
        "its certificate is not trusted here ({0}); name a file with it, or with the one that signed it, by \
         SSL_CERT_FILE=cert.pem"
    )]
    Unknown(rustls::Error),
    /// The certificate is for others.
    #[error("its certificate is for another name ({0}); ask by a name that stands in the certificate")]
    OtherName(rustls::Error),
    /// No agreement.
    #[error("{0}; is it an https:// address?")]
    Handshake(io::Error),
}

/// Agrees on keys with the server, and makes sure that it is the one that was meant. Give it a limit of time.
pub(super) async fn connect(authority: &str, socket: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
    TlsConnector::from(Arc::new(config()?)).connect(name, socket).await.map_err(explained)
}

fn config() -> Result<ClientConfig, TlsError> {
    let roots = |error: &dyn std::fmt::Display| TlsError::Roots(error.to_string());
    let found = rustls_native_certs::load_native_certs();
    // One file among many that cannot be read is no reason to fail; that there is nothing at all is.
    if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
        return Err(roots(error));
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs.iter().cloned());
    // Named, so that no other crate's features can choose another one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .map_err(|error| roots(&error))?;
    let verifier = Verifier { inner, trusted: found.certs, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| roots(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

fn explained(error: io::Error) -> TlsError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => TlsError::OtherName(inner(&error)),
        Some(rustls::Error::InvalidCertificate(_)) => TlsError::Unknown(inner(&error)),
        _ => TlsError::Handshake(error),
    }
}

fn inner(error: &io::Error) -> rustls::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.cloned().unwrap_or(rustls::Error::HandshakeNotComplete)
}

/// webpki's checks, and one exception: a certificate that is itself among the trusted ones. webpki refuses that when the
/// certificate may also sign others, and so are those that `openssl req -x509` makes.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(shown, between, name, stapled, now);
        match verified {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if self.trusted.contains(shown) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
