//! What stands behind the relay and its rivals: bodies for proxies, and an opencode that has nothing but events.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::clock::{nanoseconds, now};
use crate::connection::{Url, take};
use crate::events::{self, DIRECTORY};
use crate::outbox::Outbox;
use crate::poll::Poll;

/// The release that it claims to be: one whose global stream works.
const RELEASE: &str = "1.14.41";

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache, no-transform\r\n\
    x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";
const GREETING: &str = r#"{"payload":{"id":"evt_hello","type":"server.connected","properties":{}}}"#;
const HEARTBEAT: &str = r#"{"payload":{"id":"evt_beat","type":"server.heartbeat","properties":{}}}"#;

/// An event of this type is announced, and read with a question that begins so.
const LINE: &[u8] = b"INFO  2026-11-23T00:39:15 +3ms service=bus type=session.updated publishing\n";
const READ: &str = "/experimental/session?";

/// As opencode sends them.
const BEAT: Duration = Duration::from_secs(10);

/// No further events are made while so many bytes wait for whoever takes them slowest. They are late then, not lost.
const WAITING: usize = 1 << 20;

/// Most events made in one go, so that the other connections are looked at in between.
const BURST: u64 = 1_000;

const LISTENER: usize = 0;
const INPUT: usize = 1;

/// Tokens of connections begin here.
const FIRST: usize = 2;

/// What a connection is for.
enum Role {
    /// Requests are answered.
    Server,
    /// Gets all events.
    Stream,
    /// Posts all events; what is answered is thrown away.
    Publisher(Url),
}

struct Connection {
    socket: TcpStream,
    role: Role,
    /// What was read and is not a whole request yet.
    came: Vec<u8>,
    out: Outbox,
    /// Whether epoll tells when it can be written to.
    is_full: bool,
}

/// Events to be sent.
struct Emission {
    begin: u64,
    events: u64,
    /// A second; 0 for as fast as they are taken.
    rate: f64,
    sessions: u32,
    sent: u64,
}

/// A line of the bus log whose event the relay has to ask for.
struct Notice {
    written: u64,
    /// The connection that waits to be told.
    token: usize,
}

struct Origin {
    poll: Poll,
    connections: BTreeMap<usize, Connection>,
    next: usize,
    emission: Option<Emission>,
    /// Bodies by their length.
    bodies: BTreeMap<usize, Vec<u8>>,
    log: Option<File>,
    notice: Option<Notice>,
    buffer: Vec<u8>,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut origin = Origin {
        poll: Poll::new()?,
        connections: BTreeMap::new(),
        next: FIRST,
        emission: None,
        bodies: BTreeMap::new(),
        log: arguments.find::<PathBuf>("log")?.map(File::create).transpose()?,
        notice: None,
        buffer: vec![0; 64 << 10],
    };
    origin.poll.add(&listener, LISTENER)?;
    origin.poll.add(io::stdin(), INPUT)?;
    if let Some(url) = arguments.find::<Url>("publish")? {
        let socket = url.connect(0)?;
        origin.enter(socket, Role::Publisher(url))?;
    }
    println!("listening on http://{}", listener.local_addr()?);
    origin.serve(&listener)
}

