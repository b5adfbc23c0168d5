//! Figures, side by side on one real opencode. Not a test: run `scripts/measure`.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::model::ScriptedModel;
use crate::support::opencode::{Home, Opencode};
use crate::support::relay::Relay;
use crate::support::situations::{create, turn};
use crate::support::sse::Stream;

const TURN: &str = "WORDS=400 DELAY=10 count";
const ROUNDS: usize = 4;
const SETTLE: Duration = Duration::from_secs(2);

/// Who listens while the turn runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Listener {
    Nobody,
    /// One client at opencode's own `/global/event`.
    Direct,
    /// One client at `/event` of a relay with `--witness auto`.
    Auto,
    /// The same with `--witness log`.
    Log,
}

#[tokio::test]
#[ignore = "measures for minutes; run scripts/measure"]
async fn what_a_turn_costs_opencode() {
    let model = ScriptedModel::start().await.unwrap();
    let opencode = Home::new("1.14.48", &model).start().await;
    turn(&opencode.api(), &create(&opencode.api(), "warm up").await, TURN).await;
    let mut cpu: HashMap<Listener, Vec<Duration>> = HashMap::new();
    let mut reads: HashMap<Listener, Vec<u64>> = HashMap::new();
    for _ in 0..ROUNDS {
        for listener in [Listener::Nobody, Listener::Direct, Listener::Auto, Listener::Log] {
            let (spent, asked) = one_turn(&opencode, listener).await;
            cpu.entry(listener).or_default().push(spent);
            reads.entry(listener).or_default().push(asked);
        }
    }
    println!("| 400-delta turn on 1.14.48 | opencode's CPU, median of {ROUNDS} | reads of the state |");
    for listener in [Listener::Nobody, Listener::Direct, Listener::Auto, Listener::Log] {
        let spent = cpu.get_mut(&listener).unwrap();
        spent.sort();
        println!(
            "| {listener:?} | {} ms of {:?} | {:?} |",
            spent[spent.len() / 2].as_millis(),
            spent.iter().map(Duration::as_millis).collect::<Vec<_>>(),
            reads[&listener]
        );
    }
}

async fn one_turn(opencode: &Opencode, listener: Listener) -> (Duration, u64) {
    let relay = match listener {
        Listener::Auto => Some(Relay::beside(opencode, Relay::TEE, "auto", &[]).await),
        Listener::Log => Some(Relay::beside(opencode, Relay::TEE, "log", &[]).await),
        Listener::Nobody | Listener::Direct => None,
    };
    let _stream = match (&relay, listener) {
        (Some(relay), _) => Some(Stream::open(&relay.api(), "/event").await.unwrap()),
        (None, Listener::Direct) => Some(Stream::open(&opencode.api(), "/global/event").await.unwrap()),
        (None, _) => None,
    };
    let session = create(&opencode.api(), "measured").await;
    opencode.settle(SETTLE).await;
    let before = (opencode.cost().cpu, reads(relay.as_ref()).await);
    turn(&opencode.api(), &session, TURN).await;
    opencode.settle(SETTLE).await;
    (opencode.cost().cpu - before.0, reads(relay.as_ref()).await - before.1)
}

async fn reads(relay: Option<&Relay>) -> u64 {
    match relay {
        None => 0,
        Some(relay) => {
            let status: Value = relay.api().get("/_relay/status").await;
            status["witnesses"]["state"]["reads"].as_u64().unwrap()
        }
    }
}

#[tokio::test]
#[ignore = "measures for minutes; run scripts/measure"]
async fn how_much_later_events_come() {
    for version in ["1.14.48", "1.18.34"] {
        let start = Instant::now();
        let model = ScriptedModel::start().await.unwrap();
        let opencode = Home::new(version, &model).start().await;
        let log = if version == "1.14.48" { Relay::TEE } else { "none" };
        let relay = Relay::beside(&opencode, log, "auto", &[]).await;
        let direct = Stream::open(&opencode.api(), "/global/event").await.unwrap();
        let relayed = Stream::open(&relay.api(), "/event").await.unwrap();
        let idle = relay.cost().resident;
        for _ in 0..3 {
            turn(&relay.api(), &create(&relay.api(), "measured").await, TURN).await;
        }
        direct.settle(SETTLE, Duration::from_secs(30)).await;
        relayed.settle(SETTLE, Duration::from_secs(30)).await;
        let came: HashMap<String, _> = direct
            .frames()
            .iter()
            .filter(|frame| frame.kind() != "sync")
            .map(|frame| (id(frame.payload()), frame.at))
            .collect();
        let mut later: Vec<f64> = relayed
            .frames()
            .iter()
            .filter_map(|frame| Some((frame.at, *came.get(&id(frame.payload()))?)))
            .map(|(relayed, direct)| ((relayed - start).as_secs_f64() - (direct - start).as_secs_f64()) * 1000.0)
            .collect();
        later.sort_by(f64::total_cmp);
        let at = |share: f64| later[((later.len() - 1) as f64 * share) as usize];
        println!(
            "| {version} | {} events | later by p50 {:.2} ms, p99 {:.2} ms | relay {} KiB idle, {} KiB after |",
            later.len(),
            at(0.5),
            at(0.99),
            idle >> 10,
            relay.cost().resident >> 10,
        );
    }
}

fn id(payload: &str) -> String {
    let payload: Value = serde_json::from_str(payload).unwrap();
    payload["id"].as_str().unwrap_or_default().to_owned()
}
