//! What `/_relay/status` and `/_relay/ready` say, and what `/_relay/metrics` says with other words.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::upstream::Known;
use crate::config::{Config, Witness};
use crate::event::{Seq, View};
use crate::http::{Clients, Connections};
use crate::journal::{Fill, Health, Journal};
use crate::pipeline::{BUCKET, Bucket, Change, Handle, History, LogState, Status, StreamState, StreamStatus};
use crate::proxy::{Proxy, Target};
use crate::reconcile::Count;

/// Most bytes of any text in the status: a path has no more on Linux, and what others say of themselves needs no more.
const TEXT: usize = 4096;

/// Most streams that are told one by one.
const STREAMS: usize = 100;

pub(super) struct Report {
    pub(super) config: Config,
    pub(super) journal: Arc<Journal>,
    pub(super) handle: Handle,
    pub(super) target: watch::Receiver<Target>,
    pub(super) known: watch::Receiver<Known>,
    pub(super) clients: Clients,
    pub(super) connections: Connections,
    pub(super) proxy: Proxy,
}

/// Everything as it is at one moment.
pub(super) struct Moment {
    pub(super) status: Status,
    pub(super) known: Known,
    pub(super) fill: Fill,
    pub(super) health: Health,
    /// What [`Report::ready`] says.
    pub(super) ready: Result<(), String>,
    /// What opencode does, and why it does not, for people.
    pub(super) upstream: (&'static str, Option<String>),
    /// What the log witness does, and which source or why not.
    pub(super) log: (&'static str, Option<String>),
    pub(super) stream: &'static str,
}

impl Report {
    /// Whether clients can be served now.
    pub(super) fn ready(&self) -> Result<(), String> {
        let (target, known) = self.upstream();
        self.ready_with(&target, &known, self.handle.status().stream)
    }

    /// Where opencode is and which one, looked up once: who borrows either of them twice at a time can wait for ever, because
    /// whoever wants to change it stands between.
    fn upstream(&self) -> (Target, Known) {
        let target = self.target.borrow().clone();
        let known = self.known.borrow().clone();
        (target, known)
    }

    fn ready_with(&self, target: &Target, known: &Known, stream: StreamStatus) -> Result<(), String> {
        match target {
            Target::Up(_) => {}
            Target::Starting => {
                return Err(known.url.as_ref().map_or_else(
                    || "opencode has not said its address yet".into(),
                    // Requests wait for it, too (see the keeper).
                    |url| format!("the event stream of opencode at {url} has no answer yet"),
                ));
            }
            Target::Down { reason } => return Err(format!("opencode is not running: {reason}")),
        }
        if known.release.is_none() {
            return Err("opencode has not answered yet".into());
        }
        if self.config.witness == Witness::Stream && stream.state != StreamState::Connected {
            let reason = stream.error.unwrap_or_else(|| "not connected yet".into());
            return Err(format!("the upstream stream, the only witness, is down: {reason}"));
        }
        Ok(())
    }

    /// Looks at everything once.
    pub(super) fn look(&self) -> Moment {
        let status = self.handle.status();
        let (target, known) = self.upstream();
        let ready = self.ready_with(&target, &known, status.stream.clone());
        let upstream = match target {
            Target::Starting => ("starting", None),
            // Beside a running opencode nobody else tells that it ended.
            Target::Up(_) if known.release.is_none() => ("down", Some("it does not answer".to_owned())),
            Target::Up(_) => ("up", None),
            Target::Down { reason } => ("down", Some(reason)),
        };
        let log = match &status.log.state {
            LogState::None => ("none", None),
            LogState::Waiting(reason) => ("waiting", Some(reason.clone())),
            LogState::Following(source) => ("following", Some(source.clone())),
            LogState::Ended => ("ended", None),
        };
        let stream = match status.stream.state {
            _ if self.config.witness == Witness::Log => "off",
            StreamState::None => "connecting",
            StreamState::Connected => "connected",
            StreamState::Down => "down",
        };
        Moment { known, fill: self.journal.fill(), health: self.journal.health(), ready, upstream, log, stream, status }
    }

    pub(super) fn status(&self) -> Value {
        let Moment { status, known, fill, health, ready, upstream: (upstream, reason), log: (log, source), stream } =
            self.look();
        let ledger: Map<String, Value> =
            status.ledger.iter().map(|(kind, count)| (kind.to_string(), entry(count))).collect();
        let views = [View::Instance, View::Session, View::Global, View::Api];
        let clients: Map<String, Value> =
            views.into_iter().map(|view| (view.name().to_owned(), self.clients.count(view).into())).collect();
        let mut told = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": ready.is_ok(),
            "reason": ready.err(),
            "witness": match self.config.witness {
                Witness::Auto => "auto",
                Witness::Log => "log",
                Witness::Stream => "stream",
            },
            "upstream": {
                "state": upstream,
                "reason": reason,
                "url": known.url,
                "version": known.release.as_ref().map(ToString::to_string),
                "breakages": known.release.as_ref().map(crate::ingest::release::Release::breakages).unwrap_or_default(),
                "seconds": known.since.map(|since| since.elapsed().as_secs()),
                "directories": status.directories.iter().map(|directory| &**directory).collect::<Vec<_>>(),
            },
            "witnesses": {
                "log": { "state": log, "source": source, "notices": status.log.notices, "gaps": status.log.gaps },
                "stream": {
                    "state": stream,
                    "events": status.stream.events,
                    "connects": status.stream.connects,
                    "lost": status.stream.lost,
                    "error": status.stream.error,
                },
                "state": {
                    "reads": status.state.reads,
                    "in_flight": status.state.in_flight,
                    "failed": status.state.failed,
                    "events": status.made,
                },
            },
            "ledger": ledger,
            "journal": {
                "form": if health.path.is_some() { "disk" } else { "memory" },
                "state": if health.degraded.is_some() { "degraded" } else { "ok" },
                "reason": health.degraded,
                "path": health.path,
                "epoch": self.journal.epoch().to_string(),
                "events": fill.events,
                "bytes": fill.bytes,
                "oldest": fill.oldest.0,
                "newest": fill.newest.0,
                "waiting": status.newest.saturating_sub(fill.newest.0),
            },
            "clients": clients,
            "streams": self.streams(fill.newest),
            "connections": { "open": self.connections.open(), "refused": self.connections.refused() },
            "history": history(&status.history),
        });
        shorten(&mut told);
        told
    }

