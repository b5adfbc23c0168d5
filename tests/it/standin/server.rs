//! The stand-in's HTTP, by hand: REST answers that are always right, and a stream that does what it is ordered to.

use std::sync::Arc;
use std::time::Duration;

use opencode_relay::stop::{Stop, Tasks};
use percent_encoding::percent_decode_str;
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{DIRECTORY, Mode, Order, QUEUE, Rest, Shared};

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";
const GREETING: &str = "data: {\"payload\":{\"id\":\"evt_hello\",\"type\":\"server.connected\",\"properties\":{}}}\n\n";

/// What every stream begins with.
pub(super) fn opening() -> String {
    format!("{STREAM_HEAD}{:x}\r\n{GREETING}\r\n", GREETING.len())
}

pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>, tasks: Tasks, stop: Stop) {
    while let Some(Ok((socket, _))) = stop.or(listener.accept()).await {
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn("stand-in connection", async move {
            let _ = stop.or(serve(BufReader::new(socket), &shared)).await;
        });
    }
}

impl Shared {
    /// How long the next answer takes: a third, two thirds, or all of what is set.
    fn late(&self) -> Duration {
        let mut inner = self.inner();
        inner.answers += 1;
        Duration::from_millis(inner.slowness * (1 + inner.answers % 3) / 3)
    }
}

struct Request {
    method: String,
    path: String,
    limit: Option<usize>,
    directory: String,
    /// A client's, by way of the proxy.
    is_passed_on: bool,
}

async fn read(socket: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut words = lines[0].split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let queried = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let header = |name: &str| {
        let fields = lines[1..].iter().filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let directory = queried("directory").or_else(|| header("x-opencode-directory")).unwrap_or(DIRECTORY);
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    tokio::io::copy(&mut (&mut *socket).take(length), &mut tokio::io::sink()).await?;
    Ok(Some(Request {
        is_passed_on: header("via").is_some(),
        method: method.to_owned(),
        path: path.to_owned(),
        limit: queried("limit").and_then(|limit| limit.parse().ok()),
        directory: percent_decode_str(directory).decode_utf8_lossy().into_owned(),
    }))
}

async fn serve(mut socket: BufReader<TcpStream>, shared: &Arc<Shared>) -> std::io::Result<()> {
    socket.get_ref().set_nodelay(true)?;
    while let Some(request) = read(&mut socket).await? {
        *shared.inner().requests.entry(request.path.clone()).or_default() += 1;
        if request.path == "/global/event" {
            return stream(socket, shared).await;
        }
        if request.path.starts_with("/test/") || request.path.starts_with("/pty/") {
            return long(socket, &request, shared).await;
        }
        let _asking = (!request.is_passed_on).then(|| Asking::new(shared));
        let (status, kind, body) = answer(&request, shared);
        tokio::time::sleep(shared.late()).await;
        let rest = shared.inner().rest;
        let (status, kind, body) = match rest {
            Rest::Healthy | Rest::Mute | Rest::HalfBody => (status, kind, body),
            Rest::Status(status) => {
                (status, JSON, json!({"name": "UnknownError", "data": {"message": "no"}}).to_string())
            }
            Rest::Page => (200, HTML, PAGE.to_owned()),
            Rest::HalfJson => (status, kind, body[..body.len() / 2].to_owned()),
        };
        if rest == Rest::Mute {
            return deaf(socket).await;
        }
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        let whole = format!("{head}{body}");
        if rest == Rest::HalfBody {
            socket.write_all(&whole.as_bytes()[..head.len() + body.len() / 2]).await?;
            return SockRef::from(socket.get_ref()).set_linger(Some(Duration::ZERO));
        }
        socket.write_all(whole.as_bytes()).await?;
        socket.flush().await?;
    }
    Ok(())
}

/// Takes what comes until the peer has had enough of it.
async fn deaf(mut socket: BufReader<TcpStream>) -> std::io::Result<()> {
    tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.map(|_| ())
}

/// Answers that take their time: `/test/half` sends the second half of its body when it is told to, `/test/endless`
/// sends one for ever, `/test/silent` never answers, and `/pty/…` switches to an echo.
async fn long(mut socket: BufReader<TcpStream>, request: &Request, shared: &Arc<Shared>) -> std::io::Result<()> {
    match request.path.as_str() {
        "/test/half" => {
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await?;
            shared.bodies.pulled().await;
            socket.write_all(b"cd").await?;
            deaf(socket).await
        }
        "/test/endless" => {
            socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            loop {
                socket.write_all(b"4\r\nmore\r\n").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        "/test/silent" => deaf(socket).await,
        _ => {
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            socket.write_all(head.as_bytes()).await?;
            let (mut reading, mut writing) = tokio::io::split(socket);
            tokio::io::copy(&mut reading, &mut writing).await.map(|_| ())
        }
    }
}

/// Counts a question for as long as it is answered.
struct Asking<'a>(&'a Shared);

impl<'a> Asking<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut inner = shared.inner();
        inner.asking += 1;
        inner.most_asking = inner.most_asking.max(inner.asking);
        Self(shared)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.inner().asking -= 1;
    }
}

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const PAGE: &str = "<!doctype html><title>opencode</title>";

