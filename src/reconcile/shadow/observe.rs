//! What the stream told, noted in the shadow.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Ask, Instance, MessageInfo, PartInfo, Shadow, is_idle};
use crate::event::{Event, Place};
use crate::reconcile::json::{Told, fingerprint};

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "messageID")]
    message: &'a str,
    #[serde(rename = "partID")]
    part: &'a str,
    field: &'a str,
    #[serde(borrow)]
    delta: std::borrow::Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Properties<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    part: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    todos: Option<&'a RawValue>,
    #[serde(borrow)]
    diff: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    id: Option<String>,
    #[serde(rename = "requestID")]
    request: Option<String>,
    #[serde(rename = "messageID")]
    message: Option<String>,
    #[serde(rename = "partID")]
    part_id: Option<String>,
    branch: Option<String>,
}

impl Shadow {
    /// Takes note of what the stream told. Says whether a status, permission or question changed.
    ///
    /// An event in a shape we do not know is passed on to clients all the same; only the shadow learns nothing from it.
    pub(in crate::reconcile) fn observe(&mut self, event: &Event) -> bool {
        self.step += 1;
        let step = self.step;
        let Ok(payload) = event.parts() else { return false };
        let Some(properties) = payload.properties else { return false };
        let text = properties.get();
        let session = event.session.as_deref().unwrap_or_default();
        if &*event.kind == "message.part.delta" {
            // The hottest event: nothing but the text's progress is read.
            if let Ok(delta) = serde_json::from_str::<Delta<'_>>(text)
                && delta.field == "text"
                && let Some(session) = self.sessions.get_mut(session)
            {
                let part = session.message(delta.message).parts.entry(delta.part.into()).or_default();
                part.text.push(&delta.delta);
                part.step = step;
            }
            return false;
        }
        let Ok(properties) = serde_json::from_str::<Properties<'_>>(text) else { return false };
        self.observe_parts(event, session, text, &properties, step)
    }

