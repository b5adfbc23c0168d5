//! The steps of an event through the relay, each alone: `cargo bench`.
//!
//! The events are those of a captured turn. Allocations are counted with the time. The machine's noise is in the times; what
//! the relay costs beside others is measured by `benches/side-by-side`.

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};
use opencode_relay::event::{Cursor, Epoch, Event, Form, Frame, Origin, Scope, Seq, Types, View, put_frame};
use opencode_relay::hub::{Follower, Hub};
use opencode_relay::ingest::log::Decoder;
use opencode_relay::ingest::stream::Parser;
use opencode_relay::journal::{Batch, Journal, Options, Read, Stored};
use opencode_relay::reconcile::{self, Input, Now, Reconcile, Witness};
use opencode_relay::stop::Tasks;
use serde_json::Value;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// What is read from a file or socket at once.
const PIECE: usize = 64 << 10;

/// Followers that wait at the tail.
const FOLLOWERS: usize = 1_000;

/// Events in a journal that is read.
const JOURNALED: usize = 10_000;

/// Events that are journaled without a pause.
const SUSTAINED: usize = 1_000_000;

fn main() {
    divan::main();
}

/// The lines of a file of a captured turn of 1.14.48.
fn captured(file: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures/1.14.48/a_text");
    let text = fs::read_to_string(folder.join(file)).expect("the capture is there");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    lines.filter_map(|line| Some(line["line"].as_str()?.to_owned())).collect()
}

/// The data of the turn's frames on `/global/event`.
static FRAMES: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let lines = captured("global-event.jsonl");
    lines.iter().filter_map(|line| Some(Bytes::copy_from_slice(line.strip_prefix("data: ")?.as_bytes()))).collect()
});

static EVENTS: LazyLock<Vec<Event>> =
    LazyLock::new(|| FRAMES.iter().map(|data| Event::read(data.clone()).expect("a frame is an event")).collect());

/// The turn's events again and again.
fn events(count: usize) -> Vec<Event> {
    EVENTS.iter().cycle().take(count).cloned().collect()
}

/// A megabyte of these lines.
fn repeated(lines: &[String], end: &str) -> Vec<u8> {
    lines.iter().cycle().flat_map(|line| [line.as_bytes(), end.as_bytes()].concat()).take(1 << 20).collect()
}

#[divan::bench]
fn log_decode(bencher: Bencher<'_, '_>) {
    let log = repeated(&captured("stderr.jsonl"), "\n");
    bencher.counter(BytesCount::of_slice(&log)).with_inputs(Vec::new).bench_local_refs(|items| {
        let mut decoder = Decoder::new();
        for piece in log.chunks(PIECE) {
            items.clear();
            decoder.push(black_box(piece), items);
        }
    });
}

#[divan::bench]
fn sse_parse(bencher: Bencher<'_, '_>) {
    let stream = repeated(&captured("global-event.jsonl"), "\n\n");
    bencher.counter(BytesCount::of_slice(&stream)).with_inputs(Vec::new).bench_local_refs(|frames| {
        let mut parser = Parser::default();
        for piece in stream.chunks(PIECE) {
            frames.clear();
            parser.push(black_box(piece), frames);
        }
    });
}

#[divan::bench]
fn event_read(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(FRAMES.len())).bench_local(|| {
        for data in FRAMES.iter() {
            black_box(Event::read(black_box(data.clone()))).expect("a frame is an event");
        }
    });
}

/// A turn's events, each announced by the log before the stream brings it.
#[divan::bench]
fn reconcile_step(bencher: Bencher<'_, '_>) {
    let options = reconcile::Options { witness: Witness::Auto, grace: 1_000, watch: 2_000, emit_bare: false };
    let now = Now { steady: 1_000, wall: now() };
    let begin = || {
        let mut reconcile = Reconcile::new(options.clone(), now);
        let mut effects = Vec::new();
        reconcile.handle(Input::StreamUp, now, &mut effects);
        (reconcile, effects, events(EVENTS.len()))
    };
    bencher.counter(ItemsCount::new(EVENTS.len())).with_inputs(begin).bench_local_values(
        |(mut reconcile, mut effects, events)| {
            for event in events {
                reconcile.handle(Input::Notice(event.kind.clone()), now, &mut effects);
                reconcile.handle(Input::Event(event), now, &mut effects);
            }
            (reconcile, effects)
        },
    );
}

/// Unix time in milliseconds: what is older than a day does not stay in a journal.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(now.as_millis()).expect("it fits for ages")
}

/// A journal in a folder that goes with it.
fn on_disk(options: Options) -> (Journal, TempDir) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (journal, _) = Journal::open(Journal::take(folder.path()).expect("a new folder"), options)
        .expect("an empty folder can be used");
    (journal, folder)
}

