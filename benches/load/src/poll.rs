//! epoll with a number per descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// Most descriptors told of at once.
const BATCH: usize = 1_024;

pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// A descriptor can be used.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    /// What it was added with.
    pub(crate) token: usize,
    /// There is something to read, or the peer is gone.
    pub(crate) readable: bool,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Tells of it as long as there is something to read. Closing the descriptor takes it out again.
    pub(crate) fn add(&self, descriptor: impl AsFd, token: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, descriptor, data, epoll::EventFlags::IN)?)
    }

    /// Tells once when something has come, and once when there is room to write again after there was none.
    pub(crate) fn add_edges(&self, descriptor: impl AsFd, token: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(token as u64), flags)?)
    }

    /// Whether it is told when the descriptor can be written to.
    pub(crate) fn want_write(&self, descriptor: impl AsFd, token: usize, wanted: bool) -> io::Result<()> {
        let flags = if wanted { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        Ok(epoll::modify(&self.epoll, descriptor, epoll::EventData::new_u64(token as u64), flags)?)
    }

    /// Waits until something is ready, or the time is over; without a time for ever.
    pub(crate) fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
        // An event is packed: its fields are copied, not borrowed.
        ready.extend(self.events.iter().map(|&epoll::Event { flags, data }| Ready {
            token: data.u64() as usize,
            readable: flags.intersects(gone),
        }));
        Ok(())
    }
}
