//! `doctor`: what is broken in this opencode, what each witness sees of it, and what the relay does about it.
//!
//! It believes what it sees: it publishes a few events that it knows beforehand (see `probe`), and compares what each
//! stream and the log showed of them. What is known of the release is told beside that, never instead.

mod ask;
mod examine;
mod findings;
mod judge;
mod log;
mod look;
mod probe;
mod show;
mod stream;
mod text;
mod verdict;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::ask::{Who, WhoError};
use self::examine::Examination;
use self::findings::Findings;
use self::probe::Session;
use crate::cli::server::Server;
use crate::client::{Client, Place};
use crate::config;
use crate::ingest::log::Source;

/// The longest watching that can be asked for.
const WATCH: Duration = Duration::from_secs(3600);

/// How long an interrupted examination waits to learn which session it has made, to delete it.
const INTERRUPTED: Duration = Duration::from_secs(3);

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

    /// The log that the relay would read, as for `run`: file:PATH, dir:PATH, journald:UNIT or none [default: opencode's
    /// log folder of this user, if opencode runs on this machine]
    #[arg(long, value_name = "SOURCE")]
    pub log: Option<Source>,

    /// Write nothing: no session is created, the streams are only watched
    #[arg(long)]
    pub read_only: bool,

    /// How long to watch the streams at least; heartbeats come every 10 s [default: 3s with --read-only, else as long as
    /// the probe takes]
    #[arg(long, value_name = "DURATION", value_parser = watch)]
    pub watch: Option<Duration>,

    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,
}

fn watch(text: &str) -> Result<Duration, String> {
    let duration = config::duration(text)?;
    if duration <= WATCH { Ok(duration) } else { Err("longer than an hour. Write 1h at most".to_owned()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_an_end() {
        assert_eq!(watch("500ms"), Ok(Duration::from_millis(500)));
        for text in ["3", "-1s", "2h", "soon", ""] {
            assert!(watch(text).is_err(), "{text}");
        }
    }
}
