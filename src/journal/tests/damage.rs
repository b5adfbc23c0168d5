//! Files that are not what was written.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::FileExt as _;

use super::*;

/// Small numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Events of many sizes, so that rows are in pages of all kinds.
fn sized(n: u64) -> Event {
    let place = Place { directory: Some("/p".into()), project: None };
    let length = if n % 40 == 7 { 12_000 } else { usize::try_from(n * 37 % 700).unwrap() };
    let properties = format!(r#"{{"n":{n},"x":"{}"}}"#, "y".repeat(length));
    Event::made(Origin::State, "a.b", &place, Some("ses_1"), &format!("evt_{n}"), &properties)
}

fn fill_up(journal: &Journal) -> Vec<Arc<Record>> {
    let mut records = Vec::new();
    for round in 0..30_u64 {
        let events = (round * 10..round * 10 + 10).map(sized).collect();
        records.extend(journal.append(Batch { events, notes: vec![("n", round.to_string())] }, 5));
    }
    records
}

/// What was written, and the files as they were then.
struct Written {
    folder: tempfile::TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// By id.
    records: HashMap<Cursor, String>,
    newest: Cursor,
}

impl Written {
    /// `is_clean` says whether the journal was closed, or killed with most of it in the write-ahead log.
    fn new(is_clean: bool) -> Self {
        let folder = temporary();
        let (journal, _) = open(folder.path());
        let records = fill_up(&journal);
        if is_clean {
            journal.close();
        }
        drop(journal);
        let files = ["journal.sqlite3", "journal.sqlite3-wal", "journal.newest"]
            .map(|name| folder.path().join(name))
            .into_iter()
            .filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes)))
            .collect();
        let newest = records.last().unwrap().cursor();
        Self { folder, files, newest, records: records.iter().map(|record| (record.cursor(), text(record))).collect() }
    }

    /// Puts the files back, in place: a copy would be known as one.
    fn restore(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if !self.files.iter().any(|(known, _)| *known == path) {
                fs::remove_file(path).unwrap();
            }
        }
        for (path, bytes) in &self.files {
            fs::write(path, bytes).unwrap();
        }
    }

    /// Opens what is there and checks that nothing untrue comes out of it. Whether everything is still there.
    fn check(&self, what: &str) -> bool {
        let (journal, restored) = open(self.folder.path());
        self.check_opened(&journal, &restored.recent, what);
        let survived = journal.locate(self.newest) == Ok(self.newest.seq);
        self.check_appended(&journal, what);
        drop(journal);
        // And whatever it did is good for another start.
        let (journal, _) = open(self.folder.path());
        assert_eq!(journal.health().degraded, None, "{what}");
        survived
    }

    fn check_opened(&self, journal: &Journal, recent: &[Arc<Record>], what: &str) {
        forget(journal);
        let from = journal.fill().oldest.0 - 1;
        let read = read(journal, from).unwrap_or_default();
        for record in recent.iter().chain(&read) {
            assert_eq!(self.records.get(&record.cursor()), Some(&text(record)), "{what}");
        }
        for cursor in self.records.keys().filter(|cursor| cursor.seq.0 % 30 == 0) {
            if let Ok(seq) = journal.locate(*cursor) {
                let next = Cursor { seq: seq.next(), ..*cursor };
                let rest = super::read(journal, seq.0);
                let goes_on = rest.is_ok_and(|rest| {
                    rest.first().is_none_or(|first| first.cursor() == next)
                        && rest.windows(2).all(|pair| pair[0].seq.next() == pair[1].seq)
                });
                // A file found damaged while it was read is set aside, and then says so.
                assert!(goes_on || journal.locate(*cursor).is_err(), "{what}: {cursor}");
            }
        }
    }

    /// No id is given twice.
    fn check_appended(&self, journal: &Journal, what: &str) {
        let added = journal.append(Batch { events: (0..3).map(event).collect(), ..Batch::default() }, 6);
        for record in &added {
            assert!(!self.records.contains_key(&record.cursor()), "{what}: {:?} was given already", record.cursor());
            assert_eq!(journal.locate(record.cursor()), Ok(record.seq), "{what}");
        }
        assert_eq!(texts(&super::read(journal, added[0].seq.0 - 1).unwrap()), texts(&added), "{what}");
        assert_eq!(journal.health().degraded, None, "{what}");
    }
}

