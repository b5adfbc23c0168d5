//! Collecting what was written, by key: the flag if there is one, else the variable, else the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Input;
use super::keys::{self, CONFIG_VARIABLE, KEYS, PREFIX};
use super::mistake::{Mistakes, Origin};

/// What was written for one key.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) values: Vec<String>,
    pub(super) origin: Origin,
}

/// What was written, by key.
pub(super) type Layers = BTreeMap<&'static str, Given>;

/// Collects all layers; a higher one replaces a lower one whole.
pub(super) fn collect(input: &Input, mistakes: &mut Mistakes) -> Layers {
    let mut layers = Layers::new();
    let environment = read_environment(input, mistakes);
    if let Some(path) = file(input) {
        read_file(path.to_owned(), &mut layers, mistakes);
    }
    layers.extend(environment);
    for (key, values) in &input.flags {
        if !values.is_empty() {
            layers.insert(key, Given { values: values.clone(), origin: Origin::Flag(key) });
        }
    }
    layers
}

/// The settings file: the one of the flag, else the one that the variable names.
pub(super) fn file(input: &Input) -> Option<&Path> {
    input.file.as_deref().or_else(|| {
        let named = input.environment.iter().rev().find(|(name, _)| name == CONFIG_VARIABLE);
        named.map(|(_, value)| Path::new(value)).filter(|path| !path.as_os_str().is_empty())
    })
}

/// The variables of this program.
fn read_environment(input: &Input, mistakes: &mut Mistakes) -> Layers {
    let mut layers = Layers::new();
    for (name, value) in &input.environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        // An empty variable is how a compose file says that there is none.
        if value.is_empty() {
            continue;
        }
        if name == CONFIG_VARIABLE {
            continue;
        }
        let origin = Origin::Environment(name.to_owned());
        let known = KEYS.into_iter().find(|key| keys::variable(key) == name);
        let (Some(key), Some(value)) = (known, value.to_str()) else {
            match known {
                Some(key) => mistakes.add(key, None, &origin, "not valid UTF-8", "Write it in UTF-8"),
                None => {
                    let all = KEYS.into_iter().map(keys::variable).chain([CONFIG_VARIABLE.to_owned()]);
                    let remedy = remedy_for_unknown(
                        keys::nearest(name, all),
                        "Unset it; `opencode-relay run --help` lists the variables",
                    );
                    mistakes.add(name, None, &origin, "there is no such setting", remedy);
                }
            }
            continue;
        };
        let values = if keys::LISTS.contains(&key) {
            value.split(',').map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
        } else {
            vec![value.to_owned()]
        };
        layers.insert(key, Given { values, origin });
    }
    layers
}

/// The settings file. It is walked by hand, because a deserializer stops at the first mistake.
fn read_file(path: PathBuf, layers: &mut Layers, mistakes: &mut Mistakes) {
    let origin = Origin::File(path.clone());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            mistakes.add(
                "config",
                None,
                &origin,
                format!("the file cannot be read: {error}"),
                "Check the path and its rights",
            );
            return;
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            let error: toml::de::Error = error;
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            mistakes.add(
                "config",
                None,
                &origin,
                format!("line {line} is not TOML: {}", error.message()),
                "Correct the line",
            );
            return;
        }
    };
    for (name, value) in table {
        let Some(key) = keys::find(&name) else {
            let nearest = keys::nearest(&name, KEYS.into_iter().map(str::to_owned));
            let remedy = remedy_for_unknown(nearest, "Remove it; config/opencode-relay.toml shows all settings");
            mistakes.add(&name, None, &origin, "there is no such setting", remedy);
            continue;
        };
        let values = match (key, value) {
            (key, toml::Value::Array(values)) if keys::LISTS.contains(&key) => values.into_iter().map(scalar).collect(),
            (_, value) => scalar(value).map(|value| vec![value]),
        };
        match values {
            Some(values) => {
                layers.insert(key, Given { values, origin: origin.clone() });
            }
            None => mistakes.add(
                key,
                None,
                &origin,
                "a value of the wrong kind",
                "Write a text in quotes, a number, true or false",
            ),
        }
    }
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

fn remedy_for_unknown(nearest: Option<String>, otherwise: &str) -> String {
    nearest.map_or_else(|| otherwise.to_owned(), |nearest| format!("Did you mean {nearest}?"))
}
