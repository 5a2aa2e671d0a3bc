//! The JSON Schema of a manifest, for editors.
//!
//! It says draft 7 and uses what draft 4 knows too: editors of TOML read no more.

use serde_json::{Value, json};

/// The schema of a whole manifest.
pub fn schema() -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A manifest of kimi-shell",
        "type": "object",
        "required": ["version", "services"],
        "additionalProperties": false,
        "patternProperties": { "^x-": {} },
        "properties": {
            "version": { "enum": [1], "description": "The version of the format." },
            "services": {
                "type": "object",
                "description": "Services and tasks by their names.",
                "additionalProperties": { "type": "object" },
            },
            "supervisors": {
                "type": "object",
                "description": "Supervisors by their names.",
                "additionalProperties": { "type": "object", "required": ["children"] },
            },
            "settings": { "type": "object", "description": "Settings of process management." },
        },
    })
}
