//! `doctor`: what is broken in this opencode, what each witness sees of it, and what the relay does about it.

use crate::cli::server::Server;

/// What can be written behind `doctor`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
}
