//! `schema`: what editors need to know of manifests.

use std::process::ExitCode;

use crate::cli::{Error, out};
use crate::manifest::schema::schema;

/// Prints the JSON Schema.
pub fn run() -> Result<ExitCode, Error> {
    out::print(&text()?).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// The JSON Schema as it is printed, and written beside a new manifest.
pub(super) fn text() -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(&schema())?;
    text.push('\n');
    Ok(text)
}
