//! The names of the settings: one list, from which the flag's and the variable's names follow.

/// What the name of each variable begins with.
pub(super) const PREFIX: &str = "OPENCODE_RELAY_";

/// The variable that names the settings file. The file cannot name itself, so this is no key.
pub(super) const CONFIG_VARIABLE: &str = "OPENCODE_RELAY_CONFIG";

/// All keys, as they stand in the file.
pub(super) const KEYS: [&str; 31] = [
    "listen",
    "socket_mode",
    "tls_certificate",
    "tls_key",
    "upstream",
    "log",
    "witness",
    "journal",
    "state_dir",
    "journal_bytes",
    "journal_age",
    "stall_timeout",
    "max_connections",
    "max_connections_per_address",
    "max_requests",
    "max_sockets",
    "max_body",
    "head_timeout",
    "idle_timeout",
    "start_timeout",
    "connect_timeout",
    "answer_timeout",
    "trusted_proxy",
    "allowed_host",
    "grace",
    "watch_state",
    "emit_bare",
    "password_file",
    "username",
    "log_format",
    "log_level",
];

/// The keys that can have several values: an array in the file, commas in the variable, a flag that is repeated.
pub(super) const LISTS: [&str; 3] = ["listen", "trusted_proxy", "allowed_host"];

/// The key of this name, with a lifetime that outlives the name.
pub(super) fn find(name: &str) -> Option<&'static str> {
    KEYS.into_iter().find(|key| *key == name)
}

/// The flag of a key: `--journal-bytes`.
pub(super) fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// The variable of a key: `OPENCODE_RELAY_JOURNAL_BYTES`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

/// The known name nearest to `name`, if it is near enough to be meant.
pub(super) fn nearest(name: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    let limit = 1 + name.len() / 4;
    known
        .into_iter()
        .map(|known| (distance(name.as_bytes(), known.as_bytes()), known))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known)
}

/// How many letters must be put in, taken out or changed to get from `a` to `b`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (row, have) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, want) in b.iter().enumerate() {
            let change = previous[column] + usize::from(have != want);
            current.push(change.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = || KEYS.into_iter().map(str::to_owned);
        assert_eq!(nearest("lisen", known()).as_deref(), Some("listen"));
        assert_eq!(nearest("journal-bytes", known()).as_deref(), Some("journal_bytes"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(nearest("", known()), None);
    }

    #[test]
    fn counts_changes() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("abc", "abc", 0)] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected);
        }
    }
}
