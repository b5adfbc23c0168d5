//! The clients people use, unchanged, in front of real releases through the relay as opencode's parent.

mod curl;
mod fixture;
mod go;
mod opencode;
mod passed;
mod password;
mod screen;
mod sdk;
