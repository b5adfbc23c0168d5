//! `/api/event`: the v2 shape of an event, built from its `/global/event` frame and its durable twin (FACTS §1).
//!
//! opencode's own `/api/event` says in `durable` what the twin says, so the v2 frame is sent with the twin, which comes
//! right behind the event.

use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Event, Origin, View, Views, quote};
use crate::journal::Record;

/// Holds the event that waits for its twin.
#[derive(Debug, Default)]
pub(super) struct Api {
    waiting: Option<Event>,
}

/// What the twin adds.
struct Durable<'a> {
    aggregate: &'a str,
    seq: u64,
    version: &'a str,
}

impl Api {
    /// Goes on after an earlier run. An event that was shown right before that ended has no twin any more.
    pub(super) fn restore(past: &[Arc<Record>]) -> Self {
        // Only releases that have the stream make texts for it.
        let has_api = past.iter().any(|record| record.event.api.is_some());
        let newest = past
            .last()
            .map(|record| &record.event)
            .filter(|event| event.origin == Origin::Stream && is_durable(&event.kind) && event.views.has(View::Global));
        Self { waiting: newest.filter(|_| has_api).cloned() }
    }

    /// Gives an event of the stream its place on `/api/event`. The result comes before it: an event whose twin never
    /// came.
    pub(super) fn prepare(&mut self, event: &mut Event) -> Option<Event> {
        if &*event.kind == "sync" {
            return self.prepare_twin(event);
        }
        let late = self.flush();
        if &*event.kind == "server.instance.disposed" || !event.views.has(View::Api) {
            event.views = event.views.without_api();
        } else if is_durable(&event.kind) {
            self.waiting = Some(event.clone());
            event.views = event.views.without_api();
        } else {
            event.api = render(event, None);
        }
        late
    }

    fn prepare_twin(&mut self, twin: &mut Event) -> Option<Event> {
        let event = self.waiting.take()?;
        let ours = event.parts().ok().and_then(|payload| payload.id.map(std::borrow::Cow::into_owned));
        let sync = twin.parts().ok().and_then(|payload| {
            let id = payload.id.map(std::borrow::Cow::into_owned);
            payload
                .sync
                .filter(|_| id == ours)
                .map(|sync| (sync.kind.into_owned(), sync.seq, sync.aggregate.into_owned()))
        });
        let Some((kind, seq, aggregate)) = sync else { return Some(alone(event)) };
        let version = kind.rsplit_once('.').map_or("1", |(_, version)| version);
        twin.api = render(&event, Some(&Durable { aggregate: &aggregate, seq, version }));
        twin.views = twin.views.with_api();
        None
    }

    /// The twin will not come.
    pub(super) fn flush(&mut self) -> Option<Event> {
        self.waiting.take().map(alone)
    }

    /// Gives an event of ours its text; it has no twin.
    pub(super) fn complete(&self, event: &mut Event) {
        if event.views.has(View::Api) {
            event.api = render(event, None);
        }
    }
}

/// Only for `/api/event`: the other streams had the event in its place.
fn alone(mut event: Event) -> Event {
    event.api = render(&event, None);
    event.views = Views::only_api();
    event
}

/// Types that have a twin from 1.17 on (the release's own `/doc`, schemas `SyncEvent…`).
fn is_durable(kind: &str) -> bool {
    match kind.strip_prefix("session.next.") {
        Some(rest) => !rest.ends_with(".delta"),
        None => matches!(
            kind,
            "session.created"
                | "session.updated"
                | "session.deleted"
                | "message.updated"
                | "message.removed"
                | "message.part.updated"
                | "message.part.removed"
        ),
    }
}

fn render(event: &Event, durable: Option<&Durable<'_>>) -> Option<Bytes> {
    let payload = event.parts().ok()?;
    let (id, kind) = (payload.id.as_deref().map(quote), quote(&payload.kind));
    let data = payload.properties.map_or("{}", serde_json::value::RawValue::get);
    let directory = quote(event.directory.as_deref()?);
    let project =
        event.project().map(|project| format!(r#","project":{{"id":{},"directory":{directory}}}"#, quote(&project)));
    let durable = durable.map(|durable| {
        // The version comes from the wire: only digits are a number.
        let version = if durable.version.bytes().all(|b| b.is_ascii_digit()) { durable.version } else { "1" };
        format!(
            r#","durable":{{"aggregateID":{},"seq":{},"version":{version}}}"#,
            quote(durable.aggregate),
            durable.seq
        )
    });
    Some(Bytes::from(format!(
        r#"{{"id":{},"type":{kind},"location":{{"directory":{directory}{}}},"data":{data}{}}}"#,
        id.unwrap_or_else(|| "null".into()),
        project.unwrap_or_default(),
        durable.unwrap_or_default(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::View;

    fn event(text: &str) -> Event {
        Event::read(Bytes::from(text.to_owned())).unwrap()
    }

    fn plain(id: &str, kind: &str) -> Event {
        event(&format!(
            r#"{{"directory":"/p","project":"h","payload":{{"id":"{id}","type":"{kind}","properties":{{"sessionID":"ses_1","n":1.0}}}}}}"#
        ))
    }

    fn twin(id: &str) -> Event {
        event(&format!(
            r#"{{"directory":"/p","project":"h","payload":{{"type":"sync","syncEvent":{{"type":"message.updated.1","id":"{id}","seq":3,"aggregateID":"ses_1","data":{{}}}},"id":"{id}"}}}}"#
        ))
    }

    #[test]
    fn a_durable_event_is_sent_with_its_twin() {
        let mut api = Api::default();
        let (mut first, mut second) = (plain("evt_1", "message.updated"), twin("evt_1"));
        assert!(api.prepare(&mut first).is_none() && !first.views.has(View::Api));
        assert!(api.prepare(&mut second).is_none() && second.views.has(View::Api));
        assert_eq!(
            second.api.unwrap(),
            r#"{"id":"evt_1","type":"message.updated","location":{"directory":"/p","project":{"id":"h","directory":"/p"}},"data":{"sessionID":"ses_1","n":1.0},"durable":{"aggregateID":"ses_1","seq":3,"version":1}}"#
        );
    }

    #[test]
    fn an_event_whose_twin_is_lost_is_sent_alone_and_in_its_place() {
        let mut api = Api::default();
        let (mut first, mut second) = (plain("evt_1", "message.updated"), plain("evt_2", "session.status"));
        api.prepare(&mut first);
        let late = api.prepare(&mut second).unwrap();
        assert!(late.views.has(View::Api) && !late.views.has(View::Global) && !late.views.has(View::Instance));
        assert!(late.api.unwrap().starts_with(br#"{"id":"evt_1""#));
        assert!(second.api.is_some());
        api.prepare(&mut plain("evt_3", "message.updated"));
        assert!(api.prepare(&mut twin("evt_other")).unwrap().api.unwrap().starts_with(br#"{"id":"evt_3""#));
        api.prepare(&mut plain("evt_4", "message.updated"));
        assert!(api.flush().is_some() && api.flush().is_none());
    }
}