impl Origin {
    fn serve(&mut self, listener: &TcpListener) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut beat = now() + nanoseconds(BEAT);
        loop {
            let due = self.emit()?.map_or(beat, |due| due.min(beat));
            self.poll.wait(Some(Duration::from_nanos(due.saturating_sub(now()))), &mut ready)?;
            for event in &ready {
                match event.token {
                    LISTENER => self.accept(listener)?,
                    // Whoever started this one is gone.
                    INPUT => return Ok(()),
                    token => {
                        if self.handle(token, event.readable).is_err() {
                            self.connections.remove(&token);
                        }
                    }
                }
            }
            if now() >= beat {
                beat += nanoseconds(BEAT);
                self.send(|connection| {
                    if matches!(connection.role, Role::Stream) {
                        connection.chunk(HEARTBEAT);
                    }
                });
            }
        }
    }

    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nodelay(true)?;
                    socket.set_nonblocking(true)?;
                    self.enter(socket, Role::Server)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn enter(&mut self, socket: TcpStream, role: Role) -> io::Result<()> {
        self.poll.add(&socket, self.next)?;
        let connection = Connection { socket, role, came: Vec::new(), out: Outbox::default(), is_full: false };
        self.connections.insert(self.next, connection);
        self.next += 1;
        Ok(())
    }

    /// An error closes the connection.
    fn handle(&mut self, token: usize, readable: bool) -> io::Result<()> {
        let mut told = None;
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        if readable && let Some(length) = take(&mut connection.socket, &mut self.buffer)? {
            if !matches!(connection.role, Role::Server) {
                return Ok(());
            }
            connection.came.extend_from_slice(&self.buffer[..length]);
            while let Some(end) = memchr::memmem::find(&connection.came, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&connection.came[..end]).into_owned();
                // The relay's questions and the tools' orders have no bodies.
                connection.came.drain(..end + 4);
                let mut words = head.split(' ');
                let (_, target) = (words.next(), words.next().unwrap_or_default());
                if let Some(order) = target.strip_prefix("/emit?") {
                    self.emission = Some(Emission::read(order)?);
                    connection.answer("application/json", b"true");
                } else if target == "/announce" {
                    self.notice = Some(Notice { written: now(), token });
                    self.log.as_ref().ok_or(io::ErrorKind::InvalidInput)?.write_all(LINE)?;
                } else {
                    if target.starts_with(READ) {
                        told = told.or(self.notice.take());
                    }
                    connection.serve(target, &mut self.bodies);
                }
            }
        }
        connection.flush(&self.poll, token)?;
        if let Some(Notice { written, token }) = told
            && let Some(connection) = self.connections.get_mut(&token)
        {
            connection.answer("text/plain", (now() - written).to_string().as_bytes());
            connection.flush(&self.poll, token)?;
        }
        Ok(())
    }

    /// Makes the events that are due. Returns when the next one is.
    fn emit(&mut self) -> io::Result<Option<u64>> {
        let Some(emission) = &mut self.emission else { return Ok(None) };
        let waiting = self.connections.values().filter(|connection| !matches!(connection.role, Role::Server));
        let waiting = waiting.map(|connection| connection.out.len()).max().unwrap_or_default();
        let elapsed = now().saturating_sub(emission.begin) as f64 / 1e9;
        let due = if emission.rate > 0.0 { (elapsed * emission.rate) as u64 + 1 } else { emission.events };
        let until = if waiting > WAITING { 0 } else { due.min(emission.events).min(emission.sent + BURST) };
        let (from, sessions) = (emission.sent, emission.sessions);
        emission.sent = emission.sent.max(until);
        let next = match emission {
            Emission { sent, events, .. } if sent == events => None,
            // Whoever waits is told of by epoll; this only looks again.
            _ if waiting > WAITING => Some(now() + 1_000_000),
            Emission { sent, begin, rate, .. } if *rate > 0.0 => Some(*begin + (*sent as f64 / *rate * 1e9) as u64),
            _ => Some(now()),
        };
        if next.is_none() {
            self.emission = None;
        }
        if from < until {
            let payloads: Vec<String> =
                (from..until).map(|number| events::payload(number as u32, now(), sessions)).collect();
            self.send(|connection| match &connection.role {
                Role::Server => {}
                Role::Stream => payloads.iter().for_each(|payload| connection.chunk(&events::global(payload))),
                Role::Publisher(url) => {
                    let head = format!("POST {} HTTP/1.1\r\nhost: {}\r\ncontent-length: ", url.path, url.address);
                    for payload in &payloads {
                        let rest = format!("{}\r\n\r\n{payload}", payload.len());
                        connection.out.end().extend_from_slice(head.as_bytes());
                        connection.out.end().extend_from_slice(rest.as_bytes());
                    }
                }
            });
        }
        Ok(next)
    }

    /// Puts something into every connection and writes what can be written.
    fn send(&mut self, put: impl Fn(&mut Connection)) {
        let poll = &self.poll;
        self.connections.retain(|token, connection| {
            put(connection);
            connection.flush(poll, *token).is_ok()
        });
    }
}

impl Emission {
    fn read(order: &str) -> io::Result<Self> {
        let number = |name: &str| {
            let value = order.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<f64>().ok())
        };
        let events = number("events").ok_or_else(|| io::Error::other("an order without events"))? as u64;
        let sessions = number("sessions").unwrap_or(1.0) as u32;
        Ok(Self { begin: now(), events, rate: number("rate").unwrap_or_default(), sessions, sent: 0 })
    }
}

impl Connection {
    /// A frame of the stream.
    fn chunk(&mut self, data: &str) {
        let _ = write!(self.out.end(), "{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
    }

    fn answer(&mut self, kind: &str, body: &[u8]) {
        let length = body.len();
        let _ = write!(self.out.end(), "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        self.out.end().extend_from_slice(body);
    }

    fn serve(&mut self, target: &str, bodies: &mut BTreeMap<usize, Vec<u8>>) {
        let path = target.split('?').next().unwrap_or_default();
        match path {
            "/global/event" => {
                self.role = Role::Stream;
                self.out.end().extend_from_slice(STREAM.as_bytes());
                self.chunk(GREETING);
            }
            "/global/health" => {
                self.answer("application/json", format!(r#"{{"healthy":true,"version":"{RELEASE}"}}"#).as_bytes());
            }
            "/path" => {
                let folders =
                    format!(r#"{{"directory":"{DIRECTORY}","worktree":"{DIRECTORY}","home":"/srv","state":"/srv"}}"#);
                self.answer("application/json", folders.as_bytes());
            }
            "/vcs" => self.answer("application/json", br#"{"branch":"main"}"#),
            "/session/status" => self.answer("application/json", b"{}"),
            "/session" | "/experimental/session" | "/permission" | "/question" | "/pty" | "/lsp" => {
                self.answer("application/json", b"[]");
            }
            _ => match path.strip_prefix("/bytes/").and_then(|length| length.parse().ok()) {
                Some(length) => {
                    let body = bodies.entry(length).or_insert_with(|| vec![b'x'; length]);
                    self.answer("application/json", body);
                }
                None => self.out.end().extend_from_slice(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
            },
        }
    }

    fn flush(&mut self, poll: &Poll, token: usize) -> io::Result<()> {
        self.out.flush(&mut self.socket)?;
        let is_full = !self.out.is_empty();
        if is_full != self.is_full {
            self.is_full = is_full;
            poll.want_write(&self.socket, token, is_full)?;
        }
        Ok(())
    }
}
