//! What a later run of the relay needs to go on where this one was ended.
//!
//! Most of the shadow is told again by the journal's newest events. Kept here is what they may not reach back to: the
//! accounts, which turns are busy, what is open, which instances run, and up to when everything was told. A restart is
//! then nothing but a stream that broke, and is made up for in the same way.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::aspect::OPEN;
use super::reads::{ACTIVE, HEARD, SLACK};
use super::shadow::{Ask, Instance};
use super::{Ledger, Now, Options, Reconcile, Recovery, Stream, Witness};
use crate::event::{Event, Place, Unreadable};

/// The shape of the text. Another one is not read: the relay then begins anew.
const VERSION: u32 = 1;

/// An event of an earlier run, as the journal kept it.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Its number in the journal.
    pub seq: u64,
    /// When it was numbered, in milliseconds of Unix time.
    pub at: u64,
    /// The event.
    pub event: &'a Event,
}

/// Why a snapshot cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It is not in the shape that this version writes.
    #[error("read what the earlier run left: {}", Unreadable(.0))]
    Misshapen(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("read what the earlier run left: it has the shape {0}, this version reads {VERSION}")]
    Version(u32),
}

#[derive(Deserialize, Serialize)]
struct Snapshot<'a> {
    version: u32,
    /// The newest event that it takes into account.
    seq: u64,
    /// Up to when everything was told, in milliseconds of Unix time.
    seen: u64,
    #[serde(borrow)]
    ledger: BTreeMap<Cow<'a, str>, [u64; 7]>,
    #[serde(borrow)]
    turns: BTreeMap<Cow<'a, str>, Turn<'a>>,
    #[serde(borrow)]
    instances: BTreeMap<Cow<'a, str>, Open<'a>>,
}

/// A session whose turn is not told to be over.
#[derive(Deserialize, Serialize)]
struct Turn<'a> {
    directory: Option<Cow<'a, str>>,
    project: Option<Cow<'a, str>>,
    /// JSON text; absent when only `session.idle` is owed.
    status: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Serialize)]
struct Open<'a> {
    project: Option<Cow<'a, str>>,
    permissions: BTreeMap<Cow<'a, str>, OpenAsk<'a>>,
    questions: BTreeMap<Cow<'a, str>, OpenAsk<'a>>,
    /// Fingerprints. Should another build make others, a terminal is told as updated once.
    terminals: BTreeMap<Cow<'a, str>, u64>,
    branch: Option<u64>,
    servers: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct OpenAsk<'a> {
    session: Option<Cow<'a, str>>,
    text: Cow<'a, str>,
    told: bool,
}

