//! The state witness.

/// stub
#[derive(Debug)]
pub enum Message {}
