//! Files that grow, move, are emptied and replaced. Most look by hand, so that nothing depends on time.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

use super::*;

/// What a test waits for at most.
const LIMIT: Duration = Duration::from_secs(20);

fn line(kind: &str) -> String {
    format!("INFO  2026-11-23T00:39:15 +38ms service=bus type={kind} publishing\n")
}

fn notice(kind: &str) -> Item {
    Item::Notice { kind: kind.into() }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Looks until there is nothing new, also in the file that a path means only since now.
fn look(follower: &mut Follower) -> Vec<Item> {
    let mut items = Vec::new();
    let mut quiet = 0;
    while quiet <= QUIET_LOOKS {
        let look = follower.look();
        items.extend(look.items);
        quiet = if look.next == Next::Again { 0 } else { quiet + 1 };
    }
    items
}

fn follower_of(path: &Path, start: Start) -> Follower {
    Follower::new(Place::File(path.to_owned()), start)
}

#[test]
fn starts_at_the_end_or_at_the_beginning() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, &line("old"));
    let mut from_end = follower_of(&path, Start::End);
    assert_eq!(look(&mut from_end), []);
    let mut from_beginning = follower_of(&path, Start::Beginning);
    assert_eq!(look(&mut from_beginning), [notice("old")]);
    append(&path, &line("new"));
    assert_eq!(look(&mut from_end), [notice("new")]);
    assert_eq!(look(&mut from_beginning), [notice("new")]);
}

#[test]
fn an_unfinished_line_at_the_end_is_read_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let (begun, rest) = (line("half")[..30].to_owned(), line("half")[30..].to_owned());
    append(&path, &(line("old") + &begun));
    let mut follower = follower_of(&path, Start::End);
    assert_eq!(look(&mut follower), []);
    append(&path, &rest);
    assert_eq!(look(&mut follower), [notice("half")]);
}

#[test]
fn a_line_that_comes_in_pieces_is_one_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, "");
    let mut follower = follower_of(&path, Start::End);
    let text = line("a.b");
    for byte in text.trim_end().chars() {
        append(&path, &byte.to_string());
        assert_eq!(look(&mut follower), []);
    }
    append(&path, "\n");
    assert_eq!(look(&mut follower), [notice("a.b")]);
}

#[test]
fn a_missing_file_is_waited_for_and_read_from_its_beginning() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let mut follower = follower_of(&path, Start::End);
    let Next::Missing(reason) = follower.look().next else { panic!("not missing") };
    assert!(reason.contains("not there; it is read as soon as it is there"), "{reason}");
    append(&path, &line("first"));
    assert_eq!(look(&mut follower), [notice("first")]);
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_the_new_one() {
    let folder = TempDir::new().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    append(&path, &line("a"));
    let mut follower = follower_of(&path, Start::Beginning);
    assert_eq!(look(&mut follower), [notice("a")]);

    fs::rename(&path, &old).unwrap();
    append(&old, &line("b"));
    assert_eq!(look(&mut follower), [notice("b")], "the writer has not noticed the new name yet");

    append(&old, line("c").trim_end());
    append(&path, &line("d"));
    assert_eq!(look(&mut follower), [notice("c"), notice("d")]);
    append(&path, &line("e"));
    assert_eq!(look(&mut follower), [notice("e")]);
}

#[test]
fn a_deleted_and_recreated_file_is_read_from_its_beginning() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, &line("a"));
    let mut follower = follower_of(&path, Start::End);
    assert_eq!(look(&mut follower), []);
    append(&path, &line("b"));
    fs::remove_file(&path).unwrap();
    append(&path, &line("c"));
    assert_eq!(look(&mut follower), [notice("b"), notice("c")]);
}

