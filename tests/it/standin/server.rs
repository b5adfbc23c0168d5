//! The stand-in's HTTP, by hand: REST answers that are always right, and a stream that does what it is ordered to.

use std::sync::Arc;
use std::time::Duration;

use opencode_relay::stop::{Stop, Tasks};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{DIRECTORY, Mode, Order, QUEUE, Shared};

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";
const GREETING: &str = "data: {\"payload\":{\"id\":\"evt_hello\",\"type\":\"server.connected\",\"properties\":{}}}\n\n";

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
        let (status, kind, body) = answer(&request, shared);
        tokio::time::sleep(shared.late()).await;
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(format!("{head}{body}").as_bytes()).await?;
        socket.flush().await?;
    }
    Ok(())
}

fn answer(request: &Request, shared: &Shared) -> (u16, &'static str, String) {
    const JSON: &str = "application/json";
    if request.path == "/global/health" {
        return (200, JSON, json!({"healthy": true, "version": shared.version}).to_string());
    }
    if request.method != "GET" {
        return (200, JSON, "true".into());
    }
    match shared.inner().state.answer(&request.path, request.limit, &request.directory) {
        Some((status, body)) => (status, JSON, body.to_string()),
        None => (200, "text/html; charset=utf-8", "<!doctype html><title>opencode</title>".into()),
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
        Mode::CloseAtOnce => Some(format!("{STREAM_HEAD}{:x}\r\n{GREETING}\r\n0\r\n\r\n", GREETING.len())),
        Mode::Nonsense => Some("\u{1}\u{2}nonsense\r\n\r\n".to_owned()),
    };
    if let Some(text) = fixed {
        socket.write_all(text.as_bytes()).await?;
        socket.flush().await?;
        // Until the peer has had enough of it.
        return tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.map(|_| ());
    }
    let (sender, mut orders) = mpsc::channel(QUEUE);
    shared.inner().stream = Some(sender);
    socket.write_all(format!("{STREAM_HEAD}{:x}\r\n{GREETING}\r\n", GREETING.len()).as_bytes()).await?;
    socket.flush().await?;
    shared.granted.send_modify(|granted| *granted += 1);
    let (mut reading, mut writing) = tokio::io::split(socket);
    let mut byte = [0];
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Chunk(bytes)) => {
                    let head = format!("{:x}\r\n", bytes.len());
                    writing.write_all(&[head.as_bytes(), &bytes, b"\r\n"].concat()).await?;
                    writing.flush().await?;
                }
                Some(Order::Finish) => {
                    writing.write_all(b"0\r\n\r\n").await?;
                    return writing.flush().await;
                }
                Some(Order::Cut) | None => return Ok(()),
            },
            _ = reading.read(&mut byte) => return Ok(()),
        }
    }
}
