//! One examination: the streams are opened, the state is read, the probe is made, and what came of it is judged.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::ask::{self, Who};
use super::findings::{Findings, Log, Read, Relay, Stream};
use super::look::Look;
use super::probe::{self, Probe, Session};
use super::stream::{self, All, Watched};
use super::verdict::{self, Case};
use super::{Flags, judge, log, text};
use crate::client::{Client, Place};
use crate::ingest::log::Source;
use crate::ingest::release::{Breakage, Release};

/// When the probe must be over, since the examination began; what is left then is not done, but for the deletion.
const PROBE: Duration = Duration::from_secs(11);

/// How long one read of the state may take.
const READ: Duration = Duration::from_secs(3);

/// How long the lines of the log may take.
const LINES: Duration = Duration::from_secs(2);

/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(50);

/// When watching ends, an event that just came on one stream may be on its way on the other.
const LAST: Duration = Duration::from_millis(300);

/// What the relay reads of the state.
const READS: [&str; 5] = ["/path", "/experimental/session?limit=10", "/session/status", "/permission", "/question"];

/// How long the streams are watched at least when nothing is written.
const WATCH: Duration = Duration::from_secs(3);

/// One examination.
pub(super) struct Examination<'a> {
    pub(super) flags: &'a Flags,
    pub(super) environment: &'a HashMap<OsString, OsString>,
    pub(super) client: &'a Client,
    pub(super) session: &'a watch::Sender<Session>,
    pub(super) title: &'a str,
    pub(super) begun: Instant,
}

