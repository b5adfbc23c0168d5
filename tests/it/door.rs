//! Never a wider door than opencode itself: who is let in, what is told to whom, and what hostile input can do.

mod host;
mod hostile;
mod joint;
mod origins;
mod own;
mod real;
mod real_credentials;
mod real_forged;
mod real_origins;
mod real_walker;
mod secrets;
