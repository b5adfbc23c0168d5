//! Who may name whom: reads the sources and checks them against the table in `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The table, from the document itself, so that the two cannot differ.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Who may name whom").nth(1).expect("the section with the table");
    let words = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let allowed: BTreeSet<String> = words(cells[2]).into_iter().collect();
            words(cells[1]).into_iter().map(move |module| (module, allowed.clone()))
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a source names by `crate::…`, also in groups as `use crate::{a, b::c}`; tests and docs left out.
fn named(text: &str) -> BTreeSet<String> {
    let code: String = text
        .split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let first_word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => {
                let (mut depth, mut item) = (0, String::new());
                for letter in group.chars() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            modules.insert(first_word(std::mem::take(&mut item).trim()));
                        }
                        _ if depth == 0 => item.push(letter),
                        _ => {}
                    }
                }
                modules.insert(first_word(item.trim()));
            }
            None => {
                modules.insert(first_word(rest));
            }
        }
    }
    modules.remove("");
    modules
}

#[test]
fn modules_name_only_whom_they_may() {
    let table = table();
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    for file in files {
        let inside = file.strip_prefix(root().join("src")).unwrap().to_owned();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "main" | "lib") {
            continue;
        }
        let Some(allowed) = table.get(module) else {
            wrong.push(format!("`{module}` has no row in the table of ARCHITECTURE.md"));
            continue;
        };
        if allowed.contains("everything") {
            continue;
        }
        // Tests may name what they like, in a file of their own too.
        if inside.ends_with("tests.rs") {
            continue;
        }
        for named in named(&fs::read_to_string(&file).unwrap()) {
            if named != module && !allowed.contains(&named) {
                wrong.push(format!("{} names `{named}`, which `{module}` may not", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let mut files = Vec::new();
    for folder in ["src/event", "src/reconcile"] {
        sources(&root().join(folder), &mut files);
    }
    files.push(root().join("src/ingest/log/line.rs"));
    files.push(root().join("src/ingest/stream/parse.rs"));
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for forbidden in ["tokio", "async ", "std::time::", "std::fs", "std::net", "SystemTime", "Instant"] {
            let line = code.lines().find(|line| line.contains(forbidden) && !line.trim_start().starts_with("//"));
            assert_eq!(line, None, "{} has {forbidden}", file.display());
        }
    }
}

#[test]
fn finds_names_in_every_form() {
    let text = "use crate::event::{Event, Seq};\nuse crate::{http, proxy::{self, Proxy}};\nlet x = crate::hub::X;\n// crate::no\n#[cfg(test)]\nmod tests { use crate::never; }";
    assert_eq!(Vec::from_iter(named(text)), ["event", "http", "hub", "proxy"]);
}
