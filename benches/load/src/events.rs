//! The events: text deltas as opencode publishes most of, with their number and the time they were sent at in the text.

use memchr::memmem::Finder;

/// Bytes of an event's payload, as a client of `/event` gets it behind `data: `.
const SIZE: usize = 300;

/// What stands before the number and the time.
const MARK: &[u8] = b"\"delta\":\"";

/// Number and time are hexadecimal and of fixed width.
const NUMBER: usize = 8;
const TIME: usize = 16;

/// Where the sessions of the events are.
pub(crate) const DIRECTORY: &str = "/srv/demo/project";

/// The payload of an event in one of several sessions.
pub(crate) fn payload(number: u32, sent: u64, sessions: u32) -> String {
    let session = number % sessions.max(1);
    let mut text = format!(
        "{{\"id\":\"evt_{number:026x}\",\"type\":\"message.part.delta\",\"properties\":{{\
         \"sessionID\":\"ses_{session:026x}\",\"messageID\":\"msg_{session:026x}\",\"partID\":\"prt_{session:026x}\",\
         \"field\":\"text\",\"delta\":\"{number:08x}{sent:016x}"
    );
    text.extend(std::iter::repeat_n('x', SIZE.saturating_sub(text.len() + 3)));
    text + "\"}}"
}

/// The same as opencode's global stream has it.
pub(crate) fn global(payload: &str) -> String {
    format!("{{\"directory\":\"{DIRECTORY}\",\"payload\":{payload}}}")
}

/// An event that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) number: u32,
    /// In the clock of [`crate::clock`].
    pub(crate) sent: u64,
}

/// Finds events in the bytes of a stream, wherever it is cut.
pub(crate) struct Finding {
    finder: Finder<'static>,
}

/// The end of what was read: it may hold the beginning of a mark.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rest {
    bytes: [u8; REST],
    length: usize,
}

/// One byte less than a whole mark.
pub(crate) const REST: usize = MARK.len() + NUMBER + TIME - 1;

impl Rest {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Finding {
    pub(crate) fn new() -> Self {
        Self { finder: Finder::new(MARK) }
    }

    /// Goes through bytes that begin with the rest of those before. Returns the new rest.
    pub(crate) fn find(&self, bytes: &[u8], mut found: impl FnMut(Arrived)) -> Rest {
        let mut from = 0;
        while let Some(at) = self.finder.find(&bytes[from..]) {
            let number = from + at + MARK.len();
            let Some(text) = bytes.get(number..number + NUMBER + TIME) else { break };
            found(Arrived { number: hexadecimal(&text[..NUMBER]) as u32, sent: hexadecimal(&text[NUMBER..]) });
            from = number + NUMBER + TIME;
        }
        let kept = &bytes[from.max(bytes.len().saturating_sub(REST))..];
        let mut rest = Rest { length: kept.len(), ..Rest::default() };
        rest.bytes[..kept.len()].copy_from_slice(kept);
        rest
    }
}

fn hexadecimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| {
        value << 4 | u64::from(if digit.is_ascii_digit() { digit - b'0' } else { digit.wrapping_sub(b'a' - 10) & 0xf })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_stream_is_cut() {
        let sent = (0..3).map(|number| Arrived { number, sent: 0xdead_beef + u64::from(number) }).collect::<Vec<_>>();
        let frames = sent.iter().map(|event| format!("data: {}\n\n", payload(event.number, event.sent, 2)));
        let stream = frames.collect::<String>().into_bytes();
        assert_eq!(payload(1, 2, 3).len(), SIZE);
        let finding = Finding::new();
        for cut in 1..stream.len() {
            let mut found = Vec::new();
            let mut rest = Rest::default();
            for piece in stream.chunks(cut) {
                let bytes = [rest.bytes(), piece].concat();
                rest = finding.find(&bytes, |event| found.push(event));
            }
            assert_eq!(found, sent, "in pieces of {cut}");
        }
    }
}
