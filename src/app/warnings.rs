//! What is allowed, but probably not meant: said at every start.

use std::path::Path;

use crate::config::Config;
use crate::http;

pub(super) fn warn_about(config: &Config, endpoints: &[http::Endpoint]) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    for endpoint in endpoints {
        let is_guarded = config.credentials.is_some();
        match endpoint {
            // TLS keeps others from listening in, not from coming in.
            http::Endpoint::Tcp { address, .. } if !address.ip().is_loopback() && !is_guarded => tracing::warn!(
                "{endpoint} can be reached from other machines and opencode, which can run shell commands, has no \
                 password here: set OPENCODE_SERVER_PASSWORD for opencode and the relay, or listen on 127.0.0.1"
            ),
            // A group is somebody's choice of people; everybody hardly ever is.
            http::Endpoint::Unix { path } if is_for_everybody(path) && !is_guarded => tracing::warn!(
                "{endpoint} can be reached by every user of this machine and opencode, which can run shell commands, has \
                 no password here: set OPENCODE_SERVER_PASSWORD for opencode and the relay, or use --socket-mode 600 or 660 \
                 (SocketMode= in a .socket unit)"
            ),
            _ => {}
        }
    }
}

/// Whether every user of this machine can connect to a unix socket. A name that is no file has no rights at all.
fn is_for_everybody(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).map_or(path.is_relative(), |found| found.permissions().mode() & 0o002 != 0)
}
