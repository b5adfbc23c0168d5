//! Requests over connections that stay: as many as can be, or so many a second.
//!
//! At a rate, a request's time counts from when it was due, also when every connection was taken: whoever waits for a slow
//! server waits longer than the server says.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::clock::{nanoseconds, now};
use crate::connection::{Head, Url, take};
use crate::cost::{Meter, Spent};
use crate::figures::Figures;
use crate::histogram::Histogram;
use crate::poll::Poll;

/// The first part of the time warms up and is not counted: one of so many.
const WARM_UP: u32 = 5;

/// What is read at once.
const BUFFER: usize = 256 << 10;

/// How long an answer may take after the time is over.
const PATIENCE: Duration = Duration::from_secs(10);

struct Connection {
    socket: TcpStream,
    /// When its request was due.
    due: u64,
    /// The head of the answer, as far as it came; empty once it was read.
    head: Vec<u8>,
    /// Bytes of the body to come, once the head was read.
    left: Option<usize>,
}

struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    /// Those that wait for a request: the one that has waited longest is next.
    idle: VecDeque<usize>,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let url: Url = arguments.first()?;
    let count: usize = arguments.get("connections")?;
    let rate: Option<f64> = arguments.find("rate")?;
    let time = arguments.seconds()?;
    let meter = Meter::new(arguments.find("cost")?);
    let own = Meter::new(Some(std::process::id()));

    let mut load = Load::new(&url, count)?;
    let mut times = Histogram::new();
    let begin = now();
    let counted = begin + nanoseconds(time / WARM_UP);
    let end = begin + nanoseconds(time);
    let (mut asked, mut answers) = (0_u64, 0_u64);
    let mut before: Option<(Spent, Spent, u64)> = None;
    let mut ready = Vec::new();
    loop {
        let clock = now();
        if clock >= end {
            break;
        }
        if before.is_none() && clock >= counted {
            before = Some((meter.spent()?, own.spent()?, now()));
        }
        let next = match rate {
            None => {
                while load.ask(clock)? {}
                end
            }
            Some(rate) => loop {
                let due = begin + (asked as f64 / rate * 1e9) as u64;
                if due > clock || !load.ask(due)? {
                    break due.max(clock);
                }
                asked += 1;
            },
        };
        // With no connection free, only an answer is worth waking for.
        let wake = if load.idle.is_empty() { end } else { next };
        let limit = Duration::from_nanos(wake.saturating_sub(now()));
        load.poll.wait(Some(limit), &mut ready)?;
        for event in &ready {
            if let Some(due) = load.read(event.token)?
                && before.is_some()
            {
                answers += 1;
                times.add(now() - due, 1);
            }
        }
    }
    let ended = now();
    let (before, own_before, began) = before.ok_or_else(|| io::Error::other("--seconds is too short"))?;
    let (spent, own_spent) = (meter.spent()?.since(&before).cpu, own.spent()?.since(&own_before).cpu);
    let seconds = (ended - began) as f64 / 1e9;
    while load.idle.len() < count && now() - ended < nanoseconds(PATIENCE) {
        load.poll.wait(Some(PATIENCE), &mut ready)?;
        for event in &ready {
            load.read(event.token)?;
        }
    }
    if load.idle.len() < count {
        return Err(io::Error::other(format!("{} answers never ended", count - load.idle.len())));
    }

    let mut figures = Figures::default();
    figures.add("requests", answers as f64);
    figures.add("requests_per_s", answers as f64 / seconds);
    figures.add("cpu_us_per_request", spent as f64 / 1e3 / answers as f64);
    times.tell("latency", &mut figures);
    figures.add("tool_cpu_us_per_request", own_spent as f64 / 1e3 / answers as f64);
    figures.print();
    Ok(())
}

impl Load {
    fn new(url: &Url, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(count);
        for token in 0..count {
            let socket = url.connect(token)?;
            poll.add(&socket, token)?;
            connections.push(Connection { socket, due: 0, head: Vec::new(), left: None });
        }
        Ok(Self { poll, connections, idle: (0..count).collect(), request: url.get(""), buffer: vec![0; BUFFER] })
    }

    /// Sends one request; no when every connection has one.
    fn ask(&mut self, due: u64) -> io::Result<bool> {
        let Some(token) = self.idle.pop_front() else { return Ok(false) };
        let connection = &mut self.connections[token];
        connection.due = due;
        connection.socket.write_all(&self.request)?;
        Ok(true)
    }

    /// Takes what came. When that ends an answer: since when it was due.
    fn read(&mut self, token: usize) -> io::Result<Option<u64>> {
        let connection = &mut self.connections[token];
        let Some(length) = take(&mut connection.socket, &mut self.buffer)? else { return Ok(None) };
        let mut came = &self.buffer[..length];
        let whole;
        if connection.left.is_none() {
            if !connection.head.is_empty() {
                connection.head.extend_from_slice(came);
                whole = std::mem::take(&mut connection.head);
                came = &whole;
            }
            let Some(head) = Head::read(came)? else {
                connection.head = came.to_vec();
                return Ok(None);
            };
            let body = head.length.filter(|_| head.status == 200);
            connection.left = Some(body.ok_or_else(|| io::Error::other(format!("the answer was {head:?}")))?);
            came = &came[head.size..];
        }
        let left = connection.left.and_then(|left| left.checked_sub(came.len()));
        match left.ok_or_else(|| io::Error::other("more came than the head said"))? {
            0 => {
                connection.left = None;
                self.idle.push_back(token);
                Ok(Some(connection.due))
            }
            left => {
                connection.left = Some(left);
                Ok(None)
            }
        }
    }
}
