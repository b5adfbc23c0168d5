//! One delivery, whatever it writes to.

use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::clients::Clients;
use super::super::socket::Stream;
use super::*;
use crate::event::{Epoch, Event, Form, Origin, Place, Scope, Types, View};
use crate::hub::Hub;
use crate::journal::{Batch, Journal, Options};
use crate::proxy::Peer;
use crate::stop::Tasks;

const SOON: Duration = Duration::from_secs(5);

struct Fixture {
    journal: Arc<Journal>,
    hub: Hub,
    clients: Clients,
    streams: Stop,
    cut: Stop,
}

impl Fixture {
    fn new() -> Self {
        let options = Options { bytes: 64 << 20, age: Duration::from_secs(60) };
        let journal = Arc::new(Journal::new(Epoch::new(1), options));
        let (clients, streams, cut) = (Clients::default(), Stop::new(), Stop::new());
        Self { hub: Hub::new(journal.clone(), Tasks::new()), journal, clients, streams, cut }
    }

    fn publish(&self, size: usize) {
        let place = Place { directory: Some("/p".into()), project: None };
        let properties = format!(r#"{{"x":"{}"}}"#, "x".repeat(size));
        let event = Event::made(Origin::State, "a", &place, None, "evt_1", &properties);
        let records = self.journal.append(Batch { events: vec![event], ..Batch::default() }, 0);
        self.hub.publish(records, None);
    }

    fn end(&self) {
        self.streams.pull();
        self.hub.rouse();
    }

    /// With nothing between it and the socket, so that the hub writes too.
    fn deliver_plainly(&self, socket: Socket, stall: Duration) -> JoinHandle<()> {
        let way = Way { io: socket.clone(), socket, is_plain: true, stall, cut: self.cut.clone(), has_more: false };
        self.deliver(way, Version::HTTP_11)
    }

    fn deliver<S>(&self, way: Way<S>, version: Version) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let scope = Scope { view: View::Instance, directory: None, session: None, types: Types::default() };
        let follower = self.hub.follow(scope, None, Form { ids: false, origin: false });
        let place = self.clients.enter(Peer::Unix, None, follower.standing());
        let stream = EventStream::new(follower, place, Duration::from_secs(60), self.streams.clone());
        let (parts, ()) = Response::new(()).into_parts();
        let handover = Handover::new(parts, Box::new(stream), version);
        Tasks::new().spawn("event stream", Delivery::new(handover, way))
    }

    /// The client's end of a pipe that holds `room` bytes.
    fn pipe(&self, room: usize, version: Version) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(room);
        let socket = Socket::new(Stream::Unix(UnixStream::pair().unwrap().0), None);
        let way = Way { io: far, socket, is_plain: false, stall: SOON, cut: self.cut.clone(), has_more: false };
        (near, self.deliver(way, version))
    }
}

/// Reads up to where there are so many ends.
async fn until(client: &mut (impl AsyncRead + Unpin), text: &mut String, end: &str, count: usize) {
    while text.matches(end).count() < count {
        let mut byte = [0];
        timeout(SOON, client.read_exact(&mut byte)).await.unwrap_or_else(|_| panic!("{text}")).unwrap();
        text.push(char::from(byte[0]));
    }
}

/// What is in whole chunks; there must be nothing else.
fn unchunked(mut text: &str) -> String {
    let mut all = String::new();
    while !text.is_empty() {
        let (size, rest) = text.split_once("\r\n").unwrap();
        let (data, rest) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
        all.push_str(data);
        text = rest.strip_prefix("\r\n").unwrap();
    }
    all
}

#[tokio::test]
async fn chunks_are_whole_however_little_is_taken_at_once() {
    for room in [1, 2, 3, 7, 60, 4096] {
        let fixture = Fixture::new();
        let (mut client, task) = fixture.pipe(room, Version::HTTP_11);
        let mut head = String::new();
        until(&mut client, &mut head, "\r\n\r\n", 1).await;
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
        assert!(head.contains("transfer-encoding: chunked\r\n") && head.contains("date: "), "{head}");
        let mut body = String::new();
        until(&mut client, &mut body, "\n\n\r\n", 1).await;
        for (count, size) in [0, 10, 300].into_iter().enumerate() {
            fixture.publish(size);
            until(&mut client, &mut body, "\n\n\r\n", count + 2).await;
        }
        let frames = unchunked(&body);
        assert!(frames.starts_with("data: ") && frames.contains("server.connected"), "{frames}");
        assert_eq!(frames.matches("\n\n").count(), 4, "{room}: {frames}");
        // No last chunk: the end is an error to the client.
        fixture.end();
        let mut rest = String::new();
        timeout(SOON, client.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, "");
        timeout(SOON, task).await.unwrap().unwrap();
        assert!(fixture.clients.open().is_empty());
    }
}