fn answer(request: &Request, shared: &Shared) -> (u16, &'static str, String) {
    if request.path == "/global/health" {
        return (200, JSON, json!({"healthy": true, "version": shared.inner().version}).to_string());
    }
    if request.method != "GET" {
        return (200, JSON, "true".into());
    }
    match shared.inner().state.answer(&request.path, request.limit, &request.directory) {
        Some((status, body)) => (status, JSON, body.to_string()),
        None => (200, HTML, PAGE.into()),
    }
}

/// Counts an open stream for as long as it is.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mut inner = shared.inner();
        inner.open += 1;
        inner.most_open = inner.most_open.max(inner.open);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.inner().open -= 1;
    }
}

async fn stream(mut socket: BufReader<TcpStream>, shared: &Arc<Shared>) -> std::io::Result<()> {
    let _open = Open::new(shared);
    shared.asked.send_modify(|asked| *asked += 1);
    let mode = shared.inner().mode.clone();
    let fixed = match mode {
        Mode::Healthy => None,
        Mode::Refuse(status) => Some(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n")),
        Mode::Html => Some("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>".to_owned()),
        Mode::Mute => Some(String::new()),
        Mode::CloseAtOnce => Some(format!("{}0\r\n\r\n", opening())),
        Mode::EndlessHead => {
            socket.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                socket.write_all(b"x-more: and more\r\n").await?;
            }
        }
        Mode::Nonsense => Some("\u{1}\u{2}nonsense\r\n\r\n".to_owned()),
    };
    if let Some(text) = fixed {
        socket.write_all(text.as_bytes()).await?;
        socket.flush().await?;
        return deaf(socket).await;
    }
    let (sender, mut orders) = mpsc::channel(QUEUE);
    let left = {
        let mut inner = shared.inner();
        inner.stream = Some(sender);
        inner.break_after.take().unwrap_or(usize::MAX)
    };
    let (mut reading, writing) = tokio::io::split(socket);
    let mut writing = Breaking { writing, left };
    writing.write_all(opening().as_bytes()).await?;
    shared.granted.send_modify(|granted| *granted += 1);
    let mut byte = [0];
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Chunk(bytes)) => {
                    let head = format!("{:x}\r\n", bytes.len());
                    writing.write_all(&[head.as_bytes(), &bytes, b"\r\n"].concat()).await?;
                }
                Some(Order::Finish) => return writing.write_all(b"0\r\n\r\n").await,
                Some(Order::Cut) | None => return Ok(()),
            },
            _ = reading.read(&mut byte) => return Ok(()),
        }
    }
}

/// Writes so many bytes; whoever writes more loses the connection behind the last of them.
struct Breaking {
    writing: WriteHalf<BufReader<TcpStream>>,
    left: usize,
}

impl Breaking {
    async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let kept = bytes.len().min(self.left);
        self.left -= kept;
        self.writing.write_all(&bytes[..kept]).await?;
        self.writing.flush().await?;
        if kept < bytes.len() { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}
