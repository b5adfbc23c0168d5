//! Reading a raw query without changing it: what is forwarded stays byte for byte what came.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// One `name=value` of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// As it came.
    pub raw: &'a str,
    /// Decoded.
    pub name: String,
    /// Decoded; empty if there was no `=`.
    pub value: String,
}

/// The pairs of a raw query, decoded as forms are: `+` is a space, bytes that are no UTF-8 become U+FFFD.
pub fn pairs(raw: &str) -> impl Iterator<Item = Pair<'_>> {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|raw| {
        let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
        Pair { raw, name: decode(name), value: decode(value) }
    })
}

/// The first value of `name` in a raw query.
#[must_use]
pub fn first(raw: &str, name: &str) -> Option<String> {
    pairs(raw).find(|pair| pair.name == name).map(|pair| pair.value)
}

fn decode(text: &str) -> String {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_and_keeps_the_raw_pair() {
        let found: Vec<Pair<'_>> = pairs("a=1&&b%5Fc=x+y%2Bz&d").collect();
        assert_eq!(found[1], Pair { raw: "b%5Fc=x+y%2Bz", name: "b_c".into(), value: "x y+z".into() });
        assert_eq!(found[2], Pair { raw: "d", name: "d".into(), value: String::new() });
        assert_eq!(first("a=1&a=2", "a").as_deref(), Some("1"));
    }
}
