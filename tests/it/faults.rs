//! The whole relay in this process over a stand-in that fails in every way a witness can.

mod broken;
mod cut;
mod dropped;
mod fan;
mod lines;
mod log_only;
pub(crate) mod relay;
mod replay;
mod resume;
