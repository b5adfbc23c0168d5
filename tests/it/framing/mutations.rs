//! Valid requests with random damage: whatever the relay makes of them, what arrives at opencode is whole messages, one for
//! each answer that is handed back.
//!
//! `RELAY_SEED` repeats a run, `RELAY_CASES` makes it longer.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::recorder::{Arrived, Got, Recorder, SILENCE, talk};
use crate::proxy::fixture::Relay;
use crate::upstream::LIMIT;

/// Relays that are tried at the same time: most cases end in a wait.
const LANES: usize = 16;

const SEEDS: [&str; 8] = [
    "GET /v HTTP/1.1\r\nhost: relay\r\n\r\nGET /w HTTP/1.1\r\nhost: relay\r\n\r\n",
    "POST /v HTTP/1.1\r\nhost: relay\r\ncontent-length: 22\r\n\r\nGET /smuggled HTTP/1.1GET /w HTTP/1.1\r\nhost: relay\r\n\r\n",
    "POST /v HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\nGET /w HTTP/1.1\r\nhost: relay\r\n\r\n",
    "POST /v HTTP/1.1\r\nhost: relay\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /w HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST /v HTTP/1.1\r\nhost: relay\r\ntrailer: x-t\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\nz\r\n0\r\nx-t: u\r\n\r\n",
    "GET http://relay/v?q HTTP/1.1\r\nhost: relay\r\nconnection: keep-alive, x-a\r\nx-a: b\r\n\r\nHEAD /w HTTP/1.1\r\nhost: relay\r\n\r\n",
    "DELETE /v HTTP/1.1\r\nhost: relay\r\ncontent-length: 36\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: rela\r\n\r\n",
    "PUT /v HTTP/1.1\r\nhost: relay\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabcOPTIONS * HTTP/1.1\r\nhost: relay\r\n\r\n",
];

/// What somebody may put where it does not belong.
const PIECES: [&str; 20] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\n\n",
    " ",
    "\t",
    "\0",
    ":",
    ",",
    ";",
    "0",
    "5",
    "chunked",
    "content-length: 3\r\n",
    "transfer-encoding: chunked\r\n",
    "host: a\r\n",
    "\r\n ",
    "GET /s HTTP/1.1\r\nhost: a\r\n\r\n",
    "\u{a0}",
];

#[derive(Clone, Debug)]
enum Damage {
    Byte(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, usize),
    Double(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (at(), prop::sample::select(PIECES.to_vec())).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (at(), 1..4_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        at().prop_map(Damage::Double),
        (at(), at()).prop_map(|(one, other)| Damage::Swap(one, other)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        match self {
            _ if bytes.is_empty() => {}
            Self::Byte(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Insert(at, piece) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, piece.bytes());
            }
            Self::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Double(line) => {
                let line = line.index(lines.len());
                lines.insert(line, lines[line].clone());
                *bytes = lines.concat();
            }
            Self::Swap(one, other) => {
                let count = lines.len();
                lines.swap(one.index(count), other.index(count));
                *bytes = lines.concat();
            }
        }
    }
}

#[tokio::test]
async fn damaged_requests_are_refused_or_forwarded_as_one_message_each() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, cases) = (number("RELAY_SEED").unwrap_or(1), number("RELAY_CASES").unwrap_or(480));
    println!("RELAY_SEED={seed}, {cases} cases");
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() });
    let script = (prop::sample::select(SEEDS.to_vec()), prop::collection::vec(damage(), 1..4));
    let mut lanes: Vec<Vec<Vec<u8>>> = vec![Vec::new(); LANES];
    for case in 0..cases as usize {
        let (start, damages) = script.new_tree(&mut runner).unwrap().current();
        let mut bytes = start.as_bytes().to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        lanes[case % LANES].push(bytes);
    }
    let ran = futures_util::future::join_all(lanes.into_iter().map(|cases| async move {
        let recorder = Recorder::start().await;
        let relay = recorder.relay().await;
        let mut forwarded = 0;
        for bytes in cases {
            forwarded += check(&relay, &recorder, &bytes).await;
        }
        forwarded
    }));
    println!("messages forwarded: {}", ran.await.iter().sum::<usize>());
}

/// Sends one case; how many messages were forwarded. On a busy machine a message may arrive after its client has left, and
/// is counted to the next case then: so what does not match is tried again by itself before it counts.
async fn check(relay: &Relay, recorder: &Recorder, bytes: &[u8]) -> usize {
    for _ in 0..2 {
        if let Ok(forwarded) = attempt(relay, recorder, bytes).await {
            return forwarded;
        }
        tokio::time::sleep(4 * SILENCE).await;
        recorder.take();
    }
    attempt(relay, recorder, bytes).await.unwrap_or_else(|wrong| panic!("{wrong}, of {}", bytes.escape_ascii()))
}

async fn attempt(relay: &Relay, recorder: &Recorder, bytes: &[u8]) -> Result<usize, String> {
    // Nothing is enough: only silence or the end tells that no more will come.
    let patience = |got: &Got| if recorder.messages() > got.served().len() { LIMIT } else { SILENCE };
    let got = talk(relay, bytes, |got| got.wrong.is_some(), patience).await;
    let what = bytes.escape_ascii();
    assert_eq!(got.wrong, None, "the client got no answer to {what}");
    let mut came = Vec::new();
    for arrived in recorder.take() {
        match arrived {
            Arrived::Message(message) => came.push(message.label()),
            Arrived::Wrong(wrong) => panic!("opencode got no message of {what}: {wrong}"),
            Arrived::Cut => {}
        }
    }
    let served = got.served();
    if came == served { Ok(came.len()) } else { Err(format!("opencode got {came:?}, and {served:?} were answered")) }
}
