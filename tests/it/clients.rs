//! The clients people use, unchanged, in front of real releases through the relay.

mod browser;
mod comeback;
mod curl;
mod cut;
mod documents;
mod eventsource;
mod fixture;
mod go;
mod opencode;
mod passed;
mod password;
mod python;
mod refused;
mod screen;
mod sdk;
