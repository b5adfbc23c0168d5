//! `tail`: the event stream for people.

use crate::cli::server::Server;

/// What can be written behind `tail`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
}
