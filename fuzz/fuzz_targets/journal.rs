//! A journal's file with bytes of it changed: whatever is read of it was appended, under the same id, and nothing panics.
//!
//! The input is a list of changes, five bytes each: where (three bytes, of the file and its write-ahead log as one), how
//! (set, cut here), and the byte.

#![no_main]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use opencode_relay::event::{Event, Origin, Place, Seq, View};
use opencode_relay::journal::{Batch, Journal, Options, Read};

const FILES: [&str; 2] = ["journal.sqlite3", "journal.sqlite3-wal"];

/// What a relay left that was killed: the files, and every frame by its number.
struct Left {
    files: Vec<(PathBuf, Vec<u8>)>,
    frames: Vec<Vec<u8>>,
}

fn folder(name: &str) -> PathBuf {
    // In memory where that is possible: each input writes the files anew.
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    base.join(format!("relay-fuzz-{}-{name}", std::process::id()))
}

static LEFT: LazyLock<Left> = LazyLock::new(|| {
    let from = folder("made");
    let (journal, _) = Journal::open(Journal::take(&from).expect("a new folder"), Options::default())
        .expect("an empty folder can be used");
    let mut frames = vec![Vec::new()];
    for n in 0..60u64 {
        let place = Place { directory: Some("/p".into()), project: Some("1".into()) };
        let text = format!(r#"{{"sessionID":"ses_1","n":{n},"text":"{}"}}"#, "x".repeat(n as usize * 3));
        let event = Event::made(Origin::State, "message.updated", &place, Some("ses_1"), &format!("evt_{n}"), &text);
        let notes = vec![("log", format!("{{\"offset\":{n}}}"))];
        for record in journal.append(Batch { events: vec![event], notes }, 1_795_000_000_000 + n) {
            frames.push(record.frame(View::Global).expect("it is on /global/event").bytes().to_vec());
        }
    }
    // Copied while it is open, as a kill leaves it.
    let names = FILES.into_iter().chain(["journal.newest"]);
    let files = names.filter_map(|name| Some((PathBuf::from(name), std::fs::read(from.join(name)).ok()?))).collect();
    journal.close();
    let _ = std::fs::remove_dir_all(&from);
    Left { files, frames }
});

fuzz_target!(|input: &[u8]| {
    let path = folder("tried");
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder can be made");
    let mut files = LEFT.files.clone();
    for change in input.chunks_exact(5) {
        let mut place = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
        for (_, bytes) in &mut files {
            if place < bytes.len() {
                match change[3] {
                    0..16 => bytes.truncate(place),
                    _ => bytes[place] = change[4],
                }
                break;
            }
            place -= bytes.len();
        }
    }
    for (name, bytes) in &files {
        std::fs::write(path.join(name), bytes).expect("a file can be written");
    }
    // A refusal is an answer, too.
    if let Ok((journal, restored)) = Journal::take(&path).and_then(|taken| Journal::open(taken, Options::default())) {
        let mut records = restored.recent;
        let mut after = Seq(journal.fill().oldest.0 - 1);
        while let Ok(more) = journal.read(after, 1 << 16).and_then(|read| match read {
            Read::Here(records) => Ok(records),
            Read::InFile => {
                let mut records = Vec::new();
                journal.read_file(after, |stored| {
                    records.push(Arc::new(stored.record()));
                    ControlFlow::Continue(())
                })?;
                Ok(records)
            }
        }) && let Some(last) = more.last()
        {
            after = last.seq;
            records.extend(more);
        }
        for record in records {
            let told = record.frame(View::Global).map(|frame| &frame.bytes()[..]);
            let kept = LEFT.frames.get(record.seq.0 as usize).map(Vec::as_slice);
            assert_eq!(told, kept, "event {} was never appended so", record.seq);
        }
        journal.close();
    }
    let _ = std::fs::remove_dir_all(&path);
});
