//! The parent shape: starts `opencode serve …`, reads its address and its bus log, and starts it again when it crashes.
//!
//! opencode does not run as a direct child. Between it and the relay stands a guardian ([`guard`]): this same program, in a
//! process group of its own, that does nothing but wait. When the relay dies, even by SIGKILL, the guardian sees its
//! lifeline closed and ends the whole group. A parent-death signal would not do: it reaches the direct child only, and the
//! `opencode` that npm installs is a wrapper whose child is the server.
//!
//! `app` says when to stop and what to do with the address; this module never looks at the events.

mod backoff;
mod child;
pub mod guard;
mod lifeline;
mod output;
mod pass_on;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::ingest;
use crate::ingest::log;
use crate::stop::{Stop, Tasks};
use backoff::{Backoff, Verdict};
use child::Child;
use lifeline::Ending;
use pass_on::PassOn;

/// How long opencode may take to end after SIGTERM, unless the user says otherwise. It takes 40 to 440 ms (FACTS §4).
pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);

/// How long a word to the pipeline about the state of the log may wait for room in the queue.
const SAY_LIMIT: Duration = Duration::from_secs(1);

/// What to start, and how to end it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long the command may take to end after SIGTERM; then it is killed.
    pub stop_grace: Duration,
    /// The program that has the `guard` subcommand. `None`: this one.
    pub guardian: Option<PathBuf>,
    /// Variables that the command gets besides the relay's own.
    pub environment: Environment,
}

/// Variables by name. Their values can be passwords, so they are not shown.
#[derive(Clone, Default)]
pub struct Environment(pub Vec<(&'static str, String)>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Options {
    /// Starts `command`, with the default grace.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self { command, stop_grace: DEFAULT_STOP_GRACE, guardian: None, environment: Environment::default() }
    }
}

/// What the supervisor works with.
#[derive(Debug)]
pub struct Parts {
    /// Where the state of the command is published.
    pub phase: watch::Sender<Phase>,
    /// Where the bus log goes. `None`: the command's standard error is passed on as it is.
    pub log: Option<ingest::Sender>,
    /// When pulled, the command is ended and not started again.
    pub stop: Stop,
    /// Where the readers of the command's output run.
    pub tasks: Tasks,
}

/// What the command does at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It was started, or is about to be, and has not said its address yet.
    Starting,
    /// It takes connections.
    Listening {
        /// Its address, as `http://127.0.0.1:4096`.
        url: String,
        /// The process that was started; for an npm installation that is the wrapper.
        pid: u32,
    },
    /// It ended and will be started again.
    Restarting {
        /// How it ended, for people.
        reason: String,
        /// How long the relay waits before it starts it again.
        delay: Duration,
    },
    /// It ended and will not be started again.
    Ended,
}

/// The exit code that the relay hands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Failed to run the command; the messages can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no command.
    #[error("start opencode: no command was given after `--`")]
    NoCommand,
    /// The command cannot be started; trying again would not help.
    #[error("start `{command}`: {reason}. {remedy}")]
    Start {
        /// The program.
        command: String,
        /// Why not.
        reason: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The guardian cannot be started.
    #[error("start the guardian of opencode, {program}: {reason}")]
    Guardian {
        /// The guardian's program.
        program: String,
        /// Why not.
        reason: std::io::Error,
    },
}

/// Starts the command and keeps it running until it ends by itself with 0, it crashes too often, or the stop is pulled.
///
/// # Errors
///
/// When the command, or the guardian, cannot be started at all. A command that starts and fails is no error here but an
/// [`Exit`].
pub async fn run(options: Options, parts: Parts) -> Result<Exit, Error> {
    let phase = parts.phase.clone();
    let log = parts.log.clone();
    let result = supervise(options, parts).await;
    if let Some(log) = &log {
        say(log, log::Message::Ended).await;
    }
    phase.send_replace(Phase::Ended);
    result
}

