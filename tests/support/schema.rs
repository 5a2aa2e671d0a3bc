//! Whether a document satisfies a schema, as an editor sees it.

use kimi_shell::document::{Content, Node, Scalar, ScalarKind};
use regex_lite::Regex;
use serde_json::{Map, Value, json};

/// All that the schema says against a document, each with the way to it.
pub fn objections(schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { root: schema }.check(schema, document, "", &mut found);
    found
}

/// A document as an editor takes it.
pub fn as_json(node: &Node) -> Value {
    match &node.content {
        Content::Scalar(scalar) => scalar_as_json(scalar),
        Content::List(items) => items.iter().map(as_json).collect(),
        Content::Map(entries) => Value::Object(
            entries
                .iter()
                .map(|entry| (entry.key.clone(), as_json(&entry.value)))
                .collect(),
        ),
    }
}

fn scalar_as_json(scalar: &Scalar) -> Value {
    let plain = scalar.text.replace('_', "");
    let number = || serde_json::from_str(&plain).ok();
    match scalar.kind {
        ScalarKind::Null => Value::Null,
        ScalarKind::Bool => json!(scalar.text.eq_ignore_ascii_case("true")),
        ScalarKind::Integer | ScalarKind::Float => number().unwrap_or_else(|| {
            plain
                .parse::<f64>()
                .map_or(json!(0), |number| json!(number))
        }),
        ScalarKind::Text | ScalarKind::Datetime => json!(scalar.text),
    }
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn accepts(&self, schema: &Value, document: &Value) -> bool {
        let mut found = Vec::new();
        self.check(schema, document, "", &mut found);
        found.is_empty()
    }

    fn check(&self, schema: &Value, document: &Value, at: &str, found: &mut Vec<String>) {
        for (keyword, value) in schema.as_object().unwrap() {
            let objection = match keyword.as_str() {
                // The maps of keys are looked at with `additionalProperties`.
                "$schema" | "title" | "description" | "default" | "definitions" | "properties"
                | "patternProperties" => None,
                "$ref" => {
                    let path = value.as_str().unwrap().strip_prefix('#').unwrap();
                    self.check(self.root.pointer(path).unwrap(), document, at, found);
                    None
                }
                "allOf" => {
                    for part in value.as_array().unwrap() {
                        self.check(part, document, at, found);
                    }
                    None
                }
                "anyOf" | "oneOf" => {
                    let parts = value.as_array().unwrap();
                    let fitting = parts.iter().filter(|part| self.accepts(part, document));
                    let is_right = match (fitting.count(), keyword.as_str()) {
                        (0, _) => false,
                        (1, _) | (_, "anyOf") => true,
                        (_, _) => false,
                    };
                    (!is_right).then(|| format!("{keyword} of {}", parts.len()))
                }
                "additionalProperties" => {
                    assert_eq!(value, &json!(false));
                    self.keys(schema, document, at, found);
                    None
                }
                "items" => {
                    for (index, item) in document.as_array().into_iter().flatten().enumerate() {
                        self.check(value, item, &format!("{at}/{index}"), found);
                    }
                    None
                }
                _ => simple(keyword, value, document),
            };
            found.extend(objection.map(|objection| format!("{at}: {objection}")));
        }
    }

    fn keys(&self, schema: &Value, document: &Value, at: &str, found: &mut Vec<String>) {
        let none = Map::new();
        let of = |key: &str| schema.get(key).and_then(Value::as_object).unwrap_or(&none);
        let (fixed, patterns) = (of("properties"), of("patternProperties"));
        for (key, value) in document.as_object().into_iter().flatten() {
            let at = format!("{at}/{key}");
            let matching = patterns
                .iter()
                .filter(|(pattern, _)| Regex::new(pattern).unwrap().is_match(key));
            let parts: Vec<&Value> = fixed
                .get(key)
                .into_iter()
                .chain(matching.map(|(_, part)| part))
                .collect();
            if parts.is_empty() {
                found.push(format!("{at}: no such key"));
            }
            for part in parts {
                self.check(part, value, &at, found);
            }
        }
    }
}

/// A keyword that looks at the value alone. One that draft 4 does not know is a mistake of the schema.
fn simple(keyword: &str, value: &Value, document: &Value) -> Option<String> {
    let holds = match keyword {
        "type" => {
            let types = value
                .as_array()
                .map_or(std::slice::from_ref(value), Vec::as_slice);
            types
                .iter()
                .any(|name| is_of(document, name.as_str().unwrap()))
        }
        "enum" => value.as_array().unwrap().contains(document),
        "pattern" => document
            .as_str()
            .is_none_or(|text| Regex::new(value.as_str().unwrap()).unwrap().is_match(text)),
        "minimum" => document
            .as_f64()
            .is_none_or(|number| number >= value.as_f64().unwrap()),
        "maximum" => document
            .as_f64()
            .is_none_or(|number| number <= value.as_f64().unwrap()),
        "minItems" => document
            .as_array()
            .is_none_or(|items| items.len() as u64 >= value.as_u64().unwrap()),
        "required" => document.as_object().is_none_or(|map| {
            let mut names = value.as_array().unwrap().iter();
            names.all(|name| map.contains_key(name.as_str().unwrap()))
        }),
        other => panic!("the schema uses `{other}`, which not every editor knows"),
    };
    (!holds).then(|| format!("{keyword} {value}, found {document}"))
}

fn is_of(document: &Value, name: &str) -> bool {
    match name {
        "object" => document.is_object(),
        "array" => document.is_array(),
        "string" => document.is_string(),
        "boolean" => document.is_boolean(),
        "number" => document.is_number(),
        "integer" => document.is_i64() || document.is_u64(),
        other => panic!("no such type: {other}"),
    }
}
