//! How the witnesses are, for `/_relay/status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::History;
use crate::reconcile::Count;

/// How the pipeline is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The log witness.
    pub log: LogStatus,
    /// The stream witness.
    pub stream: StreamStatus,
    /// The state witness.
    pub state: StateStatus,
    /// What became of the events, by type.
    pub ledger: BTreeMap<Arc<str>, Count>,
    /// Events made from the state.
    pub made: u64,
    /// Directories in use.
    pub directories: Vec<Arc<str>>,
    /// The newest number given; the journal may still be writing it.
    pub newest: u64,
    /// The last hour.
    pub history: History,
}

/// The log witness.
#[derive(Clone, Debug, Default)]
pub struct LogStatus {
    /// What it does.
    pub state: LogState,
    /// Events announced.
    pub notices: u64,
    /// Times that part of the log could not be read.
    pub gaps: u64,
}

/// What the log witness does.
#[derive(Clone, Debug, Default)]
pub enum LogState {
    /// There is none.
    #[default]
    None,
    /// It cannot be read at the moment; for people.
    Waiting(String),
    /// It is followed; for people.
    Following(String),
    /// It ended.
    Ended,
}

/// The stream witness.
#[derive(Clone, Debug, Default)]
pub struct StreamStatus {
    /// What it does.
    pub state: StreamState,
    /// Events delivered.
    pub events: u64,
    /// Times it was connected.
    pub connects: u64,
    /// Frames that could not be read.
    pub lost: u64,
    /// Why it was down last; for people.
    pub error: Option<String>,
}

/// What the stream witness does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamState {
    /// Not tried yet, or never to be.
    #[default]
    None,
    /// Connected.
    Connected,
    /// Not connected; another attempt follows.
    Down,
}

/// The state witness.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateStatus {
    /// Questions asked.
    pub reads: u64,
    /// Questions in flight.
    pub in_flight: usize,
    /// Questions without a usable answer.
    pub failed: u64,
    /// The last one had none.
    pub is_failing: bool,
}

impl LogStatus {
    pub(super) fn follow(&mut self, source: String) {
        tracing::info!(source, "following the bus log");
        self.state = LogState::Following(source);
    }

    pub(super) fn wait(&mut self, reason: String) {
        tracing::warn!("the bus log cannot be read at the moment: {reason}");
        self.state = LogState::Waiting(reason);
    }

    pub(super) fn end(&mut self) {
        tracing::info!("the bus log ended");
        self.state = LogState::Ended;
    }
}

impl StreamStatus {
    pub(super) fn connect(&mut self) {
        self.connects += 1;
        if self.state == StreamState::Down {
            tracing::info!("the upstream stream is connected again; reading what was missed from the state");
        } else {
            tracing::info!("the upstream stream is connected");
        }
        self.state = StreamState::Connected;
    }

    pub(super) fn fail(&mut self, reason: String) {
        if self.state != StreamState::Down {
            tracing::warn!("the upstream stream is down: {reason}; reconnecting, events are read from the state");
        }
        self.state = StreamState::Down;
        self.error = Some(reason);
    }
}
