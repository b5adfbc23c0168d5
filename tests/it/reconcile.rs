//! Whatever the timing and the faults, a client that folds events holds what opencode holds (DESIGN §2, promises 1 to
//! 3 and 5).
//!
//! A small opencode without I/O plays scripts in virtual time; `model` is its state, `script` what happens in it, `run`
//! the loop around `reconcile` with its witnesses and their faults.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

mod model;
mod run;
mod script;

use std::collections::BTreeSet;

use opencode_relay::event::Event;
use opencode_relay::reconcile::Witness;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use proptest::test_runner::TestCaseError;

use run::{Outcome, Settings, run};
use script::{Act, End, Happening, Move, Script, Turn, moves, write};

/// Properties print the smallest script that breaks them; `RELAY_TRACE=1` adds everything that happened in it.
fn fail(outcome: &Outcome, why: &str) -> TestCaseError {
    let trace = if std::env::var_os("RELAY_TRACE").is_some() { outcome.trace.as_str() } else { "" };
    TestCaseError::fail(format!("{why}\n{trace}"))
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    // The same cases in every run, so that a red run means a change; RELAY_SEED tries others.
    let seed = std::env::var("RELAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let rng_seed = RngSeed::Fixed(seed);
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::default() }
}

fn nothing_wrong(outcome: &Outcome) -> Result<(), TestCaseError> {
    if outcome.wrong.is_empty() { Ok(()) } else { Err(fail(outcome, &outcome.wrong.join("\n"))) }
}

fn converged(outcome: &Outcome) -> Result<(), TestCaseError> {
    outcome.difference().map_or(Ok(()), |difference| Err(fail(outcome, &difference)))
}

/// The same where every event may be missed: only the newest 16 messages of a session are read, and nothing in the answer
/// hints at a change of an older one.
fn converged_in_reach(outcome: &Outcome) -> Result<(), TestCaseError> {
    let is_in_reach = outcome.world.messages.values().all(|messages| messages.len() <= 16);
    converged(outcome).map_err(|error| if is_in_reach { error } else { TestCaseError::reject("an old message") })
}

/// One end for each turn; for a session of which something is gone, at most.
fn one_end_per_turn(script: &Script, outcome: &Outcome) -> Result<(), TestCaseError> {
    let sessions: BTreeSet<&String> =
        script.finished.iter().map(|turn| &turn.session).chain(outcome.idles.keys()).collect();
    for session in sessions {
        let turns = script.finished.iter().filter(|turn| turn.session == *session).count() as u64;
        let told = outcome.idles.get(session).copied().unwrap_or(0);
        let fits = if script.erased.contains(session) { told <= turns } else { told == turns };
        if !fits {
            return Err(fail(outcome, &format!("{session}: {told} ends of {turns} turns")));
        }
    }
    Ok(())
}

