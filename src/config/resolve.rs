//! From what was written to settings that fit together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layers::{Given, Layers};
use super::mistake::{Mistakes, Origin};
use super::value::{self, Wrong};
use super::{Config, Credentials, Input, Journal, Secret, Shape, Tls, Upstream, Witness};
use crate::http::Endpoint;
use crate::ingest::log::Source;

/// Where clients connect: opencode's own port plus one, on this machine only.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4097);
/// The rights of a unix socket: whoever can write to it can run commands as opencode.
const SOCKET_MODE: u32 = 0o600;
const JOURNAL_BYTES: u64 = 256 << 20;
const JOURNAL_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Above the 10 s between heartbeats, so that a client is only given up after it took none of two.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONNECTIONS: usize = 16384;
/// Half of all, so that one client address cannot keep the others out.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 8192;
const MAX_REQUESTS: usize = 1024;
const MAX_SOCKETS: usize = 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than usual clients keep a connection (Node 4 s, browsers 90 to 115 s), so that they close it and not the relay.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// opencode takes 1 to 8 s from its start to listening (FACTS §4).
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A frame comes 263 ms after its log line at worst (FACTS §2).
const GRACE: Duration = Duration::from_secs(2);
/// A look costs opencode about 25 ms of CPU, most of it for waking up (measured on 1.14.48 and 1.18.34).
const WATCH_STATE: Duration = Duration::from_secs(2);
const LOG_LEVEL: &str = "info";
/// The user that opencode expects unless it is told otherwise.
const USERNAME: &str = "opencode";

/// Variables of opencode itself, which the relay shares with it.
const PASSWORD_VARIABLE: &str = "OPENCODE_SERVER_PASSWORD";
const USERNAME_VARIABLE: &str = "OPENCODE_SERVER_USERNAME";

/// Reads the values one by one, gathering the mistakes.
struct Reader<'a> {
    layers: &'a Layers,
    mistakes: &'a mut Mistakes,
}

impl<'a> Reader<'a> {
    fn given(&self, key: &str) -> Option<&'a Given> {
        self.layers.get(key)
    }

    fn all<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        let given = self.given(key)?;
        let mut good = Vec::new();
        for text in &given.values {
            match parse(text) {
                Ok(value) => good.push(value),
                Err((problem, remedy)) => self.mistakes.add(key, Some(text), &given.origin, problem, remedy),
            }
        }
        if given.values.is_empty() {
            self.mistakes.add(key, None, &given.origin, "it has no value", "Write one, or leave the setting out");
        }
        Some(good)
    }

    fn one<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        self.all(key, parse)?.pop()
    }
}

/// The settings of a command that asks a server.
pub(super) fn resolve_client(
    layers: &Layers,
    input: &Input,
    mistakes: &mut Mistakes,
) -> (Vec<Endpoint>, Option<Credentials>) {
    let mut reader = Reader { layers, mistakes };
    (listen(&mut reader, &[]), credentials(&mut reader, input, &mut Vec::new()))
}

fn listen(reader: &mut Reader<'_>, passed: &[Endpoint]) -> Vec<Endpoint> {
    let default = || if passed.is_empty() { vec![LISTEN.into()] } else { Vec::new() };
    reader.all("listen", value::endpoint).unwrap_or_else(default)
}

