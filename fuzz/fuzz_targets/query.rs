//! What clients write into the URL and into `Last-Event-ID`: queries, ids, and filters of types.

#![no_main]

use libfuzzer_sys::fuzz_target;
use opencode_relay::event::{Cursor, Epoch, Seq, Types};
use opencode_relay::proxy::query;

fuzz_target!(|input: &[u8]| {
    if let Some((numbers, _)) = input.split_first_chunk::<16>() {
        let (epoch, seq) = numbers.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let cursor = Cursor { epoch: Epoch::new(number(epoch)), seq: Seq(number(seq)) };
        assert_eq!(cursor.to_string().parse(), Ok(cursor), "an id of ours is not read back");
    }
    let text = String::from_utf8_lossy(input);
    // Clients compare ids as text: there is one spelling of each.
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
    }
    let _ = Types::parse(&text);

    let pairs: Vec<query::Pair<'_>> = query::pairs(&text).collect();
    let raw: Vec<&str> = text.split('&').filter(|raw| !raw.is_empty()).collect();
    assert_eq!(pairs.iter().map(|pair| pair.raw).collect::<Vec<_>>(), raw, "the raw text changed");
    for pair in &pairs {
        let (name, value) = pair.raw.split_once('=').unwrap_or((pair.raw, ""));
        assert_eq!((&pair.name, &pair.value), (&plain(name), &plain(value)));
        let first = pairs.iter().find(|other| other.name == pair.name).map(|other| other.value.clone());
        assert_eq!(query::first(&text, &pair.name), first);
        let _ = (pair.value.parse::<Cursor>(), Types::parse(&pair.value));
    }
});

/// The text of a form field, byte by byte.
fn plain(text: &str) -> String {
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            (byte, ..) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
