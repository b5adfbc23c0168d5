//! Wires everything: from a [`Config`] to a running relay, and back down in the order of DESIGN §5.

mod metrics;
mod options;
mod report;
mod systemd;
mod upstream;
mod warnings;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};

use crate::config::{self, Config, Shape, Witness};
use crate::event::Epoch;
use crate::http;
use crate::hub::Hub;
use crate::ingest::{self, Message, Passed};
use crate::journal::{Journal, Restored, Taken};
use crate::pipeline::{self, Pipeline};
use crate::proxy::{self, Proxy, Target};
use crate::stop::{Stop, Tasks};
use crate::supervise::{self, Exit, Phase};

pub use systemd::{Systemd, SystemdError};

use report::Report;
use upstream::Keeper;
use warnings::warn_about;

/// How long requests may go on after a stop, in seconds of the whole stop.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the rest of a stop may take: ingest, pipeline, journal.
const FINISH: Duration = Duration::from_secs(5);

/// How many observed requests may wait for the pipeline; more are lost, which costs nothing but a later read.
const PASSED: usize = 256;

/// A relay that listens already.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    listeners: Vec<http::Listener>,
    endpoints: Vec<http::Endpoint>,
    certificate: Certificate,
    limits: Limits,
    systemd: Systemd,
    journal: Arc<Journal>,
    restored: Restored,
}

/// What clients that speak TLS are shown, and that it can be read again. Clones are the same.
#[derive(Clone, Debug)]
pub struct Certificate(Option<http::Tls>);

impl Certificate {
    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the files again, for connections to come; what cannot be used is told in the log, and changes nothing.
    pub fn read_again(&self) {
        match self.0.as_ref().map(http::Tls::reload) {
            None => {}
            Some(Ok(())) => tracing::info!("the certificate and its key were read again"),
            Some(Err(error)) => tracing::error!("failed to {error}; the certificate from before is used on"),
        }
    }
}

/// Limits that users have no setting for, because one value fits all; tests make them short.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The upstream stream's.
    pub stream: ingest::stream::Options,
    /// The pause between the heartbeats of a client's stream.
    pub heartbeat: Duration,
    /// How often opencode is asked for its release while no stream shows that it is the same process.
    pub identify: Duration,
    /// How long requests may go on after a stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let heartbeat = http::Options::default().heartbeat;
        Self { stream: ingest::stream::Options::default(), heartbeat, identify: upstream::IDENTIFY, drain: DRAIN }
    }
}

impl Relay {
    /// Binds the addresses and opens the journal.
    ///
    /// # Errors
    ///
    /// When the state folder cannot be used or an address cannot be had.
    pub async fn bind(config: Config) -> Result<Self> {
        Self::bind_with(config, Vec::new()).await
    }

    /// The same, and listens on the sockets that were passed to the process as well. One of them that is also among the
    /// addresses to bind is that address.
    ///
    /// # Errors
    ///
    /// As [`Relay::bind`].
    pub async fn bind_with(config: Config, passed: Vec<http::Passed>) -> Result<Self> {
        // First, so that a second relay says whose folder it is, not whose port.
        let folder = take_folder(&config).await?;
        let is_tls = |endpoint: &http::Endpoint| matches!(endpoint, http::Endpoint::Tcp { is_tls: true, .. });
        let all = || config.listen.iter().chain(passed.iter().map(http::Passed::endpoint));
        let files = config.tls.as_ref().filter(|_| all().any(is_tls));
        let tls = files.map(|files| http::Tls::load(&files.certificate, &files.key)).transpose()?;
        let mut listeners = Vec::new();
        let mut endpoints = Vec::new();
        let mut to_bind = config.listen.clone();
        for mut passed in passed {
            to_bind.retain(|endpoint| {
                let is_same = endpoint.is_at(passed.endpoint());
                if is_same && is_tls(endpoint) {
                    passed.speak_tls();
                }
                !is_same
            });
            listeners.push(http::Listener::take(passed, tls.as_ref())?);
        }
        for endpoint in &to_bind {
            listeners.push(http::Listener::bind(endpoint, config.socket_mode, tls.as_ref()).await?);
        }
        for listener in &listeners {
            endpoints.push(listener.endpoint().context("ask for the address that was bound")?);
        }
        // Last: to read a long journal takes a while, in which clients that come wait instead of being refused.
        let (journal, restored) = open_journal(&config, folder).await?;
        let (journal, limits, systemd) = (Arc::new(journal), Limits::default(), Systemd::default());
        Ok(Self { config, listeners, endpoints, certificate: Certificate(tls), limits, systemd, journal, restored })
    }

