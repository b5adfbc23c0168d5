//! Chunked bodies: §7.1 and its sections, §6.3 for what ends too early. The connection ends with each, see
//! `http::connection`.

use super::Fate::{Broken, Last, Passed, Unfinished};
use super::{SMUGGLED, Vector, last, meant, post, vector};

/// A chunked body as it is.
fn chunked(body: &str) -> String {
    post("transfer-encoding: chunked\r\n", body)
}

pub(super) fn vectors() -> Vec<Vector> {
    let whole = || last("POST /v", "abcde");
    let trailing = |trailers: &str| {
        post("trailer: x-t\r\ntransfer-encoding: chunked\r\n", &format!("5\r\nabcde\r\n0\r\n{trailers}\r\n"))
    };
    let mut all = vec![
        vector("7.1", "two chunks", chunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), whole()),
        vector("7.1", "no chunk but the last", chunked("0\r\n\r\n"), last("POST /v", "")),
        vector("7.1", "leading zeros", chunked("00000005\r\nabcde\r\n000\r\n\r\n"), whole()),
        vector(
            "7.1",
            "hex in both cases",
            chunked(&format!("1A\r\n{0}\r\n1b\r\n{0}z\r\n0\r\n\r\n", "y".repeat(26))),
            last("POST /v", &format!("{0}{0}z", "y".repeat(26))),
        ),
        vector(
            "7.1",
            "a request inside of a chunk",
            chunked(&format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())),
            last("POST /v", SMUGGLED),
        ),
        vector(
            "7.1",
            "a last chunk inside of a chunk",
            chunked("5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
            last("POST /v", "0\r\n\r\n"),
        ),
        vector("7.1", "a space after the size", chunked("5 \r\nabcde\r\n0\r\n\r\n"), whole()),
        // What follows is swallowed as trailers by hyper 1.12, and nobody gets an answer to it.
        vector("7.1.2", "a bare LF for trailers", chunked(&format!("5\r\nabcde\r\n0\r\n\n{SMUGGLED}")), whole()),
        vector(
            "7.1.2",
            "a bare LF behind trailers",
            chunked(&format!("5\r\nabcde\r\n0\r\nx: y\n\n{SMUGGLED}")),
            whole(),
        ),
        vector("7.1", "data longer than its size", chunked("5\r\nabcdef\r\n0\r\n\r\n"), Broken),
        vector("7.1", "data shorter than its size", chunked("5\r\nabc\r\n0\r\n\r\n"), Broken),
        vector("7.1", "no CRLF after data", chunked("5\r\nabcde0\r\n\r\n"), Broken),
        vector("7.1", "a bare LF after data", chunked("5\r\nabcde\n0\r\n\r\n"), Broken),
        vector("7.1", "a bare CR after data", chunked("5\r\nabcde\r0\r\n\r\n"), Broken),
        vector("7.1", "two bytes for the CRLF after data", chunked("5\r\nabcdexx0\r\n\r\n"), Broken),
        vector("7.1", "a bare LF after the size", chunked("5\nabcde\r\n0\r\n\r\n"), Broken),
        vector("7.1", "a bare CR after the size", chunked("5\rabcde\r\n0\r\n\r\n"), Broken),
        vector("7.1", "CR CR LF after the size", chunked("5\r\r\nabcde\r\n0\r\n\r\n"), Broken),
        vector("7.1", "a bare LF after the last size", chunked("5\r\nabcde\r\n0\n\n"), Broken),
        vector("7.1", "an empty line before the size", chunked("\r\n5\r\nabcde\r\n0\r\n\r\n"), Broken),
        vector("7.1", "no size", chunked(";a\r\nabcde\r\n0\r\n\r\n"), Broken),
        vector(
            "7.1",
            "a size that ends in an overflow",
            chunked(&format!("10000000000000005\r\nabcde\r\n0\r\n\r\n{SMUGGLED}")),
            Broken,
        ),
        vector("6.3", "no last chunk", chunked("5\r\nabcde\r\n"), Broken),
        vector("6.3", "a chunk that does not end", chunked("500\r\nabcde"), Unfinished),
        vector("6.3", "a size that does not end", chunked("5\r\nabcde\r\n0"), Broken),
        vector("6.3", "a last chunk without its empty line", chunked("5\r\nabcde\r\n0\r\n"), Broken),
        vector("7.1.1", "an extension", chunked("5;a\r\nabcde\r\n0;b\r\n\r\n"), whole()),
        vector("7.1.1", "an extension with a value", chunked("5;a=b;c=\"d\"\r\nabcde\r\n0\r\n\r\n"), whole()),
        vector("7.1.1", "white space around an extension", chunked("5 ; a = b\r\nabcde\r\n0\r\n\r\n"), whole()),
        vector(
            "7.1.1",
            "a bare LF in an extension (TERM.EXT)",
            chunked(&format!("5;a\nabcde\r\n0\r\n\r\n{SMUGGLED}")),
            Broken,
        ),
        vector("7.1.1", "a bare LF in the last chunk's extension", chunked("5\r\nabcde\r\n0;a\n\r\n\r\n"), Broken),
        vector("7.1.1", "a bare CR in an extension (EXT.TERM)", chunked("5;a\rx\r\nabcde\r\n0\r\n\r\n"), Broken),
        vector("7.1.1", "CR CR LF after an extension", chunked("5;a\r\r\nabcde\r\n0\r\n\r\n"), Broken),
        vector("7.1.1", "a quoted line end in an extension", chunked("5;a=\"\r\nabcde\"\r\n0\r\n\r\n"), Broken),
        vector(
            "7.1.1",
            "an extension of 20,000 bytes",
            chunked(&format!("5;{}\r\nabcde\r\n0\r\n\r\n", "a".repeat(20_000))),
            Broken,
        ),
        vector(
            "7.1.1",
            "20,000 bytes of extensions in many chunks",
            chunked(&format!("{}0\r\n\r\n", "1;aaaaaaaaaa\r\nb\r\n".repeat(2_000))),
            Broken,
        ),
        vector("7.1.1", "an extension without an end", chunked(&format!("5;{}", "a".repeat(100_000))), Broken),
        vector("7.1.2", "a trailer", trailing("x-t: u\r\n"), whole()),
        vector("7.1.2", "trailers that were not announced", chunked("5\r\nabcde\r\n0\r\nx-hop: u\r\n\r\n"), whole()),
        vector("7.1.2", "a folded trailer", trailing("x-t: u\r\n v\r\n"), Broken),
        vector("7.1.2", "a trailer without a colon", trailing("x-t\r\n"), Broken),
        vector("7.1.2", "a space before a trailer's colon", trailing("x-t : u\r\n"), Broken),
        vector("7.1.2", "NUL in a trailer", trailing("x-t: \0\r\n"), Broken),
        vector("7.1.2", "a bare CR in a trailer", trailing("x-t: u\rv\r\n"), Broken),
        vector("7.1.2", "a request for a trailer", trailing("GET /smuggled HTTP/1.1\r\n"), Broken),
        vector("7.1.2", "200 trailers", trailing(&"x-t: u\r\n".repeat(200)), Broken),
        vector("7.1.2", "a trailer of 100,000 bytes", trailing(&format!("x-t: {}\r\n", "u".repeat(100_000))), Broken),
        vector("7.1.2", "trailers without an end", chunked(&format!("0\r\n{}", "x-t: u\r\n".repeat(20_000))), Broken),
        vector(
            "7.1.2",
            "an announced trailer that may not be one",
            post(
                "trailer: content-length, host, transfer-encoding\r\ntransfer-encoding: chunked\r\n",
                "5\r\nabcde\r\n0\r\ncontent-length: 9\r\nhost: evil\r\ntransfer-encoding: gzip\r\n\r\n",
            ),
            Last(meant("POST /v", "abcde").with("host", "relay")),
        ),
        vector(
            "7.4",
            "TE is for this hop",
            post("te: trailers, deflate;q=0.5\r\nconnection: te\r\ncontent-length: 5\r\n", "abcde"),
            Passed(meant("POST /v", "abcde").with("te", "trailers")),
        ),
        vector("6.3", "data after the last chunk is the next request", chunked("5\r\nabcde\r\n0\r\n\r\n\r\n"), whole()),
        vector(
            "6.3",
            "garbage after the last chunk",
            chunked("5\r\nabcde\r\n0\r\n\r\n\0\0\0\0"),
            super::last("POST /v", "abcde"),
        ),
    ];
    for size in [
        "0x5",
        "+5",
        "-5",
        "-0",
        " 5",
        "\t5",
        "5g",
        "g",
        "",
        "5,",
        "5.0",
        "5 5",
        "5\x0b",
        "5\0",
        "\"5\"",
        "５",
        "10000000000000000",
        "fffffffffffffffff",
        "ffffffffffffffffffffffffffffffff",
    ] {
        all.push(vector(
            "7.1",
            format!("the chunk size {size:?}"),
            chunked(&format!("{size}\r\nabcde\r\n0\r\n\r\n")),
            Broken,
        ));
    }
    for size in ["7fffffffffffffff", "ffffffff"] {
        all.push(vector(
            "7.1",
            format!("the chunk size {size:?}"),
            chunked(&format!("{size}\r\nabcde\r\n0\r\n\r\n")),
            Unfinished,
        ));
    }
    all
}
