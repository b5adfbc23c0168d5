//! `docs/clients.md` shows the programs that the tests run, to the letter.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::curl::NVIM;
use super::fixture::source;

/// Those that people are shown.
const SHOWN: [&str; 5] =
    ["browser/eventsource.html", "eventsource/follow.mjs", "go/follow.go", "python/follow.py", "sdk/events.mjs"];

#[test]
fn the_programs_shown_are_those_that_run() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md")).unwrap();
    let shown = text.split("<!-- tests/clients/").skip(1).map(|part| {
        let (path, rest) = part.split_once(" -->\n```").unwrap();
        let (_, code) = rest.split_once('\n').unwrap();
        (path, code.split_once("```\n").unwrap().0)
    });
    let shown = BTreeMap::from_iter(shown);
    assert_eq!(Vec::from_iter(shown.keys().copied()), SHOWN);
    for (path, code) in shown {
        assert_eq!(code, fs::read_to_string(source(path)).unwrap(), "{path}");
    }
    let curl = format!("    curl {} http://127.0.0.1:4097/event\n", NVIM.join(" "));
    assert!(text.replace('\'', "").contains(&curl), "{curl}");
}
