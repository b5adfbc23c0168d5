//! An opencode, a relay, and nginx or Caddy before it, with the files in `deploy/`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use opencode_relay::event::View;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::proxy::fixture::{Relay, Settings, up};
use crate::support::opencode::free_port;
use crate::support::process::Process;
use crate::support::programs::tool;
use crate::support::situations::until;
use crate::support::sse::Stream;
use crate::upstream::{Head, Routes, Upstream, Wire};

const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"directory\":\"/a\"}";
/// Where the client says it comes from; the fronts come from 127.0.0.1.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Nginx,
    Caddy,
}

/// An opencode, a relay, and a front before it.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    pub(super) relay: Relay,
    pub(super) upstream: Upstream,
    _process: Process,
    pub(super) folder: TempDir,
}

impl Front {
    pub(super) async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |file| file).await
    }

    /// With the shipped file after this change.
    pub(super) async fn start_with(kind: Kind, change: impl FnOnce(String) -> String) -> Self {
        Self::launch(kind, |address, relay, folder| match kind {
            Kind::Nginx => change(without_tls(&nginx_file(address, relay, folder))),
            Kind::Caddy => change(caddy_file(address, relay)),
        })
        .await
    }

    pub(super) async fn launch(kind: Kind, file: impl FnOnce(SocketAddr, SocketAddr, &Path) -> String) -> Self {
        let upstream =
            Routes::default().fixed("*", OK).on("/pty/pty_1/connect", |_, wire| terminal(wire)).start().await;
        let mut settings = Settings::default();
        settings.proxy.trusted = vec!["127.0.0.1".parse().unwrap()];
        settings.http.allowed_hosts = vec!["code.example.com".to_owned()];
        let relay = Relay::start(up(&upstream), settings).await;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let folder = tempfile::tempdir().unwrap();
        let file = file(address, relay.address, folder.path());
        let process = match kind {
            Kind::Nginx => nginx(folder.path(), &file),
            Kind::Caddy => caddy(folder.path(), &file),
        };
        until("the front to listen", || async { tokio::net::TcpStream::connect(address).await.ok() }).await;
        Self { address, relay, upstream, _process: process, folder }
    }

    /// A connection from an address of its own.
    async fn connect(&self) -> Wire {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((CLIENT, 0).into()).unwrap();
        Wire::new(socket.connect(self.address).await.unwrap())
    }

    pub(super) async fn get(&self, target: &str, fields: &str) -> (Head, Wire) {
        let mut wire = self.connect().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nhost: code.example.com\r\n{fields}\r\n")).await;
        (wire.answer().await, wire)
    }

    pub(super) async fn stream(&self, path: &str, fields: &[(&str, &str)]) -> Stream {
        Stream::open_url(&format!("http://{}{path}", self.address), fields).await.unwrap()
    }

    pub(super) fn streams(&self) -> usize {
        self.relay.clients.count(View::Global)
    }
}

/// Says back what it is told.
async fn terminal(mut wire: Wire) -> Option<Wire> {
    wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    loop {
        let bytes = wire.exactly(5).await;
        if bytes.is_empty() {
            return None;
        }
        wire.send(bytes).await;
    }
}

fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)).unwrap()
}

/// Every change to a shipped file has to find its place there.
pub(super) fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the file");
    text.replace(from, to)
}

/// The file with addresses of the test, and with its certificate in the folder.
pub(super) fn nginx_file(address: SocketAddr, relay: SocketAddr, folder: &Path) -> String {
    let file = replace(&shipped("nginx/opencode-relay.conf"), "127.0.0.1:4097", &relay.to_string());
    let file = replace(&file, "listen 443 ssl http2;", &format!("listen {address} ssl http2;"));
    replace(&file, "/etc/nginx/code.example.com", &folder.join("pair").display().to_string())
}

fn without_tls(file: &str) -> String {
    let file = replace(file, " ssl http2;", ";");
    let lines = file.lines().filter(|line| !line.trim_start().starts_with("ssl_certificate"));
    Vec::from_iter(lines).join("\n")
}

/// The server around a file for `conf.d`, for any user, with everything it writes in the folder.
fn nginx_main(folder: &Path, file: &str) -> String {
    fs::write(folder.join("front.conf"), file).unwrap();
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path {folder}/{name};")).join(" ");
    let main = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr;\nevents {{}}\n\
         http {{ access_log off; {temporary} include {folder}/front.conf; }}\n"
    );
    let path = format!("{folder}/nginx.conf");
    fs::write(&path, main).unwrap();
    path
}

pub(super) fn nginx(folder: &Path, file: &str) -> Process {
    tool("nginx", &["-e", "stderr", "-c", &nginx_main(folder, file)], folder)
}

fn caddy_file(address: SocketAddr, relay: SocketAddr) -> String {
    let file = replace(&shipped("caddy/Caddyfile"), "127.0.0.1:4097", &relay.to_string());
    let file = replace(&file, "\ncode.example.com {", &format!("\nhttp://:{} {{\n\tbind 127.0.0.1", address.port()));
    format!("{{\n\tadmin off\n}}\n{file}")
}

fn caddy(folder: &Path, file: &str) -> Process {
    let path = folder.join("Caddyfile");
    fs::write(&path, file).unwrap();
    tool("caddy", &["run", "--config", path.to_str().unwrap(), "--adapter", "caddyfile"], folder)
}
