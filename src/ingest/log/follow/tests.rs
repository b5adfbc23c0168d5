//! Files that grow, move, are emptied and replaced. Most look by hand, so that nothing depends on time.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

use super::super::tail::READ;
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
    Follower::new(Place::File(path.to_owned()), start, "file:log".to_owned())
}

fn follower_in(folder: &Path, start: Start) -> Follower {
    Follower::new(Place::Directory(Folder::new(folder.to_owned())), start, "dir:logs".to_owned())
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
    let mut follower = follower_in(folder.path(), Start::End);
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
    let mut follower = follower_in(folder.path(), Start::End);
    assert_eq!(look(&mut follower), []);
    append(&folder.path().join(server), &line("a"));
    begin("2026-11-23T003917.log", "[\"models\"]", "of-a-client");
    begin("2026-11-23T003918.log", "[]", "of-a-screen");
    // A client's log that publishes is one that works on its own, not on our server.
    assert_eq!(look(&mut follower), [notice("a"), Item::Elsewhere]);

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
    let mut follower = follower_in(folder.path(), Start::End);
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
    let mut follower = follower_in(&file, Start::End);
    let Next::Missing(reason) = follower.look().next else { panic!("not missing") };
    assert!(reason.contains("use file:PATH"), "{reason}");
}

/// The next word of the follower; positions without lines left out.
async fn next(messages: &mut Receiver<ingest::Message>) -> Message {
    loop {
        match tokio::time::timeout(LIMIT, messages.recv()).await.unwrap() {
            Some(ingest::Message::Log(Message::Lines { items, .. })) if items.is_empty() => {}
            Some(ingest::Message::Log(message)) => return message,
            other => panic!("{other:?}"),
        }
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

/// The position after the last look.
fn position(follower: &mut Follower) -> Start {
    Start::After(follower.look().position.unwrap().to_position())
}

fn first_line(arguments: &str) -> String {
    format!("INFO  2026-11-23T00:39:20 +105ms service=default version=1.14.48 args={arguments} opencode\n")
}

fn gap(reason: &'static str) -> Item {
    Item::Gap { reason }
}

#[test]
fn goes_on_after_a_restart_within_a_line_and_within_one_that_is_too_long() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, &(line("a") + &line("b")[..20]));
    let mut follower = follower_of(&path, Start::Beginning);
    assert_eq!(look(&mut follower), [notice("a")]);
    let mut again = follower_of(&path, position(&mut follower));
    append(&path, &line("b")[20..]);
    append(&path, &"x".repeat(super::super::decode::LONGEST_LINE + 1));
    assert_eq!(look(&mut again), [notice("b"), gap("line-too-long")]);
    let mut third = follower_of(&path, position(&mut again));
    append(&path, &("xx\n".to_owned() + &line("c")));
    assert_eq!(look(&mut third), [notice("c")]);
}

#[test]
fn what_was_rotated_while_nobody_looked_is_read_in_order() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let path = file("log");
    append(&path, &line("old-enough-to-be-known"));
    let mut follower = follower_of(&path, Start::End);
    assert_eq!(look(&mut follower), []);
    let start = position(&mut follower);
    append(&path, &line("a"));
    fs::rename(&path, file("log.2")).unwrap();
    append(&path, &line("b"));
    fs::rename(&path, file("log.1")).unwrap();
    append(&path, &line("c"));
    append(&file("log.bak"), &line("of-something-else"));
    assert_eq!(look(&mut follower_of(&path, start.clone())), [notice("a"), notice("b"), notice("c")]);

    // What is packed is a gap, and the rest is read.
    fs::rename(file("log.1"), file("log.1.gz")).unwrap();
    assert_eq!(look(&mut follower_of(&path, start.clone())), [notice("a"), gap("rotated-away"), notice("c")]);
    fs::remove_file(file("log.2")).unwrap();
    assert_eq!(look(&mut follower_of(&path, start)), [gap("rotated-away"), notice("c")]);
}

#[test]
fn a_copy_has_what_was_emptied_before_it_was_read() {
    let folder = TempDir::new().unwrap();
    let (path, copy) = (folder.path().join("log"), folder.path().join("log-20261123"));
    append(&path, &line("a"));
    let mut follower = follower_of(&path, Start::Beginning);
    assert_eq!(look(&mut follower), [notice("a")]);
    let start = position(&mut follower);
    append(&path, &line("b"));
    fs::copy(&path, &copy).unwrap();
    File::create(&path).unwrap();
    append(&path, &line("c"));
    let expected = [notice("b"), notice("c")];
    assert_eq!(look(&mut follower), expected);
    assert_eq!(look(&mut follower_of(&path, start.clone())), expected);

    // Without the copy it is a gap; the same file, and another one of the same path.
    fs::remove_file(&copy).unwrap();
    assert_eq!(look(&mut follower_of(&path, start.clone())), [gap("truncated"), notice("c")]);
    fs::remove_file(&path).unwrap();
    let mut waiting = follower_of(&path, start);
    assert!(matches!(waiting.look().next, Next::Missing(_)));
    append(&path, &line("d"));
    assert_eq!(look(&mut waiting), [gap("rotated-away"), notice("d")]);
}

