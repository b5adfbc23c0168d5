//! What systemd is told, or whoever stands for it: ready, stopping, reading again, how things are, and that the relay still
//! works (`sd_notify(3)`). Without `NOTIFY_SOCKET` nobody is told anything.
//!
//! Written here instead of by a crate, because a manager that reads nothing must not hold up a thread of the runtime: the
//! usual ones wait in `send`.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Report;
use crate::ingest::{self, Message};
use crate::pipeline::Subject;
use crate::proxy::Target;
use crate::stop::Stop;

/// How long the manager may take to read a word; what it does not take then is lost.
const SAY: Duration = Duration::from_secs(1);

/// The longest status in letters; people read it in one line.
const STATUS: usize = 200;

/// The manager of this service. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Systemd(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    address: SocketAddr,
    /// How long it waits for a sign of life before it starts the relay again.
    watchdog: Option<Duration>,
    /// Said once: a manager that cannot be told stays that way.
    has_failed: AtomicBool,
}

/// Failed to know the manager.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The variable names no socket.
    #[error("use NOTIFY_SOCKET: {0}; it has to be an absolute path, or a name that begins with @")]
    Address(io::Error),
}

impl Systemd {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// # Errors
    ///
    /// When there is a manager and it cannot be told anything: it would wait for a word that never comes.
    pub fn from_environment(environment: &[(OsString, OsString)]) -> Result<Self, SystemdError> {
        let get = |name: &str| {
            let found = environment.iter().rev().find(|(have, _)| have == name);
            found.map(|(_, value)| value).filter(|value| !value.is_empty())
        };
        let Some(socket) = get("NOTIFY_SOCKET") else { return Ok(Self(None)) };
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(socket),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        let number = |name: &str| get(name).and_then(|value| value.to_str()).map(str::parse::<u64>);
        let is_ours = match number("WATCHDOG_PID") {
            None => true,
            Some(pid) => pid == Ok(u64::from(std::process::id())),
        };
        let watchdog = number("WATCHDOG_USEC").and_then(Result::ok).filter(|&limit| is_ours && limit > 0);
        Ok(Self(Some(Arc::new(Manager {
            address: address.map_err(SystemdError::Address)?,
            watchdog: watchdog.map(Duration::from_micros),
            has_failed: AtomicBool::new(false),
        }))))
    }

    /// The settings are about to be read again.
    pub async fn reloading(&self) {
        // In the same message, so that no other reload can be meant.
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}")).await;
    }

    /// They have been, with or without success.
    pub async fn reloaded(&self) {
        self.say("READY=1").await;
    }

    /// Says that the relay is ready, then how it is and that it lives, until `leaving` is pulled. `inbox` is the pipeline's.
    pub(super) async fn accompany(self, report: Arc<Report>, inbox: ingest::Sender, leaving: Stop) {
        let Some(manager) = self.0.as_deref() else { return };
        let begin = async {
            let status = status(&report);
            self.say(&format!("READY=1\nSTATUS={status}")).await;
            tokio::join!(self.tell_changes(&report, status), self.show_life(manager.watchdog, inbox));
        };
        let _ = leaving.or(begin).await;
        self.say("STOPPING=1\nSTATUS=stopping").await;
    }

    /// Says how things are whenever they are different.
    async fn tell_changes(&self, report: &Report, mut told: String) {
        let mut changes = report.handle.changes();
        let (mut target, mut known) = (report.target.clone(), report.known.clone());
        let mut journal = report.journal.health_changes();
        // Looked at once more: something may have changed while the first word was under way.
        loop {
            let now = status(report);
            if now != told {
                self.say(&format!("STATUS={now}")).await;
                told = now;
            }
            // All of them live as long as the relay runs; one that is gone has nothing more to tell.
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                changed = target.changed() => changed,
                changed = known.changed() => changed,
                changed = journal.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Twice within the manager's limit, as it asks for, and each time only after the pipeline has taken a message and
    /// answered it: a sign of life that shows no more than a running timer would keep a relay alive that sends no events.
    async fn show_life(&self, limit: Option<Duration>, inbox: ingest::Sender) {
        let Some(limit) = limit else { return };
        let mut due = interval_at(Instant::now(), limit / 2);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let (answer, answered) = oneshot::channel();
            // Gone, which is as bad as hanging: the manager notices the silence.
            if inbox.send(Message::Ping(answer)).await.is_err() || answered.await.is_err() {
                return;
            }
            self.say("WATCHDOG=1").await;
        }
    }

    async fn say(&self, words: &str) {
        let Some(manager) = &self.0 else { return };
        match timeout(SAY, manager.send(words)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => tracing::trace!(words, "told systemd"),
            Err(error) if !manager.has_failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "failed to tell systemd what the relay does; is NOTIFY_SOCKET the right one?");
            }
            Err(_) => {}
        }
    }
}

