//! The log is read to its last line, once, however often the relay is killed and however much waits (DESIGN §5).
//!
//! What can happen to a file is played through in `src/ingest/log/follow/model.rs`; here the follower runs as it does in the
//! relay, and is dropped at any point.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use opencode_relay::ingest;
use opencode_relay::ingest::log::{Item, Message, Position, Source, Start, follow};
use opencode_relay::stop::Stop;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(20);

fn line(number: u64) -> String {
    format!("INFO  2026-11-23T00:39:15 +{number}ms service=bus type=n{number} publishing\n")
}

fn append(path: &Path, numbers: std::ops::Range<u64>) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(numbers.map(line).collect::<String>().as_bytes()).unwrap();
}

/// What was kept, as by a journal: each message's items together with the position after them.
#[derive(Default)]
struct Kept {
    items: Vec<Item>,
    position: Option<Position>,
}

impl Kept {
    fn start(&self) -> Start {
        self.position.clone().map_or(Start::Beginning, Start::After)
    }
}

/// Follows until so many items are kept in all, or so many messages came; then is killed.
async fn live(source: &Source, kept: &mut Kept, items: usize, messages: usize) {
    let (out, mut inbox) = mpsc::channel(2);
    let following = follow(source.clone(), kept.start(), out, Stop::new());
    let taking = async {
        let mut taken = 0;
        while kept.items.len() < items && taken < messages {
            let Ok(message) = tokio::time::timeout(LIMIT, inbox.recv()).await else {
                let gaps = kept.items.windows(3).filter(|items| matches!(items[1], Item::Gap { .. }));
                panic!("nothing comes after {:?}; {:?}", kept.items.last(), gaps.collect::<Vec<_>>());
            };
            let Some(ingest::Message::Log(message)) = message else { panic!("ended") };
            if let Message::Lines { items, position } = message {
                kept.items.extend(items);
                kept.position = position.or(kept.position.take());
                taken += 1;
            }
        }
    };
    tokio::select! { biased; () = taking => {}, () = following => panic!("ended") }
}

fn numbers(items: &[Item]) -> Vec<u64> {
    let number = |item: &Item| match item {
        Item::Notice { kind } => kind[1..].parse().unwrap(),
        other => panic!("{other:?}"),
    };
    items.iter().map(number).collect()
}

#[tokio::test]
async fn a_relay_that_is_killed_after_every_message_gives_each_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let source = Source::File(path.clone());
    let mut kept = Kept::default();
    let mut written = 0;
    for rotation in 0..12 {
        // Two buffers and a bit.
        append(&path, written..written + 9_000);
        written += 9_000;
        live(&source, &mut kept, usize::MAX, 1 + rotation % 3).await;
        let rotated = |number: usize| folder.path().join(format!("log.{number}"));
        for number in (1..rotation + 1).rev() {
            fs::rename(rotated(number), rotated(number + 1)).unwrap();
        }
        if rotation % 2 == 0 {
            fs::rename(&path, rotated(1)).unwrap();
        } else {
            // Nothing of a file that was never looked at is known when it is emptied.
            live(&source, &mut kept, written as usize - 9_000 + 1, usize::MAX).await;
            fs::copy(&path, rotated(1)).unwrap();
            fs::File::create(&path).unwrap();
        }
        append(&path, written..written + 1);
        written += 1;
    }
    live(&source, &mut kept, written as usize, usize::MAX).await;
    assert_eq!(numbers(&kept.items), (0..written).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_folder_is_followed_through_kills_and_starts_of_opencode() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Directory(folder.path().to_owned());
    let mut kept = Kept::default();
    let first = "INFO  2026-11-23T00:39:20 +105ms service=default version=1.14.48 args=[\"serve\"] opencode\n";
    let mut written = 0;
    for start in 0..10 {
        let path = folder.path().join(format!("2026-11-23T00391{start}.log"));
        fs::write(&path, first).unwrap();
        append(&path, written..written + 5_000);
        written += 5_000;
        live(&source, &mut kept, usize::MAX, 1 + start % 2).await;
    }
    live(&source, &mut kept, written as usize + 10, usize::MAX).await;
    let starts = kept.items.iter().filter(|item| **item == Item::Started).count();
    kept.items.retain(|item| *item != Item::Started);
    assert_eq!((starts, numbers(&kept.items)), (10, (0..written).collect()));
}

/// `RELAY_BACKLOG_MIB=100` measures; what waits is printed with the rate and what the process held more than before.
#[tokio::test]
async fn a_backlog_is_caught_up_without_holding_it() {
    let size = std::env::var("RELAY_BACKLOG_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(16);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    let (mut bytes, mut count) = (0, 0);
    while bytes < size * 1024 * 1024 {
        let text = line(count);
        file.write_all(text.as_bytes()).unwrap();
        bytes += text.len();
        count += 1;
    }
    file.into_inner().unwrap();
    let (before, began) = (peak(), tokio::time::Instant::now());
    let (out, mut inbox) = mpsc::channel(64);
    let stop = Stop::new();
    let following = follow(Source::File(path), Start::Beginning, out, stop.clone());
    let taking = async {
        let mut next = 0;
        while next < count {
            let message = tokio::time::timeout(LIMIT, inbox.recv()).await.expect("a message in time");
            if let Some(ingest::Message::Log(Message::Lines { items, .. })) = message {
                for item in items {
                    let Item::Notice { kind } = item else { panic!("{item:?}") };
                    assert_eq!(kind[1..].parse(), Ok(next));
                    next += 1;
                }
            }
        }
        stop.pull();
    };
    tokio::join!(following, taking);
    let (took, grown) = (began.elapsed(), peak() - before);
    println!(
        "{size} MiB, {count} lines in {took:?}: {:.0} MiB/s; {grown} KiB more at its peak",
        size as f64 / took.as_secs_f64()
    );
    // The queue is 64 messages long here, and each has a buffer's worth of items at most.
    assert!(grown < 48 * 1024, "{grown} KiB");
}

/// What the process held in memory at most so far, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    field.trim().trim_end_matches(" kB").parse().unwrap()
}
