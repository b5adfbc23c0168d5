//! What an earlier run left for `reconcile` may be anything: it is gone on from or refused, and what comes out of that is
//! left in the same shape again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use opencode_relay::reconcile::{Input, Now, Options, Reconcile, Witness};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let options = Options { witness: Witness::Auto, grace: 2000, watch: 2000, emit_bare: false };
    let at = |steady| Now { steady, wall: 1_795_000_000_000 + steady };
    let Ok(mut reconcile) = Reconcile::restore(options.clone(), text, [], at(0)) else { return };
    let mut effects = Vec::new();
    for input in [Input::Reachable(true), Input::Listened(true), Input::StreamUp, Input::Tick, Input::StreamDown] {
        reconcile.handle(input, at(10), &mut effects);
    }
    let _ = reconcile.pending(at(10));
    let again = reconcile.snapshot(7);
    Reconcile::restore(options, &again, [], at(0)).expect("what was left is read again");
});
