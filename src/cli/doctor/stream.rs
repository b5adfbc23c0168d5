//! Watching event streams: what comes on each, when, and how it ends.

use std::time::Duration;

use http::header::{ACCEPT, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ask;
use super::text::plain;
use crate::client::{Client, SendError};
use crate::ingest::stream::Parser;

/// How long the head of a stream may take. A cold instance takes a second; a proxy that buffers takes for ever.
pub(super) const HEAD: Duration = Duration::from_secs(5);

/// Most events that are kept of one stream.
const EVENTS: usize = 20_000;

/// The longest type of an event that is believed. Real ones stay under 40.
const LONGEST_KIND: usize = 64;

/// One stream, and what was seen of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    /// Whether it was opened at the relay, not at opencode.
    pub(super) is_relays: bool,
    pub(super) path: &'static str,
    /// Times since the examination began.
    pub(super) asked: Duration,
    pub(super) headed: Option<Duration>,
    pub(super) greeted: Option<Duration>,
    pub(super) kind: Option<String>,
    /// Who stands between, by the fields of the head.
    pub(super) between: Option<String>,
    pub(super) heartbeats: usize,
    pub(super) events: Vec<Arrived>,
    /// More came than are kept.
    pub(super) overflowed: bool,
    pub(super) ended: Option<(Duration, End)>,
}

/// One event, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) at: Duration,
    pub(super) kind: String,
    pub(super) id: Option<String>,
    pub(super) session: Option<String>,
    pub(super) directory: Option<String>,
}

/// How a stream ended, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Properly.
    Clean,
    /// In the middle.
    Broken(String),
    /// Answered with this status.
    Refused(u16),
    /// Answered with something else, as a web page.
    NoStream(String),
    /// No head in time.
    NoHead,
    /// No answer.
    NoAnswer(String),
}

impl Watched {
    /// Whether it shows events at this moment, or has shown that it does not.
    pub(super) fn is_settled(&self) -> bool {
        self.greeted.is_some() || self.ended.is_some()
    }

    /// Whether more can come.
    pub(super) fn is_open(&self) -> bool {
        self.greeted.is_some() && self.ended.is_none()
    }

    /// The events of one session.
    pub(super) fn of<'a>(&'a self, session: &'a str) -> impl Iterator<Item = &'a Arrived> {
        self.events.iter().filter(move |event| event.session.as_deref() == Some(session))
    }

    pub(super) fn has(&self, session: &str, kind: &str) -> bool {
        self.of(session).any(|event| event.kind == kind)
    }
}

/// All streams that are watched; whoever waits for something is woken with each change.
pub(super) type All = watch::Sender<Vec<Watched>>;

/// Watches the stream of this number until it ends.
pub(super) async fn watch(client: &Client, number: usize, begun: Instant, all: &All) {
    let path = all.borrow()[number].path;
    let note = |change: &mut dyn FnMut(&mut Watched)| all.send_modify(|all| change(&mut all[number]));
    let end = |end: End| note(&mut |stream| stream.ended = Some((begun.elapsed(), end.clone())));
    note(&mut |stream| stream.asked = begun.elapsed());
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let answer = match client.send(request, HEAD).await {
        Ok(answer) => answer,
        Err(SendError::Slow { .. }) => return end(End::NoHead),
        Err(error) => return end(End::NoAnswer(plain(&error.to_string()))),
    };
    let (head, mut body) = answer.into_parts();
    let kind = ask::kind(&head.headers);
    note(&mut |stream| {
        stream.headed = Some(begun.elapsed());
        stream.kind = Some(kind.clone());
        stream.between = ask::between(&head.headers);
    });
    if head.status.as_u16() != 200 {
        return end(End::Refused(head.status.as_u16()));
    }
    if !kind.starts_with("text/event-stream") {
        return end(End::NoStream(kind));
    }
    let (mut parser, mut frames) = (Parser::default(), Vec::new());
    loop {
        match body.frame().await {
            None => return end(End::Clean),
            Some(Err(error)) => return end(End::Broken(plain(&error.to_string()))),
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else { continue };
                parser.push(&bytes, &mut frames);
                let is_comment = bytes.starts_with(b": heartbeat");
                let at = begun.elapsed();
                note(&mut |stream| {
                    stream.heartbeats += usize::from(is_comment);
                    frames.drain(..).filter_map(|frame| read(&frame, at)).for_each(|event| stream.add(event));
                });
            }
        }
    }
}

impl Watched {
    fn add(&mut self, event: Arrived) {
        match event.kind.as_str() {
            "server.connected" => self.greeted = self.greeted.or(Some(event.at)),
            "server.heartbeat" => self.heartbeats += 1,
            // The twins of durable events; only `/global/event` has them.
            "sync" => {}
            _ if self.events.len() == EVENTS => self.overflowed = true,
            _ => self.events.push(event),
        }
    }
}

/// Reads an event in the shape of any of the streams.
fn read(data: &[u8], at: Duration) -> Option<Arrived> {
    let whole: Value = serde_json::from_slice(data).ok()?;
    let event = if whole["payload"].is_object() { &whole["payload"] } else { &whole };
    let kind = event["type"].as_str()?;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if kind.is_empty() || kind.len() > LONGEST_KIND || !kind.bytes().all(is_word) {
        return None;
    }
    let content = if event["data"].is_object() { &event["data"] } else { &event["properties"] };
    let named = [&content["sessionID"], &content["info"]["sessionID"], &content["part"]["sessionID"]];
    let own = content["info"]["id"].as_str().filter(|id| id.starts_with("ses_"));
    let text = |value: &Value| value.as_str().map(|text| text.chars().take(4096).collect::<String>());
    Some(Arrived {
        at,
        kind: kind.to_owned(),
        id: text(&event["id"]),
        session: named.into_iter().find_map(text).or(own.map(str::to_owned)),
        directory: text(&whole["directory"]).or_else(|| text(&whole["location"]["directory"])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_shapes() {
        for data in [
            r#"{"id":"evt_1","type":"session.idle","properties":{"sessionID":"ses_1"}}"#,
            r#"{"directory":"/d","payload":{"id":"evt_1","type":"session.idle","properties":{"info":{"id":"ses_1"}}}}"#,
            r#"{"id":"evt_1","type":"session.idle","location":{"directory":"/d"},"data":{"part":{"sessionID":"ses_1"}}}"#,
        ] {
            let event = read(data.as_bytes(), Duration::ZERO).unwrap();
            let found = (event.kind.as_str(), event.id.as_deref(), event.session.as_deref());
            assert_eq!(found, ("session.idle", Some("evt_1"), Some("ses_1")), "{data}");
        }
        for data in ["", "<html>", "{}", r#"{"type":7}"#, r#"{"type":"a b"}"#, r#"{"type":"\u001b[2J"}"#] {
            assert_eq!(read(data.as_bytes(), Duration::ZERO), None, "{data}");
        }
    }
}
