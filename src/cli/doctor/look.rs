//! The look at the log witness, wherever its log is: in files, or in systemd's journal.

use std::collections::HashMap;
use std::path::PathBuf;

use super::judge::Due;
use super::log::{self, Sight};
use crate::ingest::log::{Item, Source, journald};

/// A log as it was before the probe.
#[derive(Debug)]
pub(super) enum Look {
    Files(log::Look),
    Journald {
        unit: String,
        /// What the unit printed last; or why that cannot be read.
        before: Result<Option<String>, String>,
    },
}

impl Look {
    /// Looks before anything is published. Without a source at opencode's own place.
    pub(super) async fn before(source: Option<&Source>, own: Option<PathBuf>, is_here: bool) -> Self {
        match source {
            Some(Source::Journald(unit)) => {
                Self::Journald { unit: unit.clone(), before: journald::last_printed(unit).await }
            }
            source => Self::Files(log::Look::before(source, own, is_here)),
        }
    }

    /// Looks afterwards. A log is written in batches, so what is not there yet may come.
    pub(super) async fn after(&self, session: Option<&str>, due: &[Due]) -> Sight {
        match self {
            Self::Files(look) => look.after(session, due),
            Self::Journald { unit, before } => {
                let printed = match before {
                    Ok(cursor) => journald::printed_since(unit, cursor.clone()).await,
                    Err(reason) => Err(reason.clone()),
                };
                printed.map_or_else(Sight::Empty, |items| announced(self.source().into(), &items, session, due))
            }
        }
    }

    /// As the relay would be told.
    pub(super) fn source(&self) -> String {
        match self {
            Self::Files(look) => look.source(),
            Self::Journald { unit, .. } => Source::Journald(unit.clone()).to_string(),
        }
    }
}

/// What a log that said this during the probe is.
fn announced(path: PathBuf, items: &[Item], session: Option<&str>, due: &[Due]) -> Sight {
    let mut notices: HashMap<&str, usize> = HashMap::new();
    let mut names_session = false;
    for item in items {
        match item {
            Item::Notice { kind } => *notices.entry(kind).or_default() += 1,
            Item::Hint { session: named } => names_session |= session == Some(&**named),
            Item::Started | Item::Gap { .. } | Item::Elsewhere => {}
        }
    }
    let has_bus = !notices.is_empty();
    let of: usize = due.iter().map(|due| due.count).sum();
    let count = due.iter().map(|due| notices.get(&*due.kind).copied().unwrap_or(0).min(due.count)).sum();
    match session {
        None => Sight::Unproven { path, has_bus },
        Some(_) => Sight::of_own(&path, count, of, names_session).unwrap_or(Sight::Foreign { path, has_bus }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "journald:opencode.service";

    fn sight(items: &[Item], session: Option<&str>) -> Sight {
        let due =
            [("session.created", 1), ("session.updated", 2)].map(|(kind, count)| Due { kind: kind.into(), count });
        announced(PATH.into(), items, session, &due)
    }

    fn notice(kind: &str) -> Item {
        Item::Notice { kind: kind.into() }
    }

    #[test]
    fn only_what_is_whole_and_ours_announces() {
        let named = Item::Hint { session: "ses_1".into() };
        let all = [notice("session.created"), notice("session.updated"), named.clone(), notice("session.updated")];
        let (path, us) = (PathBuf::from(PATH), Some("ses_1"));
        assert_eq!(sight(&all, us), Sight::Announces { path: path.clone(), count: 3 });
        assert_eq!(sight(&all[..3], us), Sight::Partly { path: path.clone(), count: 2, of: 3 });
        assert_eq!(sight(&all[..2], us), Sight::Foreign { path: path.clone(), has_bus: true });
        assert_eq!(sight(&all[..2], None), Sight::Unproven { path: path.clone(), has_bus: true });
        assert_eq!(sight(&[named], us), Sight::Silent { path: path.clone() });
        assert_eq!(sight(&[], us), Sight::Foreign { path, has_bus: false });
    }
}
