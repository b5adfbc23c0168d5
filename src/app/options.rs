//! What each module is told of the settings.

use tokio::sync::mpsc;

use super::Limits;
use crate::config::{Config, Witness};
use crate::{http, journal, proxy, reconcile, supervise};

pub(super) fn journal(config: &Config) -> journal::Options {
    journal::Options { bytes: usize::try_from(config.journal_bytes).unwrap_or(usize::MAX), age: config.journal_age }
}

pub(super) fn reconcile(config: &Config) -> reconcile::Options {
    reconcile::Options {
        witness: witness(config.witness),
        grace: u64::try_from(config.grace.as_millis()).unwrap_or(u64::MAX),
        watch: config.watch_state.map_or(0, |every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX)),
        emit_bare: config.emit_bare,
    }
}

/// `passed` is told what goes through.
pub(super) fn proxy(config: &Config, passed: mpsc::Sender<proxy::Passed>) -> proxy::Options {
    proxy::Options {
        start_timeout: config.start_timeout,
        connect_timeout: config.connect_timeout,
        answer_timeout: config.answer_timeout,
        body_timeout: config.idle_timeout,
        body: config.max_body,
        requests: config.max_requests,
        sockets: config.max_sockets,
        trusted: config.trusted_proxy.clone(),
        observer: Some(passed),
        ..proxy::Options::default()
    }
}

pub(super) fn http(config: &Config, limits: &Limits) -> http::Options {
    http::Options {
        credentials: config.credentials.as_ref().map(|credentials| http::Credentials {
            user: credentials.username.clone(),
            password: credentials.password.reveal().to_owned(),
        }),
        stall_timeout: config.stall_timeout,
        heartbeat: limits.heartbeat,
        grace: limits.drain,
        connections: config.max_connections,
        connections_per_address: config.max_connections_per_address,
        head_timeout: config.head_timeout,
        idle_timeout: config.idle_timeout,
        trusted: config.trusted_proxy.clone(),
        allowed_hosts: config.allowed_host.clone(),
    }
}

pub(super) fn supervise(config: &Config, command: &[String]) -> supervise::Options {
    supervise::Options { environment: environment(config), ..supervise::Options::new(command.to_owned()) }
}

fn witness(witness: Witness) -> reconcile::Witness {
    match witness {
        Witness::Auto => reconcile::Witness::Auto,
        Witness::Log => reconcile::Witness::Log,
        Witness::Stream => reconcile::Witness::Stream,
    }
}

/// What opencode is told besides what it inherits: a password from a file must guard opencode too, not the relay alone.
fn environment(config: &Config) -> supervise::Environment {
    supervise::Environment(
        config
            .credentials
            .iter()
            .flat_map(|credentials| {
                let password = ("OPENCODE_SERVER_PASSWORD", credentials.password.reveal().to_owned());
                [password, ("OPENCODE_SERVER_USERNAME", credentials.username.clone())]
            })
            .collect(),
    )
}
