//! Sockets that were open before the relay was started: systemd's socket activation (`sd_listen_fds(3)`).
//!
//! Whoever keeps them holds them over the relay's restarts, so that callers wait in the socket's queue meanwhile instead of
//! being refused.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use socket2::{Socket, Type};

use super::listen::Endpoint;

/// Most sockets that are taken. A unit has a few; a larger number is a mistake in whoever started the relay.
const MOST: u32 = 64;

/// The name (`FileDescriptorName=`) of a socket whose clients speak TLS.
const TLS_NAME: &str = "https";

/// A socket that listens already.
#[derive(Debug)]
pub struct Passed {
    pub(super) endpoint: Endpoint,
    pub(super) socket: Socket,
}

/// Failed to take what was passed. Each message says which one, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// The variables are damaged.
    #[error(
        "read LISTEN_PID and LISTEN_FDS: they are not numbers up to {MOST}; whoever starts the relay has to set them right, \
             or not at all"
    )]
    Variables,
    /// There is nothing there, or something else.
    #[error("use the passed descriptor {number}{name}: {error}; LISTEN_FDS has to be the number of sockets from 3 on")]
    NoSocket {
        /// Which one.
        number: usize,
        /// Its name, for people.
        name: Named,
        /// What the system said.
        error: io::Error,
    },
    /// Nobody can connect to it with HTTP.
    #[error(
        "use the passed socket {number}{name}: it is neither TCP nor a unix stream socket; write ListenStream= in the \
             .socket unit"
    )]
    Kind {
        /// Which one.
        number: usize,
        /// Its name, for people.
        name: Named,
    },
    /// It is one client's connection, or was only bound.
    #[error("use the passed socket {number}{name}: nobody listens on it; write Accept=no in the .socket unit")]
    NotListening {
        /// Which one.
        number: usize,
        /// Its name, for people.
        name: Named,
    },
}

/// A descriptor's name, if it has one.
#[derive(Debug)]
pub struct Named(Option<String>);

impl std::fmt::Display for Named {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(name) => write!(formatter, " ({name:?})"),
            None => Ok(()),
        }
    }
}

impl Passed {
    /// Takes the sockets that were passed to this process by `LISTEN_FDS`; none when the variables are another one's.
    ///
    /// To be called once, and before anything is opened: a number that is too large would else name somebody's file.
    ///
    /// # Errors
    ///
    /// When one of them cannot be listened on.
    pub fn take() -> Result<Vec<Self>, PassedError> {
        let count = std::env::var_os("LISTEN_FDS");
        let count = count.as_deref().and_then(OsStr::to_str).map(str::parse::<u32>);
        if matches!(count, Some(Ok(count)) if count > MOST) {
            return Err(PassedError::Variables);
        }
        let found = sd_listen_fds::get().map_err(|_| PassedError::Variables)?;
        let found: Vec<_> = found.into_iter().map(|(name, descriptor)| (name, descriptor.into_std())).collect();
        found
            .into_iter()
            .enumerate()
            .map(|(index, (name, descriptor))| Self::new(index + 3, name, descriptor))
            .collect()
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its clients speak TLS, whatever its name is.
    pub fn speak_tls(&mut self) {
        if let Endpoint::Tcp { is_tls, .. } = &mut self.endpoint {
            *is_tls = true;
        }
    }

    fn new(number: usize, name: Option<String>, descriptor: OwnedFd) -> Result<Self, PassedError> {
        let is_tls = name.as_deref() == Some(TLS_NAME);
        let name = Named(name);
        // Else opencode would inherit it, and hold it open after the relay's end.
        let prepared = rustix::io::fcntl_setfd(descriptor.as_fd(), rustix::io::FdFlags::CLOEXEC);
        let socket = Socket::from(descriptor);
        let kind = prepared.map_err(io::Error::from).and_then(|()| socket.r#type());
        let (kind, address) = match kind.and_then(|kind| Ok((kind, socket.local_addr()?))) {
            Ok(found) => found,
            Err(error) => {
                // It may not be open at all, and what is not ours is not to be closed. The process ends anyway.
                std::mem::forget(socket);
                return Err(PassedError::NoSocket { number, name, error });
            }
        };
        let endpoint = if let Some(address) = address.as_socket() {
            Some(Endpoint::Tcp { address, is_tls })
        } else if let Some(path) = address.as_pathname() {
            Some(Endpoint::Unix { path: path.to_owned() })
        } else {
            // As systemd writes the names that are no files.
            let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(&[b"@", name].concat()));
            address.as_abstract_namespace().map(|name| Endpoint::Unix { path: path(name) })
        };
        match endpoint.filter(|_| kind == Type::STREAM) {
            None => Err(PassedError::Kind { number, name }),
            Some(_) if !socket.is_listener().unwrap_or(false) => Err(PassedError::NotListening { number, name }),
            Some(endpoint) => Ok(Self { endpoint, socket }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use super::*;

    fn passed(name: Option<&str>, descriptor: impl Into<OwnedFd>) -> Result<Endpoint, String> {
        let passed = Passed::new(3, name.map(str::to_owned), descriptor.into());
        passed.map(|passed| passed.endpoint).map_err(|error| error.to_string())
    }

    #[test]
    fn what_listens_is_known_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = passed(Some("https"), listener.try_clone().unwrap());
        assert_eq!(tls, Ok(Endpoint::Tcp { address, is_tls: true }));
        assert_eq!(passed(Some("relay.socket"), listener), Ok(address.into()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert_eq!(passed(None, UnixListener::bind(&path).unwrap()), Ok(Endpoint::Unix { path }));
        let name = format!("relay-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        assert_eq!(passed(None, listener), Ok(Endpoint::Unix { path: format!("@{name}").into() }));
    }

    #[test]
    fn what_does_not_listen_is_refused_with_a_remedy() {
        let error = passed(Some("x\n"), UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap_err();
        assert!(error.contains("ListenStream=") && error.contains(r#"3 ("x\n"): it"#), "{error}");
        let (connection, _other) = UnixStream::pair().unwrap();
        assert!(passed(None, connection).unwrap_err().contains("ListenStream="));
        let bound = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let error = passed(None, bound).unwrap_err();
        assert!(error.contains("Accept=no") && error.contains("socket 3: nobody"), "{error}");
        let file = tempfile::tempfile().unwrap();
        let error = passed(None, file).unwrap_err();
        assert!(error.contains("descriptor 3: ") && error.contains("LISTEN_FDS"), "{error}");
    }
}
