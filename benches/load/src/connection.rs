//! HTTP by hand, as little of it as the commands need.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::str::FromStr;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// How long anything that is asked once may take.
const SOON: Duration = Duration::from_secs(20);

/// Sockets from one address at most.
const PER_ADDRESS: usize = 1_000;

/// `http://ADDRESS:PORT/PATH`
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

impl FromStr for Url {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("http://").ok_or(())?;
        let (address, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        Ok(Self { address: address.parse().map_err(|_| ())?, path: path.to_owned() })
    }
}

impl Url {
    /// A whole GET; `more` are further lines of the head, each with its end.
    pub(crate) fn get(&self, more: &str) -> Vec<u8> {
        format!("GET {} HTTP/1.1\r\nhost: {}\r\n{more}\r\n", self.path, self.address).into_bytes()
    }

    /// A socket that can wait for nobody. It is closed with a reset, so that thousands of them leave nothing behind in the
    /// kernel that the next run would meet.
    ///
    /// `number` counts the sockets: they come from several loopback addresses, because servers limit those of one.
    pub(crate) fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let host = u8::try_from(number / PER_ADDRESS).map_or(u8::MAX, |host| host.saturating_add(1));
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0))?;
        connect(&socket, &self.address)?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        Ok(socket)
    }

    /// Asks once with an empty body. The answer must say that all is well, and come in one piece.
    pub(crate) fn post(&self, target: &str) -> io::Result<String> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(SOON))?;
        write!(socket, "POST {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n", self.address)?;
        let mut bytes = [0; 1_024];
        let length = socket.read(&mut bytes)?;
        match Head::read(&bytes[..length])? {
            Some(head) if head.status == 200 => Ok(String::from_utf8_lossy(&bytes[head.size..length]).into_owned()),
            _ => Err(io::Error::other(format!("{target}: {}", String::from_utf8_lossy(&bytes[..length])))),
        }
    }
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Its bytes, the empty line included.
    pub(crate) size: usize,
    /// Bytes of the body, if they are told.
    pub(crate) length: Option<usize>,
}

impl Head {
    /// Nothing when it is not all there yet.
    pub(crate) fn read(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer of HTTP: {head}")))?;
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.trim().parse().ok());
        Ok(Some(Self { status, size: end + 4, length }))
    }
}

/// Takes what is there; nothing when nothing is.
pub(crate) fn take(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
