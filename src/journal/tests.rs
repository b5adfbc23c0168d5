//! The whole journal, in memory and on disk.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::event::{Origin, Place, View};

fn event(n: u64) -> Event {
    let place = Place { directory: Some("/p".into()), project: Some("x".into()) };
    let mut event =
        Event::made(Origin::State, "a.b", &place, Some("ses_1"), &format!("evt_{n}"), &format!(r#"{{"n":{n}}}"#));
    match n % 4 {
        0 => event.api = Some(event.payload()),
        1 => event.views = crate::event::Views::only_api(),
        2 => (event.session, event.directory) = (None, None),
        _ => {}
    }
    event
}

/// In memory where that can be had: what is tested here is not the disk, and some tests wait for it hundreds of times.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn batch(numbers: std::ops::Range<u64>) -> Batch {
    Batch { events: numbers.map(event).collect(), ..Batch::default() }
}

fn options(bytes: usize) -> Options {
    Options { bytes, age: Duration::from_secs(10) }
}

fn open(folder: &Path) -> (Journal, Restored) {
    Journal::open(Journal::take(folder).unwrap(), open_options()).unwrap()
}

/// An age long enough for the times that tests make up.
fn open_options() -> Options {
    Options { bytes: 1 << 30, age: Duration::from_secs(1 << 40) }
}

/// Everything after a position, wherever it is.
fn read(journal: &Journal, after: u64) -> Result<Vec<Arc<Record>>, Expired> {
    let mut records: Vec<Arc<Record>> = Vec::new();
    loop {
        let at = records.last().map_or(Seq(after), |record| record.seq);
        let more = match journal.read(at, 4096)? {
            Read::Here(more) if more.is_empty() => return Ok(records),
            Read::Here(more) => more,
            Read::InFile => read_file(journal, at, 4096)?,
        };
        records.extend(more);
    }
}

/// About `limit` bytes of data from the file, at least one record.
fn read_file(journal: &Journal, after: Seq, limit: usize) -> Result<Vec<Arc<Record>>, Expired> {
    let (mut records, mut left) = (Vec::new(), limit);
    journal.read_file(after, |stored| {
        records.push(Arc::new(stored.record()));
        left = left.saturating_sub(stored.global.len());
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(records)
}

fn seqs(journal: &Journal, after: u64) -> Vec<u64> {
    read(journal, after).unwrap().iter().map(|record| record.seq.0).collect()
}

/// A record as text, all of it.
fn text(record: &Record) -> String {
    let event = &record.event;
    let frames = [View::Instance, View::Global, View::Api].map(|view| record.frame(view).map(|frame| frame.bytes()));
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        record.cursor(),
        record.at,
        event.kind,
        event.directory,
        event.session,
        event.origin,
        event.views,
        event.global,
        event.payload,
        event.api,
        frames
    )
}

fn texts(records: &[Arc<Record>]) -> Vec<String> {
    records.iter().map(|record| text(record)).collect()
}

/// Makes memory small, so that everything else is read from the file.
fn forget(journal: &Journal) {
    journal.shared.write_memory().ring.trim(0, u64::MAX);
}

#[test]
fn reads_on_from_any_kept_position() {
    let journal = Journal::new(Epoch::new(7), options(1 << 20));
    let seqs = |after, limit| match journal.read(Seq(after), limit).unwrap() {
        Read::Here(records) => records.iter().map(|record| record.seq.0).collect::<Vec<_>>(),
        Read::InFile => panic!("there is no file"),
    };
    assert_eq!(seqs(0, 100), [0; 0]);
    journal.append(batch(0..5), 1);
    assert_eq!(seqs(0, usize::MAX), [1, 2, 3, 4, 5]);
    assert_eq!(seqs(3, usize::MAX), [4, 5]);
    assert_eq!(seqs(3, 1), [4]);
    assert_eq!(seqs(5, 1), [0; 0]);
    assert_eq!(seqs(99, 1), [0; 0]);
}

#[test]
fn memory_drops_by_size_and_by_age_and_says_so() {
    let one = Record::new(Epoch::new(7), Seq(1), 1, event(3)).size();
    let small = Journal::new(Epoch::new(7), options(3 * one));
    small.append(batch(3..4), 1);
    small.append(Batch { events: (0..4).map(|_| event(3)).collect(), ..Batch::default() }, 1);
    assert_eq!(small.fill().oldest, Seq(3));
    assert_eq!(small.read(Seq(1), 1).unwrap_err(), Expired { after: Seq(1), oldest: Seq(3) });
    assert_eq!(self::seqs(&small, 2), [3, 4, 5]);
    small.append(batch(6..7), 1 + 10_001);
    assert_eq!((small.fill().events, small.fill().oldest, small.fill().newest), (1, Seq(6), Seq(6)));
    small.append(batch(0..0), 1 + 20_002);
    assert_eq!((small.fill().events, small.fill().bytes, small.fill().oldest), (0, 0, Seq(7)));
    assert!(small.read(Seq(6), 1).is_ok() && small.read(Seq(5), 1).is_err());
}

#[test]
fn a_kill_and_a_stop_lose_nothing_and_change_nothing() {
    let folder = temporary();
    let (journal, restored) = open(folder.path());
    assert!(restored.notes.is_empty() && restored.recent.is_empty());
    let epoch = journal.epoch();
    let mut all = journal.append(batch(0..50), 5);
    let notes = vec![("position", "12".to_owned()), ("shadow", "{}".to_owned())];
    all.extend(journal.append(Batch { events: vec![event(50)], notes }, 6));
    journal.append(Batch { events: vec![], notes: vec![("position", "13".to_owned())] }, 6);
    // Dropped without being closed, it leaves what a kill leaves.
    drop(journal);
    for close in [false, true, false, true] {
        let (journal, restored) = open(folder.path());
        assert_eq!(journal.epoch(), epoch);
        assert_eq!(restored.notes["position"], "13");
        assert_eq!(restored.notes["shadow"], "{}");
        assert_eq!(texts(&restored.recent), texts(&all));
        assert_eq!(texts(&read(&journal, 0).unwrap()), texts(&all));
        forget(&journal);
        assert_eq!(texts(&read(&journal, 0).unwrap()), texts(&all));
        assert_eq!(texts(&read(&journal, 33).unwrap()), texts(&all[33..]));
        assert_eq!(journal.locate(all[20].cursor()), Ok(Seq(21)));
        all.extend(journal.append(batch(70..72), 7));
        if close {
            journal.close();
        }
    }
}

/// What the limits are in a random run, as [`Options`].
const SMALL: usize = 60_000;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Note(u64),
    Close,
    Kill,
    Forget,
    Tend,
    Older,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..40_u64).prop_map(Step::Append),
        2 => any::<u64>().prop_map(Step::Note),
        1 => Just(Step::Close),
        2 => Just(Step::Kill),
        1 => Just(Step::Forget),
        1 => Just(Step::Tend),
        1 => Just(Step::Older),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is done in whatever order: a journal on disk is a list whose beginning is dropped, and nothing else.
    #[test]
    fn a_journal_is_a_list(steps in steps()) {
        let folder = temporary();
        let open = || Journal::open(Journal::take(folder.path()).unwrap(), options(SMALL)).unwrap();
        let (mut journal, _) = open();
        let epoch = journal.epoch();
        let mut model: VecDeque<String> = VecDeque::new();
        let (mut newest, mut note, mut now) = (0, None, 1_000_000_u64);
        for step in steps {
            match step {
                Step::Append(count) => {
                    let records = journal.append(batch(newest..newest + count), now);
                    newest += count;
                    model.extend(texts(&records));
                }
                Step::Note(number) => {
                    journal.append(Batch { events: vec![], notes: vec![("n", number.to_string())] }, now);
                    note = Some(number.to_string());
                }
                Step::Close | Step::Kill => {
                    if matches!(step, Step::Close) {
                        journal.close();
                    }
                    drop(journal);
                    let (again, restored) = open();
                    journal = again;
                    prop_assert_eq!(restored.notes.get("n"), note.as_ref());
                    let recent = texts(&restored.recent);
                    prop_assert!(recent.len() <= model.len());
                    prop_assert!(recent.iter().rev().zip(model.iter().rev()).all(|(a, b)| a == b));
                }
                Step::Forget => forget(&journal),
                Step::Tend => upkeep::tend(&journal.shared, &mut None),
                Step::Older => now += 4_000,
            }
            let fill = journal.fill();
            prop_assert_eq!((fill.newest, journal.epoch()), (Seq(newest), epoch));
            prop_assert_eq!(journal.health().degraded, None);
            let kept = usize::try_from(fill.events).unwrap();
            prop_assert!(kept <= model.len(), "{} of {}", kept, model.len());
            let expected: Vec<String> = model.iter().skip(model.len() - kept).cloned().collect();
            prop_assert_eq!(texts(&read(&journal, fill.oldest.0 - 1).unwrap()), expected);
            prop_assert!(read(&journal, newest).unwrap().is_empty());
            if fill.oldest > Seq(1) {
                prop_assert!(read(&journal, fill.oldest.0 - 2).is_err());
            }
        }
        // Nothing is kept for ever: the limits hold a few appends later.
        for _ in 0..40 {
            journal.append(batch(newest..newest + 20), now);
            newest += 20;
        }
        let fill = journal.fill();
        prop_assert!(fill.bytes <= SMALL as u64, "{:?}", fill);
    }
}

mod damage;
mod epochs;
mod full;
mod syncs;
