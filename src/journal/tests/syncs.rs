//! What upkeep writes when.

use std::fs;

use super::super::upkeep::{Last, RARELY, tend};
use super::*;

#[test]
fn between_checkpoints_only_the_log_is_synced() {
    let folder = temporary();
    let (journal, _) = open(folder.path());
    // The journal's own would do the same a second later.
    drop(lock(&journal.upkeep).take());
    let file = || fs::read(folder.path().join("journal.sqlite3")).unwrap();
    let moves = |numbers, last: &mut Option<Last>| {
        let before = file();
        journal.append(batch(numbers), 1);
        tend(&journal.shared, last);
        file() != before
    };

    let mut last = None;
    assert!(moves(0..10, &mut last), "the first round makes a checkpoint");
    assert!(!moves(10..20, &mut last), "one more so soon");
    last.as_mut().unwrap().made -= RARELY;
    assert!(moves(20..30, &mut last), "none after its time");
    assert!(!moves(30..40, &mut last), "one more so soon");
    // With nothing to sync, what is left to save is saved by a checkpoint.
    fs::remove_file(folder.path().join("journal.sqlite3-wal")).unwrap();
    assert!(moves(40..50, &mut last), "nothing was saved");
    assert_eq!(journal.health().degraded, None);
}
