//! Unix sockets to listen on: a file that nobody can use before it has its rights, and that is gone after a stop.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// How many callers may wait for [`accept`](UnixListener::accept); tokio's own number for ports.
const BACKLOG: i32 = 1024;

/// Failed to listen on a unix socket. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// Somebody accepts there.
    #[error("listen on unix:{}: another relay listens there; stop it, or choose another path", .0.display())]
    Taken(PathBuf),
    /// The file is no socket; it may be somebody's work.
    #[error("listen on unix:{}: there is a file that is no socket; remove it, or choose another path", .0.display())]
    NoSocket(PathBuf),
    /// The folder is not there, or not for us.
    #[error("listen on unix:{}: its folder cannot be used: {error}; make it, for example with RuntimeDirectory= in a unit \
             of systemd", path.display())]
    Folder {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Anything else.
    #[error("listen on unix:{}: {error}; check the rights of the folder, and that the path has less than 100 bytes", path.display())]
    System {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The file of a socket, removed with this unless somebody has put another one there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Binds a socket whose file has the rights `mode` from the moment on at which somebody could connect.
///
/// What a relay left that was killed is replaced; what anybody uses, or is no socket, is left alone.
pub(super) fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), UnixError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let is_folder = fs::metadata(folder).and_then(|found| match found.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    is_folder.map_err(|error| UnixError::Folder { path: path.to_owned(), error })?;
    // The name it gets in the end must be one that clients can write, too.
    let address = SockAddr::unix(path).map_err(|error| UnixError::System { path: path.to_owned(), error })?;
    check(path, &address)?;
    // Nobody can connect before `listen`, so the rights need no umask, which is the whole process's. Under another name,
    // so that clients find either the old file or one that is ready.
    let temporary = Temporary(folder.join(format!(".relay-{}", std::process::id())));
    let system = |error| UnixError::System { path: path.to_owned(), error };
    // A process of the same number may have been killed here.
    let _ = fs::remove_file(&temporary.0);
    let listener = listen(&temporary.0, mode).map_err(system)?;
    let metadata = fs::symlink_metadata(&temporary.0).map_err(system)?;
    fs::rename(&temporary.0, path).map_err(system)?;
    let file = SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() };
    let listener = UnixListener::from_std(listener.into()).map_err(system)?;
    Ok((listener, file))
}

/// Whether the path is free, or has what nobody uses any more.
fn check(path: &Path, address: &SockAddr) -> Result<(), UnixError> {
    let system = |error| UnixError::System { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(UnixError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(system)?;
    // A full backlog has an owner too, and must not be waited for.
    probe.set_nonblocking(true).map_err(system)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(system(error)),
        _ => Err(UnixError::Taken(path.to_owned())),
    }
}

fn listen(path: &Path, mode: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A file that must not stay when something fails before it has its name.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Not there any more when all went well.
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_is_left_is_replaced_and_what_is_used_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        let (listener, file) = bind(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        UnixStream::connect(&path).unwrap();
        assert!(matches!(bind(&path, 0o600), Err(UnixError::Taken(_))));
        drop(listener);
        // As after a kill.
        let (again, new) = bind(&path, 0o600).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
        drop((again, new));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        fs::write(&path, "work").unwrap();
        let error = bind(&path, 0o600).unwrap_err();
        assert!(matches!(error, UnixError::NoSocket(_)) && error.to_string().contains("remove it"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "work");
        assert!(matches!(bind(&folder.path().join("none/relay.sock"), 0o600), Err(UnixError::Folder { .. })));
        let long = folder.path().join("x".repeat(200));
        assert!(bind(&long, 0o600).unwrap_err().to_string().contains("100 bytes"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
