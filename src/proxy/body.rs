//! The body of an answer: handed on frame by frame, an error handed on as an error, never as an end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::gate::Refusal;
use super::headers::strip_trailers;
use super::limits::Place;
use super::pool::Lease;

/// The body of an answer: opencode's, or one of the relay's own.
#[derive(Debug)]
pub struct ProxyBody(Kind);

#[derive(Debug)]
enum Kind {
    Own(Full<Bytes>),
    Upstream(Box<Upstream>),
}

/// A body that comes from opencode, with what it keeps until it is over.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) body: Incoming,
    /// What it comes on, until it is over; `None` also if a task of its own moves that.
    pub(super) lease: Option<Lease>,
    /// Why it broke off, until that is told.
    pub(super) broken: Option<hyper::Error>,
    /// The trailers that are not for the client.
    pub(super) named: Box<[HeaderName]>,
    /// The request's place among all, if it has one.
    pub(super) _place: Option<Arc<Place>>,
    /// Keeps the connection that this body comes on, although the request on it will never be whole.
    pub(super) _refusal: Option<Refusal>,
}

impl ProxyBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Own(Full::default()))
    }
}

impl Upstream {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut next = match &mut self.lease {
            Some(lease) => lease.poll_frame(context, &mut self.body),
            None => Pin::new(&mut self.body).poll_frame(context),
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut next
            && let Some(trailers) = frame.trailers_mut()
        {
            strip_trailers(trailers, &self.named);
        }
        match next {
            // hyper throws away what it has not written yet when it is told this, often all that came together with it. So it
            // is told the next time it asks, having written before.
            Poll::Ready(Some(Err(error))) => {
                self.lease = None;
                self.broken = Some(error);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(None) => self.end(),
            // The last frame may be the last poll: hyper does not ask again once the length is used up.
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.end(),
            _ => {}
        }
        next
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
    }
}

impl From<Upstream> for ProxyBody {
    fn from(mut body: Upstream) -> Self {
        if body.body.is_end_stream() {
            body.end();
        }
        Self(Kind::Upstream(Box::new(body)))
    }
}

impl From<Full<Bytes>> for ProxyBody {
    fn from(body: Full<Bytes>) -> Self {
        Self(Kind::Own(body))
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Kind::Own(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Kind::Upstream(upstream) => upstream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(body) => body.is_end_stream(),
            Kind::Upstream(upstream) => upstream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(body) => body.size_hint(),
            Kind::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}
