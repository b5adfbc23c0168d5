//! Many followers at once, those that wait served by their outlets.

use std::sync::atomic::{AtomicU8, AtomicUsize};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::event::{Epoch, Origin, Place, Seq, Types, View};
use crate::journal::{Batch, Options};

/// What came to one client, by whichever way, as the numbers of the ids, and how much came at a time.
#[derive(Debug, Default)]
struct Client {
    seqs: Mutex<Vec<u64>>,
    sizes: Mutex<Vec<usize>>,
    /// What its outlet says: the number of an [`Offered`].
    says: AtomicU8,
    /// Roused while it is being served.
    rouses: Mutex<Option<Hub>>,
    wakes: AtomicUsize,
}

const SENT: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

impl Client {
    fn take(&self, frames: &Bytes) {
        let text = std::str::from_utf8(frames).unwrap();
        let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
        let ids: Vec<u64> = ids.map(|id| id.parse::<Cursor>().unwrap().seq.0).collect();
        self.sizes.lock().unwrap().push(ids.len());
        self.seqs.lock().unwrap().extend(ids);
    }

    fn seqs(&self) -> Vec<u64> {
        self.seqs.lock().unwrap().clone()
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Outlet for Client {
    fn offer(&self, frames: &Frames) -> Offered {
        let says = match self.says.load(Ordering::Relaxed) {
            SENT => Offered::Sent,
            TAKEN => Offered::Taken,
            _ => return Offered::Refused,
        };
        self.take(frames.bytes());
        if let Some(hub) = self.rouses.lock().unwrap().take() {
            hub.rouse();
        }
        says
    }
}

impl Wake for Client {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

struct Crowd {
    journal: Arc<Journal>,
    hub: Hub,
    followers: Vec<(Follower, Arc<Client>)>,
}

impl Crowd {
    fn new(count: usize) -> Self {
        let journal = Arc::new(Journal::new(Epoch::new(1), Options::default()));
        let hub = Hub::new(journal.clone(), Tasks::new());
        let mut crowd = Self { journal, hub, followers: Vec::new() };
        (0..count).for_each(|_| crowd.enter());
        crowd
    }

    /// One more, at the tail.
    fn enter(&mut self) {
        let scope =
            Scope { view: View::Instance, directory: Some("/p".into()), session: None, types: Types::default() };
        let (follower, client) = (self.hub.follow(scope, None, Form { ids: true, origin: false }), Arc::default());
        follower.attach(Arc::<Client>::clone(&client));
        self.followers.push((follower, client));
        let last = self.followers.len() - 1;
        self.poll(last);
        // The greeting is no event.
        self.followers[last].1.seqs.lock().unwrap().clear();
        self.followers[last].1.sizes.lock().unwrap().clear();
    }

    /// What its task does when it is woken.
    fn poll(&mut self, number: usize) {
        let (follower, client) = &mut self.followers[number];
        let waker = Waker::from(client.clone());
        while let Poll::Ready(frames) = follower.poll_frames(&mut Context::from_waker(&waker)) {
            client.take(&frames.unwrap());
        }
    }

    fn publish(&self, directory: &str, count: usize) {
        let place = Place { directory: Some(directory.into()), project: None };
        let event = || Event::made(Origin::State, "a", &place, Some("ses_1"), "evt_1", r#"{"x":1}"#);
        let events = (0..count).map(|_| event()).collect();
        self.hub.publish(self.journal.append(Batch { events, ..Batch::default() }, 0), None);
    }

    fn newest(&self) -> u64 {
        self.hub.tail().cursor.seq.0
    }
}

/// Lets the crier do what it can do now.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_are_served_in_their_sleep() {
    let mut crowd = Crowd::new(200);
    crowd.publish("/p", 2);
    settle().await;
    for (follower, client) in &crowd.followers {
        assert_eq!((client.seqs(), client.wakes(), follower.standing().seq()), (vec![1, 2], 0, Seq(2)));
    }
    // Nothing for them: nobody notices, and all stand at the tail.
    crowd.publish("/other", 3);
    settle().await;
    let (follower, client) = &crowd.followers[7];
    assert_eq!((client.seqs().len(), follower.standing().seq()), (2, Seq(5)));
    assert!(follower.heartbeat().windows(4).any(|part| part == b"1-5\n"));
    // One that is polled all the same has nothing twice.
    crowd.poll(7);
    advance(LONGEST_PAUSE).await;
    crowd.publish("/p", 1);
    settle().await;
    assert!(crowd.followers.iter().all(|(_, client)| client.seqs() == [1, 2, 6] && client.wakes() == 0));
}

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(101);

#[tokio::test(start_paused = true)]
async fn whoever_cannot_be_served_is_woken() {
    let mut crowd = Crowd::new(3);
    crowd.followers[0].1.says.store(TAKEN, Ordering::Relaxed);
    crowd.followers[1].1.says.store(REFUSED, Ordering::Relaxed);
    crowd.publish("/p", 1);
    settle().await;
    let came = |crowd: &Crowd| {
        crowd.followers.iter().map(|(_, client)| (client.seqs().len(), client.wakes())).collect::<Vec<_>>()
    };
    assert_eq!(came(&crowd), [(1, 1), (0, 1), (1, 0)]);
    crowd.poll(1);
    crowd.publish("/p", 1);
    settle().await;
    assert_eq!(came(&crowd), [(2, 2), (1, 2), (2, 0)]);
    // Those that were woken, and still have to be polled, are roused by that.
    crowd.poll(0);
    crowd.poll(1);
    crowd.hub.rouse();
    settle().await;
    assert_eq!(came(&crowd), [(2, 3), (2, 3), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn whoever_looks_by_itself_is_served_no_longer() {
    let mut crowd = Crowd::new(2);
    crowd.publish("/p", 1);
    // The crier had no turn yet, and this one does not come to its end: its client takes no more.
    let (follower, client) = &mut crowd.followers[0];
    let waker = Waker::from(client.clone());
    let Poll::Ready(frames) = follower.poll_frames(&mut Context::from_waker(&waker)) else {
        panic!("nothing is ready")
    };
    client.take(&frames.unwrap());
    assert_eq!(follower.standing().audience.waiting(), 1);
    settle().await;
    crowd.publish("/p", 1);
    settle().await;
    assert_eq!([&crowd.followers[0], &crowd.followers[1]].map(|(_, client)| client.seqs()), [vec![1], vec![1, 2]]);
    crowd.poll(0);
    crowd.publish("/p", 1);
    settle().await;
    assert!(crowd.followers.iter().all(|(_, client)| client.seqs() == [1, 2, 3] && client.wakes() == 0));
}

#[tokio::test(start_paused = true)]
async fn those_that_are_being_served_are_roused_too() {
    let crowd = Crowd::new(3);
    *crowd.followers[1].1.rouses.lock().unwrap() = Some(crowd.hub.clone());
    crowd.publish("/p", 1);
    settle().await;
    assert!(crowd.followers.iter().all(|(_, client)| client.seqs() == [1] && client.wakes() == 1));
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_quick_succession_to_many_is_written_together() {
    let crowd = Crowd::new(100);
    let begun = Instant::now();
    crowd.publish("/p", 1);
    settle().await;
    let all = |count: usize| crowd.followers.iter().all(|(_, client)| client.seqs().len() == count);
    assert!(all(1) && begun.elapsed().is_zero(), "the first goes at once");
    for _ in 0..5 {
        crowd.publish("/p", 1);
        settle().await;
    }
    assert!(all(1));
    sleep(Duration::from_millis(4)).await;
    settle().await;
    assert!(all(6));
    assert!(crowd.followers.iter().all(|(_, client)| *client.sizes.lock().unwrap() == [1, 5]));
    // After a pause, nothing is held up.
    sleep(Duration::from_millis(4)).await;
    crowd.publish("/p", 1);
    settle().await;
    assert!(all(7));
}

#[tokio::test(start_paused = true)]
async fn few_are_never_held_up() {
    let crowd = Crowd::new(10);
    for count in 1..=20 {
        crowd.publish("/p", 1);
        settle().await;
        assert!(crowd.followers.iter().all(|(_, client)| client.seqs().len() == count));
    }
}

/// Clients that take all, part or nothing, that are polled at any moment, that come and go, while events come that are for
/// them or not: each gets everything that is for it, once and in order.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_told_twice_whatever_the_outlets_say() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut random = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % most as u64).unwrap()
    };
    let mut crowd = Crowd::new(150);
    let mut begins: Vec<u64> = vec![0; 150];
    let mut mine: Vec<u64> = Vec::new();
    for _ in 0..3_000 {
        match random(10) {
            0..4 => {
                let (directory, count) = ([("/p"), "/other"][random(2)], 1 + random(3));
                let before = crowd.newest();
                crowd.publish(directory, count);
                if directory == "/p" {
                    mine.extend(before + 1..=crowd.newest());
                }
            }
            4 => {
                let number = random(crowd.followers.len());
                let says = [SENT, SENT, TAKEN, REFUSED][random(4)];
                crowd.followers[number].1.says.store(says, Ordering::Relaxed);
            }
            5 => {
                let number = random(crowd.followers.len());
                crowd.poll(number);
            }
            6 if random(5) == 0 => {
                begins.push(crowd.newest());
                crowd.enter();
            }
            6 if random(5) == 0 => {
                let number = random(crowd.followers.len());
                crowd.followers.swap_remove(number);
                begins.swap_remove(number);
            }
            7 => sleep(Duration::from_millis(random(8) as u64)).await,
            _ => yield_now().await,
        }
        // Whoever is woken is polled, sooner or later.
        for number in 0..crowd.followers.len() {
            if crowd.followers[number].1.wakes() > 0 && random(3) == 0 {
                crowd.followers[number].1.wakes.store(0, Ordering::Relaxed);
                crowd.poll(number);
            }
        }
    }
    for _ in 0..3 {
        sleep(LONGEST_PAUSE).await;
        settle().await;
        for number in 0..crowd.followers.len() {
            if crowd.followers[number].1.wakes() > 0 {
                crowd.poll(number);
            }
        }
    }
    assert!(mine.len() > 1_000);
    for ((follower, client), begin) in crowd.followers.iter().zip(begins) {
        let expected: Vec<u64> = mine.iter().copied().filter(|seq| *seq > begin).collect();
        assert_eq!(client.seqs(), expected);
        assert_eq!(follower.standing().seq().0, crowd.newest());
    }
}
