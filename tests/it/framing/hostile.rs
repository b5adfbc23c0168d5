//! Answers as bytes that a hostile or broken opencode may send, with what a client may get of each.

/// What a client gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// One whole answer with this status and body.
    Whole(u16, &'static str),
    /// The relay's own 502.
    Refused,
    /// 502, or one whole answer with this status and body: hyper's choice, either is one reading.
    Either(u16, &'static str),
    /// The beginning of an answer, and then the end of the connection.
    Cut,
    /// Nothing yet: what came is no whole head, or an informational one.
    Unfinished,
}

/// An answer and what a client gets of it.
pub(crate) struct Hostile {
    /// The section of RFC 9112, unless it names another document.
    pub(crate) section: &'static str,
    pub(crate) name: String,
    /// What the client asks.
    pub(crate) method: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Whether opencode ends the connection then.
    pub(crate) ends: bool,
    pub(crate) fate: Fate,
}

/// An answer that wants to be taken for the next one.
pub(crate) const POISON: &str = "HTTP/1.1 200 OK\r\nx-served: poison\r\ncontent-length: 6\r\n\r\npoison";

use Fate::{Cut, Either, Refused, Unfinished, Whole};

/// `200` with these field lines and this body.
fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    ok("transfer-encoding: chunked\r\n", body)
}

fn kept(section: &'static str, name: &str, bytes: impl Into<Vec<u8>>, fate: Fate) -> Hostile {
    Hostile { section, name: name.to_owned(), method: "GET", bytes: bytes.into(), ends: false, fate }
}

fn ended(section: &'static str, name: &str, bytes: impl Into<Vec<u8>>, fate: Fate) -> Hostile {
    Hostile { ends: true, ..kept(section, name, bytes, fate) }
}

fn to_head(section: &'static str, name: &str, bytes: impl Into<Vec<u8>>, fate: Fate) -> Hostile {
    Hostile { method: "HEAD", ..kept(section, name, bytes, fate) }
}

