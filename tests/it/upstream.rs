//! A stand-in for opencode that can fail in every way a socket can: routes are closures that get the raw connection.
//!
//! [`Wire`] is HTTP/1.1 by hand, for either end, so that a test sees and sends exactly the bytes it means. Every wait has
//! a limit and panics when it is over.

#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot do its work shall panic; clippy knows only test functions"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opencode_relay::stop::{Stop, Tasks};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long anything in these tests may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Waits for a future, but not forever.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {LIMIT:?} for {what}"),
    }
}

/// A request's or an answer's head as it came.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The first line.
    pub(crate) start: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    fn read(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no field"));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Self { start, fields }
    }

    /// All lines of a field, joined.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> =
            self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    /// The second word: a request's target, an answer's status.
    pub(crate) fn second(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }
}

/// The peer ended the connection where it should not have, or sent a chunk that is none.
#[derive(Debug)]
pub(crate) struct Broken;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The trailers after the last chunked body, in lower case.
    pub(crate) trailers: Vec<(String, String)>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), trailers: Vec::new() }
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(within("a connection", TcpStream::connect(address)).await.unwrap())
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("room to send", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends, and says whether the peer still takes anything.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("room to send", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Sends so many bytes as far as they are taken.
    pub(crate) async fn flood(&mut self, count: usize) -> std::io::Result<()> {
        let bytes = vec![b'x'; 64 << 10];
        for _ in 0..count / bytes.len() {
            self.stream.write_all(&bytes).await?;
        }
        Ok(())
    }

    pub(crate) async fn send_chunk(&mut self, data: &str) {
        self.send(format!("{:x}\r\n{data}\r\n", data.len())).await;
    }

    /// Ends the sending direction only.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next head; `None` when the connection ends before one.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                return None;
            }
        };
        let text: Vec<u8> = self.buffer.drain(..end + 4).collect();
        Some(Head::read(&String::from_utf8_lossy(&text[..end])))
    }

    /// The next answer's head, without informational ones.
    pub(crate) async fn answer(&mut self) -> Head {
        let head = self.head().await.expect("an answer");
        assert_ne!(head.second(), "100", "an informational answer came");
        head
    }

    /// So many bytes; fewer when the connection ends.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.more().await {}
        self.buffer.drain(..count.min(self.buffer.len())).collect()
    }

    async fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return Err(Broken);
            }
        }
    }

    /// The next chunk; empty after the last, whose trailers are kept.
    pub(crate) async fn chunk(&mut self) -> Result<Vec<u8>, Broken> {
        let size = usize::from_str_radix(&self.line().await?, 16).map_err(|_| Broken)?;
        if size == 0 {
            self.trailers.clear();
            loop {
                let line = self.line().await?;
                let Some((name, value)) = line.split_once(':') else { return Ok(Vec::new()) };
                self.trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let data = self.exactly(size).await;
        if data.len() < size || !self.line().await?.is_empty() { Err(Broken) } else { Ok(data) }
    }

    /// The whole body that a head announces.
    pub(crate) async fn body(&mut self, head: &Head) -> Result<Vec<u8>, Broken> {
        if head.get("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let chunk = self.chunk().await?;
                if chunk.is_empty() {
                    return Ok(body);
                }
                body.extend(chunk);
            }
        }
        let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.exactly(length).await;
        if body.len() < length { Err(Broken) } else { Ok(body) }
    }

    /// Waits until the peer has ended its direction, by a close or a reset; returns what came before.
    pub(crate) async fn ended(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Waits for the end; whether it was a reset.
    pub(crate) async fn is_reset(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match within("an end", self.stream.read(&mut bytes)).await {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = within("bytes", self.stream.read(&mut bytes)).await.unwrap_or(0);
        self.buffer.extend_from_slice(&bytes[..count]);
        count > 0
    }
}

type Answering = std::pin::Pin<Box<dyn Future<Output = Option<Wire>> + Send>>;
type Route = Box<dyn Fn(Head, Wire) -> Answering + Send + Sync>;

/// The stand-in; it stops when it is dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    heads: Arc<watch::Sender<Vec<Head>>>,
    connections: Arc<Mutex<usize>>,
    stop: Stop,
}

/// The routes of a stand-in, before it starts.
#[derive(Default)]
pub(crate) struct Routes(HashMap<String, Route>);

impl Routes {
    /// Answers requests for a path (without query). The closure gets the connection right after the head, and gives it
    /// back if it shall be used again.
    pub(crate) fn on<F, A>(mut self, path: &str, answer: F) -> Self
    where
        F: Fn(Head, Wire) -> A + Send + Sync + 'static,
        A: Future<Output = Option<Wire>> + Send + 'static,
    {
        self.0.insert(path.to_owned(), Box::new(move |head, wire| Box::pin(answer(head, wire))));
        self
    }

    /// Answers requests for a path with these bytes, after reading their bodies.
    pub(crate) fn fixed(self, path: &str, answer: &'static str) -> Self {
        self.on(path, move |head, mut wire| async move {
            wire.body(&head).await.ok()?;
            wire.send(answer).await;
            Some(wire)
        })
    }

    /// Answers requests for a path with their own bodies.
    pub(crate) fn echo(self, path: &str) -> Self {
        self.on(path, |head, wire| async move { wire.echo(&head).await })
    }

    /// Starts on a free port.
    pub(crate) async fn start(self) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream {
            address: listener.local_addr().unwrap(),
            heads: Arc::new(watch::Sender::new(Vec::new())),
            connections: Arc::default(),
            stop: Stop::new(),
        };
        let (heads, connections, stop) = (upstream.heads.clone(), upstream.connections.clone(), upstream.stop.clone());
        let (routes, tasks) = (Arc::new(self.0), Tasks::new());
        tasks.clone().spawn("stand-in", async move {
            while let Some(Ok((stream, _))) = stop.or(listener.accept()).await {
                *connections.lock().unwrap() += 1;
                let (routes, heads, stop) = (routes.clone(), heads.clone(), stop.clone());
                tasks.spawn("stand-in connection", async move {
                    stop.or(serve(Wire::new(stream), &routes, &heads)).await;
                });
            }
        });
        upstream
    }
}

