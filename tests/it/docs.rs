//! The documents: what they name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use opencode_relay::cli::Cli;

/// Flags of other programs that the documents show.
const FOREIGN: [&str; 11] =
    ["attach", "cors", "hostname", "locked", "port", "print-logs", "release", "help", "now", "path", "user"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["", "docs", "fuzz"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push((path.clone(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 6, "{found:?}");
    found
}

/// What stands between `](` and `)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

/// A heading as the anchor that renderers give it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for (path, text) in documents() {
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !fragment.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter_map(|line| line.strip_prefix('#'));
                let has = headings.any(|heading| anchor(heading.trim_start_matches('#')) == fragment);
                assert!(has, "{}: there is no heading for {link}", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} links were found");
}

#[test]
fn flags_and_variables_are_those_of_the_command() {
    let mut command = Cli::command();
    command.build();
    let mut known: BTreeSet<String> = FOREIGN.map(str::to_owned).into();
    for command in command.get_subcommands() {
        known.extend(command.get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned));
    }
    let variables = known.iter().map(|flag| flag.to_uppercase().replace('-', "_")).collect::<BTreeSet<_>>();
    // The fuzzers' page is about other programs.
    for (path, text) in documents().into_iter().filter(|(path, _)| !path.starts_with(root().join("fuzz"))) {
        for (at, _) in text.match_indices("--") {
            let before = text[..at].chars().next_back();
            let flag: String =
                text[at + 2..].chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
            // Lines of tables, comments and arrows are no flags.
            if flag.is_empty()
                || flag.starts_with('-')
                || flag.ends_with('-')
                || before.is_some_and(|letter| letter == '-' || letter.is_alphanumeric())
            {
                continue;
            }
            assert!(known.contains(&flag), "{}: --{flag} is no flag", path.display());
        }
        for rest in text.split("OPENCODE_RELAY_").skip(1) {
            let name: String =
                rest.chars().take_while(|letter| letter.is_ascii_uppercase() || *letter == '_').collect();
            assert!(name.is_empty() || variables.contains(&name), "{}: OPENCODE_RELAY_{name}", path.display());
        }
    }
}