/// Makes the settings; `None` when there is no shape to make them for, which is then among the mistakes.
pub(super) fn resolve(layers: &Layers, input: &Input, mistakes: &mut Mistakes) -> Option<Config> {
    let mut warnings = Vec::new();
    let mut reader = Reader { layers, mistakes };
    let listen = listen(&mut reader, &input.passed);
    let socket_mode = reader.one("socket_mode", value::mode).unwrap_or(SOCKET_MODE);
    let tls = tls(&mut reader, listen.iter().chain(&input.passed));
    let witness = reader.one("witness", value::witness).unwrap_or_default();
    let upstream = reader.one("upstream", value::upstream);
    let log = reader.one("log", value::source);
    let journal = journal(&mut reader, input);
    let journal_bytes = reader.one("journal_bytes", value::size).unwrap_or(JOURNAL_BYTES);
    let journal_age = reader.one("journal_age", value::duration).unwrap_or(JOURNAL_AGE);
    let stall_timeout = reader.one("stall_timeout", value::duration).unwrap_or(STALL_TIMEOUT);
    let start_timeout = reader.one("start_timeout", value::duration).unwrap_or(START_TIMEOUT);
    let max_connections = reader.one("max_connections", value::count).unwrap_or(MAX_CONNECTIONS);
    let max_connections_per_address = reader
        .one("max_connections_per_address", |text| value::or_off(text, value::count))
        .unwrap_or(Some(MAX_CONNECTIONS_PER_ADDRESS));
    let max_requests = reader.one("max_requests", value::count).unwrap_or(MAX_REQUESTS);
    let max_sockets = reader.one("max_sockets", value::count).unwrap_or(MAX_SOCKETS);
    let max_body = reader.one("max_body", |text| value::or_off(text, value::size)).unwrap_or(None);
    let head_timeout = reader.one("head_timeout", value::duration).unwrap_or(HEAD_TIMEOUT);
    let idle_timeout = reader.one("idle_timeout", value::duration).unwrap_or(IDLE_TIMEOUT);
    let connect_timeout = reader.one("connect_timeout", value::duration).unwrap_or(CONNECT_TIMEOUT);
    let answer_timeout = reader.one("answer_timeout", |text| value::or_off(text, value::duration)).unwrap_or(None);
    let trusted_proxy = reader.all("trusted_proxy", value::trusted_proxy).unwrap_or_default();
    let allowed_host = reader.all("allowed_host", value::host).unwrap_or_default();
    let grace = reader.one("grace", value::duration).unwrap_or(GRACE);
    let watch_state =
        reader.one("watch_state", |text| value::or_off(text, value::duration)).unwrap_or(Some(WATCH_STATE));
    let emit_bare = reader.one("emit_bare", value::switch).unwrap_or(false);
    let log_format = reader.one("log_format", value::log_format).unwrap_or_default();
    let log_level = reader.one("log_level", value::log_level).unwrap_or_else(|| LOG_LEVEL.to_owned());
    let credentials = credentials(&mut reader, input, &mut warnings);
    check_listen(&listen, &mut reader);
    let (shape, log) = shape(&mut reader, input, witness, upstream, log, &mut warnings)?;
    Some(Config {
        listen,
        socket_mode,
        tls,
        shape,
        log,
        witness,
        journal,
        journal_bytes,
        journal_age,
        stall_timeout,
        max_connections,
        max_connections_per_address,
        max_requests,
        max_sockets,
        max_body,
        head_timeout,
        idle_timeout,
        start_timeout,
        connect_timeout,
        answer_timeout,
        trusted_proxy,
        allowed_host,
        grace,
        watch_state,
        emit_bare,
        credentials,
        log_format,
        log_level,
        warnings,
    })
}

/// Where the journal is: on disk unless that is not wanted.
fn journal(reader: &mut Reader<'_>, input: &Input) -> Journal {
    let is_on_disk = reader.one("journal", value::journal).unwrap_or(true);
    let given = reader.one("state_dir", value::folder);
    if !is_on_disk {
        return Journal::Memory;
    }
    // A value that could not be read is a mistake already.
    let is_given = reader.given("state_dir").is_some();
    match given.or_else(|| if is_given { None } else { default_state_dir(input) }) {
        Some(state_dir) => Journal::Disk { state_dir },
        None => {
            if !is_given {
                let problem =
                    "nothing says where events may be kept: STATE_DIRECTORY, XDG_STATE_HOME and HOME are not set";
                let remedy = "Add --state-dir DIR, or --journal memory to keep them until the relay ends";
                reader.mistakes.add_general("state_dir", problem, remedy);
            }
            Journal::Memory
        }
    }
}

