//! The list of sessions.

use std::collections::BTreeSet;

use super::super::aspect::SessionId;
use super::super::json::{Entries, fingerprint};
use super::super::plan::Flight;
use super::super::shadow::{SessionInfo, Shadow, millis};
use super::{Draft, ShapeError, shape};

/// What the caller knows about the list that was asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile) struct Listing {
    /// What happened in a session can be asked for event by event.
    pub(in crate::reconcile) has_history: bool,
    /// What nobody announced is only suspected when it is seen first.
    pub(in crate::reconcile) is_patient: bool,
    /// Sessions that began or changed since, in milliseconds of Unix time, are news.
    pub(in crate::reconcile) since: u64,
    /// The log announced a session that was never told.
    pub(in crate::reconcile) expects_new: bool,
    /// A session may have been deleted.
    pub(in crate::reconcile) expects_gone: bool,
    /// Nobody looked since, in milliseconds of Unix time: what changed later is read, whatever was told of it.
    pub(in crate::reconcile) unseen_since: Option<u64>,
}

/// What became of a session's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Moved {
    /// It is as clients know it, or they are not to be told yet.
    No,
    /// It changed, and clients are told.
    Told,
    /// It changed; opencode's record tells how.
    Recorded,
}

/// What the list shows.
#[derive(Debug, Default)]
pub(in crate::reconcile) struct Listed {
    /// Sessions that changed.
    pub(in crate::reconcile) moved: Vec<SessionId>,
    /// Sessions that changed, whose events are asked for before anything is told.
    pub(in crate::reconcile) recorded: Vec<SessionId>,
    /// Sessions that should be in the list and are not.
    pub(in crate::reconcile) absent: Vec<SessionId>,
    /// The list was cut and a deleted session may be behind its end.
    pub(in crate::reconcile) cut: bool,
}

impl Shadow {
    /// The newest sessions of all directories. Of those that are `blocked` it says nothing: the list is asked for once more
    /// when they are not.
    pub(in crate::reconcile) fn compare_sessions(
        &mut self,
        text: &str,
        flight: &Flight,
        listing: Listing,
        blocked: &BTreeSet<SessionId>,
        out: &mut Vec<Draft>,
    ) -> Result<Listed, ShapeError> {
        let entries: Vec<Entries<'_>> = serde_json::from_str(text).map_err(shape("the list of sessions"))?;
        let mut listed = Listed::default();
        let mut ids = Vec::with_capacity(entries.len());
        let mut oldest = u64::MAX;
        let mut drafts = Vec::new();
        let newest = self.sessions.values().map(|session| session.created).max().unwrap_or(u64::MAX);
        for entry in &entries {
            // The list adds the project's object to each session; everything else is the session's own object.
            let text = entry.without("project");
            let info: SessionInfo = serde_json::from_str(&text).map_err(shape("a session"))?;
            oldest = oldest.min(millis(info.time.updated));
            let mut told = Vec::new();
            // Both clocks may differ, but a session that was announced began after those that are known.
            let expects_new = listing.expects_new && millis(info.time.created) > newest;
            let listing = Listing { expects_new, ..listing };
            let unseen = listing.unseen_since.is_some_and(|since| millis(info.time.updated) >= since);
            if blocked.contains(info.id.as_str()) {
                ids.push(info.id);
                continue;
            }
            match self.compare_session(&text, &info, flight, listing, &mut told) {
                Moved::Recorded => listed.recorded.push(info.id.as_str().into()),
                Moved::Told => listed.moved.push(info.id.as_str().into()),
                Moved::No if unseen => listed.moved.push(info.id.as_str().into()),
                Moved::No => {}
            }
            drafts.push(told);
            ids.push(info.id);
        }
        // The list has the newest first; they happened the other way round.
        out.extend(drafts.into_iter().rev().flatten());
        if listing.expects_gone {
            let full = entries.len() >= flight.limit;
            listed.absent = self
                .sessions
                .iter()
                .filter(|(id, session)| {
                    session.info.is_some()
                        && !ids.iter().any(|listed| **listed == ***id)
                        && session.stepped.info <= flight.began
                        && (!full || session.updated > oldest)
                })
                .map(|(id, _)| id.clone())
                .collect();
            listed.cut = full && listed.absent.is_empty();
        }
        Ok(listed)
    }

    /// One session's object.
    pub(in crate::reconcile) fn compare_session(
        &mut self,
        text: &str,
        info: &SessionInfo,
        flight: &Flight,
        listing: Listing,
        out: &mut Vec<Draft>,
    ) -> Moved {
        let print = fingerprint(text).unwrap_or_default();
        if self.gone.since(&info.id, flight.began) {
            return Moved::No;
        }
        let told = self.sessions.get(info.id.as_str());
        if told.is_some_and(|told| told.stepped.info > flight.began) {
            // The stream was faster, and after a break it may have told only the end of what happened.
            return if listing.is_patient { Moved::No } else { Moved::Told };
        }
        let (heard, suspected) = told.map_or((0, None), |told| (told.heard, told.suspected));
        let was_asked = told.is_some_and(|told| told.recorded == Some(print));
        let is_counted = told.is_none_or(|told| told.info.is_none() || told.history.is_some());
        let told = told.and_then(|told| told.info.as_ref()).map(|(_, print)| *print);
        let (created, updated) = (millis(info.time.created), millis(info.time.updated));
        let kind = match told {
            Some(told) if told == print => return Moved::No,
            Some(_) => Some("session.updated"),
            None if created >= listing.since || listing.expects_new => Some("session.created"),
            None if updated >= listing.since => Some("session.updated"),
            None => None,
        };
        if kind.is_some() && listing.is_patient && suspected != Some(heard) {
            self.session(&info.id).suspected = Some(heard);
            return Moved::No;
        }
        // All of a new session is in the record, and of a known one what follows the newest event that was told. Not every
        // change is: the costs of a step have no event. So the record is asked once for each object, then the state tells.
        let is_recorded = kind == Some("session.created") || kind.is_some() && told.is_some();
        if listing.has_history && is_counted && is_recorded && !was_asked {
            self.session(&info.id).recorded = Some(print);
            return Moved::Recorded;
        }
        let session = self.learn(text, print, info);
        session.suspected = None;
        let Some(kind) = kind else { return Moved::No };
        session.known |= kind == "session.created";
        if !flight.silent {
            out.push(Draft::of_session(kind, session, &info.id, &format!(r#","info":{text}"#)));
        }
        Moved::Told
    }

    /// A session that the state does not know any more.
    pub(in crate::reconcile) fn compare_gone(&mut self, id: &str, out: &mut Vec<Draft>) {
        // What is on its way may be older than this answer.
        self.step += 1;
        let Some(mut session) = self.remove(id) else { return };
        if session.busy.is_some() {
            session.end(id, out);
        }
        if let Some((info, _)) = &session.info {
            out.push(Draft::of_session("session.deleted", &session, id, &format!(r#","info":{info}"#)));
        }
    }
}
