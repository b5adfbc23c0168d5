//! A relay that speaks TLS, and clients for it.

#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot do its work shall panic; clippy knows only test functions"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use opencode_relay::http::{Endpoint, Listener, Tls};
use opencode_relay::stop::{Stop, Tasks};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::Files;
use crate::proxy::fixture::{Relay, Settings, up};
use crate::upstream::{Upstream, within};

/// The relay, what it shows, and where that comes from.
pub(crate) struct Secured {
    pub(crate) relay: Relay,
    pub(crate) files: Files,
    pub(crate) tls: Tls,
    pub(crate) shown: CertificateDer<'static>,
}

impl Secured {
    pub(crate) async fn over(upstream: &Upstream, settings: Settings) -> Self {
        let (files, shown) = Files::new();
        let tls = files.load();
        let endpoint: Endpoint = "https://127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&endpoint, 0, Some(&tls)).await.unwrap();
        let Endpoint::Tcp { address, is_tls: true } = listener.endpoint().unwrap() else { panic!("no TLS") };
        let relay = Relay::start_on(listener, address, up(upstream), settings);
        Self { relay, files, tls, shown }
    }

    pub(crate) async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        connect(self.relay.address, &self.shown, protocol).await.unwrap()
    }

    pub(crate) async fn http2(&self) -> Http2 {
        Http2::over(self.connect("h2").await).await
    }
}

/// A connection to a relay that shows this certificate.
pub(crate) async fn connect(
    address: SocketAddr,
    shown: &CertificateDer<'static>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(shown.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Sends a request and reads to the end of the connection.
pub(crate) async fn talk(mut stream: TlsStream<TcpStream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    within("the answer", stream.read_to_string(&mut text)).await.unwrap();
    text
}

/// One connection of HTTP/2; closed when dropped.
pub(crate) struct Http2 {
    sender: http2::SendRequest<Empty<Bytes>>,
    stop: Stop,
    /// Ends with the connection.
    pub(crate) running: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Executor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("test's http2", future);
    }
}

impl Http2 {
    async fn over(stream: TlsStream<TcpStream>) -> Self {
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (tasks, stop) = (Tasks::new(), Stop::new());
        let mut builder = http2::Builder::new(Executor(tasks.clone()));
        // The protocol's own, so that a stream which is not read is soon stuck.
        builder.initial_stream_window_size(65_535);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        let stopped = stop.clone();
        let running = tasks.spawn("test's connection", async move {
            let _ = stopped.or(connection).await;
        });
        Self { sender, stop, running }
    }

    /// The answer to a GET; `fields` as in HTTP/1.
    pub(crate) async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Result<Response<Incoming>, hyper::Error> {
        let mut request = Request::get(format!("https://localhost{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        within("an answer", self.sender.clone().send_request(request.body(Empty::new()).unwrap())).await
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.stop.pull();
    }
}