/// systemd's folder for this unit, else the user's place for state.
fn default_state_dir(input: &Input) -> Option<PathBuf> {
    let get = |name: &str| {
        let (_, value) = input.environment.iter().rev().find(|(have, _)| have == name)?;
        (!value.is_empty()).then_some(value)
    };
    // systemd writes all of a unit's folders into it, with colons between.
    let systemd = get("STATE_DIRECTORY").and_then(|folders| std::env::split_paths(folders).next());
    let absolute = |name| get(name).map(Path::new).filter(|path| path.is_absolute());
    systemd.or_else(|| {
        let state = absolute("XDG_STATE_HOME").map(Path::to_owned);
        let state = state.or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
        Some(state.join("opencode-relay"))
    })
}

/// The certificate, which is there exactly when somebody is to see it.
fn tls<'a>(reader: &mut Reader<'_>, mut listen: impl Iterator<Item = &'a Endpoint>) -> Option<Tls> {
    let certificate = reader.one("tls_certificate", value::file);
    let key = reader.one("tls_key", value::file);
    let is_wanted = listen.any(|endpoint| matches!(endpoint, Endpoint::Tcp { is_tls: true, .. }));
    for (name, remedy) in [
        ("tls_certificate", "Add --tls-certificate FILE, with the certificate in PEM"),
        ("tls_key", "Add --tls-key FILE, with the certificate's private key in PEM"),
    ] {
        match reader.given(name) {
            None if is_wanted => {
                reader.mistakes.add_general(name, "an address to listen on begins with https://", remedy)
            }
            Some(given) if !is_wanted => {
                let remedy = "Write https:// before that address, as --listen https://127.0.0.1:4443";
                reader.mistakes.add(name, None, &given.origin, "no address to listen on begins with https://", remedy);
            }
            _ => {}
        }
    }
    Some(Tls { certificate: certificate?, key: key? })
}

fn check_listen(listen: &[Endpoint], reader: &mut Reader<'_>) {
    let Some(given) = reader.given("listen") else { return };
    let place = |endpoint: &Endpoint| match endpoint {
        Endpoint::Tcp { address, .. } => Err(*address),
        Endpoint::Unix { path } => Ok(path.clone()),
    };
    for (index, endpoint) in listen.iter().enumerate() {
        // Port 0 means "any free one", so it may stand there twice.
        let is_any = matches!(endpoint, Endpoint::Tcp { address, .. } if address.port() == 0);
        if !is_any && listen[..index].iter().any(|other| place(other) == place(endpoint)) {
            let value = endpoint.to_string();
            reader.mistakes.add("listen", Some(&value), &given.origin, "it is there twice", "Remove one");
        }
    }
}

/// How the relay stands to opencode, and which log it reads beside it.
fn shape(
    reader: &mut Reader<'_>,
    input: &Input,
    witness: Witness,
    upstream: Option<Upstream>,
    log: Option<Source>,
    warnings: &mut Vec<String>,
) -> Option<(Shape, Source)> {
    match (input.command.is_empty(), reader.given("upstream")) {
        (false, None) => Some((parent(reader, input, witness, log), Source::None)),
        (true, Some(_)) => {
            let log = beside_log(reader, witness, log, warnings);
            Some((Shape::Beside { upstream: upstream? }, log))
        }
        (true, None) => {
            reader.mistakes.add_general(
                "upstream",
                "neither a running opencode nor a command to start one was given",
                "Add `-- opencode serve`, or `--upstream http://127.0.0.1:4096` for one that runs already",
            );
            None
        }
        (false, Some(given)) => {
            let value = given.values.first().map(String::as_str);
            let problem =
                "a command behind `--` was given too, and the relay finds the address of what it starts by itself";
            reader.mistakes.add("upstream", value, &given.origin, problem, "Leave out one of the two");
            None
        }
    }
}

fn parent(reader: &mut Reader<'_>, input: &Input, witness: Witness, log: Option<Source>) -> Shape {
    if let (Some(given), Some(source)) = (reader.given("log"), &log)
        && *source != Source::None
    {
        let problem = "the log of a command that the relay starts comes from the command's standard error";
        let remedy = "Leave it out, or use --upstream instead of a command";
        reader.mistakes.add("log", Some(&source.to_string()), &given.origin, problem, remedy);
    }
    if let (Some(given), Some(Source::None), Witness::Log) = (reader.given("log"), &log, witness) {
        add_log_missing(reader, &given.origin.clone());
    }
    let bus_log = witness != Witness::Stream && log != Some(Source::None);
    Shape::Parent { command: input.command.clone(), bus_log }
}

