//! The way by which the hub writes events to a client while the stream's own task sleeps.
//!
//! Either the task writes or the hub, never both: the way is open only while the task waits for events and has written all
//! that it had.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::delivery::chunk;
use super::socket::Socket;
use crate::hub::{self, Frames, Offered};

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
    Left(Bytes),
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
    pub(super) fn shut(&self) -> Option<Bytes> {
        match std::mem::replace(&mut *self.lock(), Gate::Shut) {
            Gate::Left(rest) => Some(rest),
            Gate::Shut | Gate::Open => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl hub::Outlet for Outlet {
    fn offer(&self, frames: &Frames) -> Offered {
        let mut gate = self.lock();
        if !matches!(*gate, Gate::Open) {
            return Offered::Refused;
        }
        // In one piece for all: to write three takes the kernel 5 % longer.
        let data = if self.is_chunked { frames.made(chunk) } else { frames.bytes() };
        match self.socket.try_write(data) {
            Ok(written) if written == data.len() => Offered::Sent,
            Ok(written @ 1..) => {
                *gate = Gate::Left(data.slice(written..));
                Offered::Taken
            }
            // The task finds out what is wrong when it tries for itself.
            Ok(0) | Err(_) => Offered::Refused,
        }
    }
}