impl Reconcile {
    /// What a later run needs, as JSON text. `seq` is the number of the newest event that was emitted.
    #[must_use]
    pub fn snapshot(&self, seq: u64) -> String {
        let turns = self.shadow.sessions.iter().filter(|(_, session)| session.busy.is_some() || session.owes_idle);
        let turn = |session: &'_ super::shadow::Session| Turn {
            directory: session.place.directory.as_deref().map(|text| text.to_owned().into()),
            project: session.place.project.as_deref().map(|text| text.to_owned().into()),
            status: session.busy.clone().map(Cow::Owned),
        };
        let snapshot = Snapshot {
            version: VERSION,
            seq,
            seen: self.seen,
            ledger: self.ledger.save().map(|(kind, numbers)| (Cow::Borrowed(kind), numbers)).collect(),
            turns: turns.map(|(id, session)| (Cow::Borrowed(&**id), turn(session))).collect(),
            instances: self
                .shadow
                .instances
                .iter()
                .map(|(id, instance)| (Cow::Borrowed(&**id), open(instance)))
                .collect(),
        };
        // Maps with text keys and numbers cannot fail.
        serde_json::to_string(&snapshot).unwrap_or_default()
    }

    /// Goes on where an earlier run was ended: by `snapshot`, its last, and the newest events that the journal kept, in
    /// order. The first reads tell what happened since; see [`Reconcile::is_recovering`].
    ///
    /// # Errors
    ///
    /// When the snapshot cannot be read.
    pub fn restore<'a>(
        options: Options,
        snapshot: &str,
        past: impl IntoIterator<Item = Past<'a>>,
        now: Now,
    ) -> Result<Self, RestoreError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version } = serde_json::from_str(snapshot)?;
        if version != VERSION {
            return Err(RestoreError::Version(version));
        }
        let saved: Snapshot<'_> = serde_json::from_str(snapshot)?;
        let mut reconcile = Self::new(options, now);
        let (seq, seen) = (saved.seq, saved.seen);
        let mut saved = Some(saved);
        for past in past {
            if past.seq > seq
                && let Some(saved) = saved.take()
            {
                reconcile.apply(saved, now);
            }
            reconcile.relive(&past, saved.is_none(), seen, now);
        }
        if let Some(saved) = saved.take() {
            reconcile.apply(saved, now);
        }
        reconcile.since = seen.saturating_sub(SLACK);
        reconcile.seen = seen;
        reconcile.unseen_since = Some(reconcile.since);
        reconcile.pending_changed = true;
        if reconcile.options.witness != Witness::Log {
            reconcile.stream = Stream::Down;
            reconcile.recovery = Recovery::Begun;
        }
        let unseen_since = reconcile.unseen_since;
        reconcile.resync(now);
        reconcile.unseen_since = unseen_since;
        Ok(reconcile)
    }

    fn relive(&mut self, past: &Past<'_>, is_unsaved: bool, seen: u64, now: Now) {
        if &*past.event.kind == "sync" {
            self.hear_twin(past.event);
            return;
        }
        if is_unsaved {
            self.ledger.relive(&past.event.kind, past.event.origin, now.steady);
        }
        self.shadow.observe(past.event);
        if let Some(directory) = past.event.directory.as_ref().filter(|directory| &***directory != "global") {
            self.shadow.instance(directory);
        }
        let recent = past.at + HEARD >= seen;
        if let Some(session) = past.event.session.as_ref().and_then(|id| self.shadow.sessions.get_mut(id))
            && recent
        {
            session.active = now.steady + ACTIVE;
        }
    }

    /// What the snapshot says is newer than the events that led to it.
    fn apply(&mut self, saved: Snapshot<'_>, now: Now) {
        self.ledger = Ledger::load(saved.ledger.iter().map(|(kind, numbers)| (&**kind, *numbers)), now.steady);
        for session in self.shadow.sessions.values_mut() {
            (session.busy, session.owes_idle) = (None, false);
        }
        for (id, turn) in saved.turns {
            let session = self.shadow.session(&id);
            session.owes_idle = turn.status.is_none();
            session.busy = turn.status.map(Cow::into_owned);
            session.active = now.steady + ACTIVE;
            if session.place.directory.is_none() {
                session.place = Place {
                    directory: turn.directory.as_deref().map(Into::into),
                    project: turn.project.as_deref().map(Into::into),
                };
            }
        }
        let step = self.shadow.step;
        let instances = saved.instances.into_iter();
        self.shadow.instances = instances.map(|(directory, open)| ((&*directory).into(), reopen(open, step))).collect();
        self.default_known = !self.shadow.instances.is_empty();
    }
}

fn open(instance: &Instance) -> Open<'_> {
    fn asks(asks: &BTreeMap<String, Ask>) -> BTreeMap<Cow<'_, str>, OpenAsk<'_>> {
        let ask = |ask: &'_ Ask| OpenAsk {
            session: ask.session.clone().map(Cow::Owned),
            text: Cow::Owned(ask.text.clone()),
            told: ask.told,
        };
        asks.iter().map(|(id, open)| (Cow::Borrowed(id.as_str()), ask(open))).collect()
    }
    Open {
        project: instance.project.as_deref().map(Cow::Borrowed),
        permissions: asks(&instance.permissions),
        questions: asks(&instance.questions),
        terminals: instance.terminals.iter().map(|(id, print)| (Cow::Borrowed(id.as_str()), *print)).collect(),
        branch: instance.branch,
        servers: instance.servers,
    }
}

fn reopen(open: Open<'_>, step: u64) -> Instance {
    let asks = |asks: BTreeMap<Cow<'_, str>, OpenAsk<'_>>| {
        let ask = |ask: OpenAsk<'_>| Ask {
            session: ask.session.map(Cow::into_owned),
            text: ask.text.into_owned(),
            step,
            told: ask.told,
        };
        asks.into_iter().map(|(id, open)| (id.into_owned(), ask(open))).collect()
    };
    Instance {
        project: open.project.as_deref().map(Into::into),
        read: OPEN.into(),
        permissions: asks(open.permissions),
        questions: asks(open.questions),
        terminals: open.terminals.into_iter().map(|(id, print)| (id.into_owned(), print)).collect(),
        branch: open.branch,
        servers: open.servers,
        ..Instance::default()
    }
}
