//! The register of open streams: who follows what, and how far each has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::event::{Scope, Seq, View};
use crate::hub::Standing;
use crate::proxy::Peer;

/// The longest name of a client that is kept, in characters.
const AGENT: usize = 80;

/// The open streams; clones are of the same register.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<Register>>);

#[derive(Debug, Default)]
struct Register {
    /// How many streams there were.
    streams: u64,
    open: BTreeMap<u64, Arc<Client>>,
}

/// One open stream.
#[derive(Debug)]
pub struct Client {
    /// Which one, counted from 1.
    pub number: u64,
    /// Who is at the other end of the connection.
    pub peer: Peer,
    /// What it calls itself (`User-Agent`), up to 80 characters.
    pub agent: Option<Box<str>>,
    /// Since when.
    pub since: Instant,
    /// How far it has come.
    standing: Arc<Standing>,
}

impl Client {
    /// Which stream it is, and whose events.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        self.standing.scope()
    }

    /// Up to which event everything was handed to its connection. What the kernel still holds counts as handed over.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.standing.seq()
    }
}

impl Clients {
    /// How many streams of this view are open.
    #[must_use]
    pub fn count(&self, view: View) -> usize {
        self.lock().open.values().filter(|client| client.scope().view == view).count()
    }

    /// How many streams were ever opened.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.lock().streams
    }

    /// The open streams, oldest first.
    #[must_use]
    pub fn open(&self) -> Vec<Arc<Client>> {
        self.lock().open.values().cloned().collect()
    }

    pub(super) fn enter(&self, peer: Peer, agent: Option<&str>, standing: Arc<Standing>) -> Place {
        let mut register = self.lock();
        register.streams += 1;
        let client = Arc::new(Client {
            number: register.streams,
            peer,
            agent: agent.map(|agent| agent.chars().take(AGENT).collect()),
            since: Instant::now(),
            standing,
        });
        register.open.insert(client.number, client.clone());
        Place { clients: self.clone(), client }
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place in the register; it is in the body, so that it goes with the stream however that ends.
#[derive(Debug)]
pub(super) struct Place {
    clients: Clients,
    client: Arc<Client>,
}

impl Place {
    pub(super) fn view(&self) -> View {
        self.client.scope().view
    }

    pub(super) fn peer(&self) -> Peer {
        self.client.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.lock().open.remove(&self.client.number);
    }
}