async fn serve(wire: Wire, routes: &HashMap<String, Route>, heads: &watch::Sender<Vec<Head>>) {
    let mut kept = Some(wire);
    while let Some(mut wire) = kept.take() {
        // Not `wire.head()`: an idle connection may wait for longer than a test does.
        let Some(head) = wire.idle_head().await else { return };
        heads.send_modify(|heads| heads.push(head.clone()));
        let path = head.second().split('?').next().unwrap_or_default();
        kept = match routes.get(path).or_else(|| routes.get("*")) {
            Some(route) => route(head, wire).await,
            None => {
                wire.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
                Some(wire)
            }
        };
    }
}

impl Wire {
    /// Answers a request with its own body.
    pub(crate) async fn echo(mut self, head: &Head) -> Option<Self> {
        let body = self.body(head).await.ok()?;
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())).await;
        self.send(body).await;
        Some(self)
    }

    async fn idle_head(&mut self) -> Option<Head> {
        if self.buffer.is_empty() {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).await.ok()?;
            self.buffer.push(byte[0]);
        }
        self.head().await
    }
}

impl Upstream {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<Head> {
        self.heads.borrow().clone()
    }

    /// The head of the last request.
    pub(crate) fn last(&self) -> Head {
        self.heads().pop().expect("a request")
    }

    /// Waits until so many requests have come.
    pub(crate) async fn requests(&self, count: usize) {
        let mut heads = self.heads.subscribe();
        within("requests", heads.wait_for(|heads| heads.len() >= count)).await.unwrap();
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.pull();
    }
}