#[test]
fn a_file_that_was_cut_is_not_read_twice() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, &(line("a") + &line("b") + &line("c")));
    let mut follower = follower_of(&path, Start::Beginning);
    assert_eq!(look(&mut follower).len(), 3);
    let start = position(&mut follower);
    let whole = line("a").len() + line("b").len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(whole as u64 - 1).unwrap();
    let mut again = follower_of(&path, start);
    for follower in [&mut follower, &mut again] {
        assert_eq!(look(follower), [gap("truncated")]);
    }
    append(&path, &("\n".to_owned() + &line("d")));
    for follower in [&mut follower, &mut again] {
        assert_eq!(look(follower), [notice("d")]);
    }
}

#[test]
fn a_line_that_comes_after_the_file_was_left_is_a_gap() {
    let folder = TempDir::new().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    append(&path, &line("a"));
    let mut follower = follower_of(&path, Start::Beginning);
    look(&mut follower);
    fs::rename(&path, &old).unwrap();
    append(&path, &line("b"));
    assert_eq!(look(&mut follower), [notice("b")]);
    let mut again = follower_of(&path, position(&mut follower));
    append(&old, &line("late"));
    append(&path, &line("c"));
    let expected = [gap("written-after-rotation"), notice("c")];
    assert_eq!(look(&mut follower), expected);
    assert_eq!(look(&mut again), expected);
}

#[test]
fn a_position_that_is_not_understood_is_a_gap() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, &line("a"));
    let mut other = Follower::new(Place::File(path.clone()), Start::End, "file:other".to_owned());
    let foreign = position(&mut other);
    for start in [foreign, Start::After(super::super::Position("{".to_owned()))] {
        let mut follower = follower_of(&path, start);
        assert_eq!(look(&mut follower), [gap("position-unknown")]);
        assert_eq!(follower.current.as_ref().unwrap().tail.position(), fs::metadata(&path).unwrap().len());
    }
}

#[test]
fn a_folder_is_read_on_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let server = first_line("[\"serve\"]");
    // What was there before, as after a long life.
    for second in 0..10 {
        append(&file(&format!("2026-11-22T00000{second}.log")), &(server.clone() + &line("old")));
    }
    let first = "2026-11-23T003915.log";
    append(&file(first), &(server.clone() + &line("a")));
    let mut follower = follower_in(folder.path(), Start::End);
    assert_eq!(look(&mut follower), []);
    let start = position(&mut follower);
    append(&file(first), &line("b"));
    append(&file("2026-11-23T003916.log"), &(server.clone() + &line("c")));
    append(&file("2026-11-23T003917.log"), &(first_line("[\"models\"]") + &line("of-a-client")));
    append(&file("2026-11-23T003918.log"), &(server.clone() + &line("d")));
    let rest = [Item::Started, notice("c"), Item::Started, notice("d")];
    let mut expected = vec![notice("b")];
    expected.extend(rest.clone());
    assert_eq!(look(&mut follower_in(folder.path(), start.clone())), expected);
    fs::rename(file(first), file("kept")).unwrap();
    assert_eq!(look(&mut follower_in(folder.path(), start.clone())), expected, "renamed");
    fs::remove_file(file("kept")).unwrap();
    let mut expected = vec![gap("rotated-away")];
    expected.extend(rest);
    assert_eq!(look(&mut follower_in(folder.path(), start.clone())), expected, "cleared away");
    for name in ["2026-11-23T003916.log", "2026-11-23T003918.log"] {
        fs::remove_file(file(name)).unwrap();
    }
    let expected = [gap("rotated-away"), Item::Started];
    assert_eq!(look(&mut follower_in(folder.path(), start)), expected, "only older ones");
}

#[test]
fn a_folder_tells_of_other_processes_that_publish() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (ours, other) = (file("2026-11-23T003915.log"), file("2026-11-23T003914.log"));
    append(&other, &(first_line("[\"run\",\"hi\"]") + &line("old")));
    append(&ours, &first_line("[\"serve\"]"));
    let mut follower = follower_in(folder.path(), Start::End);
    assert_eq!(look(&mut follower), [], "what was there before nobody waits for");
    append(&other, "INFO  2026-11-23T00:39:15 +38ms service=llm stream\n");
    assert_eq!(look(&mut follower), [], "no line of the bus");
    append(&other, &line("a").repeat(5000));
    assert_eq!(look(&mut follower), [Item::Elsewhere]);
    append(&other, &line("b")[..30]);
    assert_eq!(look(&mut follower), []);
    append(&other, &line("b")[30..]);
    append(&ours, &line("c"));
    assert_eq!(look(&mut follower), [notice("c"), Item::Elsewhere]);
    // Two commands and a screen begin, publish, and end between two looks.
    for second in 6..9 {
        append(&file(&format!("2026-11-23T00392{second}.log")), &(first_line("[]") + &line("x")));
    }
    assert_eq!(look(&mut follower), [Item::Elsewhere]);
    assert_eq!(look(&mut follower), []);
}

