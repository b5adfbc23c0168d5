//! Text that others chose, made fit for a terminal, and lines folded to a screen.

use serde_json::Value;

use crate::printable;

/// The width of the output, in columns.
pub(super) const WIDTH: usize = 100;

/// Most letters of one text of the server's; and of any text in the JSON, which has sentences and paths too.
const MOST: (usize, usize) = (200, 8192);

/// A text of the server's, fit to be shown. Cuts what is too long.
pub(super) fn plain(text: &str) -> String {
    cut(text, MOST.0)
}

fn cut(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for (count, letter) in text.chars().enumerate() {
        if count == most {
            shown.push('…');
            break;
        }
        printable::push_text(letter, &mut shown);
    }
    shown
}

/// The same for every text in a JSON value.
pub(super) fn plain_json(value: &mut Value) {
    match value {
        Value::String(text) => *text = cut(text, MOST.1),
        Value::Array(values) => values.iter_mut().for_each(plain_json),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.chars().any(printable::is_unseen)) {
                *fields = std::mem::take(fields).into_iter().map(|(key, value)| (plain(&key), value)).collect();
            }
            fields.values_mut().for_each(plain_json);
        }
        _ => {}
    }
}

/// Folds a text at its spaces into lines; the first may have so many columns, the others, too. A word that is longer
/// stays whole: it is a path or a command, and shall be copied.
pub(super) fn fold(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > columns {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        assert_eq!(plain("1.15.0\u{1b}[2J\u{7}"), r"1.15.0\u{1b}[2J\u{7}");
        assert_eq!(plain("a\u{202e}b\u{2066}c\u{200b}\u{9b}\n"), r"a\u{202e}b\u{2066}c\u{200b}\u{9b}\n");
        assert_eq!(plain("größe 数 🙂"), "größe 数 🙂");
        assert_eq!(plain(&"x".repeat(1_000)).chars().count(), MOST.0 + 1);
        let mut value = serde_json::json!({"a\u{1b}": ["b\u{202e}"]});
        plain_json(&mut value);
        assert_eq!(value.to_string(), r#"{"a\\u{1b}":["b\\u{202e}"]}"#);
    }

    #[test]
    fn lines_are_folded_at_spaces() {
        assert_eq!(fold("one two three", 7), ["one two", "three"]);
        assert_eq!(fold("a path/that/is/longer b", 6), ["a", "path/that/is/longer", "b"]);
        assert_eq!(fold("", 6), [""]);
    }
}
