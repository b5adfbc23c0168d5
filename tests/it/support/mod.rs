//! What the tests are written in: a scripted model, real opencode releases, the relay as a process, and clients.

#![allow(dead_code, reason = "a kit: each release of the tests uses most of it, never all")]

pub(crate) mod fold;
pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod opencode;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod relay;
pub(crate) mod situations;
pub(crate) mod sse;
