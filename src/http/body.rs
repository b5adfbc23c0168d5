//! The body of any answer of the front.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::exchange::Underway;
use super::socket::Socket;
use super::sse::{Ended, EventStream};
use crate::proxy::ProxyBody;

/// A proxied body, a small one of ours, or an event stream.
pub(super) struct AnswerBody {
    kind: Kind,
    /// Set for HTTP/1.0, where the end of the connection is the end of the body: an error has to be a reset there, or it
    /// would look like a complete answer.
    reset: Option<Socket>,
    /// Held for as long as the answer is not over.
    _underway: Option<Underway>,
}

enum Kind {
    Plain(ProxyBody),
    Stream(Box<EventStream>),
}

impl AnswerBody {
    /// The event stream that it is, or the body that it is otherwise.
    pub(super) fn into_stream(self) -> Result<Box<EventStream>, Self> {
        match self.kind {
            Kind::Stream(stream) => Ok(stream),
            kind => Err(Self { kind, ..self }),
        }
    }

    /// Keeps this until the body is over.
    pub(super) fn holding(self, mut underway: Underway) -> Self {
        if matches!(self.kind, Kind::Stream(_)) {
            underway.stream();
        }
        Self { _underway: Some(underway), ..self }
    }

    /// Makes an error of this body reset the connection.
    pub(super) fn reset_on_error(mut self, socket: Socket) -> Self {
        self.reset = Some(socket);
        self
    }
}

impl From<Box<EventStream>> for AnswerBody {
    fn from(stream: Box<EventStream>) -> Self {
        Self { kind: Kind::Stream(stream), reset: None, _underway: None }
    }
}

impl From<ProxyBody> for AnswerBody {
    fn from(body: ProxyBody) -> Self {
        Self { kind: Kind::Plain(body), reset: None, _underway: None }
    }
}

/// Why a body could not be sent to its end. hyper closes the connection then without an end of the body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match &mut self.kind {
            Kind::Plain(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
            Kind::Stream(stream) => {
                stream.poll_next(context).map(|next| Some(next.map(Frame::data).map_err(BodyError::from)))
            }
        };
        if let (Poll::Ready(Some(Err(_))), Some(socket)) = (&next, &self.reset) {
            // Nothing better is left if this fails.
            let _ = socket.reset_on_close();
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Plain(body) => body.is_end_stream(),
            Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Plain(body) => body.size_hint(),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
