//! The `opencode-relay` command.
fn main() {}
