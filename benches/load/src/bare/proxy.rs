//! A reverse proxy without anything around it: bytes go to and fro between a client and a connection of its own to the
//! upstream.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};

use super::{FIRST, Serve, plain};
use crate::connection::{Url, take};
use crate::outbox::Outbox;
use crate::poll::Poll;

/// What is read at once. Of 16 to 256 KiB, this takes least for a body of 1 MiB, and no more for one of 1 KiB.
const BUFFER: usize = 256 << 10;

struct Side {
    socket: TcpStream,
    out: Outbox,
}

pub(crate) struct Proxy {
    upstream: SocketAddr,
    /// A client and its upstream by the client's token, which is even; the upstream's is the next.
    pairs: BTreeMap<usize, [Side; 2]>,
    next: usize,
    buffer: Vec<u8>,
}

impl Serve for Proxy {
    fn new(upstream: &Url, _: &Poll) -> io::Result<Self> {
        Ok(Self { upstream: upstream.address, pairs: BTreeMap::new(), next: FIRST, buffer: vec![0; BUFFER] })
    }

    fn enter(&mut self, poll: &Poll, client: TcpStream) -> io::Result<()> {
        let upstream = plain(TcpStream::connect(self.upstream)?)?;
        poll.add_edges(&client, self.next)?;
        poll.add_edges(&upstream, self.next + 1)?;
        self.pairs.insert(self.next, [client, upstream].map(|socket| Side { socket, out: Outbox::default() }));
        self.next += 2;
        Ok(())
    }

    fn handle(&mut self, token: usize, readable: bool) -> io::Result<()> {
        let first = token & !1;
        let Some([client, upstream]) = self.pairs.get_mut(&first) else { return Ok(()) };
        let (near, far) = if token == first { (client, upstream) } else { (upstream, client) };
        if near.handle(readable, far, &mut self.buffer).is_err() {
            self.pairs.remove(&first);
        }
        Ok(())
    }
}

impl Side {
    /// An error closes both connections.
    fn handle(&mut self, readable: bool, other: &mut Self, buffer: &mut [u8]) -> io::Result<()> {
        if !self.out.is_empty() {
            self.out.flush(&mut self.socket)?;
            // What the other side has said meanwhile was told of already.
            other.copy(self, buffer)?;
        }
        if readable { self.copy(other, buffer) } else { Ok(()) }
    }

    /// Passes on what is there, as long as the other takes it.
    fn copy(&mut self, other: &mut Self, buffer: &mut [u8]) -> io::Result<()> {
        while other.out.is_empty() {
            let Some(length) = take(&mut self.socket, buffer)? else { break };
            other.out.send(&mut other.socket, &buffer[..length])?;
            // There was no more: what comes now is told of.
            if length < buffer.len() {
                break;
            }
        }
        Ok(())
    }
}
