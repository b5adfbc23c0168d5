//! Reading single values. Each error says what is wrong, and what to write instead.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{LogFormat, Upstream, Witness};
use crate::http::{Endpoint, EndpointError};
use crate::ingest::log::Source;
use crate::proxy::{TrustedProxy, TrustedProxyError};

/// Why a value is no value: the problem, and the remedy.
pub(super) type Wrong = (String, String);

fn wrong<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Wrong> {
    Err((problem.into(), remedy.into()))
}

pub(super) fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    const REMEDY: &str =
        "Write an IP address and a port, as 127.0.0.1:4097 or [::1]:4097, the same behind https://, or unix:/PATH";
    text.parse().or_else(|error: EndpointError| wrong(error.to_string(), REMEDY))
}

/// The rights of a file, in octal digits.
pub(super) fn mode(text: &str) -> Result<u32, Wrong> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(mode),
        _ => wrong("not the rights of a file", "Write octal digits, as 600 or 0660"),
    }
}

pub(super) fn trusted_proxy(text: &str) -> Result<TrustedProxy, Wrong> {
    const REMEDY: &str = "Write an IP address, a network as 10.0.0.0/8, or unix";
    text.parse().or_else(|error: TrustedProxyError| wrong(error.to_string(), REMEDY))
}

/// A name as it stands in `Host`, without a port; or `*`.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_name || text == "*" || text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_ascii_lowercase());
    }
    wrong("not the name of a host", "Write the name or address alone, as relay.example, without scheme and port; or *")
}

/// A number above zero.
pub(super) fn count(text: &str) -> Result<usize, Wrong> {
    let number = text.parse::<NonZeroUsize>().map(NonZeroUsize::get);
    number.or_else(|_| wrong("not a number above zero", "Write a whole number, as 1024"))
}

/// A value, or `off`.
pub(super) fn or_off<T>(text: &str, parse: fn(&str) -> Result<T, Wrong>) -> Result<Option<T>, Wrong> {
    if text.trim() == "off" { Ok(None) } else { parse(text).map(Some) }
}

pub(super) fn source(text: &str) -> Result<Source, Wrong> {
    text.parse().or_else(|error: crate::ingest::log::ParseSourceError| {
        wrong(error.to_string(), "The sources are file:PATH, dir:PATH, journald:UNIT, stdin and none")
    })
}

pub(super) fn witness(text: &str) -> Result<Witness, Wrong> {
    match text {
        "auto" => Ok(Witness::Auto),
        "log" => Ok(Witness::Log),
        "stream" => Ok(Witness::Stream),
        _ => wrong("not a witness", "Write auto, log or stream"),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Wrong> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journal" => Ok(LogFormat::Journal),
        _ => wrong("not a log format", "Write auto, text, json or journal"),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, Wrong> {
    // Without `=` the filter's own parser would take a misspelt level for a module's name, and then log nothing.
    let levels = text.split(',').filter(|part| !part.contains('='));
    let known = levels.map(str::trim).all(|level| !level.is_empty() && level.parse::<LevelFilter>().is_ok());
    if known && text.parse::<Targets>().is_ok() {
        return Ok(text.to_owned());
    }
    wrong(
        "not a level or filter",
        "Write error, warn, info, debug or trace, or levels by module as info,opencode_relay::proxy=debug",
    )
}

/// Whether the journal is on disk.
pub(super) fn journal(text: &str) -> Result<bool, Wrong> {
    match text {
        "disk" => Ok(true),
        "memory" => Ok(false),
        _ => wrong("not a place for the journal", "Write disk or memory"),
    }
}

pub(super) fn file(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() { wrong("no file", "Write a path") } else { Ok(text.into()) }
}

pub(super) fn folder(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() { wrong("no folder", "Write a path, as /var/lib/opencode-relay") } else { Ok(text.into()) }
}

pub(super) fn switch(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => wrong("neither true nor false", "Write true or false"),
    }
}

/// A duration above zero.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    const REMEDY: &str = "Write a number with its unit, as 250ms, 10s, 2m or 1h30m";
    let Ok(signed) = text.trim().parse::<SignedDuration>() else {
        let bare = text.trim().bytes().all(|byte| byte.is_ascii_digit()) && !text.trim().is_empty();
        return wrong(if bare { "a number without a unit" } else { "not a duration" }, REMEDY);
    };
    match Duration::try_from(signed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => wrong("not more than zero", REMEDY),
    }
}

/// A size above zero, in bytes.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    const REMEDY: &str = "Write a whole number with its unit, as 512KiB, 64MiB or 2GiB";
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "t" | "tib" => 1 << 40,
        _ => return wrong("not a size", REMEDY),
    };
    let Ok(number) = number.parse::<u64>() else { return wrong("not a size", REMEDY) };
    match number.checked_mul(factor) {
        Some(0) => wrong("not more than zero", REMEDY),
        Some(bytes) => Ok(bytes),
        None => wrong("too large", REMEDY),
    }
}