/// No end more than opencode published.
fn no_end_too_many(script: &Script, outcome: &Outcome) -> Result<(), TestCaseError> {
    for (session, told) in &outcome.idles {
        let is_end = |happening: &Happening| {
            matches!(happening, Happening::Publish { kind: "session.idle", properties, .. }
                if properties["sessionID"] == **session)
        };
        let published = script.happenings.iter().filter(|(_, happening)| is_end(happening)).count() as u64;
        if *told > published {
            return Err(fail(outcome, &format!("{session}: {told} ends of {published} published")));
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
        let told = outcome.told.get(kind).copied().unwrap_or_default();
        if told != [count.delivered, count.recovered] {
            return Err(fail(outcome, &format!("{kind}: told {told:?}, {count:?}")));
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

    /// As on a busy machine, or through systemd's journal: the state shows what is announced only later. Lines name no sessions, so
    /// turns that follow each other faster than their lines come can be told as one.
    #[test]
    fn turns_end_though_their_lines_come_late(moves in moves(), seed in any::<u64>(), line_delay in 5..2_000u64) {
        let settings = Settings { line_delay, ..Settings::new(Witness::Log, seed) };
        let (script, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        every_turn_ends(&script, &outcome)?;
        no_end_too_many(&script, &outcome)?;
        balanced(&outcome)?;
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

    #[test]
    fn a_broken_stream_leaves_no_trace(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        witness in prop_oneof![Just(Witness::Auto), Just(Witness::Stream)],
        cuts in prop::collection::vec((0..4000u64, 1..4000u64), 1..3),
        notice_cut in prop_oneof![Just(0u64), 0..400u64],
        line_delay in prop_oneof![Just(5u64), 5..2_000u64],
    ) {
        let mut at = 0;
        let mut times = vec![];
        for (until, length) in cuts {
            times.push((at + until + 2, at + until + length + notice_cut + 3));
            at += until + length + notice_cut + 3;
        }
        let settings = Settings { cuts: times, notice_cut, line_delay, quiet: 25_000, ..Settings::new(witness, seed) };
        let (script, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        every_turn_ends(&script, &outcome)?;
        // A break that comes while the last is being mended can make a turn of what is left of it.
        if settings.cuts.windows(2).all(|cuts| cuts[0].1 + 2_000 < cuts[1].0) {
            no_end_too_many(&script, &outcome)?;
        }
        if witness == Witness::Auto {
            balanced(&outcome)?;
        }
    }

    #[test]
    fn a_killed_relay_goes_on_where_it_was(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        witness in prop_oneof![Just(Witness::Auto), Just(Witness::Log), Just(Witness::Stream)],
        kills in prop::collection::vec((0..2500u64, 1..3000u64), 1..4),
        line_delay in prop_oneof![Just(5u64), 5..2_000u64],
    ) {
        let mut at = 0;
        let mut times = vec![];
        for (until, length) in kills {
            times.push((at + until + 2, at + until + length + 3));
            at += until + length + 3;
        }
        let settings = Settings { kills: times, line_delay, quiet: 25_000, ..Settings::new(witness, seed) };
        let (script, outcome) = played(&moves, &settings);
        no_end_too_many(&script, &outcome)?;
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        every_turn_ends(&script, &outcome)?;
        if witness != Witness::Stream {
            balanced(&outcome)?;
        }
    }

    #[test]
    fn turns_end_when_opencode_dies(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        witness in prop_oneof![Just(Witness::Auto), Just(Witness::Log), Just(Witness::Stream)],
        death in 100..2500u64,
        away in 1..4000u64,
        kill in prop::option::of((0..4000u64, 1..3000u64)),
        line_delay in prop_oneof![Just(5u64), 5..2_000u64],
    ) {
        let kills = kill.into_iter().map(|(at, length)| (at, at + length)).collect();
        let death = Some((death, death + away));
        let settings = Settings { death, kills, line_delay, quiet: 25_000, ..Settings::new(witness, seed) };
        let (_, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        if witness != Witness::Stream {
            balanced(&outcome)?;
        }
    }

    #[test]
    fn opencodes_own_record_tells_every_durable_event_once(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        kills in prop::collection::vec((0..2500u64, 1..3000u64), 0..3),
        cut in prop::option::of((2..4000u64, 3..3000u64)),
    ) {
        let mut at = 2000;
        let mut times = vec![];
        for (until, length) in kills {
            times.push((at + until + 2, at + until + length + 3));
            at += until + length + 3;
        }
        // Two turns first, so that opencode is known to count its events.
        let turns = [0, 2].map(|slot| Move { slot, pause: 0, act: Act::Turn(plain(2, 20)) });
        let erases = |act: &Act| matches!(act, Act::Delete | Act::Revert);
        let moves: Vec<Move> = turns.into_iter().chain(moves.into_iter().filter(|one| !erases(&one.act))).collect();
        let cuts = cut.into_iter().map(|(from, length)| (2000 + from, 2000 + from + length)).collect();
        let settings = Settings { kills: times, cuts, has_history: true, ..Settings::new(Witness::Stream, seed) };
        let (_, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        if !outcome.missing.is_empty() {
            return Err(fail(&outcome, &format!("never told: {:?}", outcome.missing)));
        }
    }

    #[test]
    fn what_changes_without_an_event_is_told_once(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        has_history in any::<bool>(),
        cut in prop::option::of((2..4000u64, 3..3000u64)),
    ) {
        let turns = [0, 2].map(|slot| Move { slot, pause: 0, act: Act::Turn(plain(2, 20)) });
        let moves: Vec<Move> = turns.into_iter().chain(moves).collect();
        let cuts = cut.into_iter().map(|(from, length)| (from, from + length)).collect();
        let settings =
            Settings { cuts, has_history, drifts: true, quiet: 40_000, ..Settings::new(Witness::Stream, seed) };
        let (script, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        // Nothing is asked for over and over because no event tells of it.
        let most = 300 + 20 * (script.over + 40_000) / 1000;
        prop_assert!(outcome.reads < most, "{} reads of at most {most}: {:?}", outcome.reads, outcome.asked);
    }

    #[test]
    fn what_another_process_does_is_told(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        witness in prop_oneof![Just(Witness::Auto), Just(Witness::Log), Just(Witness::Stream)],
    ) {
        let settings = Settings { foreign, quiet: 40_000, ..Settings::new(witness, seed) };
        let (_, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        if witness != Witness::Log {
            // Whatever else it looked at, it made nothing of what the stream told.
            let ours = |event: &Event| event.session.as_deref().is_some_and(|session| !foreign(session));
            if let Some((at, event)) = outcome.emitted.iter().find(|(_, event)| ours(event)) {
                return Err(fail(&outcome, &format!("{at}: made {event:?}")));
            }
            prop_assert!(outcome.emitted.iter().all(|(_, event)| &*event.kind != "session.idle"));
        }
    }

    #[test]
    fn a_mute_opencode_is_followed_by_reading(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        witness in prop_oneof![Just(Witness::Auto), Just(Witness::Log), Just(Witness::Stream)],
        cut in prop::option::of((2..3000u64, 3..30_000u64)),
    ) {
        let cuts = cut.into_iter().map(|(from, length)| (from, from + length)).collect();
        let settings = Settings { is_mute: true, cuts, quiet: 60_000, ..Settings::new(witness, seed) };
        let (_, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged_in_reach(&outcome)?;
    }

    #[test]
    fn a_lost_frame_is_made_up_for(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        dropped in prop::collection::btree_set(0..120usize, 1..4),
    ) {
        // A line that no event answers is missed only when the stream showed life after it.
        let settings = Settings { dropped, quiet: 25_000, ..Settings::new(Witness::Auto, seed) };
        let (script, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged_in_reach(&outcome)?;
        every_turn_ends(&script, &outcome)?;
        balanced(&outcome)?;
    }

    #[test]
    fn a_bad_log_makes_no_bad_events(
        moves in moves(),
        seed in any::<u64>(),
        doubled in prop::collection::btree_set(0..120usize, 0..6),
        shifted in prop::collection::btree_map(0..120usize, -100..3000i64, 0..8),
        forged in prop::collection::vec((2..6000u64, prop::sample::select(KINDS)), 0..8),
    ) {
        let settings = Settings { doubled, shifted, forged, ..Settings::new(Witness::Log, seed) };
        let (_, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        balanced(&outcome)?;
    }

    #[test]
    fn lost_lines_delay_until_the_next_of_their_session_and_kind(
        moves in moves(),
        seed in any::<u64>(),
        lost in prop::collection::btree_set(0..120usize, 1..20),
    ) {
        let stays = |act: &Act| matches!(act, Act::Turn(_) | Act::Rename);
        let mut moves: Vec<Move> = moves.into_iter().filter(|one| stays(&one.act)).collect();
        let before = published(&write(&moves, seed));
        for slot in 0..4 {
            let turn = Turn { permission: true, question: true, todo: true, diff: true, tools: 1, ..plain(4, 20) };
            moves.push(Move { slot, pause: 12_000, act: Act::Turn(turn) });
        }
        let lost = lost.into_iter().filter(|line| *line < before).collect();
        let (_, outcome) = played(&moves, &Settings { lost, ..Settings::new(Witness::Log, seed) });
        nothing_wrong(&outcome)?;
        converged(&outcome)?;
        balanced(&outcome)?;
    }

    #[test]
    fn forged_lines_alone_make_no_event(
        forged in prop::collection::vec((2..9000u64, prop::sample::select(KINDS)), 1..60),
        witness in prop_oneof![Just(Witness::Auto), Just(Witness::Log)],
        seed in any::<u64>(),
    ) {
        let settings = Settings { forged, ..Settings::new(witness, seed) };
        let (_, outcome) = played(&[], &settings);
        nothing_wrong(&outcome)?;
        prop_assert!(outcome.emitted.is_empty(), "{:?}", outcome.emitted);
    }

    #[test]
    fn questions_that_nobody_answers_are_asked_again_later(
        moves in moves().prop_map(seen),
        seed in any::<u64>(),
        witness in prop_oneof![Just(Witness::Auto), Just(Witness::Log)],
        outages in prop::collection::vec((0..2000u64, 1..20_000u64), 1..3),
        cut in prop::option::of((2..3000u64, 3..3000u64)),
    ) {
        let mut at = 0;
        let mut times = vec![];
        for (until, length) in outages {
            times.push((at + until, at + until + length));
            at += until + length;
        }
        let cuts = cut.into_iter().map(|(from, length)| (from, from + length)).collect();
        let settings = Settings { outages: times, cuts, quiet: 25_000, ..Settings::new(witness, seed) };
        let (_, outcome) = played(&moves, &settings);
        nothing_wrong(&outcome)?;
        converged_in_reach(&outcome)?;
        balanced(&outcome)?;
        prop_assert!(outcome.most_in_flight <= 4);
        prop_assert!(outcome.reads < 3000, "{} reads", outcome.reads);
    }
}

/// Half of the sessions.
fn foreign(session: &str) -> bool {
    session.bytes().map(u64::from).sum::<u64>() % 2 == 0
}

const KINDS: &[&str] = &[
    "session.created",
    "session.updated",
    "session.deleted",
    "session.status",
    "session.idle",
    "session.error",
    "session.diff",
    "message.updated",
    "message.removed",
    "message.part.updated",
    "message.part.removed",
    "message.part.delta",
    "todo.updated",
    "permission.asked",
    "permission.replied",
    "question.asked",
    "question.replied",
    "question.rejected",
    "pty.created",
    "pty.updated",
    "pty.exited",
    "pty.deleted",
    "vcs.branch.updated",
    "lsp.updated",
    "file.edited",
    "tui.toast.show",
    "no.such.type",
];

/// Where the stream told part of a turn, opencode's own repetitions stand; but no turn stays without an end.
fn every_turn_ends(script: &Script, outcome: &Outcome) -> Result<(), TestCaseError> {
    for turn in &script.finished {
        if !script.erased.contains(&turn.session) && !outcome.idles.contains_key(&turn.session) {
            return Err(fail(outcome, &format!("{}: no end of any turn", turn.session)));
        }
    }
    Ok(())
}

/// Without deletions and reverts in the slot of the old session: when the word of that is lost before anybody read the list or
/// the messages, nobody knows that there ever was such a session or message.
fn seen(moves: Vec<Move>) -> Vec<Move> {
    moves.into_iter().filter(|one| one.slot != 3 || !matches!(one.act, Act::Delete | Act::Revert)).collect()
}

fn plain(deltas: u64, pace: u64) -> Turn {
    Turn {
        pace,
        deltas,
        tools: 0,
        permission: false,
        question: false,
        todo: false,
        diff: false,
        queued: false,
        trailing: true,
        end: End::Stop,
    }
}

fn published(script: &Script) -> usize {
    script.happenings.iter().filter(|(_, happening)| matches!(happening, Happening::Publish { .. })).count()
}

#[test]
fn a_long_answer_costs_few_reads() {
    for pace in [5, 40, 100] {
        let (script, outcome) =
            played(&[Move { slot: 0, pause: 0, act: Act::Turn(plain(400, pace)) }], &Settings::new(Witness::Log, 1));
        let seconds = script.over / 1000;
        println!("400 deltas in {seconds} s: {} reads {:?}", outcome.reads, outcome.asked);
        assert!(outcome.reads < 60 + 6 * seconds, "{} reads", outcome.reads);
    }
}

#[test]
fn a_burst_of_lines_is_a_handful_of_reads() {
    for witness in [Witness::Log, Witness::Auto] {
        let forged = (0..1000).map(|n| (2 + n / 100, KINDS[usize::try_from(n).unwrap() % KINDS.len()])).collect();
        let outcome = run(&write(&[], 0), &Settings { forged, ..Settings::new(witness, 0) });
        println!("1000 lines: {} reads {:?}", outcome.reads, outcome.asked);
        assert!(outcome.reads < 60, "{} reads", outcome.reads);
        assert!(outcome.most_in_flight <= 4);
    }
}

/// What the properties found once, with the numbers with which they found it.
#[test]
fn what_was_broken_once_stays_mended() {
    let turn = |slot, pause, turn| Move { slot, pause, act: Act::Turn(turn) };
    let queued = Turn { queued: true, ..plain(11, 0) };
    let cases: Vec<(&str, Vec<Move>, Settings)> = vec![
        (
            "a prompt that joined a turn is no second turn",
            vec![turn(0, 0, Turn { queued: true, ..plain(0, 0) })],
            Settings::new(Witness::Log, 0),
        ),
        (
            "two turns that were over before they could be read end twice",
            vec![
                turn(3, 0, Turn { tools: 1, trailing: false, end: End::Error, ..plain(0, 8) }),
                turn(3, 1, Turn { tools: 1, trailing: false, ..plain(5, 0) }),
            ],
            Settings::new(Witness::Log, 5_447_876_391_280_629_931),
        ),
        (
            "a lost session.idle is told though the status was",
            vec![turn(0, 0, queued)],
            Settings { dropped: BTreeSet::from([48]), quiet: 25_000, ..Settings::new(Witness::Auto, 0) },
        ),
        (
            "a deleted session does not come back with an older answer",
            vec![
                turn(1, 122, plain(7, 281)),
                turn(2, 61, plain(7, 11)),
                Move { slot: 1, pause: 59, act: Act::Delete },
                turn(3, 0, Turn { trailing: false, ..plain(6, 0) }),
            ],
            Settings {
                dropped: BTreeSet::from([20]),
                quiet: 25_000,
                ..Settings::new(Witness::Auto, 12_104_428_071_751_096_512)
            },
        ),
        (
            "a session that moved in a break is read though the stream told its object again",
            vec![
                Move { slot: 0, pause: 0, act: Act::Rename },
                turn(3, 0, Turn { trailing: false, ..plain(2, 353) }),
                turn(3, 9, plain(1, 170)),
                turn(0, 7, Turn { end: End::Abort, ..plain(7, 4) }),
                turn(1, 0, Turn { tools: 1, todo: true, ..plain(11, 0) }),
            ],
            Settings { cuts: vec![(120, 1614)], ..Settings::new(Witness::Stream, 16_617_111_023_317_608_734) },
        ),
        (
            "nothing is told of a session whose directory is not known yet",
            vec![turn(3, 0, Turn { diff: true, queued: true, ..plain(1, 0) })],
            Settings {
                cuts: vec![(100, 106)],
                notice_cut: 2,
                ..Settings::new(Witness::Auto, 12_051_416_383_429_522_002)
            },
        ),
        (
            "what was announced while questions failed is read afterwards",
            vec![turn(0, 659, Turn { tools: 1, todo: true, ..plain(1, 0) })],
            Settings {
                outages: vec![(0, 2276)],
                quiet: 25_000,
                ..Settings::new(Witness::Log, 2_958_664_767_211_927_047)
            },
        ),
        (
            "a turn that only its messages proved ends",
            vec![turn(0, 1098, Turn { tools: 1, todo: true, end: End::Abort, ..plain(0, 0) })],
            Settings {
                outages: vec![(0, 2885)],
                cuts: vec![(2, 2115)],
                quiet: 25_000,
                ..Settings::new(Witness::Auto, 6_697_052_600_045_385_104)
            },
        ),
    ];
    for (name, moves, settings) in cases {
        let (script, outcome) = played(&moves, &settings);
        let mended = nothing_wrong(&outcome)
            .and_then(|()| converged(&outcome))
            .and_then(|()| balanced(&outcome))
            .and_then(|()| every_turn_ends(&script, &outcome))
            .and_then(|()| if settings.witness == Witness::Log { one_end_per_turn(&script, &outcome) } else { Ok(()) });
        assert!(mended.is_ok(), "{name}: {mended:?}");
    }
}
