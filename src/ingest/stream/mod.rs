//! The stream witness: one `GET /global/event`, kept open.
//!
//! `/global/event` was complete on every release measured, also where `/event` is not (FACTS §1). Each connection leaves
//! a listener behind in opencode 1.14.48 and later, so there is one for all clients, and reconnects back off.

mod parse;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Sender, Upstream, UpstreamWatch};
use crate::event::Event;
use crate::stop::{Stop, Tasks};

pub use parse::Parser;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long opencode may take for the head of its answer: at first, doubling up to the last each time that it took longer.
/// While it starts, opencode takes connections that it never answers, so the first wait is short; a slow one is waited for
/// later, because asking again leaves a listener behind in it.
const HEAD: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// Waits between attempts: the first, doubling up to the last, each with jitter of a quarter.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The last wait while nothing listens. Asking costs nobody anything then, and what opencode publishes between its start and
/// the next attempt is known from the state only.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// The stream witness's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the stream may show nothing, not one byte. opencode's heartbeat comes every 10 s (FACTS §1).
    pub silence: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { silence: Duration::from_secs(25) }
    }
}

/// What the stream tells the pipeline.
#[derive(Debug)]
pub enum Message {
    /// Connected: what is published from now on will be delivered.
    Connected,
    /// Events, in order, read together.
    Events(Vec<Event>),
    /// A heartbeat.
    Alive,
    /// Something was delivered that cannot be read; what it was is not known.
    Lost {
        /// For people.
        reason: String,
    },
    /// Not connected any more, or not at all; another attempt follows.
    Down {
        /// For people.
        reason: String,
    },
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("opencode cannot be reached: {0}")]
    Unreachable(std::io::Error),
    #[error("opencode took more than {} s to answer", .0.as_secs())]
    Slow(Duration),
    #[error("opencode answered GET /global/event with {0}")]
    Refused(hyper::StatusCode),
    #[error("opencode answered GET /global/event with {0} instead of an event stream; is this an opencode server?")]
    NoStream(String),
    #[error("the stream showed nothing for {0:?}, not even a heartbeat")]
    Silent(Duration),
    #[error("the stream ended")]
    Closed,
    #[error("the stream broke: {0}")]
    Broken(hyper::Error),
    #[error("the pipeline is gone")]
    NoPipeline,
}

/// What went wrong since the stream last delivered.
#[derive(Debug, Default)]
struct Troubles {
    /// Attempts that failed, for whatever reason: how long to wait before the next.
    failures: u32,
    /// Attempts whose answer was waited for in vain: how long to wait for the next answer. An opencode that refuses
    /// connections is not slow.
    slow: u32,
}

/// Keeps the stream open until the stop. Reconnects at once when opencode's address changes.
pub async fn follow(options: Options, mut upstream: UpstreamWatch, out: Sender, tasks: Tasks, stop: Stop) {
    let mut troubles = Troubles::default();
    loop {
        let Some(address) = upstream.borrow_and_update().clone() else {
            match stop.or(upstream.changed()).await {
                Some(Ok(())) => continue,
                _ => return,
            }
        };
        let ended = tokio::select! {
            biased;
            () = stop.pulled() => return,
            changed = upstream.changed() => {
                if changed.is_err() {
                    return;
                }
                troubles = Troubles::default();
                None
            }
            ended = connection(&options, &address, &out, &tasks, &mut troubles) => Some(ended),
        };
        let longest = if matches!(ended, Some(Ended::Unreachable(_))) { UNREACHABLE } else { BACK_OFF.1 };
        let reason = match ended {
            Some(Ended::NoPipeline) => return,
            Some(ended) => {
                troubles.slow += u32::from(matches!(ended, Ended::Slow(_)));
                ended.to_string()
            }
            None => "opencode's address changed".to_owned(),
        };
        if out.send(super::Message::Stream(Message::Down { reason })).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            () = stop.pulled() => return,
            // A new address is tried at once; the mark is left for the top of the loop.
            _ = upstream.changed() => {}
            () = sleep(back_off(troubles.failures, longest)) => {}
        }
        troubles.failures = troubles.failures.saturating_add(1);
    }
}

fn back_off(failures: u32, longest: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let wait = doubled(BACK_OFF, failures).min(longest);
    let jitter = RandomState::new().hash_one(failures) % 256;
    wait.mul_f64(0.75 + f64::from(u8::try_from(jitter).unwrap_or(0)) / 512.0)
}

/// The first wait, doubled so many times, up to the last.
fn doubled((first, last): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(10)).min(last)
}

