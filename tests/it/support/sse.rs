//! An event stream read off a bare socket, so that a test sees what is really on the wire: every line, and how it ended.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::http::Api;
use super::record::Record;

/// A cold opencode answers late, not never.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// One frame, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) at: Instant,
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) retry: Option<String>,
    /// The `data:` lines, joined by newlines; `None` when there was none.
    pub(crate) data: Option<String>,
    pub(crate) comments: Vec<String>,
    /// Every line of the frame without its line end.
    pub(crate) lines: Vec<String>,
}

/// What a `data:` line of `/global/event` wraps around an event.
#[derive(Deserialize)]
struct Envelope<'a> {
    directory: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Frame {
    fn parse(lines: Vec<String>) -> Self {
        let (mut id, mut event, mut retry, mut data, mut comments) = (None, None, None, Vec::new(), Vec::new());
        for line in &lines {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => comments.push(value),
                "data" => data.push(value),
                "id" => id = Some(value),
                "event" => event = Some(value),
                "retry" => retry = Some(value),
                _ => {}
            }
        }
        let data = (!data.is_empty()).then(|| data.join("\n"));
        Self { at: Instant::now(), id, event, retry, data, comments, lines }
    }

    fn text(&self) -> &str {
        self.data.as_deref().unwrap_or("null")
    }

    fn envelope(&self) -> Option<Envelope<'_>> {
        serde_json::from_str(self.text()).ok()
    }

    /// The data as JSON, `null` when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or(Value::Null)
    }

    /// The event itself, byte for byte as it was sent: what `/global/event` wraps, or the whole data.
    pub(crate) fn payload(&self) -> &str {
        self.envelope().and_then(|envelope| envelope.payload).map_or(self.text(), RawValue::get)
    }

    /// The event itself as JSON.
    pub(crate) fn payload_json(&self) -> Value {
        serde_json::from_str(self.payload()).unwrap_or(Value::Null)
    }

    /// The type of the event, with or without envelope.
    pub(crate) fn kind(&self) -> String {
        self.payload_json()["type"].as_str().unwrap_or_default().to_owned()
    }

    /// The directory in the envelope of `/global/event`.
    pub(crate) fn directory(&self) -> Option<String> {
        self.envelope().and_then(|envelope| envelope.directory)
    }

    /// Whether it is about the connection itself, not something opencode published.
    pub(crate) fn is_greeting_or_heartbeat(&self) -> bool {
        matches!(self.kind().as_str(), "server.connected" | "server.heartbeat")
    }
}

/// How a stream came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The body was finished properly: the last chunk came.
    Clean,
    /// The connection broke inside the body.
    Broken(String),
}

/// The answer's head.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A connected stream that records until it is dropped.
pub(crate) struct Stream {
    what: String,
    pub(crate) head: Head,
    frames: Arc<Record<Arc<Frame>>>,
    end: Arc<OnceLock<End>>,
    _reader: JoinSet<()>,
}

impl Stream {
    /// Opens `path` of an API with its directory and credentials; anything but 200 is an error.
    pub(crate) async fn open(api: &Api, path: &str) -> Result<Self, String> {
        let authorization = api.authorization().map(|value| ("authorization", value));
        Self::open_url(&api.url(path), &Vec::from_iter(authorization)).await
    }

    /// Opens a URL with more headers.
    pub(crate) async fn open_url(url: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let opened = timeout(OPEN_LIMIT, connect(url, headers)).await;
        let (head, mut body) = opened
            .unwrap_or_else(|_| Err(format!("no head within {OPEN_LIMIT:?}")))
            .map_err(|error| format!("GET {url}: {error}"))?;
        if head.status != 200 {
            let mut rest = vec![0; 2_000];
            let read =
                timeout(Duration::from_millis(500), body.read(&mut rest)).await.ok().and_then(Result::ok).unwrap_or(0);
            return Err(format!("GET {url}: {} {}", head.status, String::from_utf8_lossy(&rest[..read])));
        }
        let frames = Arc::new(Record::new());
        let end = Arc::new(OnceLock::new());
        let chunked = head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let mut reader = JoinSet::new();
        let (frames_in, end_in) = (Arc::clone(&frames), Arc::clone(&end));
        reader.spawn(async move {
            let _ = end_in.set(read(&mut body, chunked, &frames_in).await);
            frames_in.close();
        });
        Ok(Self { what: url.to_owned(), head, frames, end, _reader: reader })
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn frames(&self) -> Vec<Arc<Frame>> {
        self.frames.from(0)
    }

    pub(crate) fn frames_from(&self, start: usize) -> Vec<Arc<Frame>> {
        self.frames.from(start)
    }

    /// How it ended; `None` while it is open.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.get().cloned()
    }

