//! Integration tests; one binary, files named after the promises they try to break.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod faults;
mod kit;
mod proxy;
mod real_auto;
mod real_log;
mod standin;
mod support;
mod upstream;
