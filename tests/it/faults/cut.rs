//! The upstream stream breaks between any two frames, and inside any: what was published meanwhile never arrives as a
//! frame, and clients still end with what REST shows.

use std::ops::Range;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::faults::relay::{Dice, Relay};
use crate::standin::capture::{frame, frames, kind, payload};
use crate::standin::{DIRECTORY, SOON, StandIn};
use crate::support::bounded;
use crate::support::fold::Fold;
use crate::support::sse::Stream;

/// Waits until a client that folds the stream holds what REST shows, and gives its fold.
pub(super) async fn converged(client: &Stream, standin: &StandIn, what: &str) -> Fold {
    let deadline = Instant::now() + SOON;
    loop {
        let mut fold = Fold::default();
        fold.catch_up(client);
        let differences = fold.compare(&standin.api(), &[DIRECTORY]).await;
        if differences.is_empty() {
            return fold;
        }
        assert!(Instant::now() < deadline, "{what}: after {SOON:?} still {differences:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The same, once it has read of so many turns' ends: the state has nothing of those. If they do not come, that is for the caller
/// to say.
pub(super) async fn ended(client: &Stream, standin: &StandIn, least: usize, what: &str) -> Fold {
    let deadline = Instant::now() + SOON;
    loop {
        let fold = converged(client, standin, what).await;
        if fold.idles.values().sum::<usize>() >= least || Instant::now() > deadline {
            return fold;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// What a break is like.
#[derive(Clone, Debug)]
struct Break {
    scenario: &'static str,
    /// The frames that are published while there is no stream.
    lost: Range<usize>,
    /// So many bytes of the first of them still came.
    inside: Option<usize>,
    /// The pause between two frames after the break, and how late answers about the state are, both in milliseconds.
    pace: u64,
    late: u64,
}

/// Frames up to `lost.start` arrive, then the stream breaks — `inside` bytes into the next frame — and comes back
/// before `lost.end`.
async fn one(how: Break) -> Fold {
    let what = format!("{how:?}");
    let Break { scenario, lost, inside, pace, late } = how;
    let standin = StandIn::start("1.14.48").await;
    let relay = Relay::over(&standin, &[("grace", "500ms")]).await;
    let client = relay.open("/event").await;
    standin.answer_late(Duration::from_millis(late));
    let run = frames("1.14.48", scenario);
    for data in &run[..lost.start] {
        assert!(standin.publish(data), "{what}");
    }
    if let Some(bytes) = inside {
        let text = frame(&run[lost.start]);
        standin.send_bytes(&text.as_bytes()[..1 + bytes % (text.len() - 1)]);
    }
    standin.cut();
    for data in &run[lost.clone()] {
        standin.publish_undelivered(data);
    }
    standin.granted(2).await;
    for data in &run[lost.end..] {
        assert!(standin.publish(data), "{what}");
        sleep(Duration::from_millis(pace)).await;
    }
    let before = converged(&client, &standin, &what).await;
    relay.settled(&standin).await;
    relay.until("connected twice", |status| status["witnesses"]["stream"]["connects"] == 2).await;
    // Nothing that comes later spoils it.
    let idles = run.iter().filter(|data| kind(data) == "session.idle").count();
    let after = ended(&client, &standin, idles.min(1), &what).await;
    let got: usize = after.idles.values().sum();
    assert!(got >= idles.min(1), "{what}: {got} session.idle for {idles} published; before {:?}", before.idles);
    // Twice when the break took only the status before it; a client can tell neither from the other.
    assert!(got <= idles + 1, "{what}: {got} session.idle for {idles} published");
    // What the stream delivered came as it was, once and in order; what was made from the state has ids of its own.
    let delivered = [&run[..lost.start], &run[lost.end..]].concat();
    let delivered: Vec<&str> = delivered.iter().filter(|data| kind(data) != "sync").map(|data| payload(data)).collect();
    let frames = client.frames();
    let ids: Vec<&str> = delivered.iter().map(|payload| id(payload)).collect();
    let passed: Vec<&str> =
        frames.iter().map(|frame| frame.payload()).filter(|payload| ids.contains(&id(payload))).collect();
    assert!(passed == delivered, "{what}: {} of {} passed through", passed.len(), delivered.len());
    assert_eq!(client.end(), None, "{what}");
    assert_eq!(standin.most_open(), 1, "{what}");
    let greetings = after.types.get("server.connected").copied();
    assert_eq!(greetings, Some(1), "{what}");
    relay.end().await;
    after
}

/// The id of an event, which stands first.
fn id(payload: &str) -> &str {
    payload.split('"').nth(3).unwrap_or_default()
}

async fn all(breaks: impl IntoIterator<Item = Break>) {
    let mut runs = JoinSet::new();
    for how in breaks {
        runs.spawn(one(how));
        // More at a time only wait for each other.
        if runs.len() >= 16 {
            runs.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}

/// A short break and one up to the end of the turn, before every `step`th frame.
fn every_cut(scenario: &'static str, seed: u64, step: usize) -> Vec<Break> {
    let mut dice = Dice::new(seed);
    let count = frames("1.14.48", scenario).len();
    let mut breaks = Vec::new();
    for at in (0..=count).step_by(step) {
        for length in [1 + dice.below(4), count] {
            let lost = at..(at + length).min(count);
            let inside = (dice.below(2) == 0 && at < count).then(|| dice.below(2_000));
            breaks.push(Break { scenario, lost, inside, pace: 0, late: 0 });
        }
    }
    breaks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_turn_survives_a_cut_between_any_two_frames() {
    bounded(all(every_cut("a_text", 20_261_123, 1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_with_permissions_survives_cuts() {
    bounded(all(every_cut("e_permission", 7, 5))).await;
}

/// The turn goes on while the state is read, so that answers are old when they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_old_when_they_come_spoil_nothing() {
    bounded(async {
        let mut dice = Dice::new(11);
        let breaks = [every_cut("a_text", 12, 4), every_cut("f_todo", 13, 6)].concat();
        all(breaks.into_iter().map(|how| Break {
            pace: 2 + dice.below(30) as u64,
            late: 10 + dice.below(600) as u64,
            ..how
        }))
        .await;
    })
    .await;
}

/// The status said that the turn is over, then the stream broke before `session.idle` said it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_word_idle_alone_is_recovered() {
    bounded(async {
        let run = frames("1.14.48", "a_text");
        let idle = run.iter().position(|data| kind(data) == "session.idle").unwrap();
        for length in [1, 2, 20] {
            let fold = one(Break {
                scenario: "a_text",
                lost: idle..(idle + length).min(run.len()),
                inside: None,
                pace: 0,
                late: 0,
            })
            .await;
            assert_eq!(fold.idles.values().sum::<usize>(), 1, "{length} frames lost");
        }
    })
    .await;
}
