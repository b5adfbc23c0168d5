//! Integration tests; one binary, files named after the promises they try to break.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod clients;
mod command;
mod crowd;
mod docs;
mod doctor;
mod door;
mod faults;
mod framing;
mod fronts;
mod healthcheck;
mod journal;
mod journald;
mod kit;
mod layering;
mod listen;
mod logging;
mod measure;
mod metrics;
mod openapi;
mod page;
mod paper;
mod proxy;
mod real_api;
mod real_auto;
mod real_crash;
mod real_doctor;
mod real_elsewhere;
mod real_log;
mod real_restart;
mod reconcile;
mod shutdown;
mod standin;
mod supervise;
mod supply;
mod support;
mod systemd;
mod tail;
mod tailing;
mod upstream;