    fn observe_parts(
        &mut self,
        event: &Event,
        session: &str,
        text: &str,
        properties: &Properties<'_>,
        step: u64,
    ) -> bool {
        let print = |raw: Option<&RawValue>| raw.and_then(|raw| fingerprint(raw.get()));
        match &*event.kind {
            "session.created" | "session.updated" => {
                if let Some(raw) = properties.info
                    && let (Some(print), Ok(info)) = (fingerprint(raw.get()), serde_json::from_str(raw.get()))
                {
                    let session = self.learn(raw.get(), print, &info);
                    session.stepped.info = step;
                    session.known |= &*event.kind == "session.created";
                }
                false
            }
            "session.deleted" => self.remove(session).is_some_and(|session| session.busy.is_some()),
            "message.updated" => {
                if let Some(raw) = properties.info
                    && let (Some(print), Ok(info)) =
                        (fingerprint(raw.get()), serde_json::from_str::<MessageInfo<'_>>(raw.get()))
                {
                    let session = self.session(session);
                    session.has_answer |= info.role == "assistant";
                    let message = session.message(&info.id);
                    (message.info, message.step) = (print, step);
                    message.learn(&info);
                }
                false
            }
            "message.part.updated" => {
                if let Some(raw) = properties.part
                    && let (Some(print), Ok(info)) =
                        (fingerprint(raw.get()), serde_json::from_str::<PartInfo>(raw.get()))
                {
                    let message = self.session(session).message(&info.message);
                    let part = message.parts.entry(info.id.as_str().into()).or_default();
                    (part.print, part.step) = (print, step);
                    part.text = Told::all(info.text.as_deref().unwrap_or_default());
                }
                false
            }
            "message.removed" => {
                if let (Some(session), Some(message)) = (self.sessions.get_mut(session), &properties.message) {
                    session.remove(message);
                    session.bury(message, step);
                }
                false
            }
            "message.part.removed" => {
                if let (Some(session), Some(message), Some(part)) =
                    (self.sessions.get_mut(session), &properties.message, &properties.part_id)
                    && let Some(message) = session.messages.get_mut(message.as_str())
                {
                    message.parts.remove(part.as_str());
                    session.bury(part, step);
                }
                false
            }
            "session.status" => {
                let place = Place { directory: event.directory.clone(), project: event.project() };
                let session = self.session(session);
                let status = properties.status.map(RawValue::get).filter(|status| !is_idle(status));
                // opencode repeats the status with every step of a turn.
                session.has_answer &= status.is_some() && session.busy.is_some();
                session.owes_idle = status.is_none() && (session.owes_idle || session.busy.is_some());
                session.busy = status.map(str::to_owned);
                session.ending = None;
                session.stepped.status = step;
                if session.place.directory.is_none() {
                    session.place = place;
                }
                true
            }
            "session.idle" => {
                let session = self.session(session);
                session.stepped.status = step;
                session.owes_idle = false;
                session.ending = None;
                session.busy.take().is_some()
            }
            "session.error" => {
                self.session(session).error = print(properties.error);
                false
            }
            "todo.updated" => {
                let session = self.session(session);
                (session.todo, session.stepped.todo) = (print(properties.todos), step);
                false
            }
            "session.diff" => {
                let session = self.session(session);
                (session.diff, session.stepped.diff) = (print(properties.diff), step);
                false
            }
            _ => self.observe_instance(event, text, properties, step),
        }
    }

    fn observe_instance(&mut self, event: &Event, text: &str, properties: &Properties<'_>, step: u64) -> bool {
        let Some(directory) = &event.directory else { return false };
        if &**directory == "global" {
            return false;
        }
        let directory = directory.clone();
        let instance = self.instance(&directory);
        match &*event.kind {
            kind @ ("permission.asked" | "question.asked") => {
                let Some(id) = properties.id.clone() else { return false };
                let ask = Ask {
                    session: event.session.as_deref().map(str::to_owned),
                    text: text.to_owned(),
                    step,
                    told: true,
                };
                let asks = if kind == "permission.asked" { &mut instance.permissions } else { &mut instance.questions };
                asks.insert(id, ask);
                true
            }
            "permission.replied" | "question.replied" | "question.rejected" => {
                let Some(id) = &properties.request else { return false };
                instance.answered.push_back((id.clone(), step));
                if instance.answered.len() > 256 {
                    instance.answered.pop_front();
                }
                instance.permissions.remove(id).is_some() | instance.questions.remove(id).is_some()
            }
            "pty.created" | "pty.updated" => {
                if let Some(raw) = properties.info
                    && let (Some(print), Ok(info)) =
                        (fingerprint(raw.get()), serde_json::from_str::<Properties<'_>>(raw.get()))
                    && let Some(id) = info.id
                {
                    instance.terminals.insert(id, print);
                    instance.terminals_step = step;
                }
                false
            }
            "pty.exited" | "pty.deleted" => {
                if let Some(id) = &properties.id {
                    instance.terminals.remove(id);
                    instance.terminals_step = step;
                }
                false
            }
            "vcs.branch.updated" => {
                let branch = properties.branch.as_deref().map(crate::event::quote);
                instance.branch = branch.as_deref().and_then(fingerprint);
                instance.branch_step = step;
                false
            }
            "server.instance.disposed" => {
                // The instance's asks and terminals die with it; its sessions' turns end by the status map.
                let busy = !instance.permissions.is_empty() || !instance.questions.is_empty();
                let read = std::mem::take(&mut instance.read);
                *instance = Instance { project: instance.project.take(), read, ..Instance::default() };
                busy
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;
    use crate::reconcile::shadow::Ending;

    #[test]
    fn a_turn_that_the_stream_ends_is_not_waited_for_any_more() {
        let mut shadow = Shadow::default();
        let session = shadow.session("ses_1");
        session.busy = Some(r#"{"type":"busy"}"#.to_owned());
        session.ending = Some(Ending { since: 0, reads: 1, is_fresh: true });
        let properties = r#"{"sessionID":"ses_1"}"#;
        let idle = Event::made(Origin::Stream, "session.idle", &Place::default(), Some("ses_1"), "evt_1", properties);
        assert!(shadow.observe(&idle));
        let session = shadow.session("ses_1");
        assert!(session.busy.is_none() && session.ending.is_none());
    }
}
