//! What is written to the client of an event stream, and the way by which the hub writes it while the stream's own task sleeps.
//!
//! Either the task writes or the hub, never both: the way is open only while the task waits for events and has written all
//! that it had.

use std::io::{Cursor, IoSlice};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, buf};

use super::socket::Socket;
use crate::hub::{self, Offered};

/// Bytes on their way: the size of a chunk, what is in it, and what ends it.
#[derive(Debug)]
pub(super) struct Piece(buf::Chain<buf::Chain<Cursor<[u8; SIZE]>, Bytes>, &'static [u8]>);

/// The longest size of a chunk with its line end.
const SIZE: usize = 18;

/// How many slices a piece has.
const SLICES: usize = 3;

impl Piece {
    /// A chunk of HTTP/1.1 (RFC 9112 §7.1), or for HTTP/1.0, which knows none, the data alone.
    pub(super) fn new(data: Bytes, is_chunked: bool) -> Self {
        if is_chunked { Self::chunk(data) } else { Self::plain(data) }
    }

    fn chunk(data: Bytes) -> Self {
        let mut size = *b"................\r\n";
        let (mut left, mut begin) = (data.len(), SIZE - 2);
        loop {
            begin -= 1;
            size[begin] = b"0123456789abcdef"[left % 16];
            left /= 16;
            if left == 0 {
                break;
            }
        }
        let mut size = Cursor::new(size);
        size.set_position(begin as u64);
        Self(size.chain(data).chain(b"\r\n"))
    }

    pub(super) fn plain(data: Bytes) -> Self {
        let mut none = Cursor::new([0; SIZE]);
        none.set_position(SIZE as u64);
        Self(none.chain(data).chain(b""))
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.0.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

/// Where the hub writes events to a client that waits for them.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: Socket,
    is_chunked: bool,
    gate: Mutex<Gate>,
}

#[derive(Debug)]
enum Gate {
    /// The stream's task has something to do.
    Shut,
    /// It sleeps.
    Open,
    /// The client did not take all at once; the task is to write this first.
    Left(Box<Piece>),
}

impl Outlet {
    /// A way to the socket, shut at first.
    pub(super) fn new(socket: Socket, is_chunked: bool) -> Self {
        Self { socket, is_chunked, gate: Mutex::new(Gate::Shut) }
    }

    /// From here on the hub may write.
    pub(super) fn open(&self) {
        *self.lock() = Gate::Open;
    }

    /// From here on it may not; gives what it could not write to the end.
    pub(super) fn shut(&self) -> Option<Piece> {
        match std::mem::replace(&mut *self.lock(), Gate::Shut) {
            Gate::Left(piece) => Some(*piece),
            Gate::Shut | Gate::Open => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl hub::Outlet for Outlet {
    fn offer(&self, frames: &Bytes) -> Offered {
        let mut gate = self.lock();
        if !matches!(*gate, Gate::Open) {
            return Offered::Refused;
        }
        let mut piece = Piece::new(frames.clone(), self.is_chunked);
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = piece.chunks_vectored(&mut slices);
        // The task finds out what is wrong when it tries for itself.
        let Ok(written @ 1..) = self.socket.try_write_vectored(&slices[..count]) else { return Offered::Refused };
        piece.advance(written);
        if piece.has_remaining() {
            *gate = Gate::Left(Box::new(piece));
            return Offered::Taken;
        }
        Offered::Sent
    }
}
