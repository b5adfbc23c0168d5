//! `doctor`: what is broken in this opencode, what each witness sees of it, and what the relay does about it.
//!
//! It believes what it sees: it publishes a few events that it knows beforehand (see `probe`), and compares what each
//! stream and the log showed of them. What is known of the release is told beside that, never instead.

mod ask;
mod findings;
mod judge;
mod log;
mod probe;
mod show;
mod stream;
mod text;
mod verdict;

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::poll_fn;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::ask::{Who, WhoError};
use self::findings::{Findings, Log, Read, Relay, Stream};
use self::probe::{Probe, Session};
use self::stream::{All, Watched};
use self::verdict::Case;
use crate::cli::server::Server;
use crate::client::{Client, Place};
use crate::ingest::log::Source;
use crate::ingest::release::Release;

/// When the probe must be over, since the examination began; what is left then is not done, but for the deletion.
const PROBE: Duration = Duration::from_secs(11);

/// How long one read of the state may take.
const READ: Duration = Duration::from_secs(3);

/// How long the lines of the log may take.
const LINES: Duration = Duration::from_secs(2);

/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(50);

/// How long the streams are watched when nothing is written, and the most that can be asked for.
const WATCH: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(3600));

/// When watching ends, an event that just came on one stream may be on its way on the other.
const LAST: Duration = Duration::from_millis(300);

/// How long an interrupted examination waits to learn which session it has made, to delete it.
const INTERRUPTED: Duration = Duration::from_secs(3);

/// What the relay reads of the state.
const READS: [&str; 5] = ["/path", "/experimental/session?limit=10", "/session/status", "/permission", "/question"];

/// Where opencode listens unless it is told otherwise.
const OPENCODE: &str = "http://127.0.0.1:4096";

/// Wrong usage or settings.
const USAGE: u8 = 2;

/// What can be written behind `doctor`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_long_help = "\
WHAT IT DOES
  It opens the event streams, creates a session of its own, renames and aborts it, gives it a message that asks no model,
  deletes it, and compares what each stream and the log showed of that. Nothing else is written, no model is called. The
  session is deleted also when the doctor is interrupted; other clients see it for a moment (and where opencode shares
  sessions automatically, so does its service). --read-only writes nothing, and sees only what happens to happen.

  URL may be an opencode or a relay; of a relay, also what clients see through it is examined. Without URL the relay's
  own place is asked, then http://127.0.0.1:4096.

EXAMPLES
  The opencode or the relay on this machine:
      opencode-relay doctor

  An opencode whose log goes to a file, without touching it, for a minute:
      opencode-relay doctor http://127.0.0.1:4096 --log file:/var/log/opencode.log --read-only --watch 1m

  For a script:
      opencode-relay doctor --json | jq .broken

EXIT CODES
  0  nothing is broken, or the relay makes up for all of it
  1  something is broken that the relay cannot make up for, or opencode could not be examined
  2  wrong usage or settings")]
pub struct Flags {
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,

    /// The log that the relay would read, as for `run`: file:PATH, dir:PATH or none [default: opencode's log folder of
    /// this user, if opencode runs on this machine]
    #[arg(long, value_name = "SOURCE")]
    pub log: Option<Source>,

    /// Write nothing: no session is created, the streams are only watched
    #[arg(long)]
    pub read_only: bool,

    /// How long to watch the streams at least; heartbeats come every 10 s [default: 3s with --read-only, else as long as
    /// the probe takes]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub watch: Option<Duration>,

    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed = text.trim().parse::<SignedDuration>().ok();
    let duration = signed.and_then(|signed| Duration::try_from(signed).ok()).filter(|duration| *duration <= WATCH.1);
    duration.ok_or_else(|| "write a number with its unit, as 500ms, 10s or 2m, and at most 1h".to_owned())
}

/// Why there are no findings. Can follow "failed to".
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It is not known who answers.
    #[error(transparent)]
    Who(#[from] WhoError),
    /// Neither a relay nor an opencode listens at its usual place.
    #[error("find a relay at {relay} or an opencode at {OPENCODE}: nothing answers at either; name the URL")]
    Nowhere {
        /// Where a relay with these settings would be.
        relay: String,
    },
    /// A signal came.
    #[error("finish: it was interrupted")]
    Interrupted,
}

/// Examines, writes the findings to standard output, and gives the exit code. When `interrupted` comes, it stops, and deletes
/// its session first.
pub async fn run(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    interrupted: impl Future<Output = ()>,
) -> u8 {
    let environment: HashMap<OsString, OsString> = environment.into_iter().collect();
    let client = match flags.server.client(environment.clone()) {
        Ok(client) => client,
        Err(mistakes) => {
            let _ = writeln!(io::stderr(), "{mistakes}");
            return USAGE;
        }
    };
    let findings = match examine(flags, &environment, client, interrupted).await {
        Ok(findings) => findings,
        Err(error) => {
            let _ = writeln!(io::stderr(), "opencode-relay: failed to {}", clean(&error.to_string()));
            return 1;
        }
    };
    let text = if flags.json {
        format!("{}\n", findings.json())
    } else {
        let is_plain = environment.get(OsString::from("NO_COLOR").as_os_str()).is_some_and(|value| !value.is_empty());
        show::show(&findings, !is_plain && io::stdout().is_terminal())
    };
    let is_written = match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "opencode-relay: failed to write the findings: {error}");
            false
        }
        _ => true,
    };
    u8::from(!(findings.verdict.is_mended && is_written))
}