#[test]
fn two_servers_in_a_folder_are_a_gap_once_and_never_a_change_back() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (first, second) = (file("2026-11-23T003915.log"), file("2026-11-23T003916.log"));
    append(&first, &first_line("[\"serve\",\"--port\",\"4096\"]"));
    let mut follower = follower_in(folder.path(), Start::End);
    assert_eq!(look(&mut follower), []);
    append(&first, &line("a"));
    append(&second, &(first_line("[\"serve\",\"--port\",\"4097\"]") + &line("b")));
    assert_eq!(look(&mut follower), [notice("a"), Item::Started, notice("b")]);
    append(&first, &line("c"));
    assert_eq!(look(&mut follower), [gap("two-servers"), Item::Elsewhere]);
    for _ in 0..10 {
        append(&first, &line("d"));
        append(&second, &line("e"));
        assert_eq!(look(&mut follower), [notice("e"), Item::Elsewhere]);
    }
}

#[tokio::test]
async fn without_inotify_the_poll_finds_everything() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, "");
    let (out, mut messages) = tokio::sync::mpsc::channel(8);
    let following = follow_place(follower_of(&path, Start::End), Wake::polling, &out);
    let test = async {
        assert!(matches!(next(&mut messages).await, Message::Following { .. }));
        for kind in ["a", "b"] {
            append(&path, &line(kind));
            let Message::Lines { items, .. } = next(&mut messages).await else { panic!("no lines") };
            assert_eq!(items, [notice(kind)]);
        }
        fs::rename(&path, folder.path().join("log.1")).unwrap();
        append(&path, &line("c"));
        let Message::Lines { items, .. } = next(&mut messages).await else { panic!("no lines") };
        assert_eq!(items, [notice("c")]);
    };
    tokio::select! { _ = following => panic!("ended"), () = test => {} }
}

/// More changes than the kernel keeps: it says so once, and forgets the rest.
#[tokio::test]
async fn changes_that_inotify_forgot_lose_nothing() {
    const CHANGES: usize = 17_000;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    append(&path, "");
    let (out, mut messages) = tokio::sync::mpsc::channel(1);
    let following = follow_place(follower_of(&path, Start::End), Wake::new, &out);
    let test = async {
        assert!(matches!(next(&mut messages).await, Message::Following { .. }));
        append(&path, &line("a"));
        let Message::Lines { .. } = next(&mut messages).await else { panic!("no lines") };
        // The queue is full with what follows, so that the follower does not take the kernel's events meanwhile; and this
        // runtime has one thread, which we keep.
        // Two files in turn: equal events in a row are one.
        let mut others = ["x", "y"].map(|name| File::create(folder.path().join(name)).unwrap());
        for number in 0..CHANGES {
            others[number % 2].write_all(b"x").unwrap();
        }
        append(&path, &line("b"));
        fs::rename(&path, folder.path().join("log.1")).unwrap();
        append(&path, &line("c"));
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let Message::Lines { items, .. } = next(&mut messages).await else { panic!("no lines") };
            seen.extend(items);
        }
        assert_eq!(seen, [notice("b"), notice("c")]);
    };
    tokio::select! { _ = following => panic!("ended"), () = test => {} }
}

/// However much waits in the file: what is in memory is a buffer, a line, and what is made of them.
#[test]
fn a_backlog_is_never_held_in_memory() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let text = line("a");
    append(&path, &text.repeat(8 * 1024 * 1024 / text.len()));
    let mut follower = follower_of(&path, Start::Beginning);
    let (mut before, mut looks) = (0, 0);
    loop {
        let look = follower.look();
        let position = look.position.unwrap().cursor.seen;
        assert!(position - before <= (READ + super::super::position::TRACE) as u64);
        assert!(look.items.len() <= (READ + super::super::position::TRACE) / text.len() + 1);
        assert!(look.items.capacity() <= 4 * (READ / text.len()), "{}", look.items.capacity());
        assert!(follower.buffer.capacity() <= 2 * READ);
        (before, looks) = (position, looks + 1);
        if look.next == Next::Wait {
            break;
        }
    }
    assert_eq!(before, fs::metadata(&path).unwrap().len());
    assert!(looks >= 32, "{looks}");
}
