//! An opencode that reads what comes with the strict reader, keeps all of it, and says in each answer what it answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opencode_relay::stop::{Stop, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::reader::{Message, Read, Side, read};
use crate::proxy::fixture::{Relay, Settings};
use crate::upstream::{LIMIT, within};

/// What arrived at opencode.
#[derive(Clone, Debug)]
pub(crate) enum Arrived {
    Message(Message),
    /// The beginning of a message; then the connection ended.
    Cut,
    /// Bytes that are no message.
    Wrong(String),
}

/// It stops when it is dropped.
pub(crate) struct Recorder {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    stop: Stop,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self { address: listener.local_addr().unwrap(), arrived: Arc::default(), stop: Stop::new() };
        let (arrived, stop, tasks) = (recorder.arrived.clone(), recorder.stop.clone(), Tasks::new());
        tasks.clone().spawn("recorder", async move {
            while let Some(Ok((stream, _))) = stop.or(listener.accept()).await {
                let (arrived, stop) = (arrived.clone(), stop.clone());
                tasks.spawn("recorder connection", async move {
                    stop.or(record(stream, &arrived)).await;
                });
            }
        });
        recorder
    }

    /// A relay in front of it.
    pub(crate) async fn relay(&self) -> Relay {
        let target = opencode_relay::proxy::Target::Up(self.address.into());
        Relay::start(target, Settings::default()).await
    }

    /// What arrived since the last time.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.arrived.lock().unwrap())
    }
}

impl Recorder {
    /// How many whole messages arrived since then.
    pub(crate) fn messages(&self) -> usize {
        let is_message = |arrived: &&Arrived| matches!(arrived, Arrived::Message(_));
        self.arrived.lock().unwrap().iter().filter(is_message).count()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.pull();
    }
}

async fn record(mut stream: TcpStream, arrived: &Mutex<Vec<Arrived>>) {
    let (mut bytes, mut continued) = (Vec::new(), false);
    loop {
        match read(&bytes, Side::Requests) {
            Read::Message(message, length) => {
                continued = false;
                bytes.drain(..length);
                let answer = if message.first_words() == "GET /path" {
                    // The relay's own question, whether it may answer a client.
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"directory\":\"/d\"}".to_owned()
                } else {
                    let label = message.label();
                    arrived.lock().unwrap().push(Arrived::Message(*message));
                    format!("HTTP/1.1 200 OK\r\nx-served: {label}\r\ncontent-length: 0\r\n\r\n")
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Read::More => {
                if !continued && waits(&bytes) {
                    continued = true;
                    if stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                        return;
                    }
                }
                if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    if !bytes.is_empty() {
                        arrived.lock().unwrap().push(Arrived::Cut);
                    }
                    return;
                }
            }
            Read::Wrong(what) => {
                arrived.lock().unwrap().push(Arrived::Wrong(format!("{what}: {}", bytes.escape_ascii())));
                return;
            }
        }
    }
}

/// Whether these bytes are a head whose sender waits with the body.
fn waits(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.split_once("\r\n\r\n").is_some_and(|(head, _)| head.contains("\r\nexpect: 100-continue"))
}

/// What a client got on one connection.
#[derive(Debug)]
pub(crate) struct Got {
    /// Without informational ones.
    pub(crate) answers: Vec<Message>,
    /// Bytes that are no whole answer.
    pub(crate) rest: Vec<u8>,
    /// Why `rest` is not even the beginning of one.
    pub(crate) wrong: Option<String>,
    /// Whether the relay ended the connection.
    pub(crate) closed: bool,
}

impl Got {
    /// What opencode says it answered, in order.
    pub(crate) fn served(&self) -> Vec<&str> {
        self.answers.iter().filter_map(|answer| answer.get("x-served")).collect()
    }

    /// The answers that the relay made by itself.
    pub(crate) fn refusals(&self) -> Vec<&str> {
        let own = self.answers.iter().filter(|answer| answer.get("x-served").is_none());
        own.map(|answer| answer.start[1].as_str()).collect()
    }
}

/// How long a connection may be silent before a client takes it for waiting.
pub(crate) const SILENCE: Duration = Duration::from_millis(250);

/// For where something has to come.
pub(crate) fn patient(_: &Got) -> Duration {
    LIMIT
}

/// Sends bytes on a new connection and reads until the relay ends it, `enough` is there, or nothing came for `patience`.
pub(crate) async fn talk(
    relay: &Relay,
    bytes: &[u8],
    enough: impl Fn(&Got) -> bool,
    patience: impl Fn(&Got) -> Duration,
) -> Got {
    let mut stream = within("a connection", TcpStream::connect(relay.address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // The relay may end the connection before it has taken all of it.
    let _ = within("room to send", stream.write_all(bytes)).await;
    let (mut came, mut closed) = (Vec::new(), false);
    loop {
        let got = answers(&came, closed);
        if closed || enough(&got) {
            return got;
        }
        let patient = patience(&got);
        match tokio::time::timeout(patient, stream.read_buf(&mut came)).await {
            Ok(count) => closed = !matches!(count, Ok(1..)),
            Err(_) if patience(&got) > patient => {}
            Err(_) => return got,
        }
    }
}

fn answers(came: &[u8], closed: bool) -> Got {
    let mut got = Got { answers: Vec::new(), rest: came.to_vec(), wrong: None, closed };
    while !got.rest.is_empty() {
        // The relay's own answers to HEAD tell a length, and nothing can come after them but the end.
        let head = String::from_utf8_lossy(&got.rest).split("\r\n\r\n").next().unwrap_or_default().to_owned();
        let to_head = head.contains("x-served: HEAD ");
        match read(&got.rest, Side::Answers { to_head, ended: closed }) {
            Read::Message(message, length) => {
                got.rest.drain(..length);
                if !message.is_interim() {
                    got.answers.push(*message);
                }
            }
            Read::More => break,
            Read::Wrong(what) => {
                got.wrong = Some(what);
                break;
            }
        }
    }
    got
}