/// As the pipeline appends: a note with each batch.
fn append(journal: &Journal, events: Vec<Event>) -> Vec<Arc<opencode_relay::journal::Record>> {
    journal.append(Batch { events, notes: vec![("log", "{\"offset\":0}".to_owned())] }, now())
}

#[divan::bench(args = [1, 100])]
fn journal_append(bencher: Bencher<'_, '_>, batch: usize) {
    let (journal, _folder) = on_disk(Options::default());
    let bencher = bencher.counter(ItemsCount::new(batch)).with_inputs(|| events(batch));
    bencher.bench_local_values(|events| append(&journal, events));
    journal.close();
}

/// Without a pause, at the limit most of the time: what is old is dropped, and the file synced every second.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn journal_append_sustained(bencher: Bencher<'_, '_>) {
    let (journal, _folder) = on_disk(Options { bytes: 64 << 20, ..Options::default() });
    bencher.counter(ItemsCount::new(SUSTAINED)).bench_local(|| {
        for _ in 0..SUSTAINED / 100 {
            append(&journal, events(100));
        }
    });
    journal.close();
}

#[divan::bench(args = [1, 100])]
fn journal_append_in_memory(bencher: Bencher<'_, '_>, batch: usize) {
    let journal = Journal::new(Epoch::new(1), Options::default());
    let bencher = bencher.counter(ItemsCount::new(batch)).with_inputs(|| events(batch));
    bencher.bench_local_values(|events| append(&journal, events));
}

#[divan::bench]
fn journal_read_from_memory(bencher: Bencher<'_, '_>) {
    let journal = Journal::new(Epoch::new(1), Options::default());
    append(&journal, events(JOURNALED));
    bencher.counter(ItemsCount::new(JOURNALED)).bench_local(|| {
        let (mut after, mut count) = (Seq(0), 0);
        while after < journal.fill().newest {
            let Ok(Read::Here(records)) = journal.read(after, 256 << 10) else { panic!("it is kept in memory") };
            (after, count) = (records.last().expect("there are newer ones").seq, count + records.len());
        }
        assert_eq!(count, JOURNALED);
    });
}

#[divan::bench]
fn journal_read_from_file(bencher: Bencher<'_, '_>) {
    let (journal, _folder) = on_disk(Options::default());
    append(&journal, events(JOURNALED));
    bencher.counter(ItemsCount::new(JOURNALED)).bench_local(|| {
        let mut count = 0;
        let visit = |stored: Stored<'_>| {
            black_box(stored);
            count += 1;
            ControlFlow::Continue(())
        };
        journal.read_file(Seq(0), visit).expect("it is kept");
        assert_eq!(count, JOURNALED);
    });
    journal.close();
}

#[divan::bench]
fn frame_encode(bencher: Bencher<'_, '_>) {
    let cursor = Cursor { epoch: Epoch::new(1), seq: Seq(123_456) };
    bencher.counter(ItemsCount::new(FRAMES.len())).bench_local(|| {
        for data in FRAMES.iter() {
            black_box(Frame::new(black_box(cursor), data));
        }
    });
}

#[divan::bench]
fn frame_put(bencher: Bencher<'_, '_>) {
    let cursor = Cursor { epoch: Epoch::new(1), seq: Seq(123_456) };
    let frames = FRAMES.iter().map(|data| Frame::new(cursor, data).data()).collect::<Vec<_>>();
    let form = Form { ids: true, origin: false };
    let room = || BytesMut::with_capacity(PIECE);
    bencher.counter(ItemsCount::new(frames.len())).with_inputs(room).bench_local_refs(|out| {
        frames.iter().for_each(|data| put_frame(data, cursor, form, Origin::Stream, 0, out));
    });
}

/// One event to all followers at the tail: each is woken and takes its frame.
#[divan::bench]
fn hub_wake(bencher: Bencher<'_, '_>) {
    let journal = Arc::new(Journal::new(Epoch::new(1), Options::default()));
    let hub = Hub::new(journal.clone(), Tasks::new());
    let form = Form { ids: true, origin: false };
    let scope = Scope { view: View::Global, directory: None, session: None, types: Types::default() };
    let mut followers = (0..FOLLOWERS).map(|_| hub.follow(scope.clone(), None, form)).collect::<Vec<_>>();
    followers.iter_mut().for_each(|follower| while take(follower).is_ready() {});
    let followers = RefCell::new(followers);
    bencher.counter(ItemsCount::new(FOLLOWERS)).with_inputs(|| append(&journal, events(1))).bench_local_values(
        |records| {
            hub.publish(records, None);
            for follower in followers.borrow_mut().iter_mut() {
                assert!(take(follower).is_ready(), "it was not woken");
                assert!(take(follower).is_pending(), "it waits for the next");
            }
        },
    );
}

fn take(follower: &mut Follower) -> Poll<Bytes> {
    let frames = follower.poll_frames(&mut Context::from_waker(Waker::noop()));
    frames.map(|frames| frames.expect("it is at the tail"))
}
