//! How long a body is said to be: once, and by what was read of it, never in the words of whoever sent it. So no two
//! readers behind this hop can disagree about where a message ends (RFC 9112 §6.3, §11.2). No I/O.
//!
//! hyper has read the sender's words before this sees them, and refuses what cannot be read in one way only: lengths
//! that differ or are no number, a request whose last coding is not `chunked`, any coding in HTTP/1.0. But it undoes
//! `chunked` alone and once, and does not mind what stands before it.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body::SizeHint;

use super::headers::split;

/// What the sender wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    length: Option<Length>,
    coding: Option<Coding>,
    /// The first line of `Content-Length`, as it came.
    line: Option<HeaderValue>,
}

impl Written {
    /// A field's value that says so: the sender's own, if it says that and nothing else.
    fn length(self, length: u64) -> HeaderValue {
        let mut digits = itoa::Buffer::new();
        let line = self.line.filter(|line| line.as_bytes() == digits.format(length).as_bytes());
        line.unwrap_or_else(|| HeaderValue::from(length))
    }
}

/// The lines of `Content-Length`, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    /// They differ, or are no numbers.
    Unclear,
}

/// The lines of `Transfer-Encoding`, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// `chunked`, once and alone.
    Chunked,
    /// Anything else: a coding that hyper did not undo, and of which nobody will hear after this hop.
    Other,
}

/// A body that came in a transfer coding which this hop does not undo.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StillCoded;

/// Takes the sender's words out of a head; call it before `headers::strip`, which would take them unread.
pub(super) fn take(headers: &mut HeaderMap) -> Written {
    let length = lines(headers, &CONTENT_LENGTH).map(|lines| {
        let length = lines.map(number).reduce(|one, other| one.filter(|_| one == other));
        length.flatten().map_or(Length::Unclear, Length::Bytes)
    });
    let coding = lines(headers, &TRANSFER_ENCODING).map(|mut lines| match (lines.next(), lines.next()) {
        (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        // An empty line is no coding that anybody could undo.
        _ => Coding::Other,
    });
    if coding.is_some() {
        headers.remove(TRANSFER_ENCODING);
    }
    Written { length, coding, line: headers.remove(CONTENT_LENGTH) }
}

/// The elements of a list field, if the head has it.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<impl Iterator<Item = &'a [u8]>> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    Some(lines.flat_map(|line| split(line.as_bytes())))
}

/// Says in a request's head how long its body is.
pub(super) fn of_request(headers: &mut HeaderMap, written: Written, body: &SizeHint) -> Result<(), StillCoded> {
    if written.coding == Some(Coding::Other) {
        return Err(StillCoded);
    }
    match body.exact() {
        // Whoever wrote nothing about a body meant that there is none; some methods differ from an empty one.
        Some(0) if written.length.is_none() => {}
        Some(length) => {
            headers.insert(CONTENT_LENGTH, written.length(length));
        }
        // Written out: hyper takes a body of unknown length on GET and HEAD for no body at all otherwise.
        None => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    Ok(())
}

/// Says in an answer's head how long its body is; where nothing is said, hyper chooses by the client's version.
pub(super) fn of_answer(
    headers: &mut HeaderMap,
    written: Written,
    status: StatusCode,
    asked: &Method,
    body: &SizeHint,
) -> Result<(), StillCoded> {
    let is_bodiless = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = match &written {
        _ if is_bodiless => None,
        // Tells what a GET would bring. A length beside a coding tells nothing.
        &Written { length: Some(Length::Bytes(length)), coding: None, .. } if *asked == Method::HEAD => Some(length),
        _ if *asked == Method::HEAD => None,
        Written { coding: Some(Coding::Other), .. } => return Err(StillCoded),
        _ => body.exact(),
    };
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, written.length(length));
    }
    Ok(())
}

/// Digits only: `u64`'s own parser would take a sign.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit).then_some(text)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn said(map: &HeaderMap) -> Vec<String> {
        map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn a_request_says_once_what_was_read() {
        let request = |lines: &[(&'static str, &'static str)], body: SizeHint| {
            let mut map = headers(lines);
            let written = take(&mut map);
            of_request(&mut map, written, &body).map(|()| said(&map))
        };
        let (five, none) = (SizeHint::with_exact(5), SizeHint::with_exact(0));
        let says = |line: &str| Ok(vec![line.to_owned()]);
        let (length, chunked) = (says("content-length: 5"), says("transfer-encoding: chunked"));
        for written in ["5", "5, 5", "005", "+5", "5,6"] {
            assert_eq!(request(&[("content-length", written)], five), length, "{written}");
        }
        assert_eq!(request(&[("content-length", "5"), ("content-length", "5")], five), length);
        assert_eq!(request(&[("content-length", "5"), ("transfer-encoding", "chunked")], SizeHint::new()), chunked);
        assert_eq!(request(&[], SizeHint::new()), chunked);
        assert_eq!(request(&[("content-length", "00")], none), says("content-length: 0"));
        assert_eq!(request(&[], none), Ok(Vec::new()));
        for lines in [
            &[("transfer-encoding", "gzip, chunked")][..],
            &[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(request(lines, SizeHint::new()), Err(StillCoded), "{lines:?}");
        }
    }

    #[test]
    fn an_answer_says_once_what_was_read() {
        let answer = |lines: &[(&'static str, &'static str)], status: u16, asked: Method, body: SizeHint| {
            let mut map = headers(lines);
            let written = take(&mut map);
            of_answer(&mut map, written, StatusCode::from_u16(status).unwrap(), &asked, &body).map(|()| said(&map))
        };
        let (five, none) = (SizeHint::with_exact(5), SizeHint::with_exact(0));
        let twice = [("content-length", "5"), ("content-length", "5")];
        let length = Ok(vec!["content-length: 5".to_owned()]);
        assert_eq!(answer(&twice, 200, Method::GET, five), length);
        assert_eq!(answer(&[("content-length", "5, 05")], 200, Method::GET, five), length);
        assert_eq!(answer(&twice, 200, Method::HEAD, none), length);
        let both = [("content-length", "5"), ("transfer-encoding", "Chunked")];
        for (lines, status, asked, body) in [
            (&both[..], 200, Method::GET, SizeHint::new()),
            (&both, 200, Method::HEAD, none),
            (&[("content-length", "5, 6")], 200, Method::HEAD, none),
            (&twice, 204, Method::GET, none),
            (&[("transfer-encoding", "gzip")], 304, Method::GET, none),
            (&[("transfer-encoding", "gzip")], 200, Method::HEAD, none),
        ] {
            assert_eq!(answer(lines, status, asked, body), Ok(Vec::new()), "{lines:?} {status}");
        }
        for coding in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "chunked;x=y", ""] {
            let lines = [("transfer-encoding", coding)];
            assert_eq!(answer(&lines, 200, Method::GET, SizeHint::new()), Err(StillCoded), "{coding}");
        }
        let lines = [("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")];
        assert_eq!(answer(&lines, 200, Method::GET, SizeHint::new()), Err(StillCoded));
    }
}
