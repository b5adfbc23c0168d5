//! Unix sockets: the same relay, by a file.

use std::os::unix::fs::PermissionsExt as _;

use opencode_relay::http::{Endpoint, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::proxy::fixture::{Relay, Settings, up};
use crate::upstream::{Routes, within};

#[tokio::test]
async fn a_unix_socket_serves_and_is_gone_after_the_stop() {
    let upstream = Routes::default().fixed("/x", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.sock");
    let endpoint = Endpoint::Unix { path: path.clone() };
    let listener = Listener::bind(&endpoint, 0o660, None).await.unwrap();
    assert_eq!(listener.endpoint().unwrap(), endpoint);
    let mut settings = Settings::default();
    // Whoever comes by a socket has no address.
    settings.http.connections_per_address = Some(1);
    let mut relay = Relay::start_on(listener, ([127, 0, 0, 1], 0).into(), up(&upstream), settings);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: relay\r\n\r\n").await.unwrap();
        let mut text = vec![0; 15];
        within("the answer", stream.read_exact(&mut text)).await.unwrap();
        assert_eq!(text, b"HTTP/1.1 200 OK");
        open.push(stream);
    }
    let error = Listener::bind(&endpoint, 0o600, None).await.unwrap_err().to_string();
    assert!(error.contains("another relay listens there"), "{error}");
    relay.end().await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
