//! What the tests are written in: a scripted model, real opencode releases, the relay as a process, and clients.

#![allow(dead_code, reason = "a kit: each release of the tests uses most of it, never all")]

pub(crate) mod browser;
pub(crate) mod fold;
pub(crate) mod http;
pub(crate) mod journald;
pub(crate) mod ledger;
pub(crate) mod model;
pub(crate) mod opencode;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod record;
pub(crate) mod relay;
pub(crate) mod returning;
pub(crate) mod situations;
pub(crate) mod sse;

/// What any test may take at most, the fixtures' own limits added up.
const TEST_LIMIT: std::time::Duration = std::time::Duration::from_secs(115);

/// Runs a test, but not forever.
pub(crate) async fn bounded(test: impl Future<Output = ()>) {
    // On the heap: the futures of whole tests are large.
    tokio::time::timeout(TEST_LIMIT, Box::pin(test)).await.expect("the test takes too long");
}
