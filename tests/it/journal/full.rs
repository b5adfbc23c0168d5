//! A disk without room, on a small file system that only the child process sees.

use std::fs;
use std::process::Output;
use std::time::Duration;

use super::*;

/// Runs a test of this file with 4 MiB of disk at its folder; `None` where that is not allowed.
fn on_a_small_disk(test: &str) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let inner = test_command(&format!("journal::full::{test}"), folder.path());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", r#"mount -t tmpfs -o size=4m none "$0" && exec "$@""#]).arg(folder.path());
    command.arg(inner.get_program()).args(inner.get_args()).env(FOLDER, folder.path()).stdin(Stdio::null());
    let output = command.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Operation not permitted") || said.contains("permission denied") {
        println!("skipped, because a file system cannot be mounted here: {said}");
        return None;
    }
    Some(output)
}

fn check(test: &str) {
    if let Some(output) = on_a_small_disk(test) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
    }
}

/// Takes all room but about `left` bytes.
fn fill_disk(folder: &Path, left: usize) {
    let path = folder.join("filler");
    let mut size = 4 << 20;
    // A file system of 4 MiB takes the largest of these that fits.
    while size > 0 && fs::write(&path, vec![0; size]).is_err() {
        size -= 16 << 10;
    }
    fs::write(&path, vec![0; size.saturating_sub(left)]).unwrap();
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not {what} within 20 s");
}

/// Appends until the disk is full; how many events there are then.
fn append_until_full(journal: &Journal) -> u64 {
    let mut next = journal.fill().newest.0;
    while journal.health().degraded.is_none() {
        append(journal, next..next + 5, 1_000);
        next += 5;
        assert!(next < 10_000, "the disk never gets full");
    }
    next
}

#[test]
fn child_comes_back() {
    let Some(folder) = child_folder() else { return };
    let (folder, state) = (Path::new(&folder), Path::new(&folder).join("state"));
    let (journal, _) = open(&state);
    let saved = append(&journal, 0..10, 1_000);
    fill_disk(folder, 600 << 10);
    let full = append_until_full(&journal);
    assert_ne!(journal.epoch(), saved[0].epoch, "ids that a kill would give again");
    let unsaved = append(&journal, full..full + 50, 1_000);
    assert_eq!(unsaved[0].epoch, journal.epoch());
    // Everything can be read, from disk and memory; every id is good.
    let all = read(&journal, Seq(0)).unwrap();
    assert!(all.iter().enumerate().all(|(at, record)| number(record) == at as u64) && all.len() as u64 == full + 50);
    for record in &all {
        assert_eq!(journal.locate(record.cursor()), Ok(record.seq));
    }
    fs::remove_file(folder.join("filler")).unwrap();
    until("on disk again", || journal.health().degraded.is_none());
    let more = append(&journal, full + 50..full + 60, 10);
    assert_eq!(more[0].epoch, unsaved[0].epoch);
    // A kill now loses nothing.
    drop(journal);
    let (journal, restored) = open(&state);
    let back = read(&journal, Seq(0)).unwrap();
    assert_eq!(back.len() as u64, full + 60);
    for record in back.iter().chain(&unsaved).chain(&more) {
        assert_eq!(journal.locate(record.cursor()), Ok(record.seq));
    }
    assert_eq!(restored.notes["newest"], (full + 60).to_string());
    assert_eq!(journal.epoch(), unsaved[0].epoch);
}

#[test]
fn child_is_killed() {
    let Some(folder) = child_folder() else { return };
    let (folder, state) = (Path::new(&folder), Path::new(&folder).join("state"));
    let (journal, _) = open(&state);
    let saved = append(&journal, 0..10, 1_000);
    fill_disk(folder, 600 << 10);
    let full = append_until_full(&journal);
    let unsaved = append(&journal, full..full + 50, 1_000);
    drop(journal);
    // What was only in memory is lost, and nobody is told otherwise, nor is a number given a second meaning. The disk is
    // still full.
    let (journal, _) = open(&state);
    assert!(journal.locate(unsaved[0].cursor()).is_err());
    assert!(journal.locate(saved[0].cursor()).is_ok());
    let again = append(&journal, 0..5, 1_000);
    assert!(again.iter().all(|record| record.cursor() != unsaved[0].cursor()));
    assert!(journal.locate(unsaved[0].cursor()).is_err());
    assert!(journal.fill().newest.0 < full + 50);
}

#[test]
fn child_begins() {
    let Some(folder) = child_folder() else { return };
    let (folder, state) = (Path::new(&folder), Path::new(&folder).join("state"));
    fill_disk(folder, 0);
    let (journal, _) = open(&state);
    let given = append(&journal, 0..10, 100);
    assert!(journal.health().degraded.is_some());
    assert_eq!(read(&journal, Seq(0)).unwrap().len(), 10);
    fs::remove_file(folder.join("filler")).unwrap();
    until("on disk", || journal.health().degraded.is_none());
    drop(journal);
    let (journal, _) = open(&state);
    assert_eq!(journal.locate(given[3].cursor()), Ok(given[3].seq));
    assert_eq!(read(&journal, Seq(0)).unwrap().len(), 10);
}

#[test]
fn a_full_disk_is_survived_and_left_behind() {
    check("child_comes_back");
}

#[test]
fn a_kill_on_a_full_disk_confuses_nobody() {
    check("child_is_killed");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_no_hindrance() {
    check("child_begins");
}
