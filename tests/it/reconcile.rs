//! Whatever the timing and the faults, a client that folds events holds what opencode holds (DESIGN §2, promises 1 to
//! 3 and 5).
//!
//! A small opencode without I/O plays scripts in virtual time; `model` is its state, `script` what happens in it, `run`
//! the loop around `reconcile` with its witnesses and their faults.

mod model;
mod run;
mod script;

use std::collections::BTreeSet;

use opencode_relay::reconcile::Witness;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use run::{Outcome, Settings, run};
use script::{Move, Script, moves, write};

/// Properties print the smallest script that breaks them; `RELAY_TRACE=1` adds everything that happened in it.
fn fail(outcome: &Outcome, why: &str) -> TestCaseError {
    let trace = if std::env::var_os("RELAY_TRACE").is_some() { outcome.trace.as_str() } else { "" };
    TestCaseError::fail(format!("{why}\n{trace}"))
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::default() }
}

fn nothing_wrong(outcome: &Outcome) -> Result<(), TestCaseError> {
    if outcome.wrong.is_empty() { Ok(()) } else { Err(fail(outcome, &outcome.wrong.join("\n"))) }
}

fn converged(outcome: &Outcome) -> Result<(), TestCaseError> {
    outcome.difference().map_or(Ok(()), |difference| Err(fail(outcome, &difference)))
}

/// One end for each turn; for a session that was deleted, at most.
fn one_end_per_turn(script: &Script, outcome: &Outcome) -> Result<(), TestCaseError> {
    let sessions: BTreeSet<&String> =
        script.finished.iter().map(|turn| &turn.session).chain(outcome.idles.keys()).collect();
    for session in sessions {
        let turns = script.finished.iter().filter(|turn| turn.session == *session).count() as u64;
        let told = outcome.idles.get(session).copied().unwrap_or(0);
        let fits = if script.deleted.contains(session) { told <= turns } else { told == turns };
        if !fits {
            return Err(fail(outcome, &format!("{session}: {told} ends of {turns} turns")));
        }
    }
    Ok(())
}

fn balanced(outcome: &Outcome) -> Result<(), TestCaseError> {
    for (kind, count) in &outcome.counts {
        let given = outcome.lines.get(kind).copied().unwrap_or(0);
        if count.published != given {
            return Err(fail(outcome, &format!("{kind}: {given} lines, {count:?}")));
        }
        if count.pending != 0 {
            return Err(fail(outcome, &format!("{kind}: still pending {count:?}")));
        }
    }
    Ok(())
}

fn played(moves: &[Move], settings: &Settings) -> (Script, Outcome) {
    let script = write(moves, settings.seed);
    let outcome = run(&script, settings);
    (script, outcome)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_log_and_the_state_alone_tell_everything(moves in moves(), seed in any::<u64>()) {
        let (script, outcome) = played(&moves, &Settings::new(Witness::Log, seed));
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        one_end_per_turn(&script, &outcome)?;
        balanced(&outcome)?;
        prop_assert!(outcome.most_in_flight <= 4);
    }

    #[test]
    fn nothing_is_added_to_a_healthy_stream(moves in moves(), seed in any::<u64>(), frame_delay in 0..260u64) {
        let settings = Settings { line_delay: 8, frame_delay, ..Settings::new(Witness::Auto, seed) };
        let (_, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        if let Some((at, event)) = outcome.emitted.first() {
            return Err(fail(&outcome, &format!("{at}: made {event:?}")));
        }
        converged(&outcome)?;
        balanced(&outcome)?;
        for (kind, count) in &outcome.counts {
            prop_assert_eq!(count.published, count.delivered, "{}", kind);
        }
    }
}