    /// Waits for the first frame at all, past or to come, that fits.
    pub(crate) async fn wait_for(&self, fits: impl FnMut(&Frame) -> bool, limit: Duration) -> Arc<Frame> {
        self.wait_from(0, fits, limit).await
    }

    /// Waits for the first frame from index `start` on that fits; fails the test with what came instead.
    pub(crate) async fn wait_from(
        &self,
        start: usize,
        fits: impl FnMut(&Frame) -> bool,
        limit: Duration,
    ) -> Arc<Frame> {
        let found = self.try_wait_from(start, fits, limit).await;
        found.unwrap_or_else(|| {
            let seen: Vec<String> = self.frames_from(start).iter().map(|frame| frame.kind()).collect();
            panic!("{}: not what was waited for within {limit:?} (end: {:?}), only {seen:?}", self.what, self.end())
        })
    }

    /// The same, but `None` when it does not come.
    pub(crate) async fn try_wait_from(
        &self,
        start: usize,
        mut fits: impl FnMut(&Frame) -> bool,
        limit: Duration,
    ) -> Option<Arc<Frame>> {
        self.frames.wait(start, limit, |frame| fits(frame).then(|| Arc::clone(frame))).await
    }

    /// Waits until the stream ends.
    pub(crate) async fn wait_end(&self, limit: Duration) -> End {
        self.frames.wait_closed(limit).await;
        self.end().unwrap_or_else(|| panic!("{}: still open after {limit:?}", self.what))
    }

    /// Waits until no frame came for `span`.
    pub(crate) async fn settle(&self, span: Duration, limit: Duration) {
        assert!(self.frames.quiet(span, limit).await, "{}: not quiet for {span:?} within {limit:?}", self.what);
    }
}

async fn connect(url: &str, headers: &[(&str, &str)]) -> Result<(Head, BufReader<TcpStream>), String> {
    let (host, path) =
        url.strip_prefix("http://").ok_or("only http:// is known here")?.split_once('/').ok_or("no path")?;
    let socket = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
    let mut socket = BufReader::new(socket);
    let mut request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut line = String::new();
    let mut lines = Vec::new();
    loop {
        line.clear();
        if socket.read_line(&mut line).await.map_err(|error| error.to_string())? == 0 {
            return Err(format!("closed inside the head: {lines:?}"));
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let pairs = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok((Head { status: status.ok_or_else(|| format!("no status: {lines:?}"))?, headers }, socket))
}

/// Reads the body to its end, whatever that is.
async fn read(body: &mut BufReader<TcpStream>, chunked: bool, frames: &Record<Arc<Frame>>) -> End {
    let mut splitter = Splitter::default();
    loop {
        let part = if chunked { chunk(body).await } else { piece(body).await };
        match part {
            Ok(bytes) if bytes.is_empty() => return End::Clean,
            Ok(bytes) => splitter.take(&bytes, frames),
            Err(error) => return End::Broken(error.to_string()),
        }
    }
}

/// One chunk of a chunked body; empty for the last.
async fn chunk(body: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut size = String::new();
    if body.read_line(&mut size).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let digits = size.trim_end().split(';').next().unwrap_or_default();
    let size = usize::from_str_radix(digits, 16)
        .map_err(|error| std::io::Error::other(format!("chunk size {size:?}: {error}")))?;
    let mut bytes = vec![0; size + 2];
    body.read_exact(&mut bytes).await?;
    bytes.truncate(size);
    Ok(bytes)
}

/// What there is of a body that ends with the connection.
async fn piece(body: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let bytes = body.fill_buf().await?.to_vec();
    body.consume(bytes.len());
    Ok(bytes)
}

/// Bytes to lines to frames.
#[derive(Default)]
struct Splitter {
    partial: Vec<u8>,
    lines: Vec<String>,
}

impl Splitter {
    fn take(&mut self, bytes: &[u8], frames: &Record<Arc<Frame>>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                continue;
            }
            let line =
                String::from_utf8_lossy(&std::mem::take(&mut self.partial)).trim_end_matches(['\n', '\r']).to_owned();
            if !line.is_empty() {
                self.lines.push(line);
            } else if !self.lines.is_empty() {
                frames.push(Arc::new(Frame::parse(std::mem::take(&mut self.lines))));
            }
        }
    }
}
