//! As much of JSON Schema as docs/openapi.json uses. An unknown keyword is a failure: nothing in the document is left unchecked.

use regex_lite::Regex;
use serde_json::{Map, Value};

/// The document, in which references are looked up.
pub(super) struct Document(pub(super) Value);

impl Document {
    /// What stands at a reference, or the value itself if it is none.
    pub(super) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("a reference within the document");
                self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => value,
        }
    }

    /// What is wrong with a value, each with its place.
    pub(super) fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(schema, value, "", &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let keywords = schema.as_object().unwrap_or_else(|| panic!("{schema} is no schema"));
        for (keyword, wanted) in keywords {
            let is_met = match keyword.as_str() {
                "description" | "examples" => true,
                "type" => types(wanted).iter().any(|wanted| is_of(value, wanted)),
                "const" => value == wanted,
                "enum" => wanted.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|value| value >= wanted.as_f64().unwrap()),
                "pattern" => {
                    value.as_str().is_none_or(|text| Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text))
                }
                "oneOf" => {
                    let fitting = wanted.as_array().unwrap().iter();
                    fitting.filter(|schema| self.faults(schema, value).is_empty()).count() == 1
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(wanted, item, &format!("{at}/{number}"), faults);
                    }
                    true
                }
                "required" => wanted
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|name| value.as_object().is_none_or(|fields| fields.contains_key(name.as_str().unwrap()))),
                "properties" => {
                    for (name, schema) in wanted.as_object().unwrap() {
                        if let Some(value) = value.get(name) {
                            self.check(schema, value, &format!("{at}/{name}"), faults);
                        }
                    }
                    true
                }
                "additionalProperties" => self.check_others(keywords, wanted, value, at, faults),
                other => panic!("{other:?} in {schema} is not checked by these tests"),
            };
            if !is_met {
                let shown: String = value.to_string().chars().take(300).collect();
                faults.push(format!(
                    "{}: {keyword} {wanted} is not met by {shown}",
                    if at.is_empty() { "/" } else { at }
                ));
            }
        }
    }

    /// Fields that `properties` does not name.
    fn check_others(
        &self,
        keywords: &Map<String, Value>,
        wanted: &Value,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) -> bool {
        let is_named = |name: &str| keywords.get("properties").is_some_and(|named| named.get(name).is_some());
        let others = value.as_object().into_iter().flatten().filter(|(name, _)| !is_named(name));
        match wanted {
            Value::Bool(is_allowed) => *is_allowed || others.count() == 0,
            schema => {
                for (name, value) in others {
                    self.check(schema, value, &format!("{at}/{name}"), faults);
                }
                true
            }
        }
    }
}

fn types(wanted: &Value) -> Vec<&str> {
    match wanted {
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other:?} is no type that these tests know"),
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": {"a": {"type": ["integer", "null"], "minimum": 0}, "b": {"enum": ["x"]}, "c": {"type": "array", "items": {"$ref": "#/s"}}},
        "required": ["a"],
        "additionalProperties": false
    });
    let document = Document(serde_json::json!({"s": {"type": "string", "pattern": "^y+$"}}));
    for (text, expected) in [
        (r#"{"a":1}"#, ""),
        (r#"{"a":null,"b":"x","c":["y","yy"]}"#, ""),
        ("{}", "required"),
        ("[]", "type"),
        (r#"{"a":-1}"#, "minimum"),
        (r#"{"a":1.5}"#, "type"),
        (r#"{"a":1,"b":"y"}"#, "enum"),
        (r#"{"a":1,"c":["n"]}"#, "pattern"),
        (r#"{"a":1,"d":1}"#, "additionalProperties"),
    ] {
        let faults = document.faults(&schema, &serde_json::from_str(text).unwrap());
        assert_eq!(faults.is_empty(), expected.is_empty(), "{text}: {faults:?}");
        assert!(faults.iter().all(|fault| fault.contains(expected)), "{text}: {faults:?}");
    }
}
