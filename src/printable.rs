//! Text of strangers, made safe to show: names, titles and reasons come from clients, from opencode and from its sessions.

use std::fmt::Write as _;

/// Control characters, line separators, and marks that change the direction of what stands around them.
#[must_use]
pub fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The letter for people: as it is, or what is unseen as `\u{202e}`, and the line break as `\n`.
pub fn push_text(letter: char, out: &mut String) {
    if is_unseen(letter) {
        out.extend(letter.escape_default());
    } else {
        out.push(letter);
    }
}

/// The letter in JSON, where what is unseen stands in strings only: as `\u202e`.
pub fn push_json(letter: char, out: &mut String) {
    if is_unseen(letter) {
        // All of them are in the basic plane: one unit.
        let _ = write!(out, "\\u{:04x}", u32::from(letter));
    } else {
        out.push(letter);
    }
}

/// A whole text for people.
#[must_use]
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|letter| push_text(letter, &mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let hostile = "a\nb\r\x1b[31m\0\u{85}\u{9b}\u{202e}\u{2028}\u{7f}é…\u{feff}";
        assert_eq!(text(hostile), "a\\nb\\r\\u{1b}[31m\\u{0}\\u{85}\\u{9b}\\u{202e}\\u{2028}\\u{7f}é…\\u{feff}");
        let mut json = String::new();
        "\"\u{202e}é\u{7f}\"".chars().for_each(|letter| push_json(letter, &mut json));
        assert_eq!(json, "\"\\u202eé\\u007f\"");
    }
}
