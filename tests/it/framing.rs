//! Nobody reads a message in two ways: what is not exactly one message by RFC 9112 is refused and the connection closed, or
//! forwarded in one form that a strict reader takes for exactly what was meant.

mod answers;
mod corpus;
mod hostile;
mod mutations;
mod reader;
mod recorder;
mod requests;
