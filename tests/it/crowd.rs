//! A thousand clients on one relay: most read, some never do, some come back every second with their last id.
//!
//! The clients are as cheap as can be: one task and one socket each, frames cut by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use memchr::memmem;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::faults::resume::numbered;
use crate::standin::{SOON, StandIn};
use crate::support::bounded;
use crate::support::http::Api;
use crate::support::process::{Cost, Line, Process};
use crate::support::relay::Relay;
use crate::support::sse::Stream;

const READERS: usize = 800;
const STALLED: usize = 100;
const RETURNING: usize = 100;

/// Events a second. A debug build on two cores, the clients included, keeps up with the first; the promise is the second.
const RATE: usize = if cfg!(debug_assertions) { 300 } else { 2_000 };

/// For so many seconds.
const SECONDS: usize = 10;

const EVENTS: usize = RATE * SECONDS;

/// How often events are sent: several at a time, as from a busy opencode.
const TICK: Duration = Duration::from_millis(20);

/// How long the relay bears a client that takes nothing.
const STALL: &str = "2s";

/// How long anything may take after the last event was sent.
const END: Duration = Duration::from_secs(40);

/// What the journal may hold.
const JOURNAL: u64 = 32 << 20;

/// The bound on the relay's memory above what it had without clients. Each client: what hyper has of its stream and one
/// batch of frames (64 KiB each, both used up only while it takes less than comes), its read buffer, its task. For all
/// together: the journal, whose newest records stand in the hub's list too, and half as much for what the allocator does
/// not give back. What the kernel holds in sockets is not in it.
const MEMORY: u64 = (READERS + STALLED + RETURNING) as u64 * (160 << 10) + JOURNAL * 3 / 2;

/// A client's connection and what it has of it.
struct Client {
    host: String,
    socket: TcpStream,
    bytes: Vec<u8>,
    /// The next number it must get.
    next: usize,
    /// The id of the last whole frame.
    id: Option<String>,
}

impl Client {
    async fn connect(host: &str, from: Option<(usize, String)>, small: bool) -> Self {
        let socket = if small { connect_small(host).await } else { TcpStream::connect(host).await.unwrap() };
        let (next, id) = from.map_or((0, None), |(next, id)| (next, Some(id)));
        let mut client = Self { host: host.to_owned(), socket, bytes: Vec::new(), next, id };
        let last = client.id.as_ref().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let request = format!("GET /event HTTP/1.1\r\nhost: {host}\r\n{last}\r\n");
        client.socket.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// Takes what comes next; false at the end of the connection, which must be an error's.
    async fn read(&mut self, numbers: impl FnMut(usize)) -> bool {
        let start = self.bytes.len();
        self.bytes.resize(start + (16 << 10), 0);
        let read = timeout(END, self.socket.read(&mut self.bytes[start..])).await.expect("events come");
        let count = read.unwrap_or(0);
        self.bytes.truncate(start + count);
        if count == 0 {
            assert!(!self.bytes.ends_with(b"0\r\n\r\n"), "the stream ended cleanly");
            return false;
        }
        self.take(numbers);
        true
    }

    /// Every event once and in order: the next number is the only one that is right.
    fn take(&mut self, mut numbers: impl FnMut(usize)) {
        let mut done = 0;
        let mut last = None;
        while let Some(length) = memmem::find(&self.bytes[done..], b"\n\n") {
            let frame = &self.bytes[done..done + length];
            if let Some(at) = memmem::find(frame, b"\"number\":") {
                let digits = &frame[at + b"\"number\":".len()..];
                let digits = &digits[..memchr::memchr(b'}', digits).unwrap()];
                let number: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
                assert_eq!(number, self.next, "after {:?}", self.id);
                self.next += 1;
                numbers(number);
            } else if memmem::find(frame, b"\"gap\"").is_some() {
                panic!("a gap: {}", String::from_utf8_lossy(frame));
            }
            last = memmem::find(frame, b"id: ").map(|at| done + at + 4).or(last);
            done += length + 2;
        }
        if let Some(at) = last {
            let id = &self.bytes[at..];
            let id = &id[..memchr::memchr(b'\n', id).unwrap()];
            self.id = Some(String::from_utf8_lossy(id).into_owned());
        }
        self.bytes.drain(..done);
    }

    /// A new connection that goes on where this one was.
    async fn back(self) -> Self {
        let from = self.id.map(|id| (self.next, id));
        drop(self.socket);
        Self::connect(&self.host, from, false).await
    }
}

/// A socket that holds little, so that a client that does not read is noticed soon.
async fn connect_small(host: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.connect(&host.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

async fn reader(mut client: Client) {
    while client.next < EVENTS {
        assert!(client.read(|_| ()).await, "a reader's stream ended after {}", client.next);
    }
}

/// Notes how long each event took from the stand-in to here.
async fn timed(mut client: Client, sent: Arc<Vec<AtomicU64>>, start: Instant) -> Vec<u64> {
    let mut took = Vec::with_capacity(EVENTS);
    while client.next < EVENTS {
        let more = client.read(|number| {
            let now = u64::try_from(start.elapsed().as_micros()).unwrap();
            took.push(now - sent[number].load(Ordering::Relaxed));
        });
        assert!(more.await, "a reader's stream ended");
    }
    took.sort_unstable();
    took
}

/// Comes back every second.
async fn returning(mut client: Client, returns: Arc<AtomicUsize>) {
    let mut due = Instant::now() + Duration::from_secs(1);
    while client.next < EVENTS {
        assert!(client.read(|_| ()).await, "a returning client's stream ended after {}", client.next);
        if Instant::now() >= due && client.id.is_some() {
            client = client.back().await;
            returns.fetch_add(1, Ordering::Relaxed);
            due += Duration::from_secs(1);
        }
    }
}

/// Reads nothing until it is told to; by then its stream was ended, and it goes on with another.
async fn stalled(mut client: Client, wake: Arc<AtomicBool>) {
    while !wake.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(100)).await;
    }
    while client.read(|_| ()).await {}
    assert!(client.next < EVENTS, "its stream was never ended");
    reader(client.back().await).await;
}

/// What a relay has at most in memory, looked at all the time.
async fn watch_memory(pid: u32, most: Arc<AtomicU64>) {
    loop {
        most.fetch_max(Cost::of(pid).resident, Ordering::Relaxed);
        sleep(Duration::from_millis(100)).await;
    }
}

/// Both ends of each connection are in this process or in the relay's; the first may need more than it was given.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients() {
    raise_descriptors();
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let (url, journal, state) = (standin.url(), JOURNAL.to_string(), standin.state_dir());
        let arguments = ["--upstream", &url, "--witness", "stream", "--stall-timeout", STALL, "--journal-bytes", &journal, "--state-dir", &state];
        let relay = Relay::start(&arguments, &[], &std::env::temp_dir()).await;
        standin.granted(1).await;
        let host = relay.base().strip_prefix("http://").unwrap();
        let before = relay.cost();
        let most = Arc::new(AtomicU64::new(0));
        let mut watching = JoinSet::new();
        watching.spawn(watch_memory(relay.id(), most.clone()));

