//! What may be set about the proxy.

use std::time::Duration;

use tokio::sync::mpsc;

use super::caller::TrustedProxy;
use super::observe::Passed;

/// The proxy's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a request waits for an opencode that is still starting; then it gets 503.
    pub start_timeout: Duration,
    /// How long a connection to opencode may take to be made; then the request gets 504.
    pub connect_timeout: Duration,
    /// How long an unused connection to opencode is kept. Node closes after 5 s: staying below that avoids the race
    /// between its closing and our next request.
    pub idle_timeout: Duration,
    /// Most unused connections to opencode that are kept, for each thread that serves clients. Fewer than there are requests at a time would mean that many of
    /// them connect anew.
    pub idle_connections: usize,
    /// How long opencode may take to begin its answer; then the request gets 504. `None` for as long as it wants: a turn
    /// that is waited for takes minutes. Only opencode's own time counts: not while it waits for the client's body, and
    /// anew with each piece of it that it takes.
    pub answer_timeout: Option<Duration>,
    /// How long a client may pause while it sends a body that opencode could take; then the request gets 408, and is
    /// broken off at opencode.
    pub body_timeout: Duration,
    /// Most bytes of a request's body; a longer one gets 413, at once if its length is declared. `None` for any.
    pub body: Option<u64>,
    /// Most requests at opencode at a time, those that wait for it to start included; more get 503.
    pub requests: usize,
    /// Most upgraded connections at a time; more get 503.
    pub sockets: usize,
    /// Whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted: Vec<TrustedProxy>,
    /// Where to tell what passed.
    pub observer: Option<mpsc::Sender<Passed>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(4),
            idle_connections: 256,
            answer_timeout: None,
            body_timeout: Duration::from_secs(120),
            body: None,
            requests: 1024,
            sockets: 1024,
            trusted: Vec::new(),
            observer: None,
        }
    }
}