/// `http://HOST:PORT` and nothing else: a path prefix would change what clients ask for, and TLS is not spoken to opencode,
/// which has none.
pub(super) fn upstream(text: &str) -> Result<Upstream, Wrong> {
    const REMEDY: &str = "Write http://HOST:PORT, as http://127.0.0.1:4096";
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("it does not begin with http://", REMEDY);
    };
    if scheme == "https" {
        return wrong("opencode does not speak https", REMEDY);
    }
    if scheme != "http" {
        return wrong(format!("{scheme:?} is not http"), REMEDY);
    }
    // A single slash at the end is how browsers copy an address.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return wrong(
            "it holds a user name",
            "Write the address alone; give the password by OPENCODE_SERVER_PASSWORD or --password-file",
        );
    }
    if rest.contains(['/', '?', '#']) {
        return wrong("it holds a path or a query", REMEDY);
    }
    let (host, port) = match rest.rsplit_once(':') {
        // The last colon of a bare IPv6 address is none before a port.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => return wrong("it has no port", REMEDY),
    };
    let Some(port) = port.parse().ok().filter(|port: &u16| *port != 0) else {
        return wrong("its port is not a number from 1 to 65535", REMEDY);
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None if host.contains(':') => return wrong("an IPv6 address needs brackets", "Write it as http://[::1]:4096"),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    if !good {
        return wrong("it has no good host", REMEDY);
    }
    Ok(Upstream { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_durations() {
        for (text, expected) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "10", "s", "0s", "-1s", "10 parsecs", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("10").unwrap_err().0, "a number without a unit");
    }

    #[test]
    fn reads_sizes() {
        for (text, expected) in
            [("1", 1), ("64MiB", 64 << 20), ("64 mib", 64 << 20), ("64M", 64 << 20), ("2GB", 2_000_000_000)]
        {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "0", "-1MiB", "1.5MiB", "1XiB", "99999999999999999999", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_upstreams() {
        for text in ["http://127.0.0.1:4096", "http://localhost:1", "http://[::1]:4096", "http://a-b.c_d:65535"] {
            assert_eq!(upstream(text).map(|upstream| upstream.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(upstream("http://h:1/").map(|upstream| upstream.to_string()), Ok("http://h:1".to_owned()));
        for (text, problem) in [
            ("127.0.0.1:4096", "it does not begin with http://"),
            ("https://h:1", "opencode does not speak https"),
            ("ftp://h:1", "\"ftp\" is not http"),
            ("http://h", "it has no port"),
            ("http://[::1]", "it has no port"),
            ("http://h:0", "its port is not a number from 1 to 65535"),
            ("http://h:x", "its port is not a number from 1 to 65535"),
            ("http://::1:4096", "an IPv6 address needs brackets"),
            ("http://u:p@h:1", "it holds a user name"),
            ("http://h:1/a", "it holds a path or a query"),
            ("http://h:1?a", "it holds a path or a query"),
            ("http://h:1//", "it holds a path or a query"),
            ("http://:1", "it has no good host"),
            ("http://a b:1", "it has no good host"),
            ("http://[::g]:1", "it has no good host"),
        ] {
            assert_eq!(upstream(text).map_err(|wrong| wrong.0), Err(problem.to_owned()), "{text}");
        }
    }

    #[test]
    fn reads_modes_counts_and_hosts() {
        assert_eq!((mode("600"), mode("0660"), mode("0")), (Ok(0o600), Ok(0o660), Ok(0)));
        for text in ["", "8", "1777", "u+r", "+600", "-1"] {
            assert!(mode(text).is_err(), "{text}");
        }
        assert_eq!(count("7"), Ok(7));
        for text in ["", "0", "-1", "1.5", "many"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert_eq!(or_off("off", count), Ok(None));
        assert_eq!(host("Relay.Example").as_deref(), Ok("relay.example"));
        assert!(host("*").is_ok() && host("::1").is_ok() && host("10.0.0.1").is_ok());
        for text in ["", "http://a", "a:1", "[::1]", "*.a", "a b"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_levels() {
        for text in ["info", "INFO", "warn,opencode_relay::proxy=debug"] {
            assert!(log_level(text).is_ok(), "{text}");
        }
        for text in ["", "loud", "a=b=c"] {
            assert!(log_level(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = (upstream(&text), size(&text), duration(&text), endpoint(&text), mode(&text), host(&text), trusted_proxy(&text), count(&text), source(&text), log_level(&text));
            let _ = upstream(&format!("http://{text}"));
        }
    }
}