        let start = Instant::now();
        let sent: Arc<Vec<AtomicU64>> = Arc::new((0..EVENTS).map(|_| AtomicU64::new(0)).collect());
        let (returns, wake) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        let mut clock = JoinSet::new();
        clock.spawn(timed(Client::connect(host, None, false).await, sent.clone(), start));
        for _ in 1..READERS {
            clients.spawn(reader(Client::connect(host, None, false).await));
        }
        for _ in 0..RETURNING {
            clients.spawn(returning(Client::connect(host, None, false).await, returns.clone()));
        }
        let mut stuck = JoinSet::new();
        for _ in 0..STALLED {
            stuck.spawn(stalled(Client::connect(host, None, true).await, wake.clone()));
        }
        streams(&relay, READERS + RETURNING + STALLED).await;
        let connected = start.elapsed();

        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let began = Instant::now();
        for number in 0..EVENTS {
            if number % (RATE * TICK.as_millis() as usize / 1_000) == 0 {
                tick.tick().await;
            }
            sent[number].store(u64::try_from(start.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
            assert!(standin.send(&padded(number)));
        }
        let published = began.elapsed();
        let rate = EVENTS as f64 / published.as_secs_f64();
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        let took = clock.join_next().await.unwrap().unwrap();
        let delivered = began.elapsed();
        // The readers are done and gone; those that never read are ended by then, or will be.
        streams(&relay, 0).await;
        wake.store(true, Ordering::Relaxed);
        while let Some(done) = stuck.join_next().await {
            done.unwrap();
        }
        streams(&relay, 0).await;
        let (most, cost) = (most.load(Ordering::Relaxed), relay.cost());
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] / 1_000;
        println!(
            "{} clients connected in {connected:?}; {EVENTS} events published at {rate:.0}/s, delivered after \
             {delivered:?}; {} returns; latency ms p50 {} p99 {} max {}; relay RSS {} KiB before, {} most, {} after; CPU {:?}",
            READERS + RETURNING + STALLED,
            returns.load(Ordering::Relaxed),
            at(0.5),
            at(0.99),
            at(1.0),
            before.resident >> 10,
            most >> 10,
            cost.resident >> 10,
            cost.cpu - before.cpu,
        );
        assert!(returns.load(Ordering::Relaxed) >= RETURNING * SECONDS / 2);
        assert!(most - before.resident < MEMORY, "{} KiB more than {} KiB", most >> 10, before.resident >> 10);
        assert_eq!(standin.most_open(), 1);
    })
    .await;
}

/// A frame of some 400 bytes, as most of opencode's are.
fn padded(number: usize) -> String {
    let pad = format!(r#""pad":"{}","number""#, "x".repeat(250));
    numbered(number, "ses_a").replacen(r#""number""#, &pad, 1)
}

/// Waits until so many streams are open.
async fn streams(relay: &Relay, count: usize) {
    let deadline = Instant::now() + END;
    loop {
        let status = relay.api().get("/_relay/status").await;
        if status["clients"]["event"] == count {
            return;
        }
        assert!(Instant::now() < deadline, "{} streams are open, not {count}", status["clients"]["event"]);
        sleep(Duration::from_millis(50)).await;
    }
}

/// A relay that is started with few descriptors takes as many as it may have.
#[tokio::test]
async fn the_relay_raises_its_own_limit() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        // As systemd and shells do it: a low soft limit under a high hard one.
        let script = r#"ulimit -S -n 48; exec "$0" run --listen 127.0.0.1:0 --journal memory --upstream "$1""#;
        let command = ["sh", "-c", script, env!("CARGO_BIN_EXE_opencode-relay"), &standin.url()].map(str::to_owned);
        let env = [("PATH".to_owned(), std::env::var("PATH").unwrap())];
        let process = Process::start(&command, &env, &std::env::temp_dir(), None).unwrap();
        let listening = |line: &Line| line.text.strip_prefix("opencode-relay listening on ").map(str::to_owned);
        let base = process.stdout.wait(0, SOON, listening).await.unwrap();
        let text = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
        let files = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let limits: Vec<&str> = files.split_whitespace().collect();
        assert_eq!(limits[0], limits[1], "{text}");
        assert_ne!(limits[0], "48", "{text}");
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(Stream::open(&Api::new(&base), "/event").await.unwrap());
        }
        streams[99].wait_for(|_| true, SOON).await;
    })
    .await;
}