async fn supervise(options: Options, parts: Parts) -> Result<Exit, Error> {
    let (command, logs_added) = prepare_command(&options.command, parts.log.is_some());
    let program = command.first().ok_or(Error::NoCommand)?.clone();
    let command: Vec<OsString> = command.into_iter().map(OsString::from).collect();
    let pass_on = PassOn::to_stderr();
    let mut backoff = Backoff::new();
    let exit = loop {
        if parts.stop.is_pulled() {
            break Exit(0);
        }
        parts.phase.send_replace(Phase::Starting);
        let child = Child::start(&options, &command)?;
        let life = child.live(&options, &parts, &pass_on, logs_added).await?;
        if parts.stop.is_pulled() {
            let exit = life.ending.exit_when_stopped();
            tracing::info!(code = exit.0, "`{program}` {}", life.ending);
            break exit;
        }
        match backoff.after(life.ending, life.listened_for, jitter()) {
            Verdict::End(exit) => {
                tracing::info!("`{program}` {}", life.ending);
                break exit;
            }
            Verdict::GiveUp(exit) => {
                tracing::error!(
                    "`{program}` {} and never listened in {} starts in a row; not starting it again",
                    life.ending,
                    backoff::STARTS_WITHOUT_LISTENING
                );
                break exit;
            }
            Verdict::Restart(delay) => {
                tracing::warn!("`{program}` {}; starting it again in {delay:.1?}", life.ending);
                let reason = life.ending.to_string();
                parts.phase.send_replace(Phase::Restarting { reason: reason.clone(), delay });
                if let Some(log) = &parts.log {
                    say(
                        log,
                        log::Message::Waiting { reason: format!("`{program}` {reason}; it is started again soon") },
                    )
                    .await;
                }
                if parts.stop.or(tokio::time::sleep(delay)).await.is_none() {
                    break Exit(0);
                }
            }
        }
    };
    pass_on.finish().await;
    Ok(exit)
}

/// The command as it is started, and whether `--print-logs` was added to it.
fn prepare_command(command: &[String], wants_log: bool) -> (Vec<String>, bool) {
    let mut command = command.to_vec();
    let has = command.iter().any(|argument| argument == "--print-logs" || argument.starts_with("--print-logs="));
    let serves = command.iter().skip(1).position(|argument| argument == "serve" || argument == "web");
    match serves {
        Some(at) if wants_log && !has => {
            // Right behind the subcommand: what follows may end with `--` or with an option's value.
            command.insert(at + 2, "--print-logs".to_owned());
            (command, true)
        }
        _ => (command, false),
    }
}

/// Tells the pipeline something about the log, without waiting forever for room.
async fn say(log: &ingest::Sender, message: log::Message) {
    // A pipeline that is that far behind will learn the same from the lines that follow.
    let _ = tokio::time::timeout(SAY_LIMIT, log.send(ingest::Message::Log(message))).await;
}

/// A number from 0 to 1, different in each process and each time. Nothing secret depends on it.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let number = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0);
    f64::from(number) / f64::from(u32::MAX)
}

impl Ending {
    /// The code that a shell would give.
    fn exit(self) -> Exit {
        match self {
            Self::Exited(code) => Exit(u8::try_from(code & 0xff).unwrap_or(1)),
            Self::Signaled(signal) => Exit(u8::try_from(128 + signal).unwrap_or(255)),
        }
    }

    /// The code after the relay ended the command: dying of our signals is what was asked for, also where a wrapper turned
    /// the signal into a code.
    fn exit_when_stopped(self) -> Exit {
        const TERM: i32 = rustix::process::Signal::TERM.as_raw();
        const KILL: i32 = rustix::process::Signal::KILL.as_raw();
        match self {
            Self::Signaled(TERM | KILL) => Exit(0),
            Self::Exited(code) if code == 128 + TERM => Exit(0),
            other => other.exit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn adds_print_logs_where_it_is_missing() {
        for (command, expected) in [
            ("opencode serve", "opencode serve --print-logs"),
            ("opencode serve --port 0", "opencode serve --print-logs --port 0"),
            ("npx opencode web -- x", "npx opencode web --print-logs -- x"),
        ] {
            assert_eq!(prepare_command(&words(command), true), (words(expected), true));
        }
        for command in
            ["opencode serve --print-logs", "opencode --print-logs=true serve", "serve", "opencode run serve-me"]
        {
            assert_eq!(prepare_command(&words(command), true), (words(command), false), "{command}");
        }
        assert_eq!(prepare_command(&words("opencode serve"), false), (words("opencode serve"), false));
    }

    #[test]
    fn hands_the_code_on() {
        assert_eq!(Ending::Exited(3).exit(), Exit(3));
        assert_eq!(Ending::Signaled(9).exit(), Exit(137));
        assert_eq!(Ending::Signaled(15).exit_when_stopped(), Exit(0));
        assert_eq!(Ending::Exited(143).exit_when_stopped(), Exit(0));
        assert_eq!(Ending::Exited(7).exit_when_stopped(), Exit(7));
        assert_eq!(Ending::Signaled(11).exit_when_stopped(), Exit(139));
    }

    #[tokio::test]
    async fn refuses_an_empty_command() {
        let (phase, watched) = watch::channel(Phase::Starting);
        let parts = Parts { phase, log: None, stop: Stop::new(), tasks: Tasks::new() };
        assert!(matches!(run(Options::new(Vec::new()), parts).await, Err(Error::NoCommand)));
        assert_eq!(*watched.borrow(), Phase::Ended);
    }
}
