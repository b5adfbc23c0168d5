//! When the numbers go on in a new epoch.

use std::fs;

use super::*;

fn set_meta(folder: &Path, key: &str, value: &str) {
    let connection = rusqlite::Connection::open(folder.join("journal.sqlite3")).unwrap();
    let crc = disk::checksum(&[key, value]);
    connection
        .execute("UPDATE meta SET value = ?2, crc = ?3 WHERE key = ?1", rusqlite::params![key, value, crc])
        .unwrap();
}

/// A journal with ten events, ended in order or not.
fn journal(is_clean: bool) -> (tempfile::TempDir, Cursor) {
    let folder = temporary();
    let (journal, _) = open(folder.path());
    let newest = journal.append(batch(0..10), 1).last().unwrap().cursor();
    if is_clean {
        journal.close();
    }
    (folder, newest)
}

/// Opens it and tells whether a new epoch began, in which the old ids are still good.
fn is_new(folder: &Path, newest: Cursor) -> bool {
    let (journal, _) = open(folder);
    assert_eq!(journal.locate(newest), Ok(newest.seq));
    let next = journal.append(batch(10..11), 2)[0].cursor();
    assert_eq!(next.seq, newest.seq.next());
    assert_eq!(journal.locate(Cursor { seq: next.seq, ..newest }).is_err(), next.epoch != newest.epoch);
    assert_eq!(seqs(&journal, newest.seq.0 - 1), [newest.seq.0, next.seq.0]);
    next.epoch != newest.epoch
}

#[test]
fn a_machine_that_went_down_begins_one() {
    let (folder, newest) = journal(false);
    set_meta(folder.path(), "boot", "another");
    assert!(is_new(folder.path(), newest));
    let (folder, newest) = journal(true);
    set_meta(folder.path(), "boot", "another");
    assert!(!is_new(folder.path(), newest));
}

#[test]
fn a_copy_begins_one() {
    for is_clean in [false, true] {
        let (folder, newest) = journal(is_clean);
        let copy = temporary();
        for name in ["journal.sqlite3", "journal.sqlite3-wal", "journal.newest"] {
            let _ = fs::copy(folder.path().join(name), copy.path().join(name));
        }
        assert!(is_new(copy.path(), newest));
        assert!(!is_new(folder.path(), newest));
    }
}

#[test]
fn a_file_that_is_older_than_what_was_given_out_begins_one() {
    let (folder, newest) = journal(true);
    let path = folder.path().join("journal.sqlite3");
    let old = fs::read(&path).unwrap();
    let (journal, _) = open(folder.path());
    let lost = journal.append(batch(10..20), 2).last().unwrap().cursor();
    journal.close();
    drop(journal);
    fs::write(&path, old).unwrap();
    assert!(is_new(folder.path(), newest));
    assert_eq!(open(folder.path()).0.locate(lost), Err(Lost::Unknown));
}

#[test]
fn a_file_that_is_deleted_while_it_is_used_is_made_anew() {
    let (folder, newest) = journal(true);
    let (journal, _) = open(folder.path());
    for name in ["journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    upkeep::tend(&journal.shared, &mut None);
    drop(journal);
    // What was in memory is in the new file, under its old ids.
    let (journal, restored) = open(folder.path());
    assert_eq!((restored.recent.len(), journal.locate(newest)), (10, Ok(newest.seq)));
}
