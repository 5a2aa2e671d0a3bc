//! `schema`: what editors need to know of manifests.

use std::process::ExitCode;

use crate::cli::{Error, out};
use crate::manifest::schema::text;

/// Prints the JSON Schema.
pub fn run() -> Result<ExitCode, Error> {
    out::print(&text()).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}
