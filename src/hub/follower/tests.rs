//! One follower, whatever it is behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::super::Pending;
use super::*;
use crate::event::{Epoch, Event, Form, Origin, Place, Scope, Seq, Types, View};
use crate::journal::{Batch, Journal, Options};
use crate::stop::Tasks;

/// More than are read from the journal at once.
const MANY: usize = 3000;

const IDS: Form = Form { ids: true, origin: false };

fn event(directory: &str, kind: &str) -> Event {
    let place = Place { directory: Some(directory.into()), project: None };
    Event::made(Origin::State, kind, &place, Some("ses_1"), "evt_1", r#"{"x":1}"#)
}

struct Fixture {
    journal: Arc<Journal>,
    hub: Hub,
}

impl Fixture {
    fn new(bytes: usize) -> Self {
        let options = Options { bytes, age: Duration::from_secs(60) };
        let journal = Arc::new(Journal::new(Epoch::new(1), options));
        Self { hub: Hub::new(journal.clone(), Tasks::new()), journal }
    }

    fn publish(&self, directory: &str, count: usize) {
        let events = (0..count).map(|_| event(directory, "a")).collect();
        let records = self.journal.append(Batch { events, ..Batch::default() }, 0);
        self.hub.publish(records, None);
    }

    fn follow(&self, last_id: Option<&str>) -> Follower {
        let scope =
            Scope { view: View::Instance, directory: Some("/p".into()), session: None, types: Types::default() };
        self.hub.follow(scope, last_id, IDS)
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Everything that is ready now, as the numbers of the ids, and what came then.
fn drain(follower: &mut Follower, waker: &Waker) -> (Vec<u64>, Poll<Result<Bytes, Expired>>) {
    let mut seqs = Vec::new();
    loop {
        match follower.poll_frames(&mut Context::from_waker(waker)) {
            Poll::Ready(Ok(bytes)) => {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
                seqs.extend(ids.map(|id| id.parse::<Cursor>().unwrap().seq.0));
            }
            other => return (seqs, other),
        }
    }
}

#[test]
fn a_publish_wakes_only_who_waits_and_nothing_is_missed() {
    let fixture = Fixture::new(1 << 20);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut follower = fixture.follow(None);
    assert_eq!(drain(&mut follower, &waker), (vec![0], Poll::Pending));
    fixture.publish("/p", 3);
    fixture.publish("/other", 2);
    fixture.publish("/p", 1);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(drain(&mut follower, &waker), (vec![1, 2, 3, 6], Poll::Pending));
}

#[test]
fn whoever_waits_can_be_roused_and_finds_nothing_new() {
    let fixture = Fixture::new(1 << 20);
    let (waiting, reading) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let (waiting_waker, reading_waker) = (Waker::from(waiting.clone()), Waker::from(reading.clone()));
    let (mut follower, mut other) = (fixture.follow(None), fixture.follow(None));
    assert!(drain(&mut follower, &waiting_waker).1.is_pending());
    assert!(other.poll_frames(&mut Context::from_waker(&reading_waker)).is_ready());
    fixture.hub.rouse();
    assert_eq!((waiting.0.load(Ordering::SeqCst), reading.0.load(Ordering::SeqCst)), (1, 0));
    let (seqs, end) = drain(&mut follower, &waiting_waker);
    assert!(seqs.is_empty() && end.is_pending());
    fixture.publish("/p", 2);
    assert_eq!(waiting.0.load(Ordering::SeqCst), 2);
    assert_eq!(drain(&mut follower, &waiting_waker).0, [1, 2]);
}

#[test]
fn whoever_is_behind_reads_the_journal_and_ends_live() {
    let fixture = Fixture::new(64 << 20);
    let waker = Waker::noop();
    fixture.publish("/p", 2);
    let mut follower = fixture.follow(Some("0000000000000001-1"));
    assert_eq!(follower.word(), &Word::Resumed);
    fixture.publish("/p", MANY);
    let (seqs, end) = drain(&mut follower, waker);
    let newest = 2 + MANY as u64;
    // The greeting repeats the client's own position, then everything after it.
    assert_eq!(seqs, [1].into_iter().chain(2..=newest).collect::<Vec<_>>());
    assert_eq!(end, Poll::Pending);
}

#[tokio::test]
async fn whoever_is_behind_memory_reads_the_file_and_wakes_up() {
    const EVENTS: u64 = 40;
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Journal::take(folder.path()).unwrap(), Options::default()).unwrap();
    let journal = Arc::new(journal);
    let hub = Hub::new(journal.clone(), Tasks::new());
    let place = Place { directory: Some("/p".into()), project: None };
    // As much as does not fit into memory.
    let properties = format!(r#"{{"x":"{}"}}"#, "y".repeat(1 << 20));
    for _ in 0..EVENTS {
        let event = Event::made(Origin::State, "a", &place, None, "evt_1", &properties);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = u64::try_from(now.as_millis()).unwrap();
        hub.publish(journal.append(Batch { events: vec![event], notes: vec![] }, now), None);
    }
    assert!(matches!(journal.read(Seq(0), 1), Ok(Read::InFile)));
    let id = journal.cursor(Seq(0)).to_string();
    let follow = || {
        let scope = Scope { view: View::Instance, directory: None, session: None, types: Types::default() };
        let mut follower = hub.follow(scope, Some(&id), IDS);
        let greeting = follower.poll_frames(&mut Context::from_waker(Waker::noop()));
        assert!(greeting.is_ready());
        follower
    };
    // Whoever waits for its turn to read can be roused.
    let turns = hub.0.reads.clone().acquire_many_owned(2).await;
    let (mut follower, count) = (follow(), Arc::new(Count::default()));
    let waker = Waker::from(count.clone());
    assert!(follower.poll_frames(&mut Context::from_waker(&waker)).is_pending());
    hub.rouse();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    drop((turns, follower));
    let mut followers: Vec<Follower> = (0..6).map(|_| follow()).collect();
    // Some go away while the file is read for them, or while they wait for their turn.
    for follower in &mut followers[..4] {
        // The disk may be faster than this.
        let _ = follower.poll_frames(&mut Context::from_waker(Waker::noop()));
    }
    followers.drain(..4);
    for follower in &mut followers {
        let mut seqs = Vec::new();
        while seqs.last() != Some(&EVENTS) {
            let bytes = std::future::poll_fn(|context| follower.poll_frames(context)).await.unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
            seqs.extend(ids.map(|id| id.parse::<Cursor>().unwrap().seq.0));
        }
        assert_eq!(seqs, (1..=EVENTS).collect::<Vec<_>>());
        assert!(follower.poll_frames(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(hub.followers(), 2);
}

#[test]
fn ids_that_cannot_be_resumed_say_why() {
    let fixture = Fixture::new(2000);
    fixture.publish("/p", 50);
    let word = |id| *fixture.follow(Some(id)).word();
    let gap = |reason, missed| Word::Gap { reason, missed };
    assert_eq!(word("0000000000000001-2"), gap(Reason::Expired, Some(48)));
    assert_eq!(word("0000000000000002-2"), gap(Reason::Restarted, None));
    assert_eq!(word("0000000000000001-51"), gap(Reason::Unknown, None));
    assert_eq!(word("evt_whatever"), gap(Reason::Unknown, None));
    assert_eq!(word("0000000000000001-50"), Word::Resumed);
    assert_eq!(gap(Reason::Expired, Some(48)).properties(), r#"{"gap":{"reason":"expired","missed":48}}"#);
}

#[test]
fn after_a_gap_come_the_pending_asks_of_the_scope_once_they_are_known() {
    let fixture = Fixture::new(1 << 20);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let text = |follower: &mut Follower| {
        let mut text = String::new();
        while let Poll::Ready(Ok(bytes)) = follower.poll_frames(&mut Context::from_waker(&waker)) {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        text
    };
    let mut early = fixture.follow(Some("0000000000000009-1"));
    assert_eq!(text(&mut early).matches("data: ").count(), 1);
    let publish = |directory: &str| {
        let events = vec![event("/p", "permission.asked"), event("/other", "question.asked")];
        let directories = [directory.into()].into();
        fixture.hub.publish(vec![], Some(Pending { events, directories, is_complete: false }));
    };
    publish("/other");
    assert_eq!(text(&mut early), "");
    publish("/p");
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
    let late = text(&mut fixture.follow(Some("0000000000000009-1")));
    for text in [text(&mut early), late] {
        assert_eq!((text.matches("permission.asked").count(), text.matches("question.asked").count()), (1, 0));
    }
    // Told once.
    publish("/p");
    assert_eq!((text(&mut early).as_str(), count.0.load(Ordering::SeqCst)), ("", 2));
}

#[test]
fn a_client_that_never_reads_keeps_no_records_and_one_place() {
    let fixture = Fixture::new(2000);
    let waker = Waker::noop();
    let mut slow = fixture.follow(None);
    assert!(drain(&mut slow, waker).1.is_pending());
    for _ in 0..100 {
        assert!(slow.poll_frames(&mut Context::from_waker(waker)).is_pending());
    }
    fixture.publish("/p", MANY);
    assert_eq!(drain(&mut slow, waker).1, Poll::Ready(Err(Expired)));
    assert_eq!(fixture.hub.followers(), 1);
    drop(slow);
    assert_eq!(fixture.hub.followers(), 0);
    assert!(fixture.hub.tail().audiences.is_empty());
}

/// What is ready for each of two followers, at the same place and then at the tail.
fn both(first: &mut Follower, second: &mut Follower) -> [Bytes; 2] {
    let next = |follower: &mut Follower| {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(bytes)) = follower.poll_frames(&mut context) else { panic!("nothing is ready") };
        assert!(follower.poll_frames(&mut context).is_pending());
        bytes
    };
    [next(first), next(second)]
}

#[test]
fn clients_that_asked_for_the_same_share_the_bytes() {
    let fixture = Fixture::new(1 << 20);
    let waker = Waker::noop();
    let mut followers = [fixture.follow(None), fixture.follow(None), fixture.follow(None)];
    for follower in &mut followers {
        assert_eq!(drain(follower, waker).0, [0]);
    }
    let [first, second, late] = &mut followers;
    fixture.publish("/p", 3);
    let [one, other] = both(first, second);
    assert_eq!(one.as_ptr(), other.as_ptr());
    // A batch that others have missed the end of is no use to who comes later.
    fixture.publish("/p", 1);
    let [one, other] = both(first, second);
    assert_eq!(one.as_ptr(), other.as_ptr(), "one frame, as it was numbered");
    assert_eq!(drain(late, waker), (vec![1, 2, 3, 4], Poll::Pending));
    assert_eq!(fixture.hub.tail().audiences.len(), 1);
    let form = Form { ids: false, ..IDS };
    let other = fixture.hub.follow(first.standing.audience.interest.scope.clone(), None, form);
    assert_eq!(fixture.hub.tail().audiences.len(), 2);
    drop(other);
    assert_eq!(fixture.hub.tail().audiences.len(), 1);
}

#[test]
fn who_has_nothing_to_read_sleeps_and_stands_at_the_tail_all_the_same() {
    let fixture = Fixture::new(1 << 20);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut follower = fixture.follow(None);
    assert_eq!(drain(&mut follower, &waker), (vec![0], Poll::Pending));
    fixture.publish("/other", 5);
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    assert_eq!(follower.standing().seq(), Seq(5));
    let heartbeat = String::from_utf8(follower.heartbeat().to_vec()).unwrap();
    assert!(heartbeat.contains("id: 0000000000000001-5\n"), "{heartbeat}");
    fixture.publish("/p", 1);
    fixture.publish("/other", 1);
    assert_eq!((count.0.load(Ordering::SeqCst), follower.standing().seq()), (1, Seq(5)));
    assert!(follower.heartbeat().windows(4).any(|part| part == b"1-5\n"));
    assert_eq!(drain(&mut follower, &waker), (vec![6], Poll::Pending));
    assert_eq!(follower.standing().seq(), Seq(7));
}

#[test]
fn who_slept_for_longer_than_the_journal_reaches_has_missed_nothing() {
    let fixture = Fixture::new(20_000);
    let waker = Waker::noop();
    let mut follower = fixture.follow(None);
    assert_eq!(drain(&mut follower, waker), (vec![0], Poll::Pending));
    fixture.publish("/other", MANY);
    fixture.publish("/p", 1);
    fixture.publish("/other", 1);
    assert!(fixture.journal.fill().oldest > Seq(2));
    assert_eq!(drain(&mut follower, waker), (vec![MANY as u64 + 1], Poll::Pending));
}
