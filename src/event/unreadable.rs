//! Why JSON could not be read, without what is in it.

use std::fmt;

use serde_json::error::Category;

/// Says what is wrong with JSON, for the log. `serde_json`'s own words quote what was found instead of what was expected, and
/// that can be what somebody wrote to the model.
#[derive(Clone, Copy, Debug)]
pub struct Unreadable<'a>(pub &'a serde_json::Error);

impl fmt::Display for Unreadable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        let words = error.to_string();
        // A missing field is named by us.
        if error.classify() != Category::Data || words.starts_with("missing field") {
            return f.write_str(&words);
        }
        write!(f, "something else than expected at line {} column {}", error.line(), error.column())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is never read whole")]
    struct Asked {
        number: u64,
        word: Word,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Yes,
    }

    #[test]
    fn what_was_found_is_not_told() {
        let told = |text: &str| Unreadable(&serde_json::from_str::<Asked>(text).unwrap_err()).to_string();
        assert_eq!(told(r#"{"number":"secret"}"#), "something else than expected at line 1 column 18");
        for text in [r#""secret""#, r#"{"secret":1}"#, r#"{"number":1,"word":"secret"}"#, r#"["secret"]"#] {
            let told = told(text);
            assert!(told.starts_with("something else") && !told.contains("secret"), "{text}: {told}");
        }
        assert_eq!(told("{}"), "missing field `number` at line 1 column 2");
        for text in ["secret", r#"{"number":1 secret"#, r#"{"number":1,"#, "\"secret\u{1}\"", "{\"number\": 1e999}"] {
            let told = told(text);
            assert!(told.contains("at line 1 column") && !told.contains("secret"), "{text}: {told}");
        }
    }
}