#[test]
fn an_emptied_file_is_a_gap_and_read_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, &line("a"));
    let mut follower = follower_of(&path, Start::Beginning);
    assert_eq!(look(&mut follower), [notice("a")]);
    File::create(&path).unwrap();
    let gap = || Item::Gap { reason: "truncated" };
    assert_eq!(look(&mut follower), [gap()]);
    append(&path, &line("b"));
    assert_eq!(look(&mut follower), [notice("b")]);

    // Emptied and grown past the position between two looks.
    File::create(&path).unwrap();
    append(&path, &line("message.part.updated").repeat(3));
    let mut expected = vec![gap()];
    expected.extend(vec![notice("message.part.updated"); 3]);
    assert_eq!(look(&mut follower), expected);
}

#[test]
fn a_file_that_was_empty_when_it_was_emptied_is_no_gap() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, "");
    let mut follower = follower_of(&path, Start::End);
    assert_eq!(look(&mut follower), []);
    File::create(&path).unwrap();
    assert_eq!(look(&mut follower), []);
}

#[test]
fn a_large_file_is_read_in_parts() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let count = 3 * READ / line("a").len();
    append(&path, &line("a").repeat(count));
    let mut follower = follower_of(&path, Start::Beginning);
    assert!(follower.look().items.is_empty(), "opening reads nothing");
    let first = follower.look().items.len();
    assert!(first > 0 && first < count);
    assert_eq!(first + look(&mut follower).len(), count);
}

#[test]
fn a_folder_leads_from_each_log_to_the_next() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    append(&file("2026-11-23T003914.log"), &line("older"));
    append(&file("2026-11-23T003915.log"), &line("old"));
    for other in ["opencode.log", "dev.log", "2026-11-23T003999.log.gz", "2026-11-23T00391x.log"] {
        append(&file(other), &line("other"));
    }
    let mut follower = Follower::new(Place::Directory(Folder::new(folder.path().to_owned())), Start::End);
    assert_eq!(look(&mut follower), []);

    append(&file("2026-11-23T003915.log"), &line("a"));
    // Two starts between two looks; the first line of each process says the same as the new file does.
    let started = "INFO  2026-11-23T00:39:20 +105ms service=default version=1.14.48 args=[] opencode\n";
    append(&file("2026-11-23T003920.log"), &(started.to_owned() + &line("b")));
    append(&file("2026-11-23T003921.log"), &(started.to_owned() + &line("c")));
    let expected = [notice("a"), Item::Started, notice("b"), Item::Started, notice("c")];
    assert_eq!(look(&mut follower), expected);
}

#[test]
fn a_folder_keeps_to_the_servers_log_when_clients_write_theirs() {
    let folder = TempDir::new().unwrap();
    let begin = |name: &str, arguments: &str, kind: &str| {
        let first =
            format!("INFO  2026-11-23T00:39:20 +105ms service=default version=1.14.48 args={arguments} opencode\n");
        append(&folder.path().join(name), &(first + &line(kind)));
    };
    let server = "2026-11-23T003915.log";
    begin(server, "[\"serve\",\"--port\",\"4096\"]", "old");
    begin("2026-11-23T003916.log", "[\"run\",\"--attach\",\"http://127.0.0.1:4096\",\"hi\"]", "of-a-client");
    let mut follower = Follower::new(Place::Directory(Folder::new(folder.path().to_owned())), Start::End);
    assert_eq!(look(&mut follower), []);
    append(&folder.path().join(server), &line("a"));
    begin("2026-11-23T003917.log", "[\"models\"]", "of-a-client");
    begin("2026-11-23T003918.log", "[]", "of-a-screen");
    assert_eq!(look(&mut follower), [notice("a")]);

    // What a new log is shows once its first line is whole.
    let next = folder.path().join("2026-11-23T003920.log");
    let first = "INFO  2026-11-23T00:39:20 +105ms service=default version=1.14.48 args=[\"serve\"] opencode\n";
    append(&next, &first[..first.len() - 1]);
    assert_eq!(look(&mut follower), []);
    append(&next, "\n");
    append(&next, &line("b"));
    assert_eq!(look(&mut follower), [Item::Started, notice("b")]);
}

