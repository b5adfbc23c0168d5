//! The whole relay in this process over a stand-in that fails in every way a witness can.

mod broken;
mod bytes;
mod cut;
mod dropped;
mod fan;
mod lines;
mod log_only;
mod mute;
mod outage;
pub(crate) mod relay;
mod replay;
mod rest;
pub(crate) mod resume;
mod silence;
