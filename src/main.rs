//! The `opencode-relay` command: reads flags, environment and signals, and calls the library.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use opencode_relay::app::{Certificate, Relay, Systemd};
use opencode_relay::cli::{self, Command};
use opencode_relay::config::{Again, Config, Mistakes, Settings};
use opencode_relay::http::Passed;
use opencode_relay::stop::Stop;
use opencode_relay::supervise::{Exit, guard};
use opencode_relay::telemetry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Descriptors for what is not a client: files, the journal, signals, the log, listeners, the upstream's stream.
const OWN_DESCRIPTORS: u64 = 64;

/// How long after the first a further signal is taken for the same one; `timeout` sends two at once.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// Wrong usage or settings.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match cli::parse().command {
        Command::Guard(guarded) => guard::main(&guarded.command),
        Command::Decode(flags) => match cli::decode::run(&flags) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.to_string()),
        },
        Command::Doctor(flags) => doctor(&flags),
        Command::Tail(flags) => match cli::tail::run(&flags, std::env::vars_os()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(cli::tail::Error::Usage(mistakes)) => usage(&mistakes),
            Err(error) => fail(&error.to_string()),
        },
        Command::Healthcheck(flags) => match cli::healthcheck::run(&flags, std::env::vars_os()) {
            Ok(line) => {
                let _ = line.map(|line| writeln!(std::io::stdout(), "{line}"));
                ExitCode::SUCCESS
            }
            Err(cli::healthcheck::Error::Usage(mistakes)) => usage(&mistakes),
            Err(error) => fail(&error.to_string()),
        },
        Command::Completions(wanted) => printed(cli::paper::completions(&wanted)),
        Command::Man => printed(cli::paper::man()),
        Command::Run(flags) => start(*flags),
    }
}

fn doctor(flags: &cli::doctor::Flags) -> ExitCode {
    // One thread will do, and nothing outlives it.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("start the runtime: {error}")),
    };
    let interrupted = async {
        let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    ExitCode::from(runtime.block_on(cli::doctor::run(flags, std::env::vars_os(), interrupted)))
}

fn start(flags: cli::run::Flags) -> ExitCode {
    // Before anything is opened: what was passed is known by its number alone.
    let passed = match Passed::take() {
        Ok(passed) => passed,
        Err(error) => return fail(&error.to_string()),
    };
    let mut input = flags.into_input(std::env::vars_os());
    input.passed = passed.iter().map(|passed| passed.endpoint().clone()).collect();
    let systemd = match Systemd::from_environment(&input.environment) {
        Ok(systemd) => systemd,
        Err(error) => return fail(&error.to_string()),
    };
    match Settings::load(input) {
        Ok((config, settings)) => run(config, settings, passed, systemd),
        Err(mistakes) => usage(&mistakes),
    }
}

fn run(mut config: Config, settings: Settings, passed: Vec<Passed>, systemd: Systemd) -> ExitCode {
    let filter = match telemetry::init(config.log_format, &config.log_level) {
        Ok(filter) => filter,
        Err(error) => return fail(&error.to_string()),
    };
    fit_descriptors(&mut config, raise_descriptors());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(relay(config, passed, systemd, settings, filter)),
        Err(error) => Err(anyhow::Error::new(error).context("start the runtime")),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Takes as many descriptors as the system allows: each client is one, and the usual soft limit of 1024 is meant for
/// programs that use `select`. Not worth failing for. What it is then; `None` is without limit.
fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files; it limits the clients");
            limit.current
        }
    }
}

/// Lets no more clients in than there are descriptors for: a client's request needs a second one, to opencode. Without
/// this a crowd would be accepted that nobody can serve.
fn fit_descriptors(config: &mut Config, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    let fitting = usize::try_from(limit.saturating_sub(OWN_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(1);
    if fitting >= config.max_connections {
        return;
    }
    config.warnings.push(format!(
        "at most {fitting} connections are let in at a time instead of {}: the process may have {limit} open files; raise \
         that limit (LimitNOFILE= in a unit of systemd, `ulimit -H -n`), or lower --max-connections",
        config.max_connections
    ));
    config.max_connections = fitting;
    // As the default is: one client address must not keep the others out.
    config.max_connections_per_address = config.max_connections_per_address.map(|most| most.min(fitting.div_ceil(2)));
}

async fn relay(
    config: Config,
    passed: Vec<Passed>,
    systemd: Systemd,
    mut settings: Settings,
    filter: telemetry::Filter,
) -> anyhow::Result<Exit> {
    let stop = Stop::new();
    // Before anything is started: a signal from here on is a stop, not a death.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let relay = Relay::bind_with(config, passed).await?.with_systemd(systemd.clone());
    for endpoint in relay.endpoints() {
        // For programs that start the relay and need its address; like opencode's own line.
        let _ = writeln!(std::io::stdout(), "opencode-relay listening on {endpoint}");
    }
    let certificate = relay.certificate();
    // A terminal that is closed says so by the same signal as whoever wants settings to be read again.
    let had_terminal = std::io::stderr().is_terminal();
    let hung_up = async {
        while hangup.recv().await.is_some() {
            if had_terminal && !std::io::stderr().is_terminal() {
                return;
            }
            systemd.reloading().await;
            read_again(&mut settings, &filter, &certificate);
            systemd.reloaded().await;
        }
        std::future::pending().await
    };
    let mut running = std::pin::pin!(relay.run(stop.clone()));
    let signals = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = hung_up => {}
        }
        stop.pull();
        // A second signal means it, but not the same one again: some send it to a process and then to its group.
        let first = Instant::now();
        while first.elapsed() < SAME_SIGNAL {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    };
    tokio::select! {
        exit = &mut running => exit,
        () = signals => Err(anyhow::anyhow!("stop in order: a second signal came")),
    }
}

/// Reads again what can be, and says what that changes.
fn read_again(settings: &mut Settings, filter: &telemetry::Filter, certificate: &Certificate) {
    if !settings.has_files() && !certificate.is_there() {
        tracing::info!(
            "there is nothing to read again: no settings file, and no address to listen on begins with https://"
        );
        return;
    }
    // Whatever is wrong with the settings: a certificate that was renewed has to be used.
    certificate.read_again();
    match settings.read_again() {
        Ok(again) => {
            // First, so that the rest is shown as it is wanted now.
            if let Some(level) = &again.log_level {
                match filter.set(level) {
                    Ok(()) => tracing::info!("the settings were read again: log_level is {level:?} now"),
                    Err(error) => tracing::error!("failed to {error}"),
                }
            }
            for later in &again.later {
                tracing::warn!("{later}; it takes effect at the next restart");
            }
            if again == Again::default() {
                tracing::info!("the settings were read again: nothing changed");
            }
        }
        Err(mistakes) => {
            for mistake in &mistakes.0 {
                tracing::error!("a setting is wrong: {mistake}");
            }
            tracing::error!("failed to read the settings again; those from before are used on");
        }
    }
}

fn printed(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("write to standard output: {error}")),
    }
}

fn usage(mistakes: &Mistakes) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{mistakes}");
    ExitCode::from(USAGE)
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "opencode-relay: failed to {message}");
    ExitCode::FAILURE
}
