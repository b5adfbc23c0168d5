//! Which body belongs to a head: §6, and the families of request smuggling by two lengths.

use super::Fate::{Refused, Unfinished};
use super::{SMUGGLED, Vector, get, last, passed, post, vector};

pub(super) fn vectors() -> Vec<Vector> {
    let whole = || passed("POST /v", "abcde");
    let both = format!("0\r\n\r\n{SMUGGLED}");
    let hidden = format!("content-length: {}\r\n", SMUGGLED.len());
    let mut all = vec![
        vector("6.2", "a length", post("content-length: 5\r\n", "abcde"), whole()),
        vector("6.2", "a length of 0", post("content-length: 0\r\n", ""), passed("POST /v", "")),
        vector("6.2", "leading zeros", post("content-length: 0005\r\n", "abcde"), whole()),
        vector("6.2", "a request inside of a body", post(&hidden, SMUGGLED), passed("POST /v", SMUGGLED)),
        vector("6.2", "white space around a length", post("content-length: \t 5 \t\r\n", "abcde"), whole()),
        vector("6.3", "no length and no coding", post("", ""), passed("POST /v", "")),
        vector("6.3", "less body than the length", post("content-length: 500\r\n", "abcde"), Unfinished),
        vector("6.3", "a length of 2⁶³-1", post("content-length: 9223372036854775807\r\n", "abcde"), Unfinished),
        vector("6.3", "a length twice, the same", post("content-length: 5\r\ncontent-length: 5\r\n", "abcde"), whole()),
        vector("6.3", "a length twice, in one line", post("content-length: 5, 5\r\n", "abcde"), Refused(400)),
        vector("6.3", "two lengths", post("content-length: 5\r\ncontent-length: 6\r\n", "abcdef"), Refused(400)),
        vector(
            "6.3",
            "two lengths, the first is 0",
            post(&format!("content-length: 0\r\n{hidden}"), SMUGGLED),
            Refused(400),
        ),
        vector("6.3", "two lengths in one line", post("content-length: 5, 6\r\n", "abcdef"), Refused(400)),
        vector(
            "6.3",
            "a length and an empty one",
            post("content-length: 5\r\ncontent-length:\r\n", "abcde"),
            Refused(400),
        ),
        vector(
            "6.3",
            "CL.TE",
            post(&format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", both.len()), &both),
            last("POST /v", ""),
        ),
        vector(
            "6.3",
            "TE.CL",
            post(
                "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
                "2c\r\nGET /smuggled HTTP/1.1\r\nhost: relay\r\nx-a: bc\r\n0\r\n\r\n",
            ),
            last("POST /v", "GET /smuggled HTTP/1.1\r\nhost: relay\r\nx-a: bc"),
        ),
        vector(
            "6.3",
            "a length that is none beside a coding",
            post("transfer-encoding: chunked\r\ncontent-length: -1\r\n", "0\r\n\r\n"),
            last("POST /v", ""),
        ),
        vector(
            "6.3",
            "a length that is none before a coding",
            post("content-length: x\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            Refused(400),
        ),
        vector(
            "6.3",
            "two lengths and a coding",
            post("content-length: 4\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
            last("POST /v", ""),
        ),
        vector(
            "6.1",
            "a coding",
            post("transfer-encoding: chunked\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
            last("POST /v", "abcde"),
        ),
        vector(
            "6.1",
            "a coding in upper case",
            post("Transfer-Encoding: CHUNKED\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
            last("POST /v", "abcde"),
        ),
        vector(
            "6.1",
            "white space around a coding",
            post("transfer-encoding: \t chunked \t\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
            last("POST /v", "abcde"),
        ),
        vector(
            "6.1",
            "a coding in HTTP/1.0",
            "POST /v HTTP/1.0\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused(400),
        ),
        vector(
            "6.1",
            "a coding beside a length in HTTP/1.0",
            format!(
                "POST /v HTTP/1.0\r\nhost: relay\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{both}",
                both.len()
            ),
            Refused(400),
        ),
        vector(
            "6.1",
            "TE.TE in two lines",
            post("transfer-encoding: chunked\r\ntransfer-encoding: cow\r\n", &both),
            Refused(400),
        ),
        vector(
            "6.1",
            "TE.TE in two lines, turned round",
            post("transfer-encoding: cow\r\ntransfer-encoding: chunked\r\n", &both),
            Refused(501),
        ),
        vector(
            "6.1",
            "chunked in two lines",
            post("transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &both),
            Refused(400),
        ),
        vector(
            "6.1",
            "a space before the colon",
            post("content-length: 4\r\ntransfer-encoding : chunked\r\n", &both),
            Refused(400),
        ),
        vector("6.1", "a tab before the colon", post("transfer-encoding\t: chunked\r\n", &both), Refused(400)),
        vector(
            "6.1",
            "a vertical tab before the colon",
            post("transfer-encoding\x0b: chunked\r\n", &both),
            Refused(400),
        ),
        vector(
            "6.1",
            "a space before the name",
            post("x-a: b\r\n transfer-encoding: chunked\r\n", &both),
            Refused(400),
        ),
        vector(
            "6.1",
            "a bare LF before the name",
            post("x-a: b\n transfer-encoding: chunked\r\n", &both),
            Refused(400),
        ),
        vector(
            "6.1",
            "a line by a bare LF",
            post("x-a: b\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            last("POST /v", ""),
        ),
        vector("6.1", "a line by a bare CR", post("x-a: b\rtransfer-encoding: chunked\r\n", &both), Refused(400)),
        vector("6.1", "a coding folded", post("transfer-encoding:\r\n chunked\r\n", &both), Refused(400)),
        vector(
            "6.1",
            "a coding folded in the middle",
            post("transfer-encoding: chu\r\n nked\r\n", &both),
            Refused(400),
        ),
        vector(
            "6.1",
            "a name with an underscore is another",
            post("transfer_encoding: chunked\r\ncontent-length: 5\r\n", "abcde"),
            whole(),
        ),
        vector(
            "6.1",
            "a prefixed name is another",
            post("xtransfer-encoding: chunked\r\ncontent-length: 5\r\n", "abcde"),
            whole(),
        ),
        vector("6.1", "a name with NUL", post("transfer-encoding\0: chunked\r\n", &both), Refused(400)),
        vector(
            "6.1",
            "a name beyond ASCII",
            [b"POST /v HTTP/1.1\r\nhost: relay\r\ntransfer\xad-encoding: chunked\r\n\r\n", both.as_bytes()].concat(),
            Refused(400),
        ),
        vector(
            "6.1",
            "a coding that ends beyond ASCII",
            [b"POST /v HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\xa0\r\n\r\n", both.as_bytes()].concat(),
            Refused(400),
        ),
        vector(
            "6.1",
            "a coding behind a no-break space",
            [b"POST /v HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: \xa0chunked\r\n\r\n", both.as_bytes()].concat(),
            Refused(400),
        ),
    ];
    // What u64 can hold and hyper cannot; its word for it is 431.
    let bytes = post("content-length: 18446744073709551615\r\n", "abcde");
    all.push(vector("6.2", "a length of 2⁶⁴-1", bytes, Refused(431)));
    for length in [
        "+5",
        "-5",
        "-0",
        "0x5",
        "5x",
        "5.0",
        "5e0",
        "",
        "five",
        "5 5",
        "\"5\"",
        "5;",
        "5,",
        ",5",
        "0, 5",
        "00000000000000000000000000000000x",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999999999",
        "5\x0b",
        "\u{665}",
    ] {
        let bytes = post(&format!("content-length: {length}\r\n"), "abcde");
        all.push(vector("6.2", format!("the length {length:?}"), bytes, Refused(400)));
    }
    for coding in [
        "",
        "identity",
        "gzip",
        "cow",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked, gzip",
        "chunked, identity",
        "chunked;q=1",
        "chunked; a=b",
        "\"chunked\"",
        "'chunked'",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked, ",
        "chunked chunked",
        "chunked x",
        "x chunked",
        "chunked\x0b",
        "\x0bchunked",
        "\x0cchunked",
        "chunked\0",
        "[chunked]",
        "chunked/1",
        "gzip;q=\"a,chunked",
        "gzip, , chunked",
    ] {
        let bytes = post(&format!("transfer-encoding: {coding}\r\ncontent-length: {}\r\n", both.len()), &both);
        all.push(vector("6.1", format!("the coding {coding:?}"), bytes, Refused(400)));
    }
    for coding in ["gzip, chunked", "identity, chunked", "cow,chunked", "deflate ,\tchunked"] {
        let bytes = post(&format!("transfer-encoding: {coding}\r\n"), &both);
        all.push(vector("6.1", format!("the coding {coding:?}"), bytes, Refused(501)));
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let start = format!("{method} /v");
        let in_chunks = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
        for (fields, body, fate) in [
            (hidden.as_str(), SMUGGLED.to_owned(), passed(&start, SMUGGLED)),
            ("transfer-encoding: chunked\r\n", in_chunks, last(&start, SMUGGLED)),
        ] {
            let bytes = post(fields, &body).replacen("POST", method, 1);
            all.push(vector("6", format!("{method} with a body, {}", fields.trim()), bytes, fate));
        }
        let bytes = get("").replacen("GET", method, 1);
        all.push(vector("6.3", format!("{method} without a body"), bytes, passed(&start, "")));
    }
    all
}
