//! The reader of the upstream's stream: bytes cut anywhere give the same frames, and those that the standard says
//! (WHATWG HTML, "Server-sent events", interpreting an event stream).

#![no_main]

mod pieces;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use opencode_relay::ingest::stream::Parser;
use pieces::Cut;

fuzz_target!(|input: &[u8]| {
    let Some(cut) = Cut::of(input) else { return };
    let (mut parser, mut pieced) = (Parser::default(), Vec::new());
    let oversize: usize = cut.pieces(cut.text).map(|piece| parser.push(piece, &mut pieced)).sum();
    assert_eq!(oversize, 0, "no input here is that long");

    let mut whole: Vec<Bytes> = Vec::new();
    Parser::default().push(cut.text, &mut whole);
    assert_eq!(whole, pieced, "where the bytes are cut makes a difference");
    assert_eq!(whole, plain(cut.text), "the standard says otherwise");
});

/// The data of every event, step by step as the standard puts it, on the whole text.
fn plain(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines = vec![Vec::new()];
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\r' | b'\n' => {
                at += usize::from(text[at..].starts_with(b"\r\n"));
                lines.push(Vec::new());
            }
            byte => lines.last_mut().expect("there is always one").push(byte),
        }
        at += 1;
    }
    // What no line end follows is no line yet.
    lines.pop();
    let (mut events, mut buffer) = (Vec::new(), Vec::new());
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        if line.is_empty() {
            if !buffer.is_empty() {
                buffer.pop();
                events.push(std::mem::take(&mut buffer));
            }
        } else if &line[..colon] == b"data" {
            let value = line.get(colon + 1..).unwrap_or_default();
            buffer.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            buffer.push(b'\n');
        }
    }
    events
}
