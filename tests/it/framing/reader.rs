//! A reader of HTTP/1.1 that takes nothing but the grammar: no bare LF, no folding, no second length, no chunk extension.
//! It shares no code with the relay or with hyper, so that what both take for one message really is one.

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The three words of the first line.
    pub(crate) start: [String; 3],
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Message {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Method and target, or version and status.
    pub(crate) fn first_words(&self) -> String {
        format!("{} {}", self.start[0], self.start[1])
    }

    /// The same in ASCII, to be put into a field.
    pub(crate) fn label(&self) -> String {
        self.first_words().escape_default().to_string()
    }

    pub(crate) fn is_interim(&self) -> bool {
        self.start[0] == "HTTP/1.1" && self.start[1].starts_with('1') && self.start[1] != "101"
    }
}

/// What the bytes so far are.
#[derive(Debug)]
pub(crate) enum Read {
    /// One message of so many bytes.
    Message(Box<Message>, usize),
    /// The beginning of one.
    More,
    /// None.
    Wrong(String),
}

/// Which messages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    /// Answers; whether to a `HEAD`, and whether the connection has ended after these bytes.
    Answers {
        to_head: bool,
        ended: bool,
    },
}

enum Stop {
    More,
    Wrong(String),
}

type Step<T> = Result<T, Stop>;

fn wrong<T>(what: impl Into<String>) -> Step<T> {
    Err(Stop::Wrong(what.into()))
}

pub(crate) fn read(bytes: &[u8], side: Side) -> Read {
    let mut rest = bytes;
    match message(&mut rest, side) {
        Ok(message) => Read::Message(Box::new(message), bytes.len() - rest.len()),
        Err(Stop::More) => Read::More,
        Err(Stop::Wrong(what)) => Read::Wrong(what),
    }
}

fn message(rest: &mut &[u8], side: Side) -> Step<Message> {
    let start = line(rest)?;
    let words: Vec<String> = start.splitn(3, ' ').map(str::to_owned).collect();
    let Ok(start) = <[String; 3]>::try_from(words) else { return wrong(format!("first line {start:?}")) };
    let good = match side {
        Side::Requests => {
            is_token(&start[0]) && !start[1].is_empty() && start[1].bytes().all(|b| b > 0x20) && start[2] == "HTTP/1.1"
        }
        Side::Answers { .. } => {
            // hyper answers in the version it was asked in.
            matches!(start[0].as_str(), "HTTP/1.1" | "HTTP/1.0")
                && start[1].len() == 3
                && start[1].bytes().all(|b| b.is_ascii_digit())
                && !start[1].starts_with('0')
        }
    };
    if !good {
        return wrong(format!("first line {start:?}"));
    }
    let fields = fields(rest)?;
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    if lengths.len() + codings.len() > 1 {
        return wrong(format!("lengths {lengths:?} and codings {codings:?}"));
    }
    if start[0] == "HTTP/1.0" && !codings.is_empty() {
        return wrong("a coding in HTTP/1.0");
    }
    if side == Side::Requests && all("host").len() != 1 {
        return wrong(format!("hosts {:?}", all("host")));
    }
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    let is_empty = match side {
        Side::Requests => false,
        Side::Answers { to_head, .. } => to_head || start[1].starts_with('1') || start[1] == "204" || start[1] == "304",
    };
    match (lengths.first(), codings.first()) {
        (None, Some(_)) if matches!(start[1].as_str(), "204" | "304") && is_empty => {
            return wrong("a coding on no body");
        }
        _ if is_empty => {}
        (Some(length), _) => body = take(rest, decimal(length)?)?,
        (_, Some(&"chunked")) => (body, trailers) = chunks(rest)?,
        (_, Some(other)) => return wrong(format!("coding {other:?}")),
        (None, None) => match side {
            Side::Requests => {}
            Side::Answers { ended: true, .. } => body = std::mem::take(rest).to_vec(),
            Side::Answers { ended: false, .. } => return Err(Stop::More),
        },
    }
    Ok(Message { start, fields, body, trailers })
}

/// Up to CRLF; no other control byte inside. Bytes beyond ASCII stand for themselves.
fn line(rest: &mut &[u8]) -> Step<String> {
    for (at, &byte) in rest.iter().enumerate() {
        match byte {
            b'\r' => match rest.get(at + 1) {
                Some(b'\n') => {
                    let line = rest[..at].iter().map(|&byte| char::from(byte)).collect();
                    *rest = &rest[at + 2..];
                    return Ok(line);
                }
                Some(_) => return wrong("a bare CR"),
                None => return Err(Stop::More),
            },
            0..=8 | 10..=31 | 127 => return wrong(format!("a control byte {byte}")),
            _ => {}
        }
    }
    Err(Stop::More)
}

fn fields(rest: &mut &[u8]) -> Step<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Ok(fields);
        }
        match line.split_once(':') {
            Some((name, value)) if is_token(name) => {
                fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
            }
            _ => return wrong(format!("field line {line:?}")),
        }
    }
}

type Trailed = (Vec<u8>, Vec<(String, String)>);

fn chunks(rest: &mut &[u8]) -> Step<Trailed> {
    let mut body = Vec::new();
    loop {
        let size = line(rest)?;
        let digits = !size.is_empty() && size.len() <= 8 && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Ok(count) = usize::from_str_radix(&size, 16) else { return wrong(format!("chunk size {size:?}")) };
        if !digits {
            return wrong(format!("chunk size {size:?}"));
        }
        if count == 0 {
            return Ok((body, fields(rest)?));
        }
        body.extend(take(rest, count)?);
        if !line(rest)?.is_empty() {
            return wrong("bytes after a chunk");
        }
    }
}

fn take(rest: &mut &[u8], count: usize) -> Step<Vec<u8>> {
    let Some((taken, left)) = rest.split_at_checked(count) else { return Err(Stop::More) };
    *rest = left;
    Ok(taken.to_vec())
}

fn decimal(text: &str) -> Step<usize> {
    match text.parse() {
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => wrong(format!("length {text:?}")),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[test]
fn the_reader_takes_one_form_only() {
    let is_message =
        |text: &str| matches!(read(text.as_bytes(), Side::Requests), Read::Message(_, n) if n == text.len());
    let is_wrong = |text: &str| matches!(read(text.as_bytes(), Side::Requests), Read::Wrong(_));
    assert!(is_message("GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert!(is_message("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"));
    assert!(is_message("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n"));
    for head in [
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n x: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0;a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        assert!(is_wrong(head), "{head:?}");
    }
    assert!(matches!(read(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na", Side::Requests), Read::More));
}