fn beside_log(reader: &mut Reader<'_>, witness: Witness, log: Option<Source>, warnings: &mut Vec<String>) -> Source {
    const SOURCES: &str = "--log dir:~/.local/share/opencode/log, file:PATH, journald:UNIT or stdin";
    match (witness, log) {
        (Witness::Log, Some(Source::None)) => {
            if let Some(given) = reader.given("log") {
                add_log_missing(reader, &given.origin.clone());
            }
            Source::None
        }
        (Witness::Log, None) => {
            // A value that could not be read is a mistake already.
            if reader.given("log").is_none() {
                reader.mistakes.add_general(
                    "log",
                    "the witness is the log, and no log was given",
                    format!("Add {SOURCES}"),
                );
            }
            Source::None
        }
        (Witness::Stream, Some(source)) if source != Source::None => {
            warnings.push(format!("--log {source} is not read, because --witness is stream"));
            Source::None
        }
        (Witness::Auto, None) if reader.given("log").is_none() => {
            warnings.push(format!(
                "no bus log is read: an event that opencode's stream loses is only noticed by its effects on the state; up to opencode 1.15.13, add {SOURCES}"
            ));
            Source::None
        }
        (_, log) => log.unwrap_or_default(),
    }
}

fn add_log_missing(reader: &mut Reader<'_>, origin: &Origin) {
    let remedy = "Give a log, or use --witness auto or stream";
    reader.mistakes.add("log", Some("none"), origin, "the witness is the log", remedy);
}

/// The password from the file, else from opencode's own variable.
fn credentials(reader: &mut Reader<'_>, input: &Input, warnings: &mut Vec<String>) -> Option<Credentials> {
    let password = match reader.given("password_file") {
        Some(given) => password_from(given, reader.mistakes),
        None => opencode_variable(PASSWORD_VARIABLE, input, reader.mistakes),
    };
    let username = match reader.one("username", username) {
        Some(name) => {
            if password.is_none() {
                warnings.push(
                    "a user name without a password is not used; set OPENCODE_SERVER_PASSWORD or --password-file"
                        .to_owned(),
                );
            }
            Some(name)
        }
        None => opencode_variable(USERNAME_VARIABLE, input, reader.mistakes),
    };
    let username = username.unwrap_or_else(|| USERNAME.to_owned());
    password.map(|password| Credentials { username, password: Secret::new(password) })
}

fn username(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.contains(':') {
        // Basic authentication ends the name at the first colon.
        return Err(("empty, or with a colon in it".to_owned(), "Write the name that opencode was given".to_owned()));
    }
    Ok(text.to_owned())
}

/// The first line of the file. Neither it nor anything else of the file is ever shown.
fn password_from(given: &Given, mistakes: &mut Mistakes) -> Option<String> {
    let path = given.values.last()?;
    let mut fail = |problem: String, remedy: &str| {
        mistakes.add("password_file", Some(path), &given.origin, problem, remedy);
        None
    };
    match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => match text.lines().next().filter(|line| !line.is_empty()) {
            Some(line) => Some(line.to_owned()),
            None => fail("its first line is empty".to_owned(), "Write the password into it"),
        },
        Ok(Err(_)) => fail("it is not valid UTF-8".to_owned(), "Write the password in UTF-8"),
        Err(error) => fail(format!("it cannot be read: {error}"), "Check the path and its rights"),
    }
}

fn opencode_variable(name: &str, input: &Input, mistakes: &mut Mistakes) -> Option<String> {
    let (_, value) = input.environment.iter().rev().find(|(have, _)| have == name)?;
    match value.to_str() {
        Some("") => None,
        Some(value) => Some(value.to_owned()),
        None => {
            let origin = Origin::Environment(name.to_owned());
            mistakes.add(name, None, &origin, "it is not valid UTF-8", "Write it in UTF-8");
            None
        }
    }
}
