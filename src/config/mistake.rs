//! Mistakes in the settings, for people: what, where, and what to do.

use std::fmt;
use std::path::PathBuf;

use super::keys;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag(&'static str),
    /// In the environment.
    Environment(String),
    /// In the settings file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "flag {}", keys::flag(key)),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting.
    pub key: String,
    /// What was written, where it helps and is no secret.
    pub value: Option<String>,
    /// Where it was written; `None` when it is missing.
    pub origin: Option<Origin>,
    /// What is wrong, to follow "is" or to stand alone.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            // Debug: a value can hold anything, also what a terminal would obey.
            write!(f, " = {value:?}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        let end = if self.remedy.ends_with('?') { "" } else { "." };
        write!(f, ": {}. {}{end}", self.problem, self.remedy)
    }
}

/// All mistakes that were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// Whether none was made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a mistake that concerns a written value.
    pub(super) fn add(
        &mut self,
        key: &str,
        value: Option<&str>,
        origin: &Origin,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Mistake {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            origin: Some(origin.clone()),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// Adds a mistake that concerns what is missing, or several settings together.
    pub(super) fn add_general(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Mistake {
            key: key.to_owned(),
            value: None,
            origin: None,
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("one setting is wrong:")?,
            count => write!(f, "{count} settings are wrong:")?,
        }
        for mistake in &self.0 {
            write!(f, "\n  - {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
