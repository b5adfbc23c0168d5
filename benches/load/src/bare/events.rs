//! Fan-out without anything around it: what is read from the upstream is written to every client as it is.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use super::{FIRST, Serve, plain};
use crate::connection::{Url, take};
use crate::outbox::Outbox;
use crate::poll::Poll;

/// The upstream's token.
const UPSTREAM: usize = FIRST;

/// What is read at once.
const BUFFER: usize = 64 << 10;

/// Bytes that may wait for a client; one that is further behind is cut off.
const BEHIND: usize = 16 << 20;

struct Client {
    socket: TcpStream,
    out: Outbox,
    /// It has asked, and was answered.
    is_there: bool,
}

pub(crate) struct Events {
    upstream: TcpStream,
    /// What the upstream says first, head and greeting: every client's answer.
    answer: Vec<u8>,
    clients: BTreeMap<usize, Client>,
    next: usize,
    buffer: Vec<u8>,
}

impl Serve for Events {
    fn new(upstream: &Url, poll: &Poll) -> io::Result<Self> {
        let mut socket = TcpStream::connect(upstream.address)?;
        socket.write_all(&upstream.get("accept: text/event-stream\r\n"))?;
        let mut buffer = vec![0; BUFFER];
        // It comes in one piece, like all that is written at once and is so short.
        let length = socket.read(&mut buffer)?;
        let answer = buffer[..length].to_vec();
        let socket = plain(socket)?;
        poll.add(&socket, UPSTREAM)?;
        Ok(Self { upstream: socket, answer, clients: BTreeMap::new(), next: UPSTREAM + 1, buffer })
    }

    fn enter(&mut self, poll: &Poll, client: TcpStream) -> io::Result<()> {
        poll.add_edges(&client, self.next)?;
        self.clients.insert(self.next, Client { socket: client, out: Outbox::default(), is_there: false });
        self.next += 1;
        Ok(())
    }

    fn handle(&mut self, token: usize, readable: bool) -> io::Result<()> {
        if token == UPSTREAM {
            return self.spread();
        }
        let Some(client) = self.clients.get_mut(&token) else { return Ok(()) };
        if client.handle(readable, &self.answer, &mut self.buffer).is_err() {
            self.clients.remove(&token);
        }
        Ok(())
    }
}

impl Events {
    fn spread(&mut self) -> io::Result<()> {
        let Some(length) = take(&mut self.upstream, &mut self.buffer)? else { return Ok(()) };
        let bytes = &self.buffer[..length];
        self.clients.retain(|_, client| {
            !client.is_there || client.out.send(&mut client.socket, bytes).is_ok() && client.out.len() <= BEHIND
        });
        Ok(())
    }
}

impl Client {
    /// An error closes the connection.
    fn handle(&mut self, readable: bool, answer: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        self.out.flush(&mut self.socket)?;
        // A request comes in one piece; what is said later is not heard.
        if readable
            && let Some(length) = take(&mut self.socket, buffer)?
            && !self.is_there
            && buffer[..length].ends_with(b"\r\n\r\n")
        {
            self.out.send(&mut self.socket, answer)?;
            self.is_there = true;
        }
        Ok(())
    }
}