    /// The same relay, which tells its manager how it is.
    #[must_use]
    pub fn with_systemd(self, systemd: Systemd) -> Self {
        Self { systemd, ..self }
    }

    /// The same relay with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoints(&self) -> &[http::Endpoint] {
        &self.endpoints
    }

    /// What it shows to clients that speak TLS; keep it to read it again while the relay runs.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.certificate.clone()
    }

    /// Runs until `stop` is pulled or the command that it started ends for good.
    ///
    /// # Errors
    ///
    /// When the command cannot be started.
    pub async fn run(self, stop: Stop) -> Result<Exit> {
        let Self { config, listeners, endpoints, certificate: _, limits, systemd, journal, restored } = self;
        warn_about(&config, &endpoints);
        for endpoint in &endpoints {
            tracing::info!("listening on {endpoint}");
        }
        let threads = Arc::new(http::Threads::start().context("start the threads that serve clients")?);
        let tasks = Tasks::new();
        let hub = Hub::new(journal.clone(), tasks.clone());
        let has_api = Arc::new(AtomicBool::new(false));
        let (upstream_sender, upstream) = watch::channel(None);
        let (target_sender, target) = watch::channel(Target::Starting);
        let (inbox_sender, inbox) = mpsc::channel(ingest::QUEUE);
        let (asks_sender, asks) = mpsc::channel(ingest::state::QUEUE);
        let (passed_sender, passed) = mpsc::channel(PASSED);

        let position = restored.notes.get(pipeline::LOG_NOTE).cloned();
        let pipeline = Pipeline::new(pipeline::Parts {
            options: options::reconcile(&config),
            journal: journal.clone(),
            restored,
            hub: hub.clone(),
            asks: asks_sender,
            upstream: upstream.clone(),
            has_api: has_api.clone(),
        });
        let handle = pipeline.handle();
        // Each signal stops what depends on nothing that an earlier one stopped.
        let (stop_front, stop_ingest, stop_pipeline, stop_rest) = (Stop::new(), Stop::new(), Stop::new(), Stop::new());
        tasks.spawn(
            "state witness",
            ingest::state::run(asks, upstream.clone(), inbox_sender.clone(), tasks.clone(), stop_ingest.clone()),
        );
        // Alone, because an opencode that is told to end would look like a broken stream.
        let stop_stream = stop_ingest.child();
        let stream = (config.witness != Witness::Log).then(|| {
            let (upstream, out, stop) = (upstream.clone(), inbox_sender.clone(), stop_stream.clone());
            ingest::stream::follow(limits.stream.clone(), upstream, out, tasks.clone(), stop)
        });
        let run = {
            let (tasks, stop) = (tasks.clone(), stop_pipeline.clone());
            async move {
                // Here, because another thread than the one that reads would have to be woken for every event.
                if let Some(follow) = stream {
                    tasks.spawn("stream witness", follow);
                }
                pipeline.run(inbox, stop).await;
            }
        };
        let pipeline = tasks.spawn("pipeline", on_own_thread("pipeline", run));
        if config.witness != Witness::Stream {
            let start =
                position.map_or(ingest::log::Start::End, |text| ingest::log::Start::After(ingest::log::Position(text)));
            let follow = ingest::log::follow(config.log.clone(), start, inbox_sender.clone(), stop_ingest.clone());
            tasks.spawn("log witness", follow);
        }
        tasks.spawn("observer", observe(passed, inbox_sender.clone(), stop_ingest.clone()));

        let (phase_sender, phase) = watch::channel(Phase::Starting);
        let keeper =
            Keeper::new(&config, limits.identify, upstream_sender, target_sender, has_api.clone(), handle.clone());
        let known = keeper.known();
        tasks.spawn("upstream keeper", keeper.run(phase, stop_front.clone(), stop_ingest.clone()));

        let proxy =
            Proxy::new(options::proxy(&config, passed_sender), target.clone(), tasks.clone(), stop_rest.clone());
        let (clients, connections) = (http::Clients::default(), http::Connections::default());
        let report = Arc::new(Report {
            config: config.clone(),
            journal: journal.clone(),
            handle,
            target,
            known,
            clients: clients.clone(),
            connections: connections.clone(),
            proxy: proxy.clone(),
        });
        let parts = http::Parts {
            hub: hub.clone(),
            proxy,
            api_event: has_api,
            clients,
            connections,
            admitted: Arc::new({
                let inbox = inbox_sender.clone();
                move |directory| {
                    // A full queue loses it; the next client's admission says it again.
                    let _ = inbox.try_send(Message::Passed(Passed::InUse(Some(directory))));
                }
            }),
            status: Arc::new({
                let report = report.clone();
                move || report.status()
            }),
            ready: Arc::new({
                let report = report.clone();
                move || report.ready()
            }),
            metrics: Arc::new({
                let report = report.clone();
                move |form| report.metrics(form)
            }),
            options: options::http(&config, &limits),
        };
        let mut front =
            tasks.spawn("front", http::serve(listeners, threads.clone(), parts, tasks.clone(), stop_front.clone()));
        // Ready as soon as clients are taken in: their requests wait for an opencode that is still starting.
        tasks.spawn("systemd", systemd.accompany(report, inbox_sender.clone(), stop_front.clone()));

        let exit = match &config.shape {
            Shape::Beside { .. } => {
                stop.pulled().await;
                Exit(0)
            }
            Shape::Parent { command, bus_log } => {
                let log = (*bus_log && config.witness != Witness::Stream).then(|| inbox_sender.clone());
                let stop_command = Stop::new();
                let parts =
                    supervise::Parts { phase: phase_sender, log, stop: stop_command.clone(), tasks: tasks.clone() };
                let options = options::supervise(&config, command);
                let mut command = std::pin::pin!(supervise::run(options, parts));
                tokio::select! {
                    exit = &mut command => exit?,
                    () = stop.pulled() => {
                        // Clients first: their requests may still need opencode.
                        stop_front.pull();
                        tokio::select! {
                            exit = &mut command => exit?,
                            _ = &mut front => {
                                stop_stream.pull();
                                stop_command.pull();
                                command.await?
                            }
                        }
                    }
                }
            }
        };
        tracing::info!("stopping");
        stop_front.pull();
        if !front.is_finished() {
            let _ = front.await;
        }
        stop_ingest.pull();
        stop_pipeline.pull();
        if tokio::time::timeout(FINISH, pipeline).await.is_err() {
            tracing::warn!("the pipeline did not finish within {} s", FINISH.as_secs());
        }
        close_journal(journal).await;
        stop_rest.pull();
        match tasks.finish(FINISH).await {
            Ok(()) => tracing::info!("stopped"),
            Err(left) => tracing::warn!("stopped, but these did not end: {}", left.join(", ")),
        }
        // Not before: sockets are served on them until they are told to end.
        drop(threads);
        Ok(exit)
    }
}

