//! The bus log: lines of any bytes, cut anywhere.

#![no_main]

mod pieces;
mod reading;

use libfuzzer_sys::fuzz_target;
use pieces::Cut;

fuzz_target!(|input: &[u8]| {
    if let Some(cut) = Cut::of(input) {
        reading::check(&cut, 0);
    }
});
