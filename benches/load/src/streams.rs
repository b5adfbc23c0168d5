//! Many clients on an event stream: what each delivery costs, and how long it takes.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::clock::{nanoseconds, now};
use crate::connection::{Head, Url, take};
use crate::cost::{Meter, Spent};
use crate::events::{Arrived, Finding, REST, Rest};
use crate::figures::Figures;
use crate::histogram::Histogram;
use crate::poll::{Poll, Ready};

/// The first part of the time warms up and is not counted: one of so many.
const WARM_UP: u32 = 4;

/// Clients that wait for the beginning of their stream at a time.
const CONNECTING: usize = 64;

/// How long the clients may take to be there.
const SOON: Duration = Duration::from_secs(60);

/// How long events may take after the last was sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is read at once.
const BUFFER: usize = 64 << 10;

/// How a client asks.
pub(crate) const ACCEPT: &str = "accept: text/event-stream\r\n";

struct Client {
    socket: TcpStream,
    rest: Rest,
    /// Its stream has begun.
    is_there: bool,
}

struct Crowd {
    poll: Poll,
    ready: Vec<Ready>,
    /// None where the server ended the stream.
    clients: Vec<Option<Client>>,
    there: usize,
    finding: Finding,
    buffer: Vec<u8>,
}

/// What came of one event.
#[derive(Clone, Copy, Default)]
struct Fate {
    clients: u32,
    /// How long it took to the latest of them.
    longest: u64,
}

/// What came of all events.
struct Tally {
    fates: Vec<Fate>,
    /// Events before this one warm up.
    first: usize,
    times: Histogram,
    deliveries: u64,
}

/// Where deliveries and costs stood at a moment.
struct Mark {
    subject: Spent,
    tool: Spent,
    deliveries: u64,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let url: Url = arguments.first()?;
    let count: usize = arguments.get("clients")?;
    let time = arguments.seconds()?;
    let origin: Option<Url> = arguments.find("origin")?;
    let meter = Meter::new(arguments.find("cost")?);

    let mut figures = Figures::default();
    let empty = meter.held()?;
    empty.tell("empty", &mut figures);
    let began = now();
    let mut crowd = Crowd::connect(&url, count)?;
    figures.add("connect_s", (now() - began) as f64 / 1e9);
    if let Some(origin) = origin {
        let rate: f64 = arguments.get("rate")?;
        let sessions: u32 = arguments.find("sessions")?.unwrap_or(1);
        let mut tally = Tally::new((rate * time.as_secs_f64()) as usize);
        let begin = now();
        origin.post(&format!("/emit?events={}&rate={rate}&sessions={sessions}", tally.fates.len()))?;
        let counted = begin + nanoseconds(time / WARM_UP);
        let marks = crowd.follow(&mut tally, counted, begin + nanoseconds(time), &meter)?;
        tally.tell(marks, count, &mut figures);
    } else {
        let end = now() + nanoseconds(time);
        while crowd.wait(end, |_, _| ())? {}
    }
    let full = meter.held()?;
    full.tell("full", &mut figures);
    figures.add("rss_bytes_per_client", (full.resident as f64 - empty.resident as f64) / count as f64);
    figures.add("pss_bytes_per_client", (full.proportional as f64 - empty.proportional as f64) / count as f64);
    figures.add("cut_off", crowd.cut_off() as f64);
    figures.print();
    Ok(())
}

impl Crowd {
    /// Opens the streams and waits until all have begun.
    fn connect(url: &Url, count: usize) -> io::Result<Self> {
        let mut crowd = Self {
            poll: Poll::new()?,
            ready: Vec::new(),
            clients: Vec::with_capacity(count),
            there: 0,
            finding: Finding::new(),
            buffer: vec![0; REST + BUFFER],
        };
        let request = url.get(ACCEPT);
        let deadline = now() + nanoseconds(SOON);
        while crowd.there < count {
            while crowd.clients.len() < count && crowd.clients.len() < crowd.there + CONNECTING {
                let mut socket = url.connect(crowd.clients.len())?;
                socket.write_all(&request)?;
                crowd.poll.add(&socket, crowd.clients.len())?;
                crowd.clients.push(Some(Client { socket, rest: Rest::default(), is_there: false }));
            }
            let in_time = crowd.wait(deadline, |_, _| ())?;
            if !in_time || crowd.cut_off() > 0 {
                let (there, cut_off) = (crowd.there, crowd.cut_off());
                return Err(io::Error::other(format!(
                    "{there} of {count} streams began in time, {cut_off} were cut off"
                )));
            }
        }
        Ok(crowd)
    }

