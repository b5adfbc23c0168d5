//! SIGKILL at any moment: what was given out is there, under the same id.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use super::*;
use crate::faults::relay::Dice;

const KILLS: usize = 40;

/// Not a test of its own: appends, and says what was appended, until it is killed.
#[test]
fn child_appends() {
    let Some(folder) = child_folder() else { return };
    let (journal, _) = open(Path::new(&folder));
    let mut next = journal.fill().newest.0;
    let mut out = std::io::stdout().lock();
    writeln!(out, "opened {}", journal.epoch()).unwrap();
    loop {
        let count = 1 + next % 7;
        let records = append(&journal, next..next + count, usize::try_from(next % 900).unwrap());
        next += count;
        for record in records {
            writeln!(out, "gave {} {}", record.cursor(), number(&record)).unwrap();
        }
    }
}

#[test]
fn what_was_given_out_survives_every_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut given: Vec<String> = Vec::new();
    let mut epochs = std::collections::BTreeSet::new();
    for kill in 0..KILLS {
        let mut command = test_command("journal::killed::child_appends", folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let before = given.len();
        let mut hear = |line: String| match line.split_once(' ') {
            Some(("gave", rest)) => given.push(rest.to_owned()),
            Some(("opened", epoch)) => drop(epochs.insert(epoch.to_owned())),
            _ => {}
        };
        if dice.below(3) == 0 {
            // Somewhere in its start: there is nothing to wait for.
            std::thread::sleep(Duration::from_millis(dice.below(40) as u64));
        } else {
            lines.by_ref().take(4 + dice.below(600)).for_each(&mut hear);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(&mut hear);

        let (journal, restored) = open(folder.path());
        epochs.insert(journal.epoch().to_string());
        let records = read(&journal, Seq(0)).unwrap();
        let found: Vec<String> =
            records.iter().map(|record| format!("{} {}", record.cursor(), number(record))).collect();
        // What was committed but not told may be there too, at the end of each run.
        let (mut at, mut extra) = (0, 0);
        for line in &found {
            if given.get(at) == Some(line) {
                at += 1;
            } else {
                extra += 1;
            }
        }
        assert_eq!(at, given.len(), "kill {kill}: {} was given and is not there", given[at.min(given.len() - 1)]);
        assert!(extra <= 7 * (kill + 1), "kill {kill}: {extra}");
        assert!(records.iter().enumerate().all(|(at, record)| number(record) == at as u64), "kill {kill}");
        let newest: u64 = restored.notes.get("newest").map_or(0, |note| note.parse().unwrap());
        assert_eq!(newest, records.len() as u64, "kill {kill}: events and notes are one");
        println!("kill {kill}: {} given", given.len() - before);
        // All that was committed is given out by the next run.
        given = found;
    }
    assert_eq!(epochs.len(), 1, "a kill lost nothing, and still the epoch changed");
    assert!(given.len() > 1_000, "{}", given.len());
}
