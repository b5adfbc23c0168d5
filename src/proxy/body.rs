//! The bodies on both sides: handed on frame by frame, an error handed on as an error, never as an end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::headers::strip_trailers;
use super::observe::Watch;

/// The body of an answer: opencode's, or one of the relay's own.
#[derive(Debug)]
pub struct ProxyBody(Kind);

#[derive(Debug)]
enum Kind {
    Own(Full<Bytes>),
    Upstream(Incoming),
}

impl ProxyBody {
    pub(super) fn upstream(body: Incoming) -> Self {
        Self(Kind::Upstream(body))
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Own(Full::default()))
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
            Kind::Upstream(body) => Pin::new(body).poll_frame(context).map_ok(clean),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(body) => body.is_end_stream(),
            Kind::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(body) => body.size_hint(),
            Kind::Upstream(body) => body.size_hint(),
        }
    }
}

/// The body of a request on its way to opencode. A client that breaks off makes it end as an error, and hyper then
/// closes the connection to opencode without an end of the body.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Option<Incoming>,
    watch: Option<Watch>,
}

impl Outgoing {
    pub(super) fn empty() -> Self {
        Self { body: None, watch: None }
    }

    pub(super) fn client(body: Incoming, watch: Option<Watch>) -> Self {
        let mut body = Self { body: Some(body), watch: watch.filter(Watch::wants_body) };
        if body.is_end_stream() {
            body.ended(true);
        }
        body
    }

    fn ended(&mut self, whole: bool) {
        if let Some(watch) = self.watch.take() {
            watch.body_ended(whole);
        }
    }
}

impl Drop for Outgoing {
    /// Dropped early: the upstream did not want the rest, or somebody broke off.
    fn drop(&mut self) {
        self.ended(false);
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        // The last data frame may be the last poll: hyper does not ask again once the length is used up.
        let last = body.is_end_stream();
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(watch), Some(data)) = (&self.watch, frame.data_ref()) {
                    watch.data(data);
                }
                if last || frame.is_trailers() {
                    self.ended(true);
                }
            }
            Some(Err(_)) => self.ended(false),
            None => self.ended(true),
        }
        Poll::Ready(frame.map(|frame| frame.map(clean)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

fn clean(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        strip_trailers(trailers);
    }
    frame
}
