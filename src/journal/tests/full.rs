//! A file that cannot grow, and comes back or not.

use super::*;

fn limit(journal: &Journal, pages: u32) {
    journal.shared.with_store(|store| store.disk().limit_growth(pages)).unwrap();
}

/// Appends until the file is full; the next event's number.
fn fill(journal: &Journal) -> u64 {
    limit(journal, 3);
    let mut next = journal.fill().newest.0;
    while journal.health().degraded.is_none() {
        journal.append(batch(next..next + 7), 1);
        next += 7;
        assert!(next < 10_000);
    }
    next
}

#[test]
fn what_was_in_memory_only_is_written_once_there_is_room() {
    let folder = temporary();
    let (journal, _) = open(folder.path());
    let first = journal.epoch();
    journal.append(batch(0..3), 1);
    let full = fill(&journal);
    assert_ne!(journal.epoch(), first);
    // Too early, and then still full: nothing changes.
    journal.shared.with_store(Store::retry_now);
    let notes = vec![("n", "during".to_owned())];
    let unsaved = journal.append(Batch { events: vec![event(full)], notes }, 1);
    assert!(journal.health().degraded.is_some());
    assert_eq!(seqs(&journal, 0).len() as u64, full + 1);
    limit(&journal, 10_000);
    journal.shared.with_store(Store::retry_now);
    let after = journal.append(batch(full + 1..full + 3), 1);
    assert_eq!((journal.health().degraded, after[0].epoch), (None, unsaved[0].epoch));
    let all = texts(&read(&journal, 0).unwrap());
    forget(&journal);
    assert_eq!(texts(&read(&journal, 0).unwrap()), all);
    drop(journal);
    let (journal, restored) = open(folder.path());
    assert_eq!(texts(&restored.recent), all);
    assert_eq!(restored.notes["n"], "during");
    assert_eq!(journal.epoch(), unsaved[0].epoch);
    assert_eq!(journal.locate(Cursor { epoch: first, seq: Seq(2) }), Ok(Seq(2)));
}

#[test]
fn a_hole_is_told_and_the_file_begins_anew_behind_it() {
    let folder = temporary();
    let (journal, _) =
        Journal::open(Journal::take(folder.path()).unwrap(), Options { bytes: SMALL, ..open_options() }).unwrap();
    let early = journal.append(batch(0..3), 1)[2].cursor();
    let full = fill(&journal);
    assert_eq!(journal.locate(early), Ok(early.seq));
    // More than memory takes.
    journal.append(batch(full..full + 1_000), 1);
    let (oldest, newest) = (journal.fill().oldest, journal.fill().newest);
    assert!(oldest > Seq(full + 1));
    assert_eq!(journal.locate(early), Err(Lost::Expired { missed: newest.0 - early.seq.0 }));
    assert!(journal.read(early.seq, 1).is_err());
    let kept = texts(&read(&journal, oldest.0 - 1).unwrap());
    journal.close();
    drop(journal);
    let (journal, restored) = open(folder.path());
    assert_eq!(texts(&restored.recent), kept);
    assert_eq!(journal.fill().oldest, oldest);
    assert!(journal.locate(early).is_err());
    assert_eq!(journal.append(batch(0..1), 1)[0].seq, newest.next());
}
