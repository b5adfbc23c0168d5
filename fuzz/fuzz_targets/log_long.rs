//! The bus log with a first line about as long as the longest that is kept. A target of its own, because it is slow.

#![no_main]

mod pieces;
mod reading;

use libfuzzer_sys::fuzz_target;
use opencode_relay::ingest::log::decode::LONGEST_LINE;
use pieces::Cut;

/// The input's first line ends below, at or above the limit.
const BEFORE: usize = LONGEST_LINE - 8;

fuzz_target!(|input: &[u8]| {
    if let Some(cut) = Cut::of(input) {
        reading::check(&cut, BEFORE);
    }
});