impl Manager {
    async fn send(&self, words: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        tokio::net::UnixDatagram::from_std(socket)?.send(words.as_bytes()).await.map(drop)
    }
}

/// opencode, the witnesses and a journal in trouble, in one line.
fn status(report: &Report) -> String {
    let known = report.known.borrow().clone();
    let opencode = match &*report.target.borrow() {
        Target::Starting => "waiting for opencode".to_owned(),
        Target::Down { reason } => format!("opencode is not running: {reason}"),
        Target::Up(_) => {
            let url = known.url.unwrap_or_default();
            match known.release {
                Some(release) => format!("opencode {release} at {url}"),
                None => format!("no answer from opencode at {url} yet"),
            }
        }
    };
    let mut rest = String::new();
    for (subject, state) in report.handle.states() {
        if subject != Subject::Opencode {
            rest.push_str(&format!(", {} {state}", subject.name()));
        }
    }
    if report.journal.health().degraded.is_some() {
        rest.push_str(", journal degraded: in memory only");
    }
    // Reasons come from outside and can be long, and one line is one word to the manager.
    let room = STATUS.saturating_sub(rest.len());
    let letters = opencode.chars().take(room).chain(rest.chars());
    letters.map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn systemd(variables: &[(&str, &str)]) -> Result<Systemd, SystemdError> {
        let environment: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Systemd::from_environment(&environment)
    }

    #[test]
    fn knows_the_manager_from_the_environment() {
        assert!(systemd(&[("WATCHDOG_USEC", "1")]).unwrap().0.is_none());
        assert!(systemd(&[("NOTIFY_SOCKET", "")]).unwrap().0.is_none());
        let ours = std::process::id().to_string();
        for (usec, pid, expected) in [
            (Some("3000000"), None, Some(3)),
            (Some("3000000"), Some(ours.as_str()), Some(3)),
            (Some("3000000"), Some("1"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, Some(ours.as_str()), None),
        ] {
            let mut variables = vec![("NOTIFY_SOCKET", "@name")];
            variables.extend(usec.map(|usec| ("WATCHDOG_USEC", usec)));
            variables.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            let manager = systemd(&variables).unwrap().0.unwrap();
            assert_eq!(manager.watchdog, expected.map(Duration::from_secs), "{variables:?}");
        }
        for wrong in ["relative", "vsock:2:1", &format!("/{}", "x".repeat(200))] {
            let error = systemd(&[("NOTIFY_SOCKET", wrong)]).unwrap_err().to_string();
            assert!(error.contains("absolute path"), "{error}");
        }
    }

    /// What a manager heard, until it hears nothing for a while.
    async fn heard(socket: &tokio::net::UnixDatagram, pause: Duration) -> Vec<String> {
        let (mut words, mut bytes) = (Vec::new(), [0; 1_000]);
        while let Ok(read) = timeout(pause, socket.recv(&mut bytes)).await {
            words.push(String::from_utf8_lossy(&bytes[..read.unwrap()]).into_owned());
        }
        words
    }

    /// Nothing but the pipeline answers, and without its answer there is no sign of life.
    #[tokio::test]
    async fn lives_only_while_the_pipeline_answers() {
        const LIMIT: Duration = Duration::from_millis(100);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = tokio::net::UnixDatagram::bind(&path).unwrap();
        let systemd = systemd(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        let (inbox, mut hung) = tokio::sync::mpsc::channel(1);
        let life = systemd.show_life(Some(LIMIT), inbox);
        let watched = async {
            assert_eq!(heard(&manager, LIMIT * 5).await, Vec::<String>::new());
            let mut pongs = 0;
            let start = Instant::now();
            while pongs < 4 {
                let Some(Message::Ping(answer)) = hung.recv().await else { panic!("no ping") };
                answer.send(()).unwrap();
                pongs += 1;
            }
            let took = start.elapsed();
            // Asked again half a limit later; the first one had waited.
            assert!(took >= LIMIT && took < LIMIT * 10, "{took:?}");
            // A pipeline that dies is no better than one that hangs.
            drop(hung);
            assert_eq!(heard(&manager, LIMIT * 2).await, vec!["WATCHDOG=1"; 4]);
        };
        // Whoever says too much is heard for ever.
        timeout(LIMIT * 100, async { tokio::join!(life, watched) }).await.unwrap();
    }
}
