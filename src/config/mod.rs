//! The settings: from what a person wrote to values that can be used as they are.
//!
//! A setting comes from a flag, else from the environment (`OPENCODE_RELAY_…`), else from the TOML file, else it has a
//! default. [`load`] checks all of them and reports all mistakes together, each with the key, where it was written, and what
//! to write instead. It reads no flags and no environment by itself: `main` hands them in.

mod keys;
mod layers;
mod mistake;
mod reload;
mod resolve;
mod secret;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use mistake::{Mistake, Mistakes, Origin};
pub use reload::{Again, Settings};
pub use secret::{Credentials, Secret};

pub use crate::telemetry::Format as LogFormat;

use crate::http::Endpoint;
use crate::ingest::log::Source;
use crate::proxy::TrustedProxy;

/// What was written, before anything is checked.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The flags that were given: the key as in the file (`journal_bytes`), and each value.
    pub flags: Vec<(&'static str, Vec<String>)>,
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// What stands behind `--`.
    pub command: Vec<String>,
    /// The environment of the process.
    pub environment: Vec<(OsString, OsString)>,
    /// Where the sockets listen that were passed to the process; they stand for the default of `listen`.
    pub passed: Vec<Endpoint>,
}

/// Settings that fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect, besides at the sockets that were passed.
    pub listen: Vec<Endpoint>,
    /// The rights of the unix sockets in `listen`.
    pub socket_mode: u32,
    /// What the relay shows to clients that speak TLS.
    pub tls: Option<Tls>,
    /// How the relay stands to opencode.
    pub shape: Shape,
    /// Where the bus log is read beside a running opencode. [`Source::None`] for the parent shape, which reads the command's
    /// standard error (see [`Shape::Parent`]).
    pub log: Source,
    /// Which witnesses are used.
    pub witness: Witness,
    /// Where the journal is.
    pub journal: Journal,
    /// How many bytes of events the journal keeps.
    pub journal_bytes: u64,
    /// How long the journal keeps an event.
    pub journal_age: Duration,
    /// How long a client may take nothing of its stream before the stream is ended.
    pub stall_timeout: Duration,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Most connections of one client address at a time.
    pub max_connections_per_address: Option<usize>,
    /// Most requests at opencode at a time.
    pub max_requests: usize,
    /// Most upgraded connections at a time.
    pub max_sockets: usize,
    /// Most bytes of a request's body.
    pub max_body: Option<u64>,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// How long a connection may be idle between requests or stop within one.
    pub idle_timeout: Duration,
    /// How long requests wait for the first start of opencode.
    pub start_timeout: Duration,
    /// How long a connection to opencode may take to be made.
    pub connect_timeout: Duration,
    /// How long opencode may take to begin an answer.
    pub answer_timeout: Option<Duration>,
    /// Whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxy: Vec<TrustedProxy>,
    /// Names by which the relay's own pages may be reached while there is no password, in lower case.
    pub allowed_host: Vec<String>,
    /// How long a line of the bus log may stay without its event before the state is read.
    pub grace: Duration,
    /// How often the newest sessions are looked at while somebody listens; `None` for never.
    pub watch_state: Option<Duration>,
    /// Whether events without known content are sent with empty properties.
    pub emit_bare: bool,
    /// The relay's own credentials at opencode.
    pub credentials: Option<Credentials>,
    /// How the relay writes its own log.
    pub log_format: LogFormat,
    /// What the relay writes to its own log: a level, or a filter as `info,opencode_relay::proxy=debug`.
    pub log_level: String,
    /// What is allowed but probably not meant; for the log at start.
    pub warnings: Vec<String>,
}

/// The files of a certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, with those that lead from it to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How the relay stands to opencode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The relay starts opencode.
    Parent {
        /// The program and its arguments.
        command: Vec<String>,
        /// Whether the bus log is read from the command's standard error.
        bus_log: bool,
    },
    /// opencode runs already.
    Beside {
        /// Its address.
        upstream: Upstream,
    },
}

/// The address of an opencode. Written `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The host's name or address; an IPv6 address is in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// Where events are kept for clients that come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Journal {
    /// In this folder, over restarts.
    Disk {
        /// One relay's own.
        state_dir: PathBuf,
    },
    /// In memory, until the relay ends.
    Memory,
}

/// Which witnesses are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Witness {
    /// All that are there.
    #[default]
    Auto,
    /// The bus log and the state; the upstream's streams are never opened.
    Log,
    /// The upstream's stream and the state; no log is read.
    Stream,
}

/// Checks what was written.
///
/// # Errors
///
/// All mistakes that were made.
pub fn load(input: &Input) -> Result<Config, Mistakes> {
    reload::read(input).map(|(config, _)| config)
}

/// What a command that asks a server needs of the settings: where a relay with them listens, and the password.
///
/// # Errors
///
/// All mistakes in these settings. Others, and variables that are no settings, are `run`'s to report.
pub fn load_client(input: &Input) -> Result<(Vec<Endpoint>, Option<Credentials>), Mistakes> {
    let mut mistakes = Mistakes::default();
    let layers = layers::collect(input, &mut mistakes);
    mistakes.0.retain(|mistake| matches!(mistake.key.as_str(), "config" | "listen" | "password_file" | "username"));
    let found = resolve::resolve_client(&layers, input, &mut mistakes);
    if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
}

/// Reads a duration as all settings write it: 250ms, 10s, 2m or 1h30m.
///
/// # Errors
///
/// What is wrong, and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text).map_err(|(problem, remedy)| format!("{problem}. {remedy}"))
}

#[cfg(test)]
mod tests;
