//! The JSON Schema of a manifest, written from the table of its keys, so that editors know what we know.
//!
//! It says draft 7 and uses what draft 4 knows too: editors of TOML read no more. Where a value may be put in from a variable,
//! a text with `$` is allowed.

use serde_json::{Map, Value, json};

use crate::document::shape::{Grammar, IfAbsent, Key, Kind, Presence, Shape, Takes};
use crate::grammar::WRITTEN;
use crate::manifest::keys::MANIFEST;
use crate::settings;

/// Where a schema is known by.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";
/// A text into which a variable is put.
const INTERPOLATED: &str = "\\$";
const DURATION: &str = "^([0-9]+(\\.[0-9]+)?(d|h|m|s|ms|us|ns))+$";
const SIZE: &str = "^[0-9]+(\\.[0-9]+)? *([KkMmGgTt][Ii][Bb]|[KkMmGgTt]?[Bb])?$";

/// The schema of a whole manifest.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut schema = shape(&MANIFEST, &mut definitions);
    schema.insert("$schema".to_owned(), json!(DRAFT));
    schema.insert("title".to_owned(), json!("A manifest of kimi-shell"));
    schema.insert("definitions".to_owned(), Value::Object(definitions));
    Value::Object(schema)
}

/// The same as text, as `kimi-shell schema` prints it.
pub fn text() -> String {
    format!("{:#}\n", schema())
}

fn shape(shape: &'static Shape, definitions: &mut Map<String, Value>) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in shape.keys {
        properties.insert(key.name.to_owned(), property(key, definitions));
    }
    let required: Vec<&str> = shape
        .keys
        .iter()
        .filter(|key| key.presence == Presence::Required)
        .map(|key| key.name)
        .collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("description".to_owned(), json!(shape.about));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("patternProperties".to_owned(), json!({ "^x-": {} }));
    schema.insert("additionalProperties".to_owned(), json!(false));
    // Draft 4 wants at least one name there.
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if !shape.choice.is_empty() {
        let each = shape.choice.iter().map(|key| json!({ "required": [key] }));
        schema.insert("oneOf".to_owned(), each.collect());
    }
    schema
}

fn property(key: &'static Key, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = kind(&key.kind, definitions);
    // Beside a reference nothing else counts.
    if schema.get("$ref").is_some() {
        schema = json!({ "allOf": [schema] });
    }
    let mut about = key.about.to_owned();
    let default = match key.if_absent {
        IfAbsent::Nothing => None,
        IfAbsent::Value(value) => Some(value),
        IfAbsent::Setting(path) => {
            about = format!("{about} Without it, the setting `{path}` holds.");
            settings::default_of(path)
        }
    };
    if let Some(default) = default {
        schema["default"] = written(default);
    }
    if !key.example.is_empty() {
        about = format!("{about}\n\nExample: `{}`", key.example);
    }
    schema["description"] = json!(about);
    schema
}

/// A value that stands in a table as JSON; what is none is text.
pub fn written(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|_| json!(value))
}

fn kind(kind_of: &'static Kind, definitions: &mut Map<String, Value>) -> Value {
    match kind_of {
        Kind::Text(grammar) => text_of(grammar),
        Kind::Word(list) => json!({
            "anyOf": [{ "enum": (list.words)() }, { "type": "string", "pattern": INTERPOLATED }]
        }),
        Kind::Duration { .. } => json!({ "type": "string", "pattern": or_interpolated(DURATION) }),
        Kind::Size => json!({
            "type": ["string", "integer"], "pattern": or_interpolated(SIZE), "minimum": 0
        }),
        Kind::Whole { least, most } => json!({
            "type": ["integer", "string"], "pattern": INTERPOLATED, "minimum": least, "maximum": most
        }),
        Kind::Number { least, most } => {
            let mut schema = json!({
                "type": ["number", "string"], "pattern": INTERPOLATED, "minimum": least
            });
            if *most < f64::MAX {
                schema["maximum"] = json!(most);
            }
            schema
        }
        Kind::Truth => json!({ "type": ["boolean", "string"], "pattern": INTERPOLATED }),
        Kind::Only(value) => json!({ "enum": [written(value)] }),
        Kind::List { of, least } => json!({
            "type": "array", "items": kind(of, definitions), "minItems": least
        }),
        Kind::Command => json!({ "type": "array", "items": text_of(&WRITTEN), "minItems": 1 }),
        Kind::Map { names, of, .. } => {
            let mut patterns = Map::new();
            patterns.insert("^x-".to_owned(), json!({}));
            let pattern = names.pattern.unwrap_or("").to_owned();
            patterns.insert(pattern, kind(of, definitions));
            json!({
                "type": "object", "patternProperties": patterns, "additionalProperties": false
            })
        }
        Kind::Variables => json!({
            "type": "object",
            "patternProperties": { "^[^=]+$": { "type": ["string", "number", "boolean"] } },
            "additionalProperties": false
        }),
        Kind::Record(inner) | Kind::Deferred(inner) => {
            if !definitions.contains_key(inner.name) {
                let schema = shape(inner, definitions);
                definitions.insert(inner.name.to_owned(), Value::Object(schema));
            }
            json!({ "$ref": format!("#/definitions/{}", inner.name) })
        }
        Kind::OneOf(kinds) => {
            let each = kinds.iter().map(|inner| kind(inner, definitions));
            json!({ "anyOf": each.collect::<Vec<_>>() })
        }
    }
}

fn text_of(grammar: &Grammar) -> Value {
    let mut schema = match grammar.takes {
        Takes::Text => json!({ "type": "string" }),
        Takes::Written => json!({ "type": ["string", "number", "boolean"] }),
    };
    if let Some(pattern) = grammar.pattern {
        schema["pattern"] = json!(or_interpolated(pattern));
    }
    schema
}

/// What fits any text fits one with a variable too.
fn or_interpolated(pattern: &str) -> String {
    if pattern == "." {
        return pattern.to_owned();
    }
    format!("{pattern}|{INTERPOLATED}")
}