/// Errors are longer than a text of the server's may be.
fn clean(text: &str) -> String {
    text.split(' ').map(text::plain).collect::<Vec<_>>().join(" ")
}

async fn examine(
    flags: &Flags,
    environment: &HashMap<OsString, OsString>,
    client: Client,
    interrupted: impl Future<Output = ()>,
) -> Result<Findings, Error> {
    let mut interrupted = pin!(interrupted);
    let begun = Instant::now();
    let (client, who, remark) = tokio::select! {
        found = find(flags, client) => found?,
        () = &mut interrupted => return Err(Error::Interrupted),
    };
    let session = watch::Sender::new(Session::None);
    let title = format!("opencode-relay doctor, probe {}-{}", Timestamp::now().as_millisecond(), std::process::id());
    let examination = Examination { flags, environment, client: &client, session: &session, title: &title, begun };
    let mut running = Box::pin(examination.run(who, remark));
    let result = tokio::select! {
        findings = &mut running => Ok(findings),
        () = &mut interrupted => Err(Error::Interrupted),
    };
    if result.is_err() {
        // A session that is being made has to be known before it can be deleted.
        let mut sessions = session.subscribe();
        let known = sessions.wait_for(|session| *session != Session::Making);
        tokio::select! {
            _ = &mut running => {}
            _ = timeout(INTERRUPTED, known) => {}
        }
        drop(running);
        probe::delete(&client, begun, &session, &title).await;
        if let Session::Left(left) = &*session.borrow() {
            let _ = writeln!(
                io::stderr(),
                "opencode-relay: failed to delete the probe's session {left}; delete it by hand"
            );
        }
    }
    result
}

/// Finds out whom to ask. Without a URL a relay is looked for, then an opencode.
async fn find(flags: &Flags, client: Client) -> Result<(Client, Who, Option<String>), Error> {
    match ask::who(&client).await {
        Ok(who) if flags.server.url.is_some() => Ok((client, who, None)),
        Ok(who) => {
            let remark = format!("No URL was given; this answers at {}.", client.place);
            Ok((client, who, Some(remark)))
        }
        Err(error) if flags.server.url.is_none() && error.is_silence() => {
            let relay = client.place.to_string();
            let Ok(place) = OPENCODE.parse::<Place>() else { return Err(error.into()) };
            let client = Client { place, ..client };
            match ask::who(&client).await {
                Ok(who) => {
                    let remark = format!("No URL was given; no relay answers at {relay}, this opencode does.");
                    Ok((client, who, Some(remark)))
                }
                Err(error) if error.is_silence() => Err(Error::Nowhere { relay }),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
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

struct Examination<'a> {
    flags: &'a Flags,
    environment: &'a HashMap<OsString, OsString>,
    client: &'a Client,
    session: &'a watch::Sender<Session>,
    title: &'a str,
    begun: Instant,
}

impl Examination<'_> {
    async fn run(&self, who: Who, remark: Option<String>) -> Findings {
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
        let look = log::Look::before(
            // A relay says itself how its log is.
            self.flags.log.as_ref().or(relay.as_ref().map(|_| &Source::None)),
            log_folder(self.environment),
            is_here(&self.client.place),
        );
        let streams: All = watch::Sender::new(watched.iter().map(|(_, stream)| stream.clone()).collect());
        let watching = watched.iter().enumerate();
        let watching: Vec<_> =
            watching.map(|(number, (client, _))| stream::watch(client, number, self.begun, &streams)).collect();
        // The log is silent in these releases: there is nothing to wait for.
        let is_silent = release
            .as_ref()
            .is_some_and(|release| release.known().contains(&crate::ingest::release::Breakage::LogSilent));
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
            is_probed: session.id().is_some(),
            failure: calls.as_ref().filter(|_| session.id().is_none()).and_then(|calls| calls.first()?.failure.clone()),
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
        look: &log::Look,
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
        let least = self.flags.watch.unwrap_or(if calls.is_none() { WATCH.0 } else { Duration::ZERO });
        sleep(least.saturating_sub(watching.elapsed())).await;
        let session = self.session.borrow().id().map(str::to_owned);
        let due = self.due(&streams.borrow(), calls.as_deref());
        let patience = if is_silent { LINES / 4 } else { LINES };
        let looking = Instant::now();
        let sight = loop {
            let sight = look.after(session.as_deref(), &due);
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
                    (judge::of_probe(seen, session, &due), judge::lateness(seen, session, calls))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_here_has_its_log_here() {
        let here = |text: &str| is_here(&text.parse().unwrap());
        assert!(here("http://127.0.0.1:1") && here("http://localhost:1") && here("http://[::1]:1") && here("unix:/x"));
        assert!(!here("http://10.0.0.1:1") && !here("http://localhost.example:1"));
    }

    #[test]
    fn durations_have_units_and_an_end() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["3", "-1s", "2h", "soon", ""] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