#[tokio::test]
async fn what_was_published_before_the_end_is_given() {
    let fixture = Fixture::new();
    let (mut client, task) = fixture.pipe(4096, Version::HTTP_11);
    let mut text = String::new();
    until(&mut client, &mut text, "\n\n\r\n", 1).await;
    // Several batches, none of which it has looked at when it is told.
    (0..10).for_each(|_| fixture.publish(50_000));
    fixture.end();
    let mut rest = String::new();
    timeout(SOON, client.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(unchunked(&rest).matches("\n\n").count(), 10);
    timeout(SOON, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn http_1_0_gets_no_chunks() {
    let fixture = Fixture::new();
    let (mut client, _task) = fixture.pipe(100, Version::HTTP_10);
    let mut text = String::new();
    until(&mut client, &mut text, "\r\n\r\n", 1).await;
    assert!(text.contains("connection: close\r\n") && !text.contains("chunked"), "{text}");
    fixture.publish(3);
    let mut body = String::new();
    until(&mut client, &mut body, "xxx\"}}\n\n", 1).await;
    assert!(body.starts_with("data: "), "{body}");
}

#[tokio::test]
async fn ends_with_its_client_and_listens_to_nothing_else() {
    let fixture = Fixture::new();
    let (mut client, task) = fixture.pipe(4096, Version::HTTP_11);
    let mut text = String::new();
    until(&mut client, &mut text, "\n\n\r\n", 1).await;
    client.shutdown().await.unwrap();
    timeout(SOON, task).await.unwrap().unwrap();

    let (mut client, task) = fixture.pipe(4096, Version::HTTP_11);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut text = String::new();
    until(&mut client, &mut text, "\n\n\r\n", 1).await;
    fixture.publish(3);
    until(&mut client, &mut text, "xxx\"}}\n\n\r\n", 1).await;
    drop(client);
    fixture.publish(3);
    timeout(SOON, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_hub_could_not_write_to_the_end_comes_first() {
    let fixture = Fixture::new();
    let (near, mut client) = UnixStream::pair().unwrap();
    let socket = Socket::new(Stream::Unix(near), None);
    socket.carry_stream(SOON).unwrap();
    let task = fixture.deliver_plainly(socket.clone(), SOON);
    let mut text = String::new();
    until(&mut client, &mut text, "\n\n\r\n", 1).await;
    // By and by more than the kernel holds, so that each way of writing stops in the middle once.
    for size in [100, 30_000, 20_000, 50_000, 60_000, 40_000, 10, 70_000] {
        fixture.publish(size);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert!(socket.blocked_since().is_some());
    drop(socket);
    let mut rest = vec![0; 64 << 10];
    // Those that waited are written together.
    while text.matches("\n\n").count() < 9 {
        let count = timeout(SOON, client.read(&mut rest)).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&rest[..count]).unwrap());
    }
    fixture.publish(5);
    until(&mut client, &mut text, "\n\n", 10).await;
    fixture.end();
    timeout(SOON, client.read_to_string(&mut text)).await.unwrap().unwrap();
    let body = unchunked(text.split_once("\r\n\r\n").unwrap().1);
    let sizes: Vec<usize> = body.split("\n\n").map(|frame| frame.matches('x').count()).collect();
    // The property is an x too, and the greeting has none; the stream does not end with a whole frame.
    assert_eq!(sizes, [0, 101, 30_001, 20_001, 50_001, 60_001, 40_001, 11, 70_001, 6, 0]);
    timeout(SOON, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let fixture = Fixture::new();
    let stuck = |stall| {
        let (near, far) = UnixStream::pair().unwrap();
        let socket = Socket::new(Stream::Unix(near), None);
        (far, fixture.deliver_plainly(socket, stall))
    };
    let flood = || (0..40).for_each(|_| fixture.publish(50_000));
    let (_client, task) = stuck(Duration::from_millis(50));
    flood();
    timeout(SOON, task).await.unwrap().unwrap();
    // Whoever takes something now and then stays.
    let (_stays, stays) = stuck(Duration::from_secs(600));
    let (mut reads, slow) = stuck(Duration::from_secs(1));
    flood();
    let mut bytes = vec![0; 60_000];
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        reads.read_exact(&mut bytes).await.unwrap();
    }
    assert!(!slow.is_finished());
    fixture.end();
    fixture.cut.pull();
    timeout(LAST_WAIT / 2, stays).await.unwrap().unwrap();
}

#[test]
fn a_stream_costs_little() {
    // What a client that waits costs besides: the socket, the follower, the register of clients, two timers.
    let size = size_of::<Delivery<Socket>>() + size_of::<EventStream>();
    assert!(size <= 512, "{size}");
}
