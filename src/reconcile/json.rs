//! JSON compared by meaning, and text compared by how far it was told.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A hash of what JSON text means: the order of an object's keys and white space do not matter.
///
/// REST and the stream write the same object with keys in another order, so bytes cannot be compared. `None` when the
/// text is no JSON. Should two states ever share the 64 bits, one update waits for the next change.
pub(super) fn fingerprint(text: &str) -> Option<u64> {
    serde_json::from_str(text).ok().map(|value| hash(&value))
}

fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0u8.hash(&mut hasher),
        Value::Bool(flag) => (1u8, flag).hash(&mut hasher),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => (2u8, whole).hash(&mut hasher),
            (None, float) => (3u8, float.unwrap_or_default().to_bits()).hash(&mut hasher),
        },
        Value::String(text) => (4u8, text).hash(&mut hasher),
        Value::Array(items) => (5u8, items.iter().map(hash).collect::<Vec<_>>()).hash(&mut hasher),
        Value::Object(entries) => {
            let sum = entries.iter().fold(0u64, |sum, (key, value)| {
                let mut entry = DefaultHasher::new();
                (key, hash(value)).hash(&mut entry);
                sum.wrapping_add(entry.finish())
            });
            (6u8, sum).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// How much of a growing text clients were told, without keeping the text.
#[derive(Clone, Debug)]
pub(super) struct Told {
    length: usize,
    hasher: DefaultHasher,
}

impl Default for Told {
    fn default() -> Self {
        Self { length: 0, hasher: DefaultHasher::new() }
    }
}

impl Told {
    /// The whole text was told.
    pub(super) fn all(text: &str) -> Self {
        let mut told = Self::default();
        told.push(text);
        told
    }

    /// A delta was told.
    pub(super) fn push(&mut self, delta: &str) {
        self.length += delta.len();
        self.hasher.write(delta.as_bytes());
    }

    /// Whether exactly this was told.
    pub(super) fn is(&self, text: &str) -> bool {
        self.length == text.len() && self.missing(text).is_some()
    }

    /// What of `text` is missing, if what was told is the beginning of it.
    pub(super) fn missing<'a>(&self, text: &'a str) -> Option<&'a str> {
        let beginning = text.get(..self.length)?;
        (Self::all(beginning).hasher.finish() == self.hasher.finish()).then(|| &text[self.length..])
    }
}

/// An object's entries in their order, each value as its own text.
#[derive(Debug)]
pub(super) struct Entries<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl Entries<'_> {
    /// The object's text without one key.
    pub(super) fn without(&self, key: &str) -> String {
        let kept = self.0.iter().filter(|(name, _)| name != key);
        let text: Vec<String> =
            kept.map(|(name, value)| format!("{}:{}", crate::event::quote(name), value.get())).collect();
        format!("{{{}}}", text.join(","))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Name<'de>>()? {
                    entries.push((key.0, map.next_value()?));
                }
                Ok(Entries(entries))
            }
        }

        #[derive(serde::Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaning_is_what_counts() {
        assert_eq!(fingerprint(r#"{"a":1,"b":[1,{"c":null}]}"#), fingerprint(r#"{ "b":[1,{"c":null}], "a":1 }"#));
        let different = [
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1.5}"#,
            r#"{"b":1}"#,
            "[1,2]",
            "[2,1]",
            "{}",
            "[]",
            "null",
            "false",
            "0",
            r#""""#,
        ];
        for (i, a) in different.iter().enumerate() {
            for b in &different[i + 1..] {
                assert_ne!(fingerprint(a), fingerprint(b), "{a} {b}");
            }
        }
        assert_eq!(fingerprint("{"), None);
    }

    #[test]
    fn the_missing_suffix_is_found_however_the_beginning_was_told() {
        let mut told = Told::default();
        assert_eq!(told.missing("word"), Some("word"));
        told.push("wö");
        told.push("r");
        assert_eq!(told.missing("wörd0"), Some("d0"));
        assert_eq!(told.missing("wör"), Some(""));
        assert_eq!(told.missing("wo"), None);
        assert_eq!(told.missing("xxxxxx"), None);
        assert_eq!(Told::all("a").missing("ä"), None);
    }

    #[test]
    fn a_key_can_be_left_out_without_touching_the_rest() {
        let text = r#"{"id":"x","n":1.10,"project":{"id":"p"},"t":[ 1 ]}"#;
        let entries: Entries<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(entries.without("project"), r#"{"id":"x","n":1.10,"t":[ 1 ]}"#);
    }
}
