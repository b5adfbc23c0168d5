//! The stream witness.

/// stub
#[derive(Debug)]
pub enum Message {}