#[test]
fn a_folder_without_logs_says_why() {
    let folder = TempDir::new().unwrap();
    let mut follower = Follower::new(Place::Directory(Folder::new(folder.path().to_owned())), Start::End);
    let reason = |follower: &mut Follower| match follower.look().next {
        Next::Missing(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&mut follower).contains("start opencode without --print-logs"));
    append(&folder.path().join("opencode.log"), "timestamp=…\n");
    assert!(reason(&mut follower).contains("opencode 1.17 and newer"));
    append(&folder.path().join("2026-11-23T003920.log"), &line("a"));
    assert_eq!(look(&mut follower), [Item::Started, notice("a")]);
}

#[test]
fn the_wrong_kind_of_place_is_named() {
    let folder = TempDir::new().unwrap();
    let mut follower = follower_of(folder.path(), Start::End);
    let Next::Missing(reason) = follower.look().next else { panic!("not missing") };
    assert!(reason.contains("use dir:PATH"), "{reason}");
    let file = folder.path().join("log");
    append(&file, "");
    let mut follower = Follower::new(Place::Directory(Folder::new(file)), Start::End);
    let Next::Missing(reason) = follower.look().next else { panic!("not missing") };
    assert!(reason.contains("use file:PATH"), "{reason}");
}

/// The next word of the follower.
async fn next(messages: &mut Receiver<ingest::Message>) -> Message {
    match tokio::time::timeout(LIMIT, messages.recv()).await.unwrap() {
        Some(ingest::Message::Log(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn says_what_it_waits_for_and_then_follows() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let (out, mut messages) = tokio::sync::mpsc::channel(8);
    let stop = Stop::new();
    let following = follow(Source::File(path.clone()), Start::End, out, stop.clone());
    let test = async {
        assert!(matches!(next(&mut messages).await, Message::Waiting { .. }));
        append(&path, &line("a"));
        let Message::Following { source } = next(&mut messages).await else { panic!("not following") };
        assert_eq!(source, format!("file:{}", path.display()));
        let Message::Lines { items, .. } = next(&mut messages).await else { panic!("no lines") };
        assert_eq!(items, [notice("a")]);
        append(&path, &line("b").repeat(2));
        let Message::Lines { items, .. } = next(&mut messages).await else { panic!("no lines") };
        assert_eq!(items[0], notice("b"));
        stop.pull();
        while messages.recv().await.is_some() {}
    };
    tokio::join!(following, test);
}

#[tokio::test]
async fn a_full_queue_holds_back_the_file_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let count = 10 * READ / line("a").len();
    append(&path, &line("a").repeat(count));
    let (out, mut messages) = tokio::sync::mpsc::channel(1);
    let stop = Stop::new();
    let following = follow(Source::File(path), Start::Beginning, out, stop.clone());
    let test = async {
        let mut seen = 0;
        while seen < count {
            if let Message::Lines { items, .. } = next(&mut messages).await {
                seen += items.len();
            }
        }
        assert_eq!(seen, count);
        stop.pull();
        while messages.recv().await.is_some() {}
    };
    tokio::join!(following, test);
}

#[tokio::test]
async fn a_reader_is_followed_to_its_end() {
    let (out, mut messages) = tokio::sync::mpsc::channel(8);
    let text = line("a") + line("b").trim_end();
    let following = follow_reader(io::Cursor::new(text.into_bytes()), "stdin".to_owned(), &out);
    assert!(following.await.is_ok());
    drop(out);
    assert!(matches!(next(&mut messages).await, Message::Following { source } if source == "stdin"));
    let Message::Lines { items, .. } = next(&mut messages).await else { panic!("no lines") };
    assert_eq!(items, [notice("a")]);
    let Message::Lines { items, .. } = next(&mut messages).await else { panic!("no lines") };
    assert_eq!(items, [notice("b")]);
    assert!(matches!(next(&mut messages).await, Message::Ended));
}
