//! Integration tests; one binary, files named after the promises they try to break.
mod reconcile;