impl Examination<'_> {
    /// Does all of it; its limits add up to about 20 s, `--watch` left out.
    pub(super) async fn run(&self, who: Who, remark: Option<String>) -> Findings {
        let mut relay = None;
        let (direct, version) = match who {
            Who::Opencode { version } => (Some(self.client.clone()), Some(version)),
            Who::Relay { version, status, upstream } => {
                let direct = self.behind(&status, upstream.as_deref()).await;
                relay = Some(Relay { version, before: status.clone(), after: status });
                (direct, upstream)
            }
        };
        let release = version.as_deref().map(Release::new);
        let mut paths = vec!["/global/event", "/event"];
        if release.as_ref().is_none_or(Release::has_api_event) {
            paths.push("/api/event");
        }
        let places = [(false, direct.as_ref()), (true, relay.as_ref().map(|_| self.client))];
        let watched: Vec<(&Client, Watched)> = places
            .into_iter()
            .filter_map(|(is_relays, client)| Some((is_relays, client?)))
            .flat_map(|(is_relays, client)| {
                paths.iter().map(move |path| (client, Watched { is_relays, path, ..Watched::default() }))
            })
            .collect();
        let look = Look::before(
            // A relay says itself how its log is.
            self.flags.log.as_ref().or(relay.as_ref().map(|_| &Source::None)),
            log_folder(self.environment),
            is_here(&self.client.place),
        )
        .await;
        let streams: All = watch::Sender::new(watched.iter().map(|(_, stream)| stream.clone()).collect());
        let watching = watched.iter().enumerate();
        let watching: Vec<_> =
            watching.map(|(number, (client, _))| stream::watch(client, number, self.begun, &streams)).collect();
        // The log is silent in these releases: there is nothing to wait for.
        let is_silent = release.as_ref().is_some_and(|release| release.known().contains(&Breakage::LogSilent));
        let (reads, calls, log) = beside(watching, self.work(&streams, &look, is_silent)).await;
        if let Some(relay) = &mut relay
            && let Ok(answer) = ask::ask(self.client, Method::GET, "/_relay/status", None, READ).await
            && let Some(status) = answer.json()
        {
            relay.after = status;
        }
        let directory = reads.1;
        let streams = self.judged(&streams.borrow(), calls.as_deref(), directory.as_deref(), relay.as_ref());
        let log = Log { source: look.source(), is_named: self.flags.log.is_some(), sight: log };
        let session = self.session.borrow().clone();
        let place = self.client.place.to_string();
        let case = Case {
            place: &place,
            password_file: self.flags.server.password_file.as_deref(),
            has_password: self.client.authorization.is_some(),
            relay: relay.as_ref(),
            release: release.as_ref(),
            streams: &streams,
            log: &log,
            reads: &reads.0,
            session: &session,
            is_probed: calls.is_some(),
            failure: calls.as_ref().and_then(|calls| calls.first()?.failure.clone()),
        };
        let (verdict, known) = (case.verdict(), verdict::known(&case));
        Findings {
            place,
            relay,
            release,
            remark,
            took: self.begun.elapsed(),
            calls,
            session,
            streams,
            log,
            reads: reads.0,
            known,
            verdict,
        }
    }

    /// The opencode behind a relay, where it can be asked directly. Only on this machine: the address is the relay's word,
    /// and credentials go along.
    async fn behind(&self, status: &Value, version: Option<&str>) -> Option<Client> {
        let place: Place = status.pointer("/upstream/url")?.as_str()?.parse().ok()?;
        if !is_here(&self.client.place) || !is_here(&place) {
            return None;
        }
        let client = Client { place, ..self.client.clone() };
        let answers = ask::opencode(&client).await.ok()?;
        (Some(answers.as_str()) == version).then_some(client)
    }

    /// Everything that is done while the streams are watched.
    async fn work(
        &self,
        streams: &All,
        look: &Look,
        is_silent: bool,
    ) -> ((Vec<Read>, Option<String>), Option<Vec<probe::Called>>, log::Sight) {
        let settled = |all: &Vec<Watched>| all.iter().all(Watched::is_settled);
        let _ = timeout(stream::HEAD, streams.subscribe().wait_for(settled)).await;
        let watching = Instant::now();
        let reads = self.reads().await;
        let calls = if self.flags.read_only {
            None
        } else {
            let probe = Probe {
                client: self.client,
                begun: self.begun,
                deadline: self.begun + PROBE,
                streams,
                session: self.session,
                title: self.title,
            };
            Some(probe.run().await)
        };
        let least = self.flags.watch.unwrap_or(if calls.is_none() { WATCH } else { Duration::ZERO });
        sleep(least.saturating_sub(watching.elapsed())).await;
        let session = self.session.borrow().id().map(str::to_owned);
        let due = self.due(&streams.borrow(), calls.as_deref());
        let patience = if is_silent { LINES / 4 } else { LINES };
        let looking = Instant::now();
        let sight = loop {
            let sight = look.after(session.as_deref(), &due).await;
            let may_change = matches!(
                sight,
                log::Sight::Partly { .. }
                    | log::Sight::Foreign { .. }
                    | log::Sight::Silent { .. }
                    | log::Sight::Empty(_)
            );
            if !may_change || session.is_none() || looking.elapsed() > patience {
                break sight;
            }
            sleep(LOOK).await;
        };
        (reads, calls, sight)
    }

    /// Reads the state as the relay does, one after the other, so that their times are their own; and tells the directory.
    async fn reads(&self) -> (Vec<Read>, Option<String>) {
        let (mut reads, mut directory) = (Vec::new(), None);
        let until = Instant::now() + READ;
        for path in READS {
            let left = until.saturating_duration_since(Instant::now());
            let asked = Instant::now();
            let answer = ask::ask(self.client, Method::GET, path, None, left.max(READ / 8)).await;
            let took = asked.elapsed();
            let failure = match &answer {
                Ok(answer) if !answer.status.is_success() => Some(format!("answers {}", answer.status)),
                Ok(answer) if answer.json().is_none() => {
                    Some(format!("answers with {} instead of JSON", answer.kind()))
                }
                Ok(_) => None,
                Err(error) => Some(text::plain(&format!("failed to {error}"))),
            };
            if path == "/path" {
                let told = answer.ok().and_then(|answer| answer.json());
                directory = told.and_then(|told| told["directory"].as_str().map(str::to_owned));
            }
            reads.push(Read { path, took, failure });
        }
        (reads, directory)
    }

    /// What must have been announced.
    fn due(&self, streams: &[Watched], calls: Option<&[probe::Called]>) -> Vec<judge::Due> {
        let session = self.session.borrow().id().map(str::to_owned);
        let own: Vec<&Watched> = streams.iter().filter(|stream| !stream.is_relays).collect();
        match (session, calls) {
            (Some(session), Some(calls)) => judge::due(&own, &session, calls),
            _ => Vec::new(),
        }
    }

    fn judged(
        &self,
        streams: &[Watched],
        calls: Option<&[probe::Called]>,
        directory: Option<&str>,
        relay: Option<&Relay>,
    ) -> Vec<Stream> {
        let session = self.session.borrow().id().map(str::to_owned);
        let is_rebuilt = relay.and_then(|relay| relay.text("/witness")).as_deref() == Some("log");
        let all: Vec<&Watched> = streams.iter().collect();
        let until = self.begun.elapsed().saturating_sub(LAST);
        let judged = streams.iter().map(|seen| {
            let (sight, lateness) = match (&session, calls) {
                (Some(session), Some(calls)) => {
                    let own: Vec<&Watched> = streams.iter().filter(|stream| !stream.is_relays).collect();
                    let due = match (seen.is_relays, is_rebuilt) {
                        // What log and state can tell is the types, not how often each was published.
                        (true, true) => judge::proved(calls),
                        (true, false) => judge::due(&all, session, calls),
                        (false, _) => judge::due(&own, session, calls),
                    };
                    let order = judge::order(if seen.is_relays && !is_rebuilt { &all } else { &own }, session);
                    (judge::of_probe(seen, session, &due, &order), judge::lateness(seen, session, calls))
                }
                _ => {
                    let same = |stream: &&&Watched| stream.is_relays == seen.is_relays;
                    let reference = all.iter().filter(same).find(|stream| stream.path == "/global/event");
                    let reference = reference.copied().unwrap_or(seen);
                    (judge::of_watching(seen, reference, directory.unwrap_or_default(), until), None)
                }
            };
            Stream { seen: seen.clone(), sight, lateness }
        });
        judged.collect()
    }
}

/// Does the work while the streams are watched, all in one task; what still waits is dropped with its end.
async fn beside<T>(watching: Vec<impl Future<Output = ()>>, work: impl Future<Output = T>) -> T {
    let mut watching: Vec<Option<Pin<Box<_>>>> = watching.into_iter().map(|stream| Some(Box::pin(stream))).collect();
    let mut work = pin!(work);
    poll_fn(|context| {
        for stream in &mut watching {
            if stream.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *stream = None;
            }
        }
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Whether a server is on this machine, so that its log may be, too.
fn is_here(place: &Place) -> bool {
    let text = place.to_string();
    let Some((_, authority)) = text.split_once("://") else { return true };
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// opencode's own place for its log.
fn log_folder(environment: &HashMap<OsString, OsString>) -> Option<PathBuf> {
    let folder =
        |name: &str| environment.get(&OsString::from(name)).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")))?;
    Some(data.join("opencode/log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_here_has_its_log_here() {
        let here = |text: &str| is_here(&text.parse().unwrap());
        assert!(here("http://127.0.0.1:1") && here("http://localhost:1") && here("http://[::1]:1") && here("unix:/x"));
        assert!(!here("http://10.0.0.1:1") && !here("http://localhost.example:1"));
    }
}
