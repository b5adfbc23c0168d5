//! opencode-relay: a complete, ordered, resumable event stream in front of one `opencode serve`.
//!
//! The map, from the witnesses to the client:
//!
//! ```text
//! bus log ─► ingest::log ────┐
//! upstream stream ► ingest::stream ─ bounded ─► pipeline: reconcile ► journal ► hub ─► http::sse ─► clients
//! REST state ◄──► ingest::state ─┘               (pure)                └ catch-up reads the journal
//! client ─► http ─► proxy ─► upstream            (never touches the row above)
//! ```
//!
//! `ARCHITECTURE.md` tells the life of one event and of one request; `tests/it/layering.rs` checks who names whom.

pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod event;
pub mod http;
pub mod hub;
pub mod ingest;
pub mod journal;
pub mod pipeline;
pub mod printable;
pub mod proxy;
pub mod reconcile;
pub mod stop;
pub mod supervise;
pub mod telemetry;
