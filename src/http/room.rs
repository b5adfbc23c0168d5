//! How many connections there may be, in all and for one client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::proxy::{Peer, TrustedProxy};

/// How often the log says that clients were refused; all of them are in the status.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Counts the connections; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    refused: AtomicU64,
}

impl Connections {
    /// How many are open, upgraded ones among them.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// How many were closed at once, because their client had too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

/// The places.
#[derive(Debug)]
pub(super) struct Room {
    per_address: Option<usize>,
    /// Proxies in front of us come for many clients: only the limit for all is theirs.
    trusted: Vec<TrustedProxy>,
    places: Arc<Places>,
    /// When the log said it, and how many were refused by then.
    logged: Mutex<Option<(Instant, u64)>>,
}

#[derive(Debug)]
struct Places {
    /// One permit per connection; without one nobody is accepted, and the kernel's backlog holds the callers.
    all: Semaphore,
    taken: Mutex<HashMap<IpAddr, usize>>,
    connections: Connections,
}

/// One connection's place; dropping it gives it back. As small as can be: every idle client has one.
#[derive(Debug)]
pub(super) struct Place {
    address: Option<IpAddr>,
    places: Arc<Places>,
}

impl Room {
    pub(super) fn new(
        all: usize,
        per_address: Option<usize>,
        trusted: Vec<TrustedProxy>,
        connections: Connections,
    ) -> Self {
        let all = Semaphore::new(all.min(Semaphore::MAX_PERMITS));
        let places = Arc::new(Places { all, taken: Mutex::default(), connections });
        Self { per_address, trusted, places, logged: Mutex::default() }
    }

    /// Waits until there is room for one more.
    pub(super) async fn wait(&self) -> Option<SemaphorePermit<'_>> {
        self.places.all.acquire().await.ok()
    }

    /// A place for a client, unless its address has enough of them.
    pub(super) fn take(&self, permit: SemaphorePermit<'_>, peer: Peer) -> Option<Place> {
        let address = match (self.per_address, peer) {
            (Some(limit), Peer::Ip(address)) if !self.trusted.iter().any(|proxy| proxy.is(peer)) => {
                let client = client(address.ip());
                let mut taken = self.places.taken();
                let count = taken.entry(client).or_default();
                if *count >= limit {
                    drop(taken);
                    self.refuse(client, limit);
                    return None;
                }
                *count += 1;
                Some(client)
            }
            _ => None,
        };
        self.places.connections.0.open.fetch_add(1, Ordering::Relaxed);
        // The place gives it back.
        permit.forget();
        Some(Place { address, places: self.places.clone() })
    }

    fn refuse(&self, client: IpAddr, limit: usize) {
        let refused = self.places.connections.0.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let before = logged.map_or(0, |(_, refused)| refused);
        if logged.is_some_and(|(when, _)| when.elapsed() < LOG_EVERY) {
            return;
        }
        *logged = Some((Instant::now(), refused));
        tracing::warn!(
            %client,
            limit,
            refused = refused - before,
            "connections were closed at once: their client has too many; raise --max-connections-per-address, or name \
             it with --trusted-proxy if it is a proxy"
        );
    }
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.connections.0.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            let mut taken = self.places.taken();
            if let Some(count) = taken.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(&address);
                }
            }
        }
        self.places.all.add_permits(1);
    }
}

/// Whom an address belongs to: an IPv6 host has at least a /64 of them, and an IPv4 client of a dual-stack listener is an
/// IPv4 client.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    #[tokio::test]
    async fn a_client_is_counted_by_its_address() {
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        let room = Room::new(100, Some(2), trusted, Connections::default());
        let take = async |text: &str| room.take(room.wait().await.unwrap(), peer(text));
        let (first, second) = (take("1.2.3.4:1").await, take("[::ffff:1.2.3.4]:2").await);
        assert!(first.is_some() && second.is_some() && take("1.2.3.4:3").await.is_none());
        assert!(take("1.2.3.5:3").await.is_some());
        drop(first);
        let third = take("1.2.3.4:3").await;
        assert!(third.is_some());
        let six = [take("[2001:db8::1]:1").await, take("[2001:db8::ffff:1]:1").await];
        assert!(six.iter().all(Option::is_some) && take("[2001:db8::2]:1").await.is_none());
        assert!(take("[2001:db8:0:1::2]:1").await.is_some());
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(take("10.1.2.3:1").await.unwrap());
            all.push(room.take(room.wait().await.unwrap(), Peer::Unix).unwrap());
        }
        assert_eq!((room.places.connections.open(), room.places.connections.refused()), (14, 2));
        drop((second, third, six, all));
        assert_eq!(room.places.connections.open(), 0);
        assert!(room.places.taken().is_empty());
    }

    #[tokio::test]
    async fn the_room_is_bounded() {
        let room = Room::new(1, None, Vec::new(), Connections::default());
        let place = room.take(room.wait().await.unwrap(), Peer::Unix);
        assert!(tokio::time::timeout(Duration::from_millis(20), room.wait()).await.is_err());
        drop(place);
        assert!(room.wait().await.is_some());
    }
}
