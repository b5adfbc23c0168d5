//! The journal on disk against what breaks it from outside: kills, a full disk, a second relay, a restart of the relay.

mod full;
mod killed;
mod restart;
mod stuck;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opencode_relay::event::{Event, Origin, Place, Seq};
use opencode_relay::journal::{Batch, Expired, Journal, Options, Read, Record, Restored};

/// Names the folder to a test that runs as a child of another one.
const FOLDER: &str = "JOURNAL_TEST_FOLDER";

/// The folder, if this process is such a child.
fn child_folder() -> Option<String> {
    std::env::var(FOLDER).ok()
}

/// This test binary again, to run one test only.
fn test_command(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(FOLDER, folder).stdin(Stdio::null());
    command
}

fn open(folder: &Path) -> (Journal, Restored) {
    Journal::open(Journal::take(folder).unwrap(), Options::default()).unwrap()
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Events with numbers, each of about `length` bytes.
fn append(journal: &Journal, numbers: std::ops::Range<u64>, length: usize) -> Vec<Arc<Record>> {
    let place = Place { directory: Some("/p".into()), project: None };
    let event = |n| {
        let properties = format!(r#"{{"n":{n},"x":"{}"}}"#, "y".repeat(length));
        Event::made(Origin::State, "a", &place, None, "evt_1", &properties)
    };
    let note = ("newest", numbers.end.to_string());
    journal.append(Batch { events: numbers.map(event).collect(), notes: vec![note] }, now())
}

/// Everything after a position.
fn read(journal: &Journal, after: Seq) -> Result<Vec<Arc<Record>>, Expired> {
    let mut records: Vec<Arc<Record>> = Vec::new();
    loop {
        let at = records.last().map_or(after, |record| record.seq);
        match journal.read(at, 1 << 20)? {
            Read::Here(more) if more.is_empty() => return Ok(records),
            Read::Here(more) => records.extend(more),
            Read::InFile => journal.read_file(at, |stored| {
                records.push(Arc::new(stored.record()));
                ControlFlow::Continue(())
            })?,
        }
    }
}

/// The number of an event.
fn number(record: &Record) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(&record.event.payload()).unwrap();
    value["properties"]["n"].as_u64().unwrap()
}
