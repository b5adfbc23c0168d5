//! Field lines: §5.1, §5.2, and the limits that RFC 9110 §5.4 asks for.

use super::Fate::{Passed, Refused};
use super::{Vector, get, meant, passed, vector};

pub(super) fn vectors() -> Vec<Vector> {
    let plain = || passed("GET /v", "");
    let with = |value| Passed(meant("GET /v", "").with("x-a", value));
    let mut all = vec![
        vector("5", "no space after the colon", get("x-a:b\r\n"), with("b")),
        vector("5", "white space around a value", get("x-a: \t b \t \r\n"), with("b")),
        vector("5", "an empty value", get("x-a:\r\n"), with("")),
        vector("5", "a value of white space", get("x-a: \t \r\n"), with("")),
        vector("5", "a tab inside of a value", get("x-a: b\tc\r\n"), with("b\tc")),
        vector("5", "a colon inside of a value", get("x-a: b: c\r\n"), with("b: c")),
        vector("5", "every byte of a token in a name", get("!#$%&'*+-.^_`|~09azAZ: b\r\n"), plain()),
        vector("5", "a line without a colon", get("x-a\r\n"), Refused(400)),
        vector("5", "a line of white space", get("x-a: b\r\n \r\n"), Refused(400)),
        vector("5.1", "an empty name", get(": b\r\n"), Refused(400)),
        vector("5.1", "a space before the colon", get("x-a : b\r\n"), Refused(400)),
        vector("5.1", "a tab before the colon", get("x-a\t: b\r\n"), Refused(400)),
        vector("5.1", "a space before Host's colon", "GET /v HTTP/1.1\r\nhost : relay\r\n\r\n", Refused(400)),
        vector("5.1", "a space inside of a name", get("x a: b\r\n"), Refused(400)),
        vector("5.2", "a folded value", get("x-a: b\r\n c\r\n"), Refused(400)),
        vector("5.2", "a value folded by a tab", get("x-a: b\r\n\tc\r\n"), Refused(400)),
        vector("5.2", "a folded empty value", get("x-a:\r\n b\r\n"), Refused(400)),
        vector("5.2", "a fold that looks like a field", get("x-a: b\r\n transfer-encoding: chunked\r\n"), Refused(400)),
        vector("5.2", "Host folded", "GET /v HTTP/1.1\r\nhost:\r\n relay\r\n\r\n", Refused(400)),
        vector("5.2", "a fold after a bare LF", get("x-a: b\n c\r\n"), Refused(400)),
        vector(
            "9110 5.5",
            "bytes beyond ASCII in a value",
            [b"GET /v HTTP/1.1\r\nhost: relay\r\nx-a: \xe9\xff\r\n\r\n".to_vec()].concat(),
            with("\u{e9}\u{ff}"),
        ),
        vector(
            "9110 5.5",
            "bytes beyond ASCII in a name",
            b"GET /v HTTP/1.1\r\nhost: relay\r\nx-\xe9: b\r\n\r\n".to_vec(),
            Refused(400),
        ),
        vector("9110 5.5", "a bare CR inside of a value", get("x-a: b\rc: d\r\n"), Refused(400)),
        vector("9110 5.5", "a bare CR at the end of a value", get("x-a: b\r\r\n"), Refused(400)),
        vector("9110 5.5", "a bare LF inside of a value is a line end", get("x-a: b\nx-b: c\r\n"), with("b")),
        vector("9110 5.5", "a line without a colon after a bare LF", get("x-a: b\nc\r\n"), Refused(400)),
        vector("9110 5.4", "a head of 300,000 bytes", get(&format!("x-a: {}\r\n", "b".repeat(300_000))), Refused(431)),
        vector("9110 5.4", "a name of 300,000 bytes", get(&format!("{}: b\r\n", "x".repeat(300_000))), Refused(431)),
        vector("9110 5.4", "1,000 fields", get(&"x-a: b\r\n".repeat(1000)), Refused(431)),
        vector("9110 5.4", "101 fields", get(&"x-b: b\r\n".repeat(100)), Refused(431)),
        vector("9110 5.4", "90 fields", get(&"x-b: b\r\n".repeat(90)), plain()),
        vector("9110 5.4", "a head of 30,000 bytes", get(&format!("x-b: {}\r\n", "b".repeat(30_000))), plain()),
    ];
    for byte in (0..32).chain([127]).filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r')) {
        let letter = char::from(byte);
        all.push(vector(
            "9110 5.5",
            format!("{letter:?} in a value"),
            get(&format!("x-a: b{letter}c\r\n")),
            Refused(400),
        ));
        all.push(vector("5.1", format!("{letter:?} in a name"), get(&format!("x{letter}a: b\r\n")), Refused(400)));
    }
    for letter in "\"(),/;<=>?@[\\]{}".chars() {
        all.push(vector("5.1", format!("{letter:?} in a name"), get(&format!("x{letter}a: b\r\n")), Refused(400)));
    }
    all
}
