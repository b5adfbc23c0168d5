//! Open permissions and questions.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::aspect::Directory;
use super::super::plan::Flight;
use super::super::shadow::{Ask, Shadow};
use super::{Draft, ShapeError, shape};
use crate::event::{Place, quote};

/// Most replies remembered. A reply is needed only until the next read of the open asks.
const REPLIES: usize = 256;

/// What a client answered to a permission or question, seen when its request passed through the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Reply {
    /// To a permission: `"once"` and the like, as JSON text.
    Permission(String),
    /// To a question: the answers, as JSON text.
    Answers(String),
    /// To a question: none.
    Rejected,
}

/// The replies seen lately, by the ask's id.
#[derive(Debug, Default)]
pub(in crate::reconcile) struct Replies(VecDeque<(String, Reply)>);

impl Replies {
    /// Remembers a reply from a request that opencode accepted. Gives the ask's id, if the request is a reply.
    pub(in crate::reconcile) fn see(&mut self, path: &str, body: &[u8]) -> bool {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body<'a> {
            #[serde(borrow)]
            reply: Option<&'a RawValue>,
            #[serde(borrow)]
            response: Option<&'a RawValue>,
            #[serde(borrow)]
            answers: Option<&'a RawValue>,
        }
        let body: Body<'_> = serde_json::from_slice(body).unwrap_or_default();
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let (id, reply) = match (words.as_slice(), body) {
            (["permission", id, "reply"], Body { reply: Some(reply), .. })
            | (["session", _, "permissions", id], Body { response: Some(reply), .. }) => {
                (id, Reply::Permission(reply.get().to_owned()))
            }
            (["question", id, "reply"], Body { answers: Some(answers), .. }) => {
                (id, Reply::Answers(answers.get().to_owned()))
            }
            (["question", id, "reject"], _) => (id, Reply::Rejected),
            _ => return false,
        };
        self.0.push_back(((*id).to_owned(), reply));
        if self.0.len() > REPLIES {
            self.0.pop_front();
        }
        true
    }

    fn take(&mut self, id: &str) -> Option<Reply> {
        let place = self.0.iter().position(|(known, _)| known == id)?;
        self.0.remove(place).map(|(_, reply)| reply)
    }
}

#[derive(Deserialize)]
struct Asked {
    id: String,
    #[serde(default, rename = "sessionID")]
    session: Option<String>,
}

impl Shadow {
    /// The open permissions of an instance.
    pub(in crate::reconcile) fn compare_permissions(
        &mut self,
        directory: &Directory,
        text: &str,
        flight: &Flight,
        replies: &mut Replies,
        out: &mut Vec<Draft>,
    ) -> Result<(), ShapeError> {
        let place = self.place(directory);
        let instance = self.instance(directory);
        let answered = &instance.answered;
        let gone = compare(&mut instance.permissions, answered, "permission.asked", &place, text, flight, out)?;
        for (id, ask) in gone {
            let reply = match replies.take(&id) {
                Some(Reply::Permission(reply)) => format!(r#","reply":{reply}"#),
                // Nobody told us the answer, only that there is one.
                _ => String::new(),
            };
            out.push(replied("permission.replied", &place, &id, &ask, &reply));
        }
        Ok(())
    }

    /// The open questions of an instance.
    pub(in crate::reconcile) fn compare_questions(
        &mut self,
        directory: &Directory,
        text: &str,
        flight: &Flight,
        replies: &mut Replies,
        out: &mut Vec<Draft>,
    ) -> Result<(), ShapeError> {
        let place = self.place(directory);
        let instance = self.instance(directory);
        let answered = &instance.answered;
        let gone = compare(&mut instance.questions, answered, "question.asked", &place, text, flight, out)?;
        for (id, ask) in gone {
            let (kind, answers) = match replies.take(&id) {
                Some(Reply::Rejected) => ("question.rejected", String::new()),
                Some(Reply::Answers(answers)) => ("question.replied", format!(r#","answers":{answers}"#)),
                _ => ("question.replied", String::new()),
            };
            out.push(replied(kind, &place, &id, &ask, &answers));
        }
        Ok(())
    }
}

fn replied(kind: &'static str, place: &Place, id: &str, ask: &Ask, rest: &str) -> Draft {
    let session = ask.session.as_deref();
    let named = session.map(|session| format!(r#""sessionID":{},"#, quote(session))).unwrap_or_default();
    let properties = format!(r#"{{{named}"requestID":{}{rest}}}"#, quote(id));
    Draft { kind, place: place.clone(), session: session.map(Into::into), properties }
}

/// Tells the new asks and gives those that are gone.
fn compare(
    told: &mut BTreeMap<String, Ask>,
    answered: &VecDeque<(String, u64)>,
    kind: &'static str,
    place: &Place,
    text: &str,
    flight: &Flight,
    out: &mut Vec<Draft>,
) -> Result<Vec<(String, Ask)>, ShapeError> {
    let listed: Vec<&RawValue> = serde_json::from_str(text).map_err(shape("the list of open asks"))?;
    let mut open = Vec::with_capacity(listed.len());
    for raw in listed {
        let asked: Asked = serde_json::from_str(raw.get()).map_err(shape("an open ask"))?;
        let late = answered.iter().any(|(id, step)| *id == asked.id && *step > flight.began);
        if !told.contains_key(&asked.id) && !late {
            let ask = Ask { session: asked.session.clone(), text: raw.get().to_owned(), step: 0, told: false };
            told.insert(asked.id.clone(), ask);
        }
        if let Some(ask) = told.get_mut(&asked.id).filter(|_| !flight.silent) {
            ask.tell(kind, place, out);
        }
        open.push(asked.id);
    }
    let gone: Vec<String> = told
        .iter()
        .filter(|(id, ask)| !open.contains(id) && ask.step <= flight.began)
        .map(|(id, _)| id.clone())
        .collect();
    let mut gone: Vec<(String, Ask)> = gone.into_iter().filter_map(|id| told.remove_entry(&id)).collect();
    gone.iter_mut().for_each(|(_, ask)| ask.tell(kind, place, out));
    Ok(gone)
}

impl Ask {
    /// Tells clients of it, if nobody did.
    fn tell(&mut self, kind: &'static str, place: &Place, out: &mut Vec<Draft>) {
        if !std::mem::replace(&mut self.told, true) {
            let session = self.session.as_deref().map(Into::into);
            out.push(Draft { kind, place: place.clone(), session, properties: self.text.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_from_every_form_of_request() {
        let mut replies = Replies::default();
        assert!(replies.see("/permission/per_1/reply", br#"{"reply":"once"}"#));
        assert!(replies.see("/session/ses_1/permissions/per_2", br#"{"response":"reject"}"#));
        assert!(replies.see("/question/que_1/reply", br#"{"answers":[["A"]]}"#));
        assert!(replies.see("/question/que_2/reject", b""));
        assert!(!replies.see("/question/que_3/reply", b"not json"));
        assert!(!replies.see("/session/ses_1/abort", b"{}"));
        assert_eq!(replies.take("per_1"), Some(Reply::Permission(r#""once""#.into())));
        assert_eq!(replies.take("per_1"), None);
        assert_eq!(replies.take("per_2"), Some(Reply::Permission(r#""reject""#.into())));
        assert_eq!(replies.take("que_1"), Some(Reply::Answers(r#"[["A"]]"#.into())));
        assert_eq!(replies.take("que_2"), Some(Reply::Rejected));
    }
}
