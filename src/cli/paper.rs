//! `completions` and `man`: what a package installs beside the program.

/// What can be written behind `completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct Completions {
    /// The shell
    pub shell: String,
}
