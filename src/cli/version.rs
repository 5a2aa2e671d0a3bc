//! `version`: which program this is.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{Error, out};

/// What `version` takes.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// The format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: VersionOutput,
}

/// In which format the version is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VersionOutput {
    /// The name and the version
    #[default]
    Plain,
    /// JSON
    Json,
}

/// Prints the version.
pub fn run(args: &VersionArgs) -> Result<ExitCode, Error> {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let text = match args.output {
        VersionOutput::Plain => format!("{name} {version}\n"),
        VersionOutput::Json => {
            let answer = json!({ "schema_version": 1, "name": name, "version": version });
            format!("{answer}\n")
        }
    };
    out::print(&text).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}
