//! The command line: what can be written, and the help. `main` calls [`parse`] and dispatches.

pub mod decode;
pub mod doctor;
pub mod healthcheck;
pub mod paper;
pub mod run;
pub mod server;
pub mod tail;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

/// What was asked for.
#[derive(Debug, Parser)]
#[command(
    name = "opencode-relay",
    version,
    about = "A complete, ordered, resumable event stream in front of `opencode serve`",
    long_about = "A complete, ordered, resumable event stream in front of `opencode serve`.\n\n\
        Point your client at the relay instead of at opencode and change nothing else. Every REST call and WebSocket \
        passes through; the event streams are the relay's own.",
    after_help = "Exit codes: 0 good end, 1 failed, 2 wrong usage or settings; `run` hands on the code of the command it started.",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the relay, in front of an opencode that it starts or that runs already
    Run(Box<run::Flags>),
    /// Say what is broken in an opencode, what each witness sees of it, and what the relay does about it
    Doctor(doctor::Flags),
    /// Show the events as they come, for people
    Tail(tail::Flags),
    /// Print the events that opencode's log announces, as JSON lines
    Decode(decode::Flags),
    /// Ask a relay whether it does its work; for containers
    Healthcheck(healthcheck::Flags),
    /// Print the completions of a shell
    Completions(paper::Completions),
    /// Print the manual page
    Man,
    /// Guard a command for `run`; not to be called by hand
    #[command(hide = true)]
    Guard(Guard),
}

/// The hidden guardian of a command; see [`crate::supervise::guard`].
#[derive(Debug, clap::Args)]
pub struct Guard {
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Reads the command line of this process. On wrong usage it says what is wrong and ends the process with code 2; asked for
/// help or the version it prints that and ends with 0.
#[must_use]
pub fn parse() -> Cli {
    Cli::parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_guardian_takes_any_command_and_is_hidden() {
        let cli = Cli::try_parse_from(["opencode-relay", "guard", "--", "sh", "-c", "exit 3"]).unwrap();
        let Command::Guard(guard) = cli.command else { panic!("not the guardian") };
        assert_eq!(guard.command, ["sh", "-c", "exit 3"]);
        assert!(!Cli::command().render_help().to_string().contains("guard"));
    }
}
