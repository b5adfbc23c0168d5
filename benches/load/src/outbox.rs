//! What a socket has not taken yet.

use std::io::{self, Write as _};
use std::net::TcpStream;

/// Bytes to be written, the first `written` of which are gone.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where further bytes are appended, to be flushed.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Writes as much of what waits as the socket takes.
    pub(crate) fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.written += put(socket, &self.bytes[self.written..])?;
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Writes the bytes without a copy where nothing waits; what the socket does not take waits.
    pub(crate) fn send(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.is_empty() { put(socket, bytes)? } else { 0 };
        self.bytes.extend_from_slice(&bytes[taken..]);
        Ok(())
    }
}

/// How many bytes the socket takes now.
fn put(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match socket.write(&bytes[taken..]) {
            Ok(length) => taken += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_not_taken_at_once_follows_in_order() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.set_nonblocking(true)?;
        let mut out = Outbox::default();
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        // Until the kernel takes nothing more, and once behind that.
        for number in 0_u8.. {
            let is_last = !out.is_empty();
            let bytes = vec![number; 1 << 20];
            out.send(&mut near, &bytes)?;
            sent.extend_from_slice(&bytes);
            if is_last {
                break;
            }
        }
        let mut buffer = vec![0; 64 << 10];
        while came.len() < sent.len() {
            let length = far.read(&mut buffer)?;
            came.extend_from_slice(&buffer[..length]);
            out.flush(&mut near)?;
        }
        assert!(came == sent);
        assert_eq!(out.len(), 0);
        Ok(())
    }
}
