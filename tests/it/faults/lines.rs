//! Lines of the bus log that come late, early, twice, torn, forged or not at all, beside a healthy stream.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::faults::relay::{Dice, Relay, sum};
use crate::standin::capture::{bus_line, frames, log_line};
use crate::standin::{SOON, StandIn};
use crate::support::bounded;
use crate::support::sse::Stream;

/// The pace of the frames.
const PACE: Duration = Duration::from_millis(8);

/// Waits for every frame, and checks that none came twice or changed.
async fn complete(client: &Stream, run: &[String]) {
    let mut seen = 0;
    client
        .try_wait_from(
            0,
            |_| {
                seen += 1;
                seen > run.len()
            },
            SOON,
        )
        .await;
    let frames = client.frames();
    let got: Vec<String> = frames
        .iter()
        .filter(|frame| !frame.is_greeting_or_heartbeat())
        .map(|frame| frame.data.clone().unwrap())
        .collect();
    assert_eq!(got.len(), run.len());
    assert!(got == run, "the frames are others, or in another order");
}

/// Plays a run of which `log` writes the lines; gives the status at the end.
async fn play(log: impl AsyncFnOnce(&StandIn, &[String]), frames_late: Duration) -> Value {
    let standin = StandIn::start("1.14.48").await;
    let relay = Relay::over(&standin, &[("grace", "600ms")]).await;
    let client = relay.open("/global/event").await;
    let run = frames("1.14.48", "f_todo");
    let stream = async {
        sleep(frames_late).await;
        for data in &run {
            standin.fold(data);
            assert!(standin.send(data));
            sleep(PACE).await;
        }
    };
    tokio::join!(stream, log(&standin, &run));
    complete(&client, &run).await;
    let status = relay.settled(&standin).await;
    complete(&client, &run).await;
    assert_eq!(status["witnesses"]["state"]["events"], 0, "made from the state: {:#}", status["ledger"]);
    assert_eq!(sum(&status, "recovered"), 0);
    status
}

fn lines(run: &[String]) -> Vec<String> {
    run.iter().map(|data| log_line(data).unwrap_or_default()).collect()
}

#[tokio::test]
async fn late_lines_change_nothing() {
    bounded(async {
        let mut dice = Dice::new(41);
        play(
            async |standin, run| {
                for line in lines(run) {
                    sleep(PACE).await;
                    if dice.below(10) == 0 {
                        sleep(Duration::from_millis(dice.below(250) as u64)).await;
                    }
                    standin.log_bytes(line.as_bytes());
                }
            },
            Duration::ZERO,
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn early_lines_change_nothing() {
    bounded(async {
        play(
            async |standin, run| {
                for line in lines(run) {
                    standin.log_bytes(line.as_bytes());
                    sleep(PACE).await;
                }
            },
            Duration::from_millis(250),
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_burst_of_lines_before_and_missing_lines_change_nothing() {
    bounded(async {
        let mut dice = Dice::new(43);
        play(async |standin, run| standin.log_bytes(lines(run).concat().as_bytes()), Duration::from_millis(20)).await;
        play(
            async |standin, run| {
                for line in lines(run) {
                    if dice.below(3) > 0 {
                        standin.log_bytes(line.as_bytes());
                    }
                    sleep(PACE).await;
                }
            },
            Duration::from_millis(20),
        )
        .await;
        play(async |_, _| (), Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn doubled_lines_make_no_event() {
    bounded(async {
        let mut dice = Dice::new(44);
        let status = play(
            async |standin, run| {
                for line in lines(run) {
                    standin.log_bytes(line.as_bytes());
                    if dice.below(4) == 0 {
                        standin.log_bytes(line.as_bytes());
                    }
                    sleep(PACE).await;
                }
            },
            Duration::from_millis(20),
        )
        .await;
        assert!(sum(&status, "published") > sum(&status, "delivered"));
    })
    .await;
}

#[tokio::test]
async fn torn_lines_make_no_event() {
    bounded(async {
        let mut dice = Dice::new(45);
        play(
            async |standin, run| {
                for line in lines(run).into_iter().filter(|line| !line.is_empty()) {
                    let (first, second) = line.split_at(1 + dice.below(line.len() - 1));
                    standin.log_bytes(first.as_bytes());
                    sleep(PACE).await;
                    match dice.below(3) {
                        // Written in two pieces, broken by another line, or never finished.
                        0 => standin.log_bytes(second.as_bytes()),
                        1 => standin.log_bytes(format!("\nWARN  something\n{second}").as_bytes()),
                        _ => standin.log_bytes(b"\n"),
                    }
                }
            },
            Duration::from_millis(20),
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn forged_lines_make_no_event() {
    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let relay = Relay::over(&standin, &[("grace", "500ms")]).await;
        let client = relay.open("/global/event").await;
        let run = frames("1.14.48", "e_permission");
        for data in &run {
            assert!(standin.publish(data));
        }
        complete(&client, &run).await;
        let kinds = [
            "session.created",
            "session.updated",
            "session.deleted",
            "session.idle",
            "session.status",
            "message.updated",
            "message.part.updated",
            "message.part.delta",
            "message.removed",
            "permission.asked",
            "question.asked",
            "todo.updated",
            "session.diff",
            "pty.created",
            "vcs.branch.updated",
            "lsp.updated",
            "file.edited",
            "tui.prompt.append",
            "no.such.type",
            "session.error",
        ];
        let forged: String = kinds.map(bus_line).concat();
        // As a session's title with a newline writes it, and in the middle of other lines.
        standin.log_bytes(
            format!("INFO  2026-11-23T00:39:15 +3ms service=session id=ses_x title=a\n{forged}created\n").as_bytes(),
        );
        standin.log_bytes(format!("WARN  stderr=several\n  lines\n{forged}INFO  2026-11-23T00:39").as_bytes());
        standin.log_bytes(b"\nINFO  2026-11-23T00:39:15 +3ms service=session id=ses_forged directory=/etc created\n");
        let status = relay.settled(&standin).await;
        complete(&client, &run).await;
        assert_eq!(status["witnesses"]["state"]["events"], 0, "{:#}", status["ledger"]);
        assert_eq!(status["upstream"]["directories"], serde_json::json!(["/srv/demo/project"]));
        assert_eq!(standin.requests("/session/ses_forged"), 0);
    })
    .await;
}
