//! What a client asked to see.

use std::sync::Arc;

use super::Head;

/// Which of the relay's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// `/event`: one instance.
    Instance,
    /// `/session/{id}/event`: one session.
    Session,
    /// `/global/event`: every instance, with the twins of durable events.
    Global,
    /// `/api/event`: every instance in the v2 shape.
    Api,
}

impl View {
    /// The word that status uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Instance => "event",
            Self::Session => "session",
            Self::Global => "global",
            Self::Api => "api",
        }
    }
}

/// A set of streams. `/event` and `/session/{id}/event` always carry the same events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Views(u8);

impl Views {
    const INSTANCE: u8 = 1;
    const GLOBAL: u8 = 2;
    const API: u8 = 4;

    /// Those of an ordinary event: `/event` too, unless it belongs to no instance (FACTS §1).
    #[must_use]
    pub fn of_plain(directory: Option<&str>) -> Self {
        match directory {
            None | Some("global") => Self(Self::GLOBAL),
            Some(_) => Self(Self::INSTANCE | Self::GLOBAL | Self::API),
        }
    }

    /// Those of the durable twin, which only `/global/event` shows as a frame of its own.
    #[must_use]
    pub fn of_twin() -> Self {
        Self(Self::GLOBAL)
    }

    /// This set with `/api/event` and nothing else: for an event whose twin never came.
    #[must_use]
    pub fn only_api() -> Self {
        Self(Self::API)
    }

    /// This set with `/api/event`.
    #[must_use]
    pub fn with_api(self) -> Self {
        Self(self.0 | Self::API)
    }

    /// This set without `/api/event`.
    #[must_use]
    pub fn without_api(self) -> Self {
        Self(self.0 & !Self::API)
    }

    /// The set as a number, for storing: 1 is `/event` with `/session/{id}/event`, 2 `/global/event`, 4 `/api/event`.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set of a number that [`Views::bits`] gave; `None` for any other.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits <= Self::INSTANCE | Self::GLOBAL | Self::API).then_some(Self(bits))
    }

    /// Whether the set has this stream.
    #[must_use]
    pub fn has(self, view: View) -> bool {
        let bit = match view {
            View::Instance | View::Session => Self::INSTANCE,
            View::Global => Self::GLOBAL,
            View::Api => Self::API,
        };
        self.0 & bit != 0
    }
}

/// One client's filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Which stream.
    pub view: View,
    /// Only this instance's events. Compared as opencode compares: as a raw string (FACTS §1).
    pub directory: Option<Arc<str>>,
    /// Only this session's events.
    pub session: Option<Arc<str>>,
    /// Only these types.
    pub types: Types,
}

impl Scope {
    /// Whether the client sees this event.
    #[must_use]
    pub fn admits(&self, event: &Head<'_>) -> bool {
        event.views.has(self.view)
            && self.directory.as_deref().is_none_or(|directory| event.directory == Some(directory))
            && self.session.as_deref().is_none_or(|session| event.session == Some(session))
            && self.types.admit(event.kind)
    }
}

/// Event types a client asked for: exact names, or prefixes that end with `*`. Empty admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Types(Vec<Box<str>>);

/// Most patterns in one `?types=`.
const PATTERNS: usize = 64;

/// What is wrong with a `?types=`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypesError {
    /// A pattern that can match no type.
    #[error(
        "read {0:?} as an event type; write names like session.idle or prefixes like message.*, with commas between"
    )]
    Pattern(String),
    /// More than 64 patterns.
    #[error("take more than {PATTERNS} event types in one filter; use prefixes like message.*")]
    TooMany,
}

impl Types {
    /// Reads `a,b*`.
    ///
    /// # Errors
    ///
    /// When a pattern has other letters than a type can have, when there are none or too many.
    pub fn parse(text: &str) -> Result<Self, TypesError> {
        let patterns: Vec<Box<str>> = text.split(',').map(str::trim).map(Into::into).collect();
        if patterns.len() > PATTERNS {
            return Err(TypesError::TooMany);
        }
        for pattern in &patterns {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            if pattern.is_empty() || !fits {
                return Err(TypesError::Pattern(pattern.to_string()));
            }
        }
        Ok(Self(patterns))
    }

    /// Whether the set has this type.
    #[must_use]
    pub fn admit(&self, kind: &str) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => kind.starts_with(prefix),
                None => **pattern == *kind,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_filter_by_name_and_prefix() {
        let types = Types::parse("session.idle, message.*").unwrap();
        assert!(types.admit("session.idle") && types.admit("message.part.delta"));
        assert!(!types.admit("session.idle2") && !types.admit("messages") && !types.admit("todo.updated"));
        assert!(Types::parse("*").unwrap().admit("anything"));
        for bad in ["", "a,,b", "a b", "a*b", "é"] {
            assert!(Types::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Types::parse(&"a,".repeat(65)), Err(TypesError::TooMany));
    }

    #[test]
    fn events_without_an_instance_are_only_global() {
        assert!(!Views::of_plain(Some("global")).has(View::Instance));
        assert!(Views::of_plain(None).has(View::Global));
        assert!(Views::of_plain(Some("/x")).has(View::Session));
        assert!(!Views::of_twin().has(View::Instance));
    }
}
