//! One positional argument and flags with a value each.

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// The flags of all commands.
const FLAGS: [&str; 12] = [
    "clients",
    "connections",
    "cost",
    "events",
    "lines",
    "log",
    "origin",
    "publish",
    "rate",
    "seconds",
    "sessions",
    "threads",
];

/// What was written behind a command.
pub(crate) struct Arguments {
    first: Option<String>,
    flags: BTreeMap<String, String>,
}

impl Arguments {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut read = Self { first: None, flags: BTreeMap::new() };
        while let Some(word) = words.next() {
            if let Some(flag) = word.strip_prefix("--") {
                if !FLAGS.contains(&flag) {
                    return Err(mistake(format!("there is no --{flag}")));
                }
                let value = words.next().ok_or_else(|| mistake(format!("--{flag} needs a value")))?;
                read.flags.insert(flag.to_owned(), value);
            } else if read.first.replace(word).is_some() {
                return Err(mistake("one argument at most"));
            }
        }
        Ok(read)
    }

    /// What is not behind a flag.
    pub(crate) fn first<T: FromStr>(&self) -> io::Result<T> {
        parse("the argument", self.first.as_deref())
    }

    pub(crate) fn get<T: FromStr>(&self, flag: &str) -> io::Result<T> {
        parse(&format!("--{flag}"), self.flags.get(flag).map(String::as_str))
    }

    pub(crate) fn find<T: FromStr>(&self, flag: &str) -> io::Result<Option<T>> {
        if self.flags.contains_key(flag) { self.get(flag).map(Some) } else { Ok(None) }
    }

    /// A number of seconds, fractions included.
    pub(crate) fn seconds(&self) -> io::Result<Duration> {
        Duration::try_from_secs_f64(self.get("seconds")?).map_err(|_| mistake("--seconds is no time"))
    }
}

fn parse<T: FromStr>(name: &str, value: Option<&str>) -> io::Result<T> {
    let value = value.ok_or_else(|| mistake(format!("{name} is missing")))?;
    value.parse().map_err(|_| mistake(format!("{name} cannot be {value:?}")))
}

/// Something is wrong with how the tool was called.
pub(crate) fn mistake(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}
