//! Servers that only move bytes: what is left to any server that makes these system calls, whatever it is written in; and
//! one of hyper alone.
//!
//! Each thread has an epoll, a listener and connections of its own. The kernel spreads the clients over the listeners.

mod events;
pub(crate) mod hyper;
mod proxy;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

use rustix::net::sockopt::set_socket_reuseport;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use crate::arguments::{Arguments, mistake};
use crate::connection::Url;
use crate::poll::Poll;

pub(crate) use events::Events;
pub(crate) use proxy::Proxy;

/// Clients that the kernel accepts ahead.
const BACKLOG: i32 = 4_096;

const LISTENER: usize = 0;
const INPUT: usize = 1;

/// Tokens of connections begin here.
const FIRST: usize = 2;

/// What one thread does with its clients.
pub(crate) trait Serve: Sized {
    fn new(upstream: &Url, poll: &Poll) -> io::Result<Self>;

    /// A client has come.
    fn enter(&mut self, poll: &Poll, client: TcpStream) -> io::Result<()>;

    /// A connection can be used.
    fn handle(&mut self, token: usize, readable: bool) -> io::Result<()>;
}

/// Serves until standard input ends.
pub(crate) fn run<S: Serve>(arguments: &Arguments) -> io::Result<()> {
    let upstream: Url = arguments.first()?;
    let listeners = listeners(arguments)?;
    thread::scope(|scope| {
        let threads = listeners.into_iter().map(|listener| scope.spawn(|| serve::<S>(listener, &upstream)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a panic"))))
    })
}

/// As many as there are to be threads, on one port, which is told.
fn listeners(arguments: &Arguments) -> io::Result<Vec<TcpListener>> {
    let count: usize = arguments.get("threads")?;
    let mut listeners = Vec::with_capacity(count);
    let mut port = 0;
    for _ in 0..count {
        let listener = listener(port)?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err(mistake("--threads is too few"));
    }
    println!("listening on http://127.0.0.1:{port}");
    Ok(listeners)
}

/// One of those that share a port; of 0, the first of them.
fn listener(port: u16) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_reuseport(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn serve<S: Serve>(listener: TcpListener, upstream: &Url) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;
    poll.add(io::stdin(), INPUT)?;
    let mut server = S::new(upstream, &poll)?;
    let mut ready = Vec::new();
    loop {
        poll.wait(None, &mut ready)?;
        for event in &ready {
            match event.token {
                // One at a time: epoll tells of the next.
                LISTENER => match listener.accept() {
                    Ok((client, _)) => server.enter(&poll, plain(client)?)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                },
                // Whoever started this one is gone.
                INPUT => return Ok(()),
                token => server.handle(token, event.readable)?,
            }
        }
    }
}

/// A socket that can wait for nobody and holds nothing back.
fn plain(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
