//! One client on an event stream that wants every event, each in its place.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::connection::Url;
use crate::events::{Arrived, Finding, REST, Rest};
use crate::streams::ACCEPT;

/// What is read at once.
const BUFFER: usize = 256 << 10;

/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(10);

pub(crate) struct Reader {
    socket: TcpStream,
    buffer: Vec<u8>,
    rest: Rest,
    finding: Finding,
    /// How many events came.
    count: u32,
}

impl Reader {
    /// `more` are further lines of the request's head, each with its end.
    pub(crate) fn connect(url: &Url, more: &str) -> io::Result<Self> {
        let mut socket = TcpStream::connect(url.address)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.write_all(&url.get(&format!("{ACCEPT}{more}")))?;
        Ok(Self { socket, buffer: vec![0; REST + BUFFER], rest: Rest::default(), finding: Finding::new(), count: 0 })
    }

    /// The position that the greeting tells.
    pub(crate) fn first_id(&mut self) -> io::Result<String> {
        let mut text = String::new();
        loop {
            let length = self.socket.read(&mut self.buffer)?;
            text.push_str(&String::from_utf8_lossy(&self.buffer[..length]));
            let id = text.split_once("\nid: ").and_then(|(_, rest)| rest.split_once('\n'));
            match id {
                Some((id, _)) => return Ok(id.to_owned()),
                None if length == 0 => return Err(io::Error::other(format!("a stream without an id: {text}"))),
                None => {}
            }
        }
    }

    /// Reads until it has so many events.
    pub(crate) fn read_until(&mut self, events: u32) -> io::Result<()> {
        while self.count < events {
            self.read()?;
        }
        Ok(())
    }

    /// Reads what is there or comes next. Returns how many events came until now.
    pub(crate) fn read(&mut self) -> io::Result<u32> {
        let kept = self.rest.bytes().len();
        let length = self.socket.read(&mut self.buffer[REST..])?;
        self.buffer[REST - kept..REST].copy_from_slice(self.rest.bytes());
        let mut wrong = (length == 0).then_some(self.count);
        let next = &mut self.count;
        self.rest = self.finding.find(&self.buffer[REST - kept..REST + length], |Arrived { number, .. }| {
            if number != *next {
                wrong = wrong.or(Some(*next));
            }
            *next += 1;
        });
        match wrong {
            Some(number) => Err(io::Error::other(format!("event {number} did not come in its place"))),
            None => Ok(self.count),
        }
    }
}
