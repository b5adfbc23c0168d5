//! What the targets for the bus log share: the check itself.

use opencode_relay::ingest::log::decode::LONGEST_LINE;
use opencode_relay::ingest::log::{Decoder, Item, line};

use crate::pieces::Cut;

/// Lines of any bytes, cut anywhere, say the same; and they say what a plain reading of them says. In front of the text
/// stand so many bytes of its first line.
pub fn check(cut: &Cut<'_>, before: usize) {
    let mut text = vec![b'x'; before];
    text.extend_from_slice(cut.text);

    let mut whole = Vec::new();
    let mut decoder = Decoder::new();
    decoder.push(&text, &mut whole);
    decoder.finish(&mut whole);

    let mut pieced = Vec::new();
    let mut decoder = Decoder::new();
    decoder.push(&text[..before], &mut pieced);
    cut.pieces(cut.text).for_each(|piece| decoder.push(piece, &mut pieced));
    decoder.finish(&mut pieced);
    assert_eq!(whole, pieced, "where the bytes are cut makes a difference");

    let notices: Vec<String> = whole
        .iter()
        .filter_map(|item| match item {
            Item::Notice { kind } => Some(kind.to_string()),
            _ => None,
        })
        .collect();
    let short = |line: &&[u8]| line.len() <= LONGEST_LINE;
    let plain: Vec<String> = text.split(|byte| *byte == b'\n').filter(short).filter_map(notice).collect();
    assert_eq!(notices, plain, "a plain reading finds other notices");

    for line in text.split(|byte| *byte == b'\n').filter(short) {
        let _ = (line::started_with(line), line::is_bus(line));
        let _ = line::split_head(line).and_then(|(head, _)| Some(head.midnight()? + head.since_midnight()?));
    }
}

/// `INFO  2026-11-23T00:39:15 +38ms service=bus type=message.part.delta publishing`, read word by word.
fn notice(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let level = ["INFO  ", "WARN  ", "ERROR ", "DEBUG "].into_iter().find(|level| line.starts_with(level))?;
    let words: Vec<&str> = line[level.len()..].split(' ').collect();
    let [time, since, "service=bus", kind, "publishing"] = words[..] else { return None };
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let since = since.strip_prefix('+')?.strip_suffix("ms")?;
    let digits = since.strip_prefix('-').unwrap_or(since);
    let counted = (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let kind = kind.strip_prefix("type=")?;
    let named = (1..=64).contains(&kind.len())
        && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
    (shape == "0000-00-00T00:00:00" && counted && named).then(|| kind.to_owned())
}