/// Cuts and flips the files at many places, one at a time; how many there were, and after how many all was still there.
fn damage(written: &Written, seed: u64, rounds: usize) -> (usize, usize) {
    let mut dice = Dice(seed);
    let (mut count, mut whole) = (0, 0);
    for (path, bytes) in &written.files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let rounds = if bytes.len() < 100 { 40 } else { rounds };
        for _ in 0..rounds {
            if bytes.is_empty() {
                break;
            }
            let at = dice.below(bytes.len());
            let length = 1 + dice.below(3) * dice.below(2000);
            let mut damaged = bytes.clone();
            let what = match dice.below(3) {
                0 => {
                    damaged.truncate(at);
                    format!("{name} cut at {at}")
                }
                1 => {
                    damaged[at] ^= 1 << dice.below(8);
                    format!("{name} flipped at {at}")
                }
                _ => {
                    let end = (at + length).min(damaged.len());
                    damaged[at..end].fill(0);
                    format!("{name} zeroed at {at}, {length} bytes")
                }
            };
            written.restore();
            fs::write(path, &damaged).unwrap();
            whole += usize::from(written.check(&what));
            count += 1;
        }
    }
    println!("{count} places, all was still there after {whole}");
    (count, whole)
}

#[test]
fn a_closed_file_that_was_damaged_tells_nothing_untrue() {
    let written = Written::new(true);
    assert!(written.check("nothing"));
    let (count, whole) = damage(&written, 1, 300);
    assert!(count > 300 && whole < count * 9 / 10);
}

#[test]
fn a_killed_file_that_was_damaged_tells_nothing_untrue() {
    let written = Written::new(false);
    assert!(written.check("nothing"));
    let (count, whole) = damage(&written, 2, 150);
    assert!(count > 300 && whole < count * 9 / 10);
}

/// The same while the journal is open and its events are not in memory.
#[test]
fn a_file_that_is_damaged_while_it_is_used_is_replaced() {
    let mut dice = Dice(3);
    let mut replaced = 0;
    for round in 0..60 {
        let folder = temporary();
        let (journal, _) = open(folder.path());
        let records = fill_up(&journal);
        let epoch = journal.epoch();
        upkeep::tend(&journal.shared, &mut None);
        let known: HashMap<Cursor, String> = records.iter().map(|record| (record.cursor(), text(record))).collect();
        forget(&journal);
        let path = folder.path().join(["journal.sqlite3", "journal.sqlite3-wal"][round % 2]);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let size = usize::try_from(file.metadata().unwrap().len()).unwrap();
        for _ in 0..3 {
            let at = dice.below(size.max(1));
            file.write_all_at(&[0xff; 64], at as u64).unwrap();
        }
        let what = format!("round {round}");
        for record in read(&journal, 0).unwrap_or_default() {
            assert_eq!(known.get(&record.cursor()), Some(&text(&record)), "{what}");
        }
        // Whatever was found, the journal goes on in the same epoch, on disk.
        let added = journal.append(batch(0..5), 6);
        assert_eq!(added[0].cursor(), Cursor { epoch, seq: Seq(301) }, "{what}");
        assert_eq!(texts(&read(&journal, 300).unwrap()), texts(&added), "{what}");
        upkeep::tend(&journal.shared, &mut None);
        assert_eq!(journal.health().degraded, None, "{what}");
        replaced += usize::from(
            fs::read_dir(folder.path())
                .unwrap()
                .any(|entry| entry.unwrap().file_name().to_str().unwrap().contains(".corrupt-")),
        );
        drop(journal);
        let (journal, _) = open(folder.path());
        let ids: HashSet<Cursor> =
            read(&journal, 300).unwrap_or_default().iter().map(|record| record.cursor()).collect();
        for record in &added {
            assert!(ids.contains(&record.cursor()) || journal.locate(record.cursor()).is_err(), "{what}");
        }
    }
    println!("set aside in {replaced} of 60 rounds");
    assert!(replaced > 10);
}

#[test]
fn what_is_no_journal_is_set_aside() {
    for content in [&b"hello"[..], &[0; 5000], b"SQLite format 3\0 but no more"] {
        let folder = temporary();
        let path = folder.path().join("journal.sqlite3");
        fs::write(&path, content).unwrap();
        let (journal, restored) = open(folder.path());
        assert!(restored.recent.is_empty());
        assert_eq!(journal.append(batch(0..1), 1)[0].seq, Seq(1));
        let aside: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains("corrupt"))
            .collect();
        assert_eq!(fs::read(&aside[0]).unwrap(), content);
    }
}

#[test]
fn another_programs_database_is_set_aside_and_a_newer_relays_is_refused() {
    let folder = temporary();
    let path = folder.path().join("journal.sqlite3");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE other (x)").unwrap();
    drop(other);
    open(folder.path()).0.append(batch(0..1), 1);
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(newer);
    let error = Journal::open(Journal::take(folder.path()).unwrap(), options(1 << 20)).unwrap_err().to_string();
    for word in [path.to_str().unwrap(), "format 2", "--state-dir"] {
        assert!(error.contains(word), "{error}");
    }
}
