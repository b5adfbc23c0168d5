//! A strict reader of Prometheus' text form, and of OpenMetrics as far as the relay writes it.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// A page that was read.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Kind by the name in its comment.
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Metrics {
    /// Reads a page, and panics at whatever a reader would refuse: samples without a kind, in the wrong place, or twice.
    pub(super) fn read(text: &str) -> Self {
        let is_open = text.ends_with("# EOF\n");
        let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in text.strip_suffix("# EOF\n").unwrap_or(text).lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("words");
                assert!(words.ends_with('.') && helped.insert(name.to_owned()), "{line}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(helped.contains(name), "{line} has no help");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line} is there twice");
                name.clone_into(&mut current);
                continue;
            }
            let (name, labels, value) = sample(line);
            let kind = kinds.get(&current).map(String::as_str);
            let fits = match kind {
                Some("counter") if is_open => name == format!("{current}_total"),
                Some("counter") => name == current && name.ends_with("_total"),
                Some("gauge") => name == current,
                Some("histogram") => ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{current}{end}")),
                _ => false,
            };
            assert!(fits, "{line} stands below {current} ({kind:?})");
            assert!(samples.insert((name, labels), value).is_none(), "{line} is there twice");
        }
        Self { kinds, samples }
    }

    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    pub(super) fn samples(&self) -> impl Iterator<Item = (&str, &Labels, f64)> {
        self.samples.iter().map(|((name, labels), value)| (name.as_str(), labels, *value))
    }

    /// The names that a query can use.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let of = |(name, kind): (&String, &String)| match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
            _ => vec![name.clone()],
        };
        self.kinds.iter().flat_map(of).collect()
    }

    /// The names in the comments.
    pub(super) fn families(&self) -> impl Iterator<Item = &String> {
        self.kinds.keys()
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line:?} is no sample"));
    let (name, mut rest) = line.split_at(end);
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line:?}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line:?}: a label"));
            let mut value = String::new();
            let mut letters = after.char_indices();
            let end = loop {
                match letters.next().unwrap_or_else(|| panic!("{line:?}: an open quote")) {
                    (at, '"') => break at,
                    (_, '\\') => match letters.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, letter @ ('"' | '\\'))) => value.push(letter),
                        other => panic!("{line:?}: {other:?} is escaped"),
                    },
                    (_, letter) => value.push(letter),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line:?}");
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("{line:?}: a bracket"));
    }
    let value =
        rest.strip_prefix(' ').and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{line:?}: a number"));
    (name.to_owned(), labels, value)
}