async fn connection(
    options: &Options,
    upstream: &Upstream,
    out: &Sender,
    tasks: &Tasks,
    troubles: &mut Troubles,
) -> Ended {
    let connect = timeout(CONNECT, TcpStream::connect(&*upstream.authority)).await;
    let socket = match connect {
        Err(_) => return Ended::Slow(CONNECT),
        Ok(Err(error)) => return Ended::Unreachable(error),
        Ok(Ok(socket)) => socket,
    };
    // Frames are small and must not wait for each other.
    let _ = socket.set_nodelay(true);
    let (mut sender, driver) = match hyper::client::conn::http1::handshake(TokioIo::new(socket)).await {
        Ok(pair) => pair,
        Err(error) => return Ended::Broken(error),
    };
    // The driver ends with the connection: when the response's body is dropped here, it closes the socket.
    tasks.spawn("upstream stream connection", async move {
        let _ = driver.await;
    });
    let mut request = Request::get("/global/event")
        .header(header::HOST, &*upstream.authority)
        .header(header::ACCEPT, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-cache");
    if let Some(authorization) = &upstream.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let Ok(request) = request.body(Empty::<Bytes>::new()) else { return Ended::NoStream("nothing".into()) };
    let limit = doubled(HEAD, troubles.slow);
    let response = match timeout(limit, sender.send_request(request)).await {
        Err(_) => return Ended::Slow(limit),
        Ok(Err(error)) => return Ended::Broken(error),
        Ok(Ok(response)) => response,
    };
    if !response.status().is_success() {
        return Ended::Refused(response.status());
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
    if !kind.as_ref().is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return Ended::NoStream(kind.map_or("no content type".into(), std::borrow::Cow::into_owned));
    }
    if out.send(super::Message::Stream(Message::Connected)).await.is_err() {
        return Ended::NoPipeline;
    }
    read(options, response.into_body(), out, troubles).await
}

async fn read(options: &Options, mut body: hyper::body::Incoming, out: &Sender, troubles: &mut Troubles) -> Ended {
    let mut parser = Parser::default();
    let mut frames = Vec::new();
    let mut delivered = 0usize;
    loop {
        let frame = match timeout(options.silence, body.frame()).await {
            Err(_) => return Ended::Silent(options.silence),
            Ok(None) => return Ended::Closed,
            Ok(Some(Err(error))) => return Ended::Broken(error),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(chunk) = frame.into_data() else { continue };
        let oversize = parser.push(&chunk, &mut frames);
        delivered = delivered.saturating_add(frames.len());
        // Only a stream that delivers proves that the next attempt need not wait. Its greeting proves nothing: one that
        // ends right after it, as `/event` of 1.14.48 does, must not be asked for four times a second.
        if delivered > 1 {
            *troubles = Troubles::default();
        }
        for message in messages(frames.drain(..), oversize) {
            if out.send(super::Message::Stream(message)).await.is_err() {
                return Ended::NoPipeline;
            }
        }
    }
}

/// Events read together stay together, in order.
fn messages(frames: impl Iterator<Item = Bytes>, oversize: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut events = Vec::new();
    let flush = |events: &mut Vec<Event>, messages: &mut Vec<Message>, next: Option<Message>| {
        if !events.is_empty() {
            messages.push(Message::Events(std::mem::take(events)));
        }
        messages.extend(next);
    };
    for data in frames {
        match Event::read(data) {
            Ok(event) if matches!(&*event.kind, "server.connected" | "server.heartbeat") => {
                flush(&mut events, &mut messages, Some(Message::Alive));
            }
            Ok(event) => events.push(event),
            Err(error) => {
                flush(&mut events, &mut messages, Some(Message::Lost { reason: format!("failed to {error}") }));
            }
        }
    }
    let lost =
        (oversize > 0).then(|| Message::Lost { reason: format!("{oversize} frames above {} bytes", parse::FRAME) });
    flush(&mut events, &mut messages, lost);
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_and_stays_in_bounds() {
        let around = |wait: Duration| wait.mul_f64(0.75)..wait.mul_f64(1.26);
        for longest in [UNREACHABLE, BACK_OFF.1] {
            assert!(around(BACK_OFF.0).contains(&back_off(0, longest)));
            for failures in [6, 40, u32::MAX] {
                assert!(around(longest).contains(&back_off(failures, longest)));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_opencode_that_is_not_there_is_asked_often() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = Upstream { authority: nobody.to_string().into(), authorization: None };
        let (_keep, watch) = tokio::sync::watch::channel(Some(address));
        let (out, mut inbox) = tokio::sync::mpsc::channel(1);
        let counting = async {
            let (begin, mut attempts) = (tokio::time::Instant::now(), 0);
            while begin.elapsed() < Duration::from_secs(60) {
                let message = inbox.recv().await;
                assert!(matches!(message, Some(crate::ingest::Message::Stream(Message::Down { .. }))), "{message:?}");
                attempts += 1;
            }
            attempts
        };
        tokio::select! {
            () = follow(Options::default(), watch, out, Tasks::new(), Stop::new()) => panic!("it gave up"),
            attempts = counting => assert!((20..45).contains(&attempts), "{attempts}"),
        }
    }

    #[test]
    fn garbage_between_events_is_told_in_its_place() {
        let good = r#"{"directory":"/p","payload":{"type":"a","properties":{}}}"#;
        let beat = r#"{"payload":{"type":"server.heartbeat","properties":{}}}"#;
        let frames = [good, good, "<html>", good, beat].map(|text| Bytes::from(text.to_owned()));
        let kinds: Vec<String> = messages(frames.into_iter(), 1)
            .into_iter()
            .map(|message| match message {
                Message::Events(events) => format!("events {}", events.len()),
                Message::Lost { .. } => "lost".into(),
                Message::Alive => "alive".into(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, ["events 2", "lost", "events 1", "alive", "lost"]);
    }
}
