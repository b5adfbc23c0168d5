//! Which names the relay is known by: the guard against DNS rebinding.
//!
//! A web page can make its own name point at this machine; the browser then lets it read what it gets under that name.
//! What it cannot do is send another `Host` than that name. So while no password guards the server, the relay's own
//! pages and streams are only for requests that ask for it by a name it is known to have. opencode has no such check,
//! and proxied requests are left to it.

use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, Uri};

use crate::proxy::{Caller, Peer};

/// Most characters of a foreign name that are told back; a name in the DNS has at most 253.
const TOLD: usize = 253;

/// The names besides the loopback ones and the address that was connected to.
#[derive(Debug)]
pub(super) struct Hosts {
    /// In lower case; addresses without brackets.
    allowed: Vec<String>,
    any: bool,
}

impl Hosts {
    /// `allowed` as in [`Options::allowed_hosts`](super::Options::allowed_hosts).
    pub(super) fn new(allowed: Vec<String>) -> Self {
        Self { any: allowed.iter().any(|name| name == "*"), allowed }
    }

    /// The name a request asks for, if it is not ours. Every name in it counts: the target's (HTTP/2 has no other), and
    /// each `Host` line.
    ///
    /// A request without a name (HTTP/1.0) is no browser's, and a browser cannot connect to a unix socket.
    pub(super) fn foreign(&self, uri: &Uri, headers: &HeaderMap, caller: &Caller) -> Option<String> {
        if self.any || caller.peer == Peer::Unix {
            return None;
        }
        let target = uri.authority().map(|authority| authority.as_str().as_bytes());
        let lines = headers.get_all(HOST).iter().map(http::HeaderValue::as_bytes);
        let local = caller.local.map(|address| address.ip().to_canonical());
        let foreign = target.into_iter().chain(lines).find(|host| !self.is_ours(host, local))?;
        Some(String::from_utf8_lossy(foreign).chars().take(TOLD).collect())
    }

    fn is_ours(&self, host: &[u8], local: Option<IpAddr>) -> bool {
        let Some(name) = std::str::from_utf8(host).ok().and_then(name) else { return false };
        if let Ok(address) = name.parse::<IpAddr>() {
            let address = address.to_canonical();
            let is_allowed = || self.allowed.iter().any(|one| one.parse() == Ok(address));
            return address.is_loopback() || Some(address) == local || is_allowed();
        }
        name == "localhost" || name.ends_with(".localhost") || self.allowed.contains(&name)
    }
}

/// The name in a `Host` field, without port, brackets and the dot that ends a full name; `None` if there is none.
pub(super) fn name(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            // Only an address of version 6 stands in brackets.
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, port)
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = port.is_empty() || port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit());
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    (is_port && is_name && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(allowed: &[&str], peer: Peer, uri: &str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HOST, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let local = Some("[::ffff:10.1.2.3]:4097".parse().unwrap());
        let caller = Caller { peer, local, is_tls: false, interim: None };
        let hosts = Hosts::new(allowed.iter().map(|&name| name.to_owned()).collect());
        hosts.foreign(&uri.parse().unwrap(), &headers, &caller)
    }

    fn is_ours(allowed: &[&str], host: &str) -> bool {
        foreign(allowed, Peer::Ip("9.9.9.9:1".parse().unwrap()), "/event", &[host]).is_none()
    }

    #[test]
    fn loopback_names_and_the_address_connected_to_are_ours() {
        for host in [
            "localhost",
            "LocalHost:1",
            "localhost.",
            "relay.localhost:80",
            "127.0.0.1",
            "127.9.9.9:4097",
            "[::1]",
            "[::1]:4097",
            "[0:0:0:0:0:0:0:1]:1",
            "[::ffff:127.0.0.1]",
            "10.1.2.3:9",
            "[::ffff:10.1.2.3]",
            "localhost:",
        ] {
            assert!(is_ours(&[], host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "evil.example:127",
            "10.1.2.4",
            "0.0.0.0",
            "::1",
            "[::1",
            "[::2]",
            "[localhost]",
            "[127.0.0.1]",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "",
            "localhost:x",
            "localhost:1:2",
            "user@localhost",
            "evil.example/.localhost",
            "evil.example .localhost",
            "localhost, evil.example",
            "\u{fffd}.localhost",
            ".",
            ":80",
        ] {
            assert!(!is_ours(&[], host), "{host}");
        }
    }

    #[test]
    fn allowed_names_are_ours() {
        for (allowed, host) in [
            ("relay.example", "Relay.Example.:4097"),
            ("relay_1", "relay_1"),
            ("10.0.0.7", "10.0.0.7:1"),
            ("2001:db8::1", "[2001:DB8:0::1]:443"),
            ("*", "evil.example"),
            ("*", ""),
        ] {
            assert!(is_ours(&[allowed], host), "{host}");
        }
        assert!(!is_ours(&["relay.example"], "www.relay.example"));
        assert!(!is_ours(&["relay.example"], "relay.example.evil"));
    }

    #[test]
    fn every_name_counts_and_none_is_let_through() {
        let tcp = Peer::Ip("127.0.0.1:1".parse().unwrap());
        assert_eq!(foreign(&[], tcp, "/event", &[]), None);
        assert_eq!(foreign(&[], tcp, "/event", &["localhost", "evil.example"]).as_deref(), Some("evil.example"));
        assert_eq!(foreign(&[], tcp, "http://evil.example/event", &["localhost"]).as_deref(), Some("evil.example"));
        assert_eq!(foreign(&[], tcp, "http://localhost/event", &["evil.example"]).as_deref(), Some("evil.example"));
        assert_eq!(foreign(&[], tcp, "http://localhost/event", &["localhost"]), None);
        assert_eq!(foreign(&[], Peer::Unix, "/event", &["evil.example"]), None);
        assert_eq!(foreign(&[], tcp, "/event", &[&"x".repeat(5000)]).unwrap().len(), TOLD);
    }
}
