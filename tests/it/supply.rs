//! The README's table of what `--witness log` supplies, held against what reconciliation does and what was captured.

use std::collections::BTreeSet;
use std::fs;

use opencode_relay::reconcile::is_told_by_state;

/// The table's event types, with what the second column says.
fn table() -> Vec<(String, String)> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = text.split("## Which witness supplies what").nth(1).expect("the section with the table");
    let rows =
        section.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let kinds: Vec<&str> = cells[1].split('`').skip(1).step_by(2).collect();
        let words = cells[2].trim().to_owned();
        kinds.into_iter().map(move |kind| (kind.to_owned(), words.clone())).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn the_table_says_what_reconciliation_does() {
    let table = table();
    assert!(table.len() > 25, "{table:?}");
    for (kind, words) in &table {
        assert_eq!(is_told_by_state(kind), !words.starts_with("not at all"), "{kind}: {words}");
    }
    let kinds: BTreeSet<&String> = table.iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.len(), table.len(), "a type stands twice in the table");
}

/// Every type that opencode's log announced in a real run is in the table, so that a reader finds what he sees.
#[test]
fn the_table_has_every_type_that_was_seen() {
    let known: BTreeSet<String> = table().into_iter().map(|(kind, _)| kind).collect();
    // From whole runs of 1.14.41, 1.14.48 and 1.15.0 through every situation of `support::situations`.
    let seen = [
        "file.edited",
        "file.watcher.updated",
        "message.part.delta",
        "message.part.updated",
        "message.updated",
        "permission.asked",
        "permission.replied",
        "pty.created",
        "pty.deleted",
        "pty.exited",
        "question.asked",
        "question.replied",
        "session.created",
        "session.deleted",
        "session.diff",
        "session.error",
        "session.idle",
        "session.next.agent.switched",
        "session.next.model.switched",
        "session.status",
        "session.updated",
        "todo.updated",
    ];
    for kind in seen {
        assert!(known.contains(kind), "{kind} is not in the README's table");
    }
}
