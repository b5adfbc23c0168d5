//! `healthcheck`: whether a relay does its work, as an exit code.

use crate::cli::server::Server;

/// What can be written behind `healthcheck`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
}
