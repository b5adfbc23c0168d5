//! opencode-relay.
