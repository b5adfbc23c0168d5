//! The body of a request on its way to opencode: when it may pass, how much of it, how long it may take.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::gate::{Wait, Word};
use super::headers::strip_trailers;
use super::limits::Place;
use super::observe::Watch;
use super::turn::Turn;

/// Why a body did not come to its end. hyper then closes the connection to opencode without an end of the body, and so
/// the answer's too if it has begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The client broke off, or what it sent is no body.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The client took an HTTP/2 request back.
    #[error("the stream was reset")]
    Reset,
    /// It has more bytes than this.
    #[error("the body has more than {0} bytes")]
    TooLong(u64),
    /// Nothing came for so long.
    #[error("nothing of the body came for {0:?}")]
    Paused(Duration),
    /// opencode gave its answer without asking for the body.
    #[error("the body was not wanted")]
    Refused,
}

/// The body of a request.
#[derive(Debug, Default)]
pub(super) struct Outgoing(Option<Box<Upload>>);

/// A body that comes from a client, with all that is known of it.
#[derive(Debug)]
pub(super) struct Upload {
    /// `None` once it is known that it is not wanted.
    pub(super) body: Option<Incoming>,
    /// Whether it came by HTTP/2. There hyper takes a reset with the reason "no error" for an end of the body, though that
    /// reason is for servers (RFC 9113 §8.1); only the body's own state tells the two apart.
    pub(super) is_http2: bool,
    /// What of it is kept for a report.
    pub(super) watch: Option<Watch>,
    /// Set until it may pass.
    pub(super) wait: Option<Wait>,
    /// Most bytes that may still pass, and the limit they are left of.
    pub(super) room: Option<(u64, u64)>,
    pub(super) pause: Pause,
    /// The trailers that are not for opencode.
    pub(super) named: Box<[HeaderName]>,
    pub(super) turn: Option<Turn>,
    /// The request's place among all; its answer's body holds it too.
    pub(super) _place: Arc<Place>,
}

/// How long a client may send nothing.
#[derive(Debug)]
pub(super) struct Pause {
    limit: Duration,
    /// Runs while a piece of the body is waited for.
    running: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    pub(super) fn of(limit: Duration) -> Self {
        Self { limit, running: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<UploadError> {
        let running = self.running.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        running.as_mut().poll(context).map(|()| UploadError::Paused(self.limit))
    }
}

impl Outgoing {
    /// No body.
    pub(super) fn empty() -> Self {
        Self(None)
    }
}

impl From<Upload> for Outgoing {
    fn from(mut upload: Upload) -> Self {
        upload.watch = upload.watch.take().filter(Watch::wants_body);
        if upload.body.as_ref().is_none_or(Incoming::is_end_stream) {
            upload.ended(true);
            if upload.turn.is_none() {
                return Self::empty();
            }
        }
        Self(Some(Box::new(upload)))
    }
}

impl Drop for Upload {
    /// Dropped early: opencode did not want the rest, or somebody broke off.
    fn drop(&mut self) {
        self.ended(false);
    }
}

impl Upload {
    fn ended(&mut self, whole: bool) {
        if let Some(watch) = self.watch.take() {
            watch.body_ended(whole);
        }
    }

    /// Ready as soon as the body may pass.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        let Some(wait) = &mut self.wait else { return Poll::Ready(Ok(())) };
        match wait.poll(context) {
            Poll::Pending => {
                if let Some(turn) = &self.turn {
                    turn.opencodes();
                }
                Poll::Pending
            }
            Poll::Ready(Word::Over) => Poll::Ready(Err(UploadError::Refused)),
            Poll::Ready(Word::Keep) => {
                // Nobody will read it: hyper can tell the client so, by closing behind the answer.
                self.body = None;
                Poll::Pending
            }
            Poll::Ready(Word::Send | Word::Nothing) => {
                self.wait = None;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        ready!(self.poll_wait(context))?;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
            if let Some(turn) = &self.turn {
                turn.clients();
            }
            return self.pause.poll(context).map(|paused| Some(Err(paused)));
        };
        self.pause.running = None;
        if let Some(turn) = &self.turn {
            turn.opencodes();
        }
        // The last data frame may be the last poll: hyper does not ask again once the length is used up.
        let last = body.is_end_stream();
        let Some(mut frame) = frame.transpose()? else {
            if self.is_http2 && !last {
                return Poll::Ready(Some(Err(UploadError::Reset)));
            }
            self.ended(true);
            return Poll::Ready(None);
        };
        if let Some(data) = frame.data_ref() {
            if let Some((left, limit)) = &mut self.room {
                *left = left.checked_sub(data.len() as u64).ok_or(UploadError::TooLong(*limit))?;
            }
            if let Some(watch) = &self.watch {
                watch.data(data);
            }
        }
        if let Some(trailers) = frame.trailers_mut() {
            strip_trailers(trailers, &self.named);
        }
        if last || frame.is_trailers() {
            self.ended(true);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(upload) = &mut self.0 else { return Poll::Ready(None) };
        let next = ready!(upload.poll_next(context));
        if matches!(next, Some(Err(_))) {
            upload.ended(false);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        let Some(upload) = &self.0 else { return true };
        // A body that is not wanted has not ended: hyper must never write an end of it.
        upload.body.as_ref().is_some_and(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(upload) => upload.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint),
        }
    }
}
