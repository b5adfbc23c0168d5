//! The flags of `run`. They are texts here; `config` checks them together with the environment and the file.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::Input;

const EXAMPLES: &str = "\
EXAMPLES
  Start opencode and serve its streams on 127.0.0.1:4097:
      opencode-relay run -- opencode serve --port 0

  In front of an opencode that runs already, with its log folder as a second witness:
      opencode-relay run --upstream http://127.0.0.1:4096 --log dir:$HOME/.local/share/opencode/log

  For other machines too, with a password that opencode knows as well:
      OPENCODE_SERVER_PASSWORD=… opencode-relay run --listen 0.0.0.0:4097 -- opencode serve

  Then, with any client:
      curl -N http://127.0.0.1:4097/event

SETTINGS
  A flag wins over its variable, that over the file (--config), that over the default. A variable that begins with
  OPENCODE_RELAY_ and a key in the file that are not settings are refused. Durations are written 250ms, 10s, 2m or 1h30m;
  sizes 512KiB, 64MiB or 2GiB.

  opencode's password is taken from OPENCODE_SERVER_PASSWORD, its user from OPENCODE_SERVER_USERNAME.";

/// What can be written behind `run`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "`--help` shows examples and where settings come from.",
    after_long_help = EXAMPLES,
    override_usage = "opencode-relay run [OPTIONS] -- opencode serve [ARGUMENTS]\n       opencode-relay run [OPTIONS] --upstream http://HOST:PORT [--log SOURCE]"
)]
pub struct Flags {
    /// Where clients connect: HOST:PORT, https://HOST:PORT or unix:PATH; can be given several times [default:
    /// 127.0.0.1:4097, or the sockets that systemd passes]
    ///
    /// [env: OPENCODE_RELAY_LISTEN, with commas]
    #[arg(long, value_name = "ADDRESS", help_heading = "Where")]
    pub listen: Vec<String>,

    /// The rights of unix sockets, in octal [default: 600]
    ///
    /// [env: OPENCODE_RELAY_SOCKET_MODE]
    #[arg(long, value_name = "MODE", help_heading = "Where")]
    pub socket_mode: Option<String>,

    /// The certificate for https://, in PEM, with those above it; SIGHUP reads it again
    ///
    /// [env: OPENCODE_RELAY_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    pub tls_certificate: Option<String>,

    /// Its private key, in PEM
    ///
    /// [env: OPENCODE_RELAY_TLS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    pub tls_key: Option<String>,

    /// A proxy in front of the relay whose Forwarded and X-Forwarded-* are believed: an address, a network, or unix;
    /// can be given several times
    ///
    /// [env: OPENCODE_RELAY_TRUSTED_PROXY, with commas]
    #[arg(long, value_name = "NETWORK", help_heading = "Where")]
    pub trusted_proxy: Vec<String>,

    /// A name by which browsers may reach the relay's own pages and streams while opencode has no password, besides
    /// localhost and the addresses it listens on; can be given several times
    ///
    /// [env: OPENCODE_RELAY_ALLOWED_HOST, with commas]
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub allowed_host: Vec<String>,

    /// The opencode to stand beside, http://HOST:PORT; instead of a command
    ///
    /// [env: OPENCODE_RELAY_UPSTREAM]
    #[arg(long, value_name = "URL", help_heading = "Where")]
    pub upstream: Option<String>,

    /// Where the bus log of that opencode is read: file:PATH, dir:PATH (opencode's log folder), journald:UNIT (what a
    /// unit of systemd prints), stdin or none; a command's log comes from its standard error [default: none]
    ///
    /// [env: OPENCODE_RELAY_LOG]
    #[arg(long, value_name = "SOURCE", help_heading = "Witnesses")]
    pub log: Option<String>,

    /// What is trusted: auto (all that is there), log (opencode's streams are never opened; rebuilt from log and
    /// state), or stream (no log is read) [default: auto]
    ///
    /// [env: OPENCODE_RELAY_WITNESS]
    #[arg(long, value_name = "auto|log|stream", help_heading = "Witnesses")]
    pub witness: Option<String>,

    /// How long a log line may stay without its event before the state is read [default: 2s]
    ///
    /// [env: OPENCODE_RELAY_GRACE]
    #[arg(long, value_name = "DURATION", help_heading = "Witnesses")]
    pub grace: Option<String>,