    fn cut_off(&self) -> usize {
        self.clients.iter().filter(|client| client.is_none()).count()
    }

    /// Counts what comes from `counted` to `end` for the cost, and a while longer for what is late.
    fn follow(&mut self, tally: &mut Tally, counted: u64, end: u64, meter: &Meter) -> io::Result<[Mark; 2]> {
        let own = Meter::new(Some(std::process::id()));
        let mark = |tally: &Tally| -> io::Result<Mark> {
            Ok(Mark { subject: meter.spent()?, tool: own.spent()?, deliveries: tally.deliveries })
        };
        while self.wait(counted, |event, now| tally.add(event, now))? {}
        let before = mark(tally)?;
        while self.wait(end, |event, now| tally.add(event, now))? {}
        let after = mark(tally)?;
        let expected = (tally.fates.len() * self.clients.len()) as u64;
        let deadline = end + nanoseconds(PATIENCE);
        while tally.deliveries < expected && self.wait(deadline, |event, now| tally.add(event, now))? {}
        Ok([before, after])
    }

    /// Takes what is there or comes next. False once `end` is reached.
    fn wait(&mut self, end: u64, mut arrived: impl FnMut(Arrived, u64)) -> io::Result<bool> {
        let clock = now();
        if clock >= end {
            return Ok(false);
        }
        self.poll.wait(Some(Duration::from_nanos(end - clock)), &mut self.ready)?;
        for event in &self.ready {
            let Some(client) = &mut self.clients[event.token] else { continue };
            let kept = client.rest.bytes().len();
            let Ok(length) = take(&mut client.socket, &mut self.buffer[REST..]) else {
                self.clients[event.token] = None;
                continue;
            };
            let Some(length) = length else { continue };
            let clock = now();
            self.buffer[REST - kept..REST].copy_from_slice(client.rest.bytes());
            let bytes = &self.buffer[REST - kept..REST + length];
            if !client.is_there {
                let head = Head::read(bytes)?.filter(|head| head.status == 200);
                head.ok_or_else(|| io::Error::other(format!("no stream: {}", String::from_utf8_lossy(bytes))))?;
                client.is_there = true;
                self.there += 1;
            }
            client.rest = self.finding.find(bytes, |event| arrived(event, clock));
        }
        Ok(true)
    }
}

impl Tally {
    fn new(events: usize) -> Self {
        let first = events / WARM_UP as usize;
        Self { fates: vec![Fate::default(); events], first, times: Histogram::new(), deliveries: 0 }
    }

    fn add(&mut self, event: Arrived, now: u64) {
        let took = now.saturating_sub(event.sent);
        let number = event.number as usize;
        let Some(fate) = self.fates.get_mut(number) else { return };
        fate.clients += 1;
        fate.longest = fate.longest.max(took);
        self.deliveries += 1;
        if number >= self.first {
            self.times.add(took, 1);
        }
    }

    fn tell(&self, [before, after]: [Mark; 2], clients: usize, figures: &mut Figures) {
        let deliveries = (after.deliveries - before.deliveries) as f64;
        figures.add("deliveries", deliveries);
        figures.add("arrived_share", self.deliveries as f64 / (self.fates.len() * clients) as f64);
        figures.add("cpu_us_per_delivery", after.subject.since(&before.subject).cpu as f64 / 1e3 / deliveries);
        figures.add("tool_cpu_us_per_delivery", after.tool.since(&before.tool).cpu as f64 / 1e3 / deliveries);
        self.times.tell("latency", figures);
        let mut last = Histogram::new();
        let whole = self.fates[self.first..].iter().filter(|fate| fate.clients as usize == clients);
        whole.for_each(|fate| last.add(fate.longest, 1));
        last.tell("last_client", figures);
    }
}
