//! Line ends, the request line, the forms of a target, and `Host`: §2.2, §2.3, §3.

use super::Fate::{Broken, Passed, Refused};
use super::{Vector, get, last, meant, passed, vector};

pub(super) fn vectors() -> Vec<Vector> {
    let plain = || passed("GET /v", "");
    let mut all = vec![
        vector("2.2", "a request", get(""), plain()),
        vector("2.2", "one empty line before it", format!("\r\n{}", get("")), plain()),
        vector("2.2", "several empty lines before it", format!("\r\n\r\n\r\n{}", get("")), plain()),
        vector("2.2", "bare LF as line end", "GET /v HTTP/1.1\nhost: relay\n\n", plain()),
        vector("2.2", "bare LF after one field", "GET /v HTTP/1.1\r\nhost: relay\nx-a: b\r\n\r\n", plain()),
        vector("2.2", "a bare CR before it", format!("\r{}", get("")), Refused(400)),
        vector("2.2", "bare CR as line end", "GET /v HTTP/1.1\rhost: relay\r\r", Refused(400)),
        vector("2.2", "CR CR LF", "GET /v HTTP/1.1\r\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("2.2", "white space before the first field", "GET /v HTTP/1.1\r\n host: relay\r\n\r\n", Refused(400)),
        vector("2.2", "a tab before the first field", "GET /v HTTP/1.1\r\n\thost: relay\r\n\r\n", Refused(400)),
        vector(
            "2.2",
            "a line of white space before the first field",
            "GET /v HTTP/1.1\r\n \r\nhost: a\r\n\r\n",
            Refused(400),
        ),
        vector("2.2", "white space before the request line", format!(" {}", get("")), Refused(400)),
        vector("2.2", "a byte order mark before it", [b"\xef\xbb\xbf", get("").as_bytes()].concat(), Refused(400)),
        vector("2.2", "bytes of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Refused(400)),
        vector("2.2", "a head without an end", "GET /v HTTP/1.1\r\nhost: relay\r\nx-a: b", Broken),
        vector("2.3", "HTTP/1.0", "GET /v HTTP/1.0\r\nhost: relay\r\n\r\n", last("GET /v", "")),
        vector("2.3", "HTTP/1.0 without Host", "GET /v HTTP/1.0\r\n\r\n", last("GET /v", "")),
        vector(
            "2.3",
            "HTTP/1.0 that asks to be kept",
            "GET /v HTTP/1.0\r\nhost: relay\r\nconnection: keep-alive\r\n\r\n",
            plain(),
        ),
        vector("2.3", "HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Broken),
        vector("3", "HTTP/0.9", "GET /v\r\n", Refused(400)),
        vector("3", "no target", "GET HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "an empty target", "GET  HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "two spaces after the method", "GET  /v HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "two spaces before the version", "GET /v  HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "a space after the version", "GET /v HTTP/1.1 \r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "a tab after the method", "GET\t/v HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "a tab before the version", "GET /v\tHTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "a vertical tab after the method", "GET\x0b/v HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "a form feed before the version", "GET /v\x0cHTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "a bare CR after the method", "GET\r/v HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3", "a space inside the target", "GET /v /w HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector(
            "3",
            "a second request line",
            "GET /v HTTP/1.1\r\nGET /smuggled HTTP/1.1\r\nhost: relay\r\n\r\n",
            Refused(400),
        ),
        vector("3.1", "an unknown method", get("").replacen("GET", "BREW", 1), passed("BREW /v", "")),
        vector("3.1", "a method in lower case is another", get("").replacen("GET", "get", 1), passed("get /v", "")),
        vector("3.1", "a method that is no token", get("").replacen("GET", "G(T", 1), Refused(400)),
        vector("3.1", "a method with NUL", get("").replacen("GET", "G\0T", 1), Refused(400)),
        vector("3.1", "no method", get("").replacen("GET", "", 1), Refused(400)),
        vector("3.2", "NUL in the target", get("").replacen("/v", "/v\0", 1), Refused(400)),
        vector("3.2", "DEL in the target", get("").replacen("/v", "/v\x7f", 1), Refused(400)),
        vector("3.2", "a fragment is cut", get("").replacen("/v", "/v#f", 1), plain()),
        vector("3.2", "a target that is no path", get("").replacen("/v", "v", 1), Refused(400)),
        vector("3.2", "a backslash before a host", get("").replacen("/v", "\\\\evil/v", 1), Refused(400)),
        vector(
            "3.2",
            "a path of two slashes is no host",
            get("").replacen("/v", "//evil/v", 1),
            passed("GET //evil/v", ""),
        ),
        vector(
            "3.2",
            "an encoded line end in a target",
            get("").replacen("/v", "/v%0d%0aX:y", 1),
            passed("GET /v%0d%0aX:y", ""),
        ),
        vector(
            "3.2",
            "a target of 65,534 bytes and more",
            get("").replacen("/v", &format!("/{}", "v".repeat(65_535)), 1),
            Refused(431),
        ),
        vector(
            "3.2.2",
            "an absolute target wins over Host",
            "GET http://other:8/v?q HTTP/1.1\r\nhost: relay\r\n\r\n",
            Passed(meant("GET /v?q", "").with("host", "other:8")),
        ),
        vector("3.2.2", "https", "GET https://relay/v HTTP/1.1\r\nhost: relay\r\n\r\n", plain()),
        vector("3.2.2", "a scheme in upper case", "GET HTTP://relay/v HTTP/1.1\r\nhost: relay\r\n\r\n", plain()),
        vector(
            "3.2.2",
            "an absolute target without a path",
            "GET http://relay HTTP/1.1\r\nhost: relay\r\n\r\n",
            passed("GET /", ""),
        ),
        vector("3.2.2", "only a query", "GET http://relay?q HTTP/1.1\r\nhost: relay\r\n\r\n", passed("GET /?q", "")),
        vector("3.2.2", "only a fragment", "GET http://relay#f HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector(
            "3.2.2",
            "an absolute target, and a Host that is none",
            "GET http://relay/v HTTP/1.1\r\nhost: a b\r\n\r\n",
            Refused(400),
        ),
        vector("3.2.2", "an absolute target without Host", "GET http://relay/v HTTP/1.1\r\n\r\n", Refused(400)),
        vector("3.2.3", "CONNECT", "CONNECT relay:80 HTTP/1.1\r\nhost: relay:80\r\n\r\n", Refused(501)),
        vector("3.2.3", "a host and port with GET", "GET relay:80 HTTP/1.1\r\nhost: relay:80\r\n\r\n", Refused(400)),
        vector("3.2.3", "a host with GET", "GET relay HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3.2.4", "OPTIONS *", "OPTIONS * HTTP/1.1\r\nhost: relay\r\n\r\n", passed("OPTIONS *", "")),
        vector("3.2.4", "GET *", "GET * HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3.2.4", "OPTIONS *?q", "OPTIONS *?q HTTP/1.1\r\nhost: relay\r\n\r\n", Refused(400)),
        vector("3.2", "no Host", "GET /v HTTP/1.1\r\nx-a: b\r\n\r\n", Refused(400)),
        vector("3.2", "two Hosts", get("Host: other\r\n"), Refused(400)),
        vector("3.2", "the same Host twice", get("HOST: relay\r\n"), Refused(400)),
        vector("3.2", "two Hosts in HTTP/1.0", "GET /v HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", Refused(400)),
        vector("2.3", "half a request line", "GET /v HT", Broken),
        vector("2.2", "the beginning of a request's line end", "GET /v HTTP/1.1\r\nhost: relay\r\n\r", Refused(400)),
    ];
    for version in [
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/11",
        "HTTP/1.10",
        "http/1.1",
        "Http/1.1",
        "HTTP /1.1",
        "HTTP/1,1",
        "HTTP/1",
        "HTTP/-1.1",
        "ICY/1.1",
    ] {
        let bytes = get("").replacen("HTTP/1.1", version, 1);
        all.push(vector("2.3", format!("the version {version}"), bytes, Refused(400)));
    }
    for target in [
        "ftp://relay/v",
        "file:///v",
        "ws://relay/v",
        "javascript:1",
        "http:/v",
        "http:///v",
        "http://",
        "://relay/v",
        "http://user@relay/v",
        "http://user:pass@relay/v",
        "http://a@b@relay/v",
        "http://relay:99999/v",
        "http://relay:x/v",
        "http://re,lay/v",
        "http://[::1/v",
        "http://relay\\v",
        "http://@/v",
    ] {
        let bytes = get("").replacen("/v", target, 1);
        all.push(vector("3.2.2", format!("the target {target}"), bytes, Refused(400)));
    }
    for host in [
        "",
        "a b",
        "a,b",
        "a, b",
        "user@relay",
        "relay:x",
        "relay:-1",
        "relay:99999",
        "relay:80:80",
        "relay/v",
        "relay?q",
        "relay#f",
        "http://relay",
        "[::1",
        "[::g]",
        "[::1]x",
        "::1",
        "\"relay\"",
        "<relay>",
        "relay\\",
        "%zz",
        "re\tlay",
        "relay;a b",
    ] {
        let bytes = get("").replacen("relay", host, 1);
        all.push(vector("3.2", format!("the Host {host:?}"), bytes, Refused(400)));
    }
    for host in ["127.0.0.1:80", "[::1]:80", "localhost", "a_b.c-d", "relay:", "RELAY"] {
        let bytes = get("").replacen("relay", host, 1);
        all.push(vector("3.2", format!("the Host {host:?}"), bytes, Passed(meant("GET /v", "").with("host", host))));
    }
    all
}
