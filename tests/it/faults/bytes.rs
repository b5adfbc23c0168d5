//! The upstream stream breaks behind any byte: in the head, in a chunk's size, in a frame, between two of them.

use tokio::task::JoinSet;

use crate::faults::cut::converged;
use crate::faults::relay::{Dice, Relay};
use crate::standin::capture::{frame, frames, kind, payload};
use crate::standin::{SOON, StandIn, opening};
use crate::support::bounded;

/// Another one can be given in `BREAK_SEED`.
const SEED: u64 = 20_261_124;

/// The second connection breaks after so many bytes; the third is healthy. With a bus log, or without as from 1.17 on.
async fn one(after: usize, has_log: bool) {
    let what = format!("broken after {after} bytes, {}", if has_log { "with a log" } else { "without a log" });
    let standin = StandIn::start("1.14.48").await;
    let flags = [("grace", "500ms"), ("log", "none")];
    let relay = Relay::over(&standin, &flags[..2 - usize::from(has_log)]).await;
    let client = relay.open("/event").await;
    standin.break_after(after);
    standin.cut();
    if after >= opening() {
        standin.granted(2).await
    } else {
        standin.asked(2).await
    }
    let run = frames("1.14.48", "a_text");
    for data in &run {
        standin.publish(data);
    }
    standin.asked(3).await;
    client.wait_for(|frame| frame.kind() == "session.idle", SOON).await;
    let fold = converged(&client, &standin, &what).await;
    if has_log {
        relay.settled(&standin).await;
    }
    converged(&client, &standin, &what).await;
    assert_eq!(fold.idles.values().sum::<usize>(), 1, "{what}: {:?}", fold.idles);
    // What came whole was passed on as it was, once and in order, up to the break.
    let published: Vec<&str> = run.iter().filter(|data| kind(data) != "sync").map(|data| payload(data)).collect();
    let frames = client.frames();
    let passed: Vec<&str> =
        frames.iter().map(|frame| frame.payload()).filter(|payload| published.contains(payload)).collect();
    let whole = whole_frames(&run, after);
    let expected: Vec<&str> =
        run[..whole].iter().filter(|data| kind(data) != "sync").map(|data| payload(data)).collect();
    assert!(passed.starts_with(&expected), "{what}: {} of {} passed through", passed.len(), expected.len());
    assert_eq!((client.end(), standin.most_open()), (None, 1), "{what}");
    relay.end().await;
}

/// The bytes of a frame's chunk on the wire.
fn chunk(data: &str) -> usize {
    let length = frame(data).len();
    format!("{length:x}").len() + 2 + length + 2
}

/// How many frames are complete in so many bytes of a stream. The line end behind a chunk is not waited for.
fn whole_frames(run: &[String], bytes: usize) -> usize {
    let mut end = opening();
    let complete = run.iter().take_while(|data| {
        end += chunk(data);
        end <= bytes + 2
    });
    complete.count()
}

/// Every place a byte can have: in the head and the greeting, and in some frames before the size, in it, behind it, in
/// the text, before and behind the line end of the chunk. And some at random.
fn places() -> Vec<usize> {
    let seed = std::env::var("BREAK_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut dice = Dice::new(seed);
    let run = frames("1.14.48", "a_text");
    let mut places = vec![0, 1, 30, opening() / 2, opening() - 3, opening()];
    for _ in 0..5 {
        let at = dice.below(run.len());
        let start = opening() + run[..at].iter().map(|data| chunk(data)).sum::<usize>();
        let length = chunk(&run[at]);
        places.extend(
            [0, 1, 3, 6, 6 + dice.below(length - 10), length - 4, length - 3, length - 2, length - 1]
                .map(|offset| start + offset),
        );
    }
    let all = opening() + run.iter().map(|data| chunk(data)).sum::<usize>();
    places.extend((0..20).map(|_| dice.below(all)));
    places
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_behind_any_byte() {
    bounded(async {
        let mut runs = JoinSet::new();
        for (at, after) in places().into_iter().enumerate() {
            runs.spawn(one(after, at % 2 == 0));
            // More at a time only wait for each other.
            if runs.len() >= 16 {
                runs.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(done) = runs.join_next().await {
            done.unwrap();
        }
    })
    .await;
}
