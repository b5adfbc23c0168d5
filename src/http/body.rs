//! The body of any answer of the front.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::sse::{Ended, EventStream};
use crate::proxy::ProxyBody;

/// A proxied body, a small one of ours, or an event stream.
pub(super) enum AnswerBody {
    Plain(ProxyBody),
    Stream(Box<EventStream>),
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
        match &mut *self {
            Self::Plain(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
            Self::Stream(stream) => {
                stream.poll_next(context).map(|next| Some(next.map(Frame::data).map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
