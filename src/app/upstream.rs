//! Keeps everybody told where opencode is, and which one.
//!
//! Requests are let through only once the upstream stream is connected, or is known not to be: so a client that prompts
//! right after its first answer misses nothing of what follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Config, Credentials, Shape, Witness};
use crate::ingest::Upstream;
use crate::ingest::release::{self, Release};
use crate::pipeline::{Handle, StreamState};
use crate::proxy::Target;
use crate::stop::Stop;
use crate::supervise::Phase;

/// How long requests wait for the upstream stream's first connection. A cold opencode takes most of a second.
const STREAM: Duration = Duration::from_secs(3);

/// How long to wait before opencode is asked for its version again.
const AGAIN: Duration = Duration::from_secs(2);

/// How often opencode is asked for its version while there is no stream: a stream that breaks tells that opencode may have
/// become another, and without one nothing tells.
pub(super) const IDENTIFY: Duration = Duration::from_secs(10);

/// What is known about the opencode that runs now.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Where it is, for people.
    pub(super) url: Option<String>,
    pub(super) release: Option<Release>,
    /// Since when, on the steady clock.
    pub(super) since: Option<Instant>,
}

pub(super) struct Keeper {
    /// Beside a running opencode: where it is.
    beside: Option<String>,
    authorization: Option<HeaderValue>,
    uses_stream: bool,
    identify: Duration,
    upstream: watch::Sender<Option<Upstream>>,
    target: watch::Sender<Target>,
    has_api: Arc<AtomicBool>,
    handle: Handle,
    known: watch::Sender<Known>,
}

impl Keeper {
    pub(super) fn new(
        config: &Config,
        identify: Duration,
        upstream: watch::Sender<Option<Upstream>>,
        target: watch::Sender<Target>,
        has_api: Arc<AtomicBool>,
        handle: Handle,
    ) -> Self {
        let beside = match &config.shape {
            Shape::Beside { upstream } => Some(upstream.to_string()),
            Shape::Parent { .. } => None,
        };
        Self {
            beside,
            authorization: config.credentials.as_ref().and_then(Credentials::authorization),
            uses_stream: config.witness != Witness::Log,
            identify,
            upstream,
            target,
            has_api,
            handle,
            known: watch::Sender::default(),
        }
    }

    /// What is known, as it changes.
    pub(super) fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Keeps until the stop. `phase` is what the supervisor says; beside a running opencode nobody says anything. Once
    /// `leaving` is pulled, requests do not wait for an opencode that is still starting: they would use up the grace.
    pub(super) async fn run(self, phase: watch::Receiver<Phase>, leaving: Stop, stop: Stop) {
        let target = self.target.clone();
        let give_up = async {
            leaving.pulled().await;
            target.send_if_modified(|target| {
                let starts = *target == Target::Starting;
                if starts {
                    *target = Target::Down { reason: "the relay is stopping".to_owned() };
                }
                starts
            });
        };
        let _ = stop.or(async { tokio::join!(self.keep(phase), give_up) }).await;
    }

    async fn keep(self, mut phase: watch::Receiver<Phase>) {
        if let Some(url) = self.beside.clone() {
            // Its address does not change, so whether it runs shows when it is asked.
            return self.up(&url).await;
        }
        loop {
            let now = phase.borrow_and_update().clone();
            tracing::debug!(?now, "opencode");
            match now {
                Phase::Starting => {}
                Phase::Restarting { reason, .. } => self.down(&format!("it {reason} and is started again")),
                Phase::Ended => self.down("it ended"),
                Phase::Listening { url, .. } => {
                    tokio::select! {
                        () = self.up(&url) => {}
                        changed = phase.changed() => if changed.is_err() { return },
                    }
                    continue;
                }
            }
            if phase.changed().await.is_err() {
                return;
            }
        }
    }

    fn down(&self, reason: &str) {
        self.upstream.send_replace(None);
        self.target.send_replace(Target::Down { reason: reason.to_owned() });
        self.known.send_modify(|known| *known = Known { url: known.url.take(), ..Known::default() });
    }

    /// opencode listens at `url`; returns only when dropped.
    async fn up(&self, url: &str) {
        let mut stream = self.handle.stream_state();
        stream.mark_unchanged();
        let authority = url.trim_start_matches("http://").trim_end_matches('/');
        let upstream = Upstream { authority: authority.into(), authorization: self.authorization.clone() };
        self.known.send_replace(Known { url: Some(url.to_owned()), release: None, since: Some(Instant::now()) });
        self.upstream.send_replace(Some(upstream.clone()));
        if self.uses_stream {
            // Connected or refused, the stream has an answer; whoever comes now is told everything.
            let _ = timeout(STREAM, stream.changed()).await;
        }
        match url.parse() {
            Ok(address) => self.target.send_replace(Target::Up(address)),
            Err(error) => self.target.send_replace(Target::Down { reason: error.to_string() }),
        };
        loop {
            self.identify(&upstream).await;
            // A stream that broke, or is connected again, may be another release's.
            let connected = *stream.borrow_and_update() == StreamState::Connected;
            let wait = async { if connected { std::future::pending().await } else { sleep(self.identify).await } };
            tokio::select! {
                changed = stream.changed() => if changed.is_err() { return std::future::pending().await },
                () = wait => {}
            }
        }
    }

    /// Asks until opencode says which it is.
    async fn identify(&self, upstream: &Upstream) {
        let mut said = false;
        loop {
            match release::ask(upstream).await {
                Ok(release) => {
                    self.has_api.store(release.has_api_event(), Ordering::Relaxed);
                    let known = self.known.borrow().release.clone();
                    if known.as_ref() != Some(&release) {
                        tracing::info!("opencode {release} at http://{}", upstream.authority);
                        for words in release.breakages() {
                            tracing::info!("known of opencode {release}: {words}; clients of the relay do not notice");
                        }
                        self.known.send_modify(|known| known.release = Some(release));
                    }
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!("failed to {error}; trying on");
                        // Whoever answers next may be another. `has_api` stays: clients that come back meanwhile shall
                        // find what they had.
                        self.known.send_if_modified(|known| known.release.take().is_some());
                    }
                }
            }
            sleep(AGAIN).await;
        }
    }
}