pub(crate) fn all() -> Vec<Hostile> {
    let served = "x-served: HEAD x\r\n";
    let length = "content-length: 5\r\n";
    let whole = Whole(200, "abcde");
    let mut all = vec![
        kept("6.3", "a length", ok(length, "abcde"), whole),
        kept("6.3", "a coding", chunked("5\r\nabcde\r\n0\r\n\r\n"), whole),
        ended("6.3", "a body up to the end", ok("", "abcde"), whole),
        ended("6.3", "less body than the length", ok(length, "abc"), Cut),
        ended("6.3", "no last chunk", chunked("5\r\nabcde\r\n"), Cut),
        ended("6.3", "a chunk that does not end", chunked("5\r\nabc"), Cut),
        ended("6.3", "a head that does not end", "HTTP/1.1 200 OK\r\nx-a: b", Refused),
        ended("6.3", "no answer", "", Refused),
        kept(
            "6.3",
            "a length and a coding",
            ok(&format!("content-length: 3\r\n{}", "transfer-encoding: chunked\r\n"), "5\r\nabcde\r\n0\r\n\r\n"),
            Either(200, "abcde"),
        ),
        kept(
            "6.3",
            "a coding and a length",
            ok(&format!("{}content-length: 3\r\n", "transfer-encoding: chunked\r\n"), "5\r\nabcde\r\n0\r\n\r\n"),
            Either(200, "abcde"),
        ),
        kept("6.3", "a length twice, the same", ok(&length.repeat(2), "abcde"), Either(200, "abcde")),
        kept("6.3", "a length twice in one line", ok("content-length: 5, 5\r\n", "abcde"), Either(200, "abcde")),
        kept("6.3", "two lengths", ok("content-length: 5\r\ncontent-length: 6\r\n", "abcdef"), Refused),
        kept("6.3", "two lengths in one line", ok("content-length: 5, 6\r\n", "abcdef"), Refused),
        kept("6.1", "gzip, chunked", ok("transfer-encoding: gzip, chunked\r\n", "5\r\nabcde\r\n0\r\n\r\n"), Refused),
        ended("6.1", "gzip without chunked", ok("transfer-encoding: gzip\r\n", "abcde"), Refused),
        ended("6.1", "chunked, gzip", ok("transfer-encoding: chunked, gzip\r\n", "5\r\nabcde\r\n0\r\n\r\n"), Refused),
        ended("6.1", "identity", ok("transfer-encoding: identity\r\n", "abcde"), Refused),
        kept("6.1", "chunked twice", ok("transfer-encoding: chunked, chunked\r\n", "5\r\nabcde\r\n0\r\n\r\n"), Refused),
        kept(
            "6.1",
            "chunked in two lines",
            ok("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
            Refused,
        ),
        ended(
            "6.1",
            "a coding in HTTP/1.0",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            Refused,
        ),
        kept("6.1", "a space before the colon", ok("transfer-encoding : chunked\r\n", "0\r\n\r\n"), Refused),
        to_head("6.3", "HEAD with a length", ok(&format!("{served}{length}"), ""), Whole(200, "")),
        to_head(
            "6.3",
            "HEAD with a body",
            ok(&format!("{served}content-length: {}\r\n", POISON.len()), POISON),
            Whole(200, ""),
        ),
        to_head(
            "6.3",
            "HEAD with a chunked body",
            ok(&format!("{served}transfer-encoding: chunked\r\n"), "5\r\nabcde\r\n0\r\n\r\n"),
            Whole(200, ""),
        ),
        kept(
            "6.3",
            "204 with a body",
            format!("HTTP/1.1 204 No Content\r\ncontent-length: {}\r\n\r\n{POISON}", POISON.len()),
            Whole(204, ""),
        ),
        kept(
            "6.3",
            "204 with a chunked body",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            Whole(204, ""),
        ),
        kept(
            "6.3",
            "304 with a body",
            format!("HTTP/1.1 304 Not Modified\r\ncontent-length: {}\r\n\r\n{POISON}", POISON.len()),
            Whole(304, ""),
        ),
        kept("11.1", "a second answer after a length", ok(length, &format!("abcde{POISON}")), whole),
        kept("11.1", "a second answer after a last chunk", chunked(&format!("5\r\nabcde\r\n0\r\n\r\n{POISON}")), whole),
        kept("11.1", "a second answer after no body", ok("content-length: 0\r\n", POISON), Whole(200, "")),
        kept("11.1", "line ends after the body", ok(length, "abcde\r\n\r\n"), whole),
        kept("11.1", "one byte after the body", ok(length, "abcde!"), whole),
        kept("7.1", "data longer than its size", chunked("5\r\nabcdef\r\n0\r\n\r\n"), Cut),
        kept("7.1", "a bare LF after the size", chunked("5\nabcde\r\n0\r\n\r\n"), Cut),
        kept("7.1.1", "an extension", chunked("5;a=b\r\nabcde\r\n0\r\n\r\n"), whole),
        kept("7.1.1", "a bare LF in an extension", chunked("5;a\nabcde\r\n0\r\n\r\n"), Cut),
        kept(
            "7.1.1",
            "an extension of 20,000 bytes",
            chunked(&format!("5;{}\r\nabcde\r\n0\r\n\r\n", "a".repeat(20_000))),
            Cut,
        ),
        kept("7.1.2", "trailers that nobody asked for", chunked("5\r\nabcde\r\n0\r\nx-hop: u\r\n\r\n"), whole),
        kept("7.1.2", "a folded trailer", chunked("5\r\nabcde\r\n0\r\nx-t: u\r\n v\r\n\r\n"), Cut),
        kept(
            "7.1.2",
            "trailers without an end",
            chunked(&format!("5\r\nabcde\r\n0\r\n{}", "x-t: u\r\n".repeat(10_000))),
            Cut,
        ),
        kept("5.2", "a folded field", ok(&format!("x-a: b\r\n c\r\n{length}"), "abcde"), Refused),
        kept("5.1", "a space before a colon", ok(&format!("x-a : b\r\n{length}"), "abcde"), Refused),
        kept("5.1", "a line without a colon", ok(&format!("x-a\r\n{length}"), "abcde"), Refused),
        kept("5.1", "an empty name", ok(&format!(": b\r\n{length}"), "abcde"), Refused),
        kept("9110 5.5", "NUL in a value", ok(&format!("x-a: b\0c\r\n{length}"), "abcde"), Refused),
        kept("9110 5.5", "a bare CR in a value", ok(&format!("x-a: b\rc\r\n{length}"), "abcde"), Refused),
        kept("2.2", "bare LF as line end", "HTTP/1.1 200 OK\ncontent-length: 5\n\nabcde", whole),
        kept(
            "2.2",
            "white space before the first field",
            format!("HTTP/1.1 200 OK\r\n x-a: b\r\n{length}\r\nabcde"),
            Refused,
        ),
        kept(
            "9110 5.4",
            "a head of 1 MB",
            ok(&format!("x-a: {}\r\n{length}", "b".repeat(1_000_000)), "abcde"),
            Refused,
        ),
        kept("9110 5.4", "1,000 fields", ok(&format!("{}{length}", "x-a: b\r\n".repeat(1000)), "abcde"), Refused),
        kept("4", "no reason", "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nabcde", whole),
        kept("4", "no reason and no space", "HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nabcde", whole),
        kept("4", "a control byte in the reason", "HTTP/1.1 200 O\x01K\r\ncontent-length: 5\r\n\r\nabcde", Refused),
        kept("4", "a bare CR in the reason", "HTTP/1.1 200 O\rK\r\ncontent-length: 5\r\n\r\nabcde", Refused),
        kept("4", "two spaces before the status", "HTTP/1.1  200 OK\r\ncontent-length: 5\r\n\r\nabcde", Refused),
        kept("4", "an unknown status", "HTTP/1.1 299 Odd\r\ncontent-length: 5\r\n\r\nabcde", Whole(299, "abcde")),
        kept("2.3", "an HTTP/1.0 answer", "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nabcde", whole),
        ended("2.3", "an HTTP/1.0 answer up to the end", "HTTP/1.0 200 OK\r\n\r\nabcde", whole),
        ended("2.3", "HTTP/0.9", "abcde", Refused),
        kept(
            "9110 15.2",
            "an informational answer before it",
            format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}", ok(length, "abcde")),
            whole,
        ),
        kept(
            "9110 15.2",
            "1,000 informational answers before it",
            format!("{}{}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000), ok(length, "abcde")),
            whole,
        ),
        ended("9110 15.2", "nothing but an informational answer", "HTTP/1.1 103 Early Hints\r\n\r\n", Refused),
        kept(
            "9110 15.2",
            "an informational answer with a length",
            format!("HTTP/1.1 103 Early Hints\r\n{length}\r\n{}", ok(length, "abcde")),
            whole,
        ),
        kept("9110 15.2", "an informational answer, and more to come", "HTTP/1.1 102 Processing\r\n\r\n", Unfinished),
        kept(
            "9110 15.2.2",
            "101 that nobody asked for",
            format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n{POISON}"),
            Refused,
        ),
        kept(
            "9110 7.6.1",
            "Connection names the length",
            ok(&format!("connection: content-length, x-hop\r\nx-hop: 1\r\n{length}"), "abcde"),
            whole,
        ),
        kept(
            "9110 7.6.1",
            "Connection names the coding",
            ok("connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
            whole,
        ),
    ];
    for wrong in ["-5", "+5", "0x5", "5x", "", "five", "18446744073709551616"] {
        all.push(kept(
            "6.2",
            &format!("the length {wrong:?}"),
            ok(&format!("content-length: {wrong}\r\n"), "abcde"),
            Refused,
        ));
    }
    for wrong in ["0x5", "+5", "-5", " 5", "g", "", "10000000000000005"] {
        all.push(kept(
            "7.1",
            &format!("the chunk size {wrong:?}"),
            chunked(&format!("{wrong}\r\nabcde\r\n0\r\n\r\n")),
            Cut,
        ));
    }
    for wrong in ["99", "000", "1000", "2 0", "abc", "-20", ""] {
        let bytes = format!("HTTP/1.1 {wrong} OK\r\n{length}\r\nabcde");
        all.push(kept("4", &format!("the status {wrong:?}"), bytes, Refused));
    }
    for wrong in ["HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/11", "ICY", "HTTP/0.9"] {
        let bytes = format!("{wrong} 200 OK\r\n{length}\r\nabcde");
        all.push(kept("2.3", &format!("the version {wrong:?}"), bytes, Refused));
    }
    all
}
