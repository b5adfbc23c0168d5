//! `tail`: the event stream for people, or as JSON lines for programs.
//!
//! It follows a relay as any client does, so what it shows is what clients get.

mod event;
mod follow;
mod frames;
mod output;
mod screen;
mod summary;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::follow::Wish;
use self::output::{Filter, Output};
use crate::cli::server::Server;
use crate::config::Mistakes;
use crate::event::Types;

const EXAMPLES: &str = "\
EXAMPLES
  Everything that happens in the opencode behind the relay of this machine:
      opencode-relay tail

  What asks for an answer, and the ends of turns, of a relay elsewhere:
      OPENCODE_SERVER_PASSWORD=… opencode-relay tail https://relay.example:4097 --type 'permission.*,question.*,session.idle'

  One session, for a program:
      opencode-relay tail --session ses_… --json | jq -r .payload.type

  Go on where an earlier run ended:
      opencode-relay tail --json --ids --since 00d1ce5eed5eed00-42

OUTPUT
  One line for each event: local time, type, the end of the session's id, and a few words. [state] stands before what the
  relay did not hear from opencode's stream but read from its state; [bare] before what is known by its type alone. The
  pieces of a message's text are put together while nothing else happens; lines that begin with │ go on with them.
  Heartbeats are left out, and the sync events that repeat others are shown only if --type names them.

  With --json, one line for each event: the data of the frame as it came, {\"directory\":…,\"payload\":{\"type\":…}}, or from
  /event (--directory) {\"type\":…}. With --ids the line is {\"id\":…,\"data\":…}, and that id can be given to --since. Events
  may be missing before a server.connected, which is printed in no other case.

CONNECTION
  The first connection has to succeed, unless --wait is given. After that, tail comes back for as long as it runs: it waits
  0.5 s, then twice as long each time, up to 10 s, and asks for what comes after the last id that it has. So nothing is lost
  or doubled over a restart of the relay, of opencode, or of the network; what a relay no longer has is told as a gap. 25 s
  without a heartbeat count as lost. What is said about the connection goes to standard error.

  An opencode without a relay can be followed too. It has no ids, so what happens while there is no connection is lost.

  Ctrl-C ends it. A reader of its output that goes away (| head) is a good end, with exit code 0.";

/// What can be written behind `tail`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "`--help` shows examples and what the output means.", after_long_help = EXAMPLES)]
pub struct Flags {
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,

    /// Only the events of this session
    #[arg(long, value_name = "ses_…", value_parser = session, help_heading = "Which events")]
    pub session: Option<String>,

    /// Only events of these types: names, or beginnings with a star, as session.idle,message.*; can be given several
    /// times
    #[arg(long = "type", value_name = "TYPE", help_heading = "Which events")]
    pub types: Vec<String>,

    /// Only the events of this directory, as /event of opencode has them; compared by name, links are not followed
    #[arg(long, value_name = "DIR", help_heading = "Which events")]
    pub directory: Option<String>,

    /// Begin with what came after this id
    #[arg(long, value_name = "ID", value_parser = id, help_heading = "Which events")]
    pub since: Option<String>,

    /// Print the data of each event as one line of JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Print the id of each event too
    #[arg(long, requires = "json", help_heading = "Output")]
    pub ids: bool,

    /// Ask the relay to put the key "relay" into each event: who supplied its content, and when
    #[arg(long, requires = "json", help_heading = "Output")]
    pub origin: bool,

    /// When to use colours; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, conflicts_with = "json", help_heading = "Output")]
    pub color: Color,

    /// Wait for a server that cannot be reached yet
    #[arg(long, help_heading = "Connection")]
    pub wait: bool,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Into files and pipes too
    Always,
    /// Nowhere
    Never,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was written is wrong; exit code 2.
    #[error(transparent)]
    Usage(#[from] Mistakes),
    /// It failed; the message can follow "failed to".
    #[error("{0}")]
    Failed(String),
}

/// Follows the events until nobody reads them any more.
///
/// # Errors
///
/// When the settings are wrong, the server cannot be followed, or the output not written. A reader that goes away is a good
/// end.
pub fn run(flags: &Flags, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<(), Error> {
    let client = flags.server.client(environment)?;
    let types = types(&flags.types)?;
    let wish = Wish {
        target: target(flags).map_err(Error::Failed)?,
        since: flags.since.as_deref().map(Arc::from),
        waits: flags.wait,
    };
    let filter = Filter { session: flags.session.clone(), types };
    let mut output = match flags.json {
        true => Output::json(flags.ids, filter),
        false => Output::people(is_coloured(flags.color), filter),
    };
    let failed = |error: io::Error| Error::Failed(format!("start the runtime: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            () = output::closed() => Ok(()),
            ended = follow::follow(&client, &wish, &mut output) => ended,
        }
    });
    match ended {
        Err(follow::Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.map_err(|error| Error::Failed(error.to_string())),
    }
}

fn is_coloured(color: Color) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            io::stdout().is_terminal()
                && !is_set("NO_COLOR")
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// Path and query of the stream.
fn target(flags: &Flags) -> Result<String, String> {
    let mut target = "/global/event?ids=1".to_owned();
    if let Some(directory) = &flags.directory {
        let path = std::path::absolute(Path::new(directory))
            .map_err(|error| format!("find the directory {directory:?}: {error}; write a path"))?;
        let path = path.to_string_lossy();
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { &path };
        target = format!("/event?ids=1&directory={}", encoded(path));
    }
    if let Some(session) = &flags.session {
        target.push_str(&format!("&session={}", encoded(session)));
    }
    if !flags.types.is_empty() {
        target.push_str(&format!("&types={}", encoded(&flags.types.join(","))));
    }
    if flags.origin || !flags.json {
        target.push_str("&origin=1");
    }
    Ok(target)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The types asked for; `None` for all.
fn types(given: &[String]) -> Result<Option<Types>, Mistakes> {
    if given.is_empty() {
        return Ok(None);
    }
    Types::parse(&given.join(",")).map(Some).map_err(|error| {
        let (key, problem) = ("--type".to_owned(), format!("failed to {error}"));
        let remedy = "`opencode-relay tail` without it shows which types there are".to_owned();
        Mistakes(vec![crate::config::Mistake { key, value: None, origin: None, problem, remedy }])
    })
}

/// As the relay takes it.
fn session(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if fits { Ok(text.to_owned()) } else { Err("write a session's id, ses_…, as GET /session shows it".to_owned()) }
}

fn id(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("write an id as --json --ids prints it, <epoch>-<number>".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_a_target() {
        let all = Flags::default();
        assert_eq!(target(&all).unwrap(), "/global/event?ids=1&origin=1");
        let some = Flags {
            session: Some("ses_1".into()),
            types: vec!["a,b*".into(), "c".into()],
            directory: Some("/a b/".into()),
            json: true,
            ..Flags::default()
        };
        assert_eq!(target(&some).unwrap(), "/event?ids=1&directory=%2Fa%20b&session=ses%5F1&types=a%2Cb%2A%2Cc");
        let here = Flags { directory: Some(".".into()), ..Flags::default() };
        let here = target(&here).unwrap();
        assert!(here.contains("directory=%2F") && !here.contains("%2F%2E"), "{here}");
    }

    #[test]
    fn wrong_values_say_what_to_write() {
        assert!(session("ses_1").is_ok() && id("0000000000000001-2").is_ok());
        for wrong in ["", "a/b", "a b", "é"] {
            assert!(session(wrong).unwrap_err().contains("GET /session"), "{wrong}");
        }
        assert!(id("a b").unwrap_err().contains("--ids"));
        assert!(types(&["a b".into()]).unwrap_err().to_string().contains("message.*"));
    }
}
