//! Answers about the state, compared with the shadow: the events that lead from what clients were told to what is true.

mod asks;
mod messages;
mod sessions;

use std::sync::Arc;

use super::aspect::Directory;
use super::json::fingerprint;
use super::plan::Flight;
use super::shadow::{Ending, Session, Shadow};
use crate::event::{Place, Unreadable, quote};

pub(super) use asks::Replies;
pub(super) use messages::{Facts, Found};
pub(super) use sessions::{Listed, Listing, Moved};

/// An event to be made from the state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) place: Place,
    pub(super) session: Option<Arc<str>>,
    /// The `properties`, as JSON text.
    pub(super) properties: String,
}

impl Draft {
    fn of_session(kind: &'static str, session: &Session, id: &str, rest: &str) -> Self {
        let properties = format!(r#"{{"sessionID":{}{rest}}}"#, quote(id));
        Self { kind, place: session.place.clone(), session: Some(id.into()), properties }
    }

    fn of_instance(kind: &'static str, place: &Place, properties: String) -> Self {
        Self { kind, place: place.clone(), session: None, properties }
    }
}

/// An answer in a shape that this release should not have.
#[derive(Debug, thiserror::Error)]
#[error("read the answer as {what}: {}", Unreadable(source))]
pub struct ShapeError {
    /// What the answer should have been.
    what: &'static str,
    source: serde_json::Error,
}

pub(super) fn shape(what: &'static str) -> impl FnOnce(serde_json::Error) -> ShapeError {
    move |source| ShapeError { what, source }
}

impl Session {
    /// The turn began.
    fn begin(&mut self, id: &str, status: &str, out: &mut Vec<Draft>) {
        self.has_answer &= self.busy.is_some();
        self.owes_idle = false;
        self.busy = Some(status.to_owned());
        self.ending = None;
        out.push(Draft::of_session("session.status", self, id, &format!(r#","status":{status}"#)));
    }

    /// The turn is over: both words for it, as opencode sends them.
    pub(super) fn end(&mut self, id: &str, out: &mut Vec<Draft>) {
        self.busy = None;
        self.ending = None;
        out.push(Draft::of_session("session.status", self, id, r#","status":{"type":"idle"}"#));
        out.push(Draft::of_session("session.idle", self, id, ""));
    }
}

/// Takes note of a list and says whether clients have to be told. `step` is when the stream last told it.
fn is_news(told: &mut Option<u64>, step: u64, text: &str, flight: &Flight) -> bool {
    if step > flight.began {
        return false;
    }
    let print = fingerprint(text);
    // A session begins with an empty list, which nobody needs to be told.
    let before = std::mem::replace(told, print).or_else(|| fingerprint("[]"));
    before != print && !flight.silent
}

impl Shadow {
    /// The status map of an instance. Gives the sessions whose turn seems to be over; the end is told when their
    /// messages were read (a client that hears of the end reads what it has).
    pub(super) fn compare_status(
        &mut self,
        directory: &Directory,
        text: &str,
        flight: &Flight,
        now: u64,
        out: &mut Vec<Draft>,
    ) -> Result<Vec<Arc<str>>, ShapeError> {
        let entries: super::json::Entries<'_> = serde_json::from_str(text).map_err(shape("the status map"))?;
        let place = self.place(directory);
        for (id, status) in &entries.0 {
            if self.gone.since(id, flight.began) {
                continue;
            }
            let session = self.session(id);
            // The map lags behind what was published; whom the stream told of needs no learning from it.
            let is_newer = session.stepped.status > flight.began || flight.silent && session.stepped.status > 0;
            if is_newer || super::shadow::is_idle(status.get()) {
                continue;
            }
            if session.place.directory.is_none() {
                session.place = place.clone();
            }
            session.ending = None;
            let same = session.busy.as_deref().is_some_and(|told| fingerprint(told) == fingerprint(status.get()));
            if same {
                continue;
            }
            if flight.silent {
                session.busy = Some(status.get().to_owned());
            } else {
                session.begin(id, status.get(), out);
            }
        }
        let mut over = Vec::new();
        for (id, session) in &mut self.sessions {
            let here = session.place.directory.as_ref() == Some(directory);
            let listed = entries.0.iter().any(|(name, status)| **name == **id && !super::shadow::is_idle(status.get()));
            if here && !listed && session.busy.is_some() && session.stepped.status <= flight.began {
                let ending = session.ending.get_or_insert(Ending { since: now, reads: 0, is_fresh: true });
                ending.reads += 1;
                ending.is_fresh = true;
                over.push(id.clone());
            }
            if here && !listed && session.owes_idle && session.stepped.status <= flight.began && !flight.silent {
                session.owes_idle = false;
                out.push(Draft::of_session("session.idle", session, id, ""));
            }
        }
        Ok(over)
    }

    /// A session's todo list.
    pub(super) fn compare_todo(&mut self, id: &str, text: &str, flight: &Flight, out: &mut Vec<Draft>) {
        let session = self.session(id);
        let (told, step) = (&mut session.todo, session.stepped.todo);
        if is_news(told, step, text, flight) {
            out.push(Draft::of_session("todo.updated", session, id, &format!(r#","todos":{text}"#)));
        }
    }

    /// A session's file changes.
    pub(super) fn compare_diff(&mut self, id: &str, text: &str, flight: &Flight, out: &mut Vec<Draft>) {
        let session = self.session(id);
        let (told, step) = (&mut session.diff, session.stepped.diff);
        if is_news(told, step, text, flight) {
            out.push(Draft::of_session("session.diff", session, id, &format!(r#","diff":{text}"#)));
        }
    }

    /// An instance's terminals.
    pub(super) fn compare_terminals(
        &mut self,
        directory: &Directory,
        text: &str,
        flight: &Flight,
        out: &mut Vec<Draft>,
    ) -> Result<(), ShapeError> {
        #[derive(serde::Deserialize)]
        struct Terminal {
            id: String,
        }
        let place = self.place(directory);
        let listed: Vec<&serde_json::value::RawValue> =
            serde_json::from_str(text).map_err(shape("the list of terminals"))?;
        let instance = self.instance(directory);
        if instance.terminals_step > flight.began {
            return Ok(());
        }
        let mut gone = std::mem::take(&mut instance.terminals);
        for info in listed {
            let terminal: Terminal = serde_json::from_str(info.get()).map_err(shape("a terminal"))?;
            let print = fingerprint(info.get()).unwrap_or_default();
            let kind = match gone.remove(&terminal.id) {
                None => Some("pty.created"),
                Some(told) if told != print => Some("pty.updated"),
                Some(_) => None,
            };
            instance.terminals.insert(terminal.id, print);
            if let Some(kind) = kind.filter(|_| !flight.silent) {
                out.push(Draft::of_instance(kind, &place, format!(r#"{{"info":{}}}"#, info.get())));
            }
        }
        for id in gone.into_keys() {
            out.push(Draft::of_instance("pty.deleted", &place, format!(r#"{{"id":{}}}"#, quote(&id))));
        }
        Ok(())
    }

    /// An instance's branch. The first answer tells nothing: it is where clients begin.
    pub(super) fn compare_branch(
        &mut self,
        directory: &Directory,
        text: &str,
        flight: &Flight,
        out: &mut Vec<Draft>,
    ) -> Result<(), ShapeError> {
        #[derive(serde::Deserialize)]
        struct Branch {
            branch: Option<String>,
        }
        let place = self.place(directory);
        let answer: Branch = serde_json::from_str(text).map_err(shape("the branch"))?;
        let branch = answer.branch.as_deref().map(quote);
        let instance = self.instance(directory);
        if instance.branch_step > flight.began {
            return Ok(());
        }
        let print = branch.as_deref().and_then(fingerprint);
        let told = std::mem::replace(&mut instance.branch, print);
        if let (Some(branch), Some(_)) = (branch, told.filter(|told| Some(*told) != print && !flight.silent)) {
            out.push(Draft::of_instance("vcs.branch.updated", &place, format!(r#"{{"branch":{branch}}}"#)));
        }
        Ok(())
    }

    /// An instance's language servers. The event has no content; that they changed is what it says.
    pub(super) fn compare_servers(&mut self, directory: &Directory, text: &str, flight: &Flight, out: &mut Vec<Draft>) {
        let place = self.place(directory);
        let told = std::mem::replace(&mut self.instance(directory).servers, fingerprint(text));
        if told.is_some() && told != fingerprint(text) && !flight.silent {
            out.push(Draft::of_instance("lsp.updated", &place, "{}".into()));
        }
    }
}
