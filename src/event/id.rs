//! Event ids in opencode's own form.

/// The letters of opencode's ids.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// An id for an event of ours: `evt_`, 12 hex digits of time, 14 letters, as opencode writes them (FACTS §1).
///
/// `milliseconds` is Unix time; `number` must differ between any two calls within a millisecond. Like opencode's, the
/// time field is 48 bits of milliseconds × 4096 and wraps, so ids must not be compared as strings. The letters begin
/// with `relay`, so that a person who reads a stream can tell our frames from opencode's.
#[must_use]
pub fn fresh_id(milliseconds: u64, number: u64) -> String {
    let time = milliseconds.wrapping_mul(0x1000).wrapping_add(number & 0xfff) & 0xffff_ffff_ffff;
    let mut letters = *b"relay000000000";
    let mut rest = number;
    for letter in letters[5..].iter_mut().rev() {
        *letter = LETTERS[(rest % 62) as usize];
        rest /= 62;
    }
    format!("evt_{time:012x}{}", String::from_utf8_lossy(&letters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_opencodes_form_and_is_unique() {
        // The time field of an id opencode gave at this millisecond, from the captures.
        assert!(fresh_id(1_795_394_354_930, 2).starts_with("evt_205d7bef2002"));
        assert_eq!(fresh_id(1, 2).len(), "evt_205d7c26c001sWt9pD27fbsXZ3".len());
        assert_ne!(fresh_id(1, 2), fresh_id(1, 2 + 4096));
    }
}