/// The state folder, if there is to be one.
async fn take_folder(config: &Config) -> Result<Option<Taken>> {
    let config::Journal::Disk { state_dir } = config.journal.clone() else { return Ok(None) };
    Ok(Some(tokio::task::spawn_blocking(move || Journal::take(&state_dir)).await??))
}

async fn open_journal(config: &Config, folder: Option<Taken>) -> Result<(Journal, Restored)> {
    let options = options::journal(config);
    match folder {
        None => Ok((Journal::new(Epoch::new(random()), options), Restored::default())),
        Some(folder) => Ok(tokio::task::spawn_blocking(move || Journal::open(folder, options)).await??),
    }
}

/// Syncs the journal. A disk that takes longer than [`FINISH`] is left to itself: the events are in the file by then, and
/// only a machine that goes down could still lose them.
async fn close_journal(journal: Arc<Journal>) {
    let close = tokio::task::spawn_blocking(move || journal.close());
    if tokio::time::timeout(FINISH, close).await.is_err() {
        tracing::warn!("the journal was not synced within {} s", FINISH.as_secs());
    }
}

/// Runs where it may wait for the disk: a commit holds up no request. Not a thread of the runtime's: that would keep the
/// process from ending as long as a disk hangs. It has a runtime of its own: timers and sockets of another's would
/// wake that one's thread.
async fn on_own_thread(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    let (done, ended) = tokio::sync::oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let thread = runtime.and_then(|runtime| {
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // As a task, because waking what is blocked on takes the runtime a turn.
            let _ = runtime.block_on(runtime.spawn(future));
            drop(done);
        })
    });
    match thread {
        // It says nothing, but it closes, also when the future panicked.
        Ok(_) => drop(ended.await),
        Err(error) => tracing::error!("no thread can be had for the {name}: {error}; clients are sent no events"),
    }
}

/// Tells the pipeline what passed through the proxy.
async fn observe(mut passed: mpsc::Receiver<proxy::Passed>, out: ingest::Sender, stop: Stop) {
    while let Some(Some(passed)) = stop.or(passed.recv()).await {
        if !(200..300).contains(&passed.status) {
            continue;
        }
        let in_use = Message::Passed(Passed::InUse(passed.directory.map(Into::into)));
        let is_write = passed.method != "GET";
        let write = Message::Passed(Passed::Write { path: passed.path, body: passed.body });
        for message in std::iter::once(in_use).chain(is_write.then_some(write)) {
            if out.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// A number that no earlier run drew.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
