//! The `opencode-relay` command: reads flags, environment and signals, and calls the library.

use std::io::Write as _;
use std::process::ExitCode;

use opencode_relay::app::Relay;
use opencode_relay::cli::{self, Command};
use opencode_relay::config::Config;
use opencode_relay::stop::Stop;
use opencode_relay::supervise::{Exit, guard};
use opencode_relay::telemetry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Wrong usage or settings.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match cli::parse().command {
        Command::Guard(guarded) => guard::main(&guarded.command),
        Command::Decode(flags) => match cli::decode::run(&flags) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string()),
        },
        Command::Run(flags) => match flags.load(std::env::vars_os()) {
            Ok(config) => run(config),
            Err(mistakes) => {
                let _ = writeln!(std::io::stderr(), "{mistakes}");
                ExitCode::from(USAGE)
            }
        },
    }
}

fn run(config: Config) -> ExitCode {
    if let Err(error) = telemetry::init(config.log_format, &config.log_level) {
        return fail(&error.to_string());
    }
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("relay").build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(relay(config)),
        Err(error) => Err(anyhow::Error::new(error).context("start the runtime")),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Takes as many descriptors as the system allows: each client is one, and the usual soft limit of 1024 is meant for
/// programs that use `select`. Not worth failing for.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files; it limits the clients");
    }
}

async fn relay(config: Config) -> anyhow::Result<Exit> {
    let stop = Stop::new();
    // Before anything is started: a signal from here on is a stop, not a death.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let relay = Relay::bind(config).await?;
    for address in relay.addresses() {
        // For programs that start the relay and need its address; like opencode's own line.
        let _ = writeln!(std::io::stdout(), "opencode-relay listening on http://{address}");
    }
    let mut running = std::pin::pin!(relay.run(stop.clone()));
    let signals = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.pull();
        // A second signal means it.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        exit = &mut running => exit,
        () = signals => Err(anyhow::anyhow!("stop in order: a second signal came")),
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "opencode-relay: failed to {message}");
    ExitCode::FAILURE
}