    /// The open streams, those furthest behind first.
    fn streams(&self, newest: Seq) -> Vec<Value> {
        let mut open: Vec<_> =
            self.clients.open().into_iter().map(|client| (newest.0.saturating_sub(client.seq().0), client)).collect();
        open.sort_by_key(|(behind, _)| std::cmp::Reverse(*behind));
        open.truncate(STREAMS);
        let told = open.into_iter().map(|(behind, client)| {
            json!({
                "number": client.number,
                "stream": client.scope().view.name(),
                "peer": client.peer.to_string(),
                "agent": client.agent,
                "directory": client.scope().directory.as_deref(),
                "session": client.scope().session.as_deref(),
                "seconds": client.since.elapsed().as_secs(),
                "behind": behind,
            })
        });
        told.collect()
    }
}

fn history(history: &History) -> Value {
    let change = |change: &Change| {
        json!({
            "at": change.at,
            "what": change.subject.name(),
            "state": change.state,
            "reason": change.reason.as_deref(),
        })
    };
    let bucket =
        |Bucket { at, counted }: &Bucket| json!([at, counted.notices, counted.events, counted.made, counted.lost]);
    json!({
        "changes": history.changes.iter().map(change).collect::<Vec<_>>(),
        "bucket_ms": BUCKET,
        "columns": ["at", "notices", "events", "made", "lost"],
        "buckets": history.buckets.iter().map(bucket).collect::<Vec<_>>(),
    })
}

/// Cuts what is too long. Directories, reasons and versions come from outside.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > TEXT => {
            text.truncate(text.floor_char_boundary(TEXT));
            text.push('…');
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

fn entry(count: &Count) -> Value {
    json!({
        "published": count.published,
        "delivered": count.delivered,
        "recovered": count.recovered,
        "unrecoverable": { "overwritten": count.overwritten, "no_source": count.no_source },
        "pending": count.pending,
    })
}