    /// How often the newest sessions are looked at while somebody listens, for what another opencode process does on
    /// the same data; or off [default: 2s]
    ///
    /// [env: OPENCODE_RELAY_WATCH_STATE]
    #[arg(long, value_name = "DURATION|off", help_heading = "Witnesses")]
    pub watch_state: Option<String>,

    /// Send events whose content nobody can supply with empty properties [default: false]
    ///
    /// [env: OPENCODE_RELAY_EMIT_BARE]
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Witnesses"
    )]
    pub emit_bare: Option<String>,

    /// Where events are kept for clients that come back: disk (also over restarts) or memory [default: disk]
    ///
    /// [env: OPENCODE_RELAY_JOURNAL]
    #[arg(long, value_name = "disk|memory", help_heading = "Clients")]
    pub journal: Option<String>,

    /// The folder for events on disk; one relay's own [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/opencode-relay,
    /// else ~/.local/state/opencode-relay]
    ///
    /// [env: OPENCODE_RELAY_STATE_DIR]
    #[arg(long, value_name = "DIR", help_heading = "Clients")]
    pub state_dir: Option<String>,

    /// How many bytes of events are kept [default: 256MiB]
    ///
    /// [env: OPENCODE_RELAY_JOURNAL_BYTES]
    #[arg(long, value_name = "SIZE", help_heading = "Clients")]
    pub journal_bytes: Option<String>,

    /// How long events are kept [default: 24h]
    ///
    /// [env: OPENCODE_RELAY_JOURNAL_AGE]
    #[arg(long, value_name = "DURATION", help_heading = "Clients")]
    pub journal_age: Option<String>,

    /// How long a client may take nothing before its stream is ended [default: 30s]
    ///
    /// [env: OPENCODE_RELAY_STALL_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Clients")]
    pub stall_timeout: Option<String>,

    /// How long requests wait for opencode's first start [default: 30s]
    ///
    /// [env: OPENCODE_RELAY_START_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Clients")]
    pub start_timeout: Option<String>,

    /// Most connections at a time; further callers wait [default: 16384]
    ///
    /// [env: OPENCODE_RELAY_MAX_CONNECTIONS]
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub max_connections: Option<String>,

    /// Most connections of one client address at a time; further ones are closed [default: 8192]
    ///
    /// [env: OPENCODE_RELAY_MAX_CONNECTIONS_PER_ADDRESS]
    #[arg(long, value_name = "NUMBER|off", help_heading = "Limits")]
    pub max_connections_per_address: Option<String>,

    /// Most requests at opencode at a time; more get 503 [default: 1024]
    ///
    /// [env: OPENCODE_RELAY_MAX_REQUESTS]
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub max_requests: Option<String>,

    /// Most WebSockets at a time; more get 503 [default: 1024]
    ///
    /// [env: OPENCODE_RELAY_MAX_SOCKETS]
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub max_sockets: Option<String>,

    /// Most bytes of a request's body; more gets 413 [default: off]
    ///
    /// [env: OPENCODE_RELAY_MAX_BODY]
    #[arg(long, value_name = "SIZE|off", help_heading = "Limits")]
    pub max_body: Option<String>,

    /// How long a request's head may take [default: 30s]
    ///
    /// [env: OPENCODE_RELAY_HEAD_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub head_timeout: Option<String>,

    /// How long a connection may stand still between two requests or in the middle of one; not for event streams,
    /// WebSockets, and while opencode is thinking [default: 2m]
    ///
    /// [env: OPENCODE_RELAY_IDLE_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub idle_timeout: Option<String>,

    /// How long a connection to opencode may take [default: 5s]
    ///
    /// [env: OPENCODE_RELAY_CONNECT_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub connect_timeout: Option<String>,

    /// How long opencode may take to begin an answer [default: off]
    ///
    /// [env: OPENCODE_RELAY_ANSWER_TIMEOUT]
    #[arg(long, value_name = "DURATION|off", help_heading = "Limits")]
    pub answer_timeout: Option<String>,

    /// A file whose first line is opencode's password; instead of OPENCODE_SERVER_PASSWORD
    ///
    /// [env: OPENCODE_RELAY_PASSWORD_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Password")]
    pub password_file: Option<String>,

    /// The user of that password; instead of OPENCODE_SERVER_USERNAME [default: opencode]
    ///
    /// [env: OPENCODE_RELAY_USERNAME]
    #[arg(long, value_name = "NAME", help_heading = "Password")]
    pub username: Option<String>,

    /// How the relay writes its own log; auto is journal where systemd's journal is behind standard error, else text
    /// [default: auto]
    ///
    /// [env: OPENCODE_RELAY_LOG_FORMAT]
    #[arg(long, value_name = "auto|text|json|journal", help_heading = "Log and settings")]
    pub log_format: Option<String>,

    /// What the relay logs: error, warn, info, debug, trace, or by module as info,opencode_relay::proxy=debug [default:
    /// info]
    ///
    /// [env: OPENCODE_RELAY_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL", help_heading = "Log and settings")]
    pub log_level: Option<String>,

    /// A TOML file with settings
    ///
    /// [env: OPENCODE_RELAY_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Log and settings")]
    pub config: Option<PathBuf>,

    /// The command that starts opencode, with `serve`; --print-logs is added where it is missing
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Flags {
    /// What was written, for [`crate::config::Settings::load`].
    pub fn into_input(self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Input {
        let single = [
            ("upstream", self.upstream),
            ("log", self.log),
            ("witness", self.witness),
            ("grace", self.grace),
            ("watch_state", self.watch_state),
            ("emit_bare", self.emit_bare),
            ("journal", self.journal),
            ("state_dir", self.state_dir),
            ("journal_bytes", self.journal_bytes),
            ("journal_age", self.journal_age),
            ("stall_timeout", self.stall_timeout),
            ("start_timeout", self.start_timeout),
            ("socket_mode", self.socket_mode),
            ("tls_certificate", self.tls_certificate),
            ("tls_key", self.tls_key),
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
            ("max_requests", self.max_requests),
            ("max_sockets", self.max_sockets),
            ("max_body", self.max_body),
            ("head_timeout", self.head_timeout),
            ("idle_timeout", self.idle_timeout),
            ("connect_timeout", self.connect_timeout),
            ("answer_timeout", self.answer_timeout),
            ("password_file", self.password_file),
            ("username", self.username),
            ("log_format", self.log_format),
            ("log_level", self.log_level),
        ];
        let single = single.into_iter().filter_map(|(key, value)| Some((key, vec![value?])));
        let lists =
            [("listen", self.listen), ("trusted_proxy", self.trusted_proxy), ("allowed_host", self.allowed_host)];
        Input {
            flags: single.chain(lists).collect(),
            file: self.config,
            command: self.command,
            environment: environment.into_iter().collect(),
            passed: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::config::{self, Config, Mistakes, Shape};

    fn load<const N: usize>(flags: Flags, environment: [(OsString, OsString); N]) -> Result<Config, Mistakes> {
        config::load(&flags.into_input(environment))
    }

    fn flags(line: &str) -> Flags {
        let words = ["opencode-relay", "run"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(flags) => *flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_settings() {
        let flags = flags("--listen 127.0.0.1:1 --listen [::1]:2 --emit-bare --grace 5s -- opencode serve --port 0");
        let config = load(flags, [("HOME".into(), "/home/me".into())]).unwrap();
        assert_eq!(config.listen.len(), 2);
        assert!(config.emit_bare);
        assert_eq!(config.grace.as_secs(), 5);
        let command = ["opencode", "serve", "--port", "0"].map(str::to_owned).to_vec();
        assert_eq!(config.shape, Shape::Parent { command, bus_log: true });
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let line = "--upstream bad --log bad --witness bad --grace bad --watch-state bad --emit-bare=bad --journal bad --journal-bytes bad \
            --state-dir= --journal-age bad --stall-timeout bad --start-timeout bad --password-file /nowhere --username a:b \
            --log-format bad --log-level a=b=c --listen bad --socket-mode bad --tls-certificate= --tls-key= --trusted-proxy bad \
            --allowed-host a:b --max-connections bad --max-connections-per-address bad --max-requests bad --max-sockets bad \
            --max-body bad --head-timeout bad --idle-timeout bad --connect-timeout bad --answer-timeout bad";
        let mistakes = load(flags(line), []).unwrap_err();
        let keys: std::collections::BTreeSet<&str> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(keys.len(), 31, "{mistakes}");
    }

    #[test]
    fn the_help_names_every_variable() {
        let mut command = <Cli as clap::CommandFactory>::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_long_help().to_string();
        for argument in run.get_arguments().filter_map(|argument| argument.get_long()).filter(|long| *long != "help") {
            let variable = format!("env: OPENCODE_RELAY_{}", argument.to_uppercase().replace('-', "_"));
            assert!(help.contains(&variable) || argument == "version", "{variable} is not in the help");
        }
    }
}
