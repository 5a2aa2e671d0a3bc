//! `config`: the effective settings, and who set them.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{Context, Error, FileArgs, out};
use crate::manifest::Manifest;
use crate::settings::{Effective, Origins, Settings};

/// What `config` takes.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,

    /// Show for each setting which layer set it, and where
    #[arg(long)]
    pub origins: bool,

    /// The format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: ConfigOutput,
}

/// In which format settings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConfigOutput {
    /// TOML, as in the user's file
    #[default]
    Toml,
    /// JSON
    Json,
}

/// Prints the settings.
pub fn run(args: &ConfigArgs, context: &Context) -> Result<ExitCode, Error> {
    let (settings, origins) = if let Some(locations) = context.manifest_locations()? {
        let manifest = Manifest::load(locations, &context.inputs)?;
        (manifest.settings, manifest.origins)
    } else {
        let effective = Effective::load(&context.inputs)?;
        (effective.settings, effective.origins)
    };
    let text = match (args.output, args.origins) {
        (ConfigOutput::Toml, false) => toml::to_string(&settings)?,
        (ConfigOutput::Toml, true) => with_origins(&settings, &origins)?,
        (ConfigOutput::Json, with_origins) => as_json(&settings, &origins, with_origins)?,
    };
    out::print(&text).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// One key a line, by its whole name; this too is TOML.
fn with_origins(settings: &Settings, origins: &Origins) -> Result<String, Error> {
    let tree = toml::Value::try_from(settings)?;
    let mut lines: Vec<(String, String)> = Vec::new();
    for (key, origin) in origins.iter() {
        let names: Vec<&str> = key.split('.').collect();
        let value = names.iter().try_fold(&tree, |value, name| value.get(name));
        if let Some(value) = value {
            let key = names.into_iter().map(quoted).collect::<Vec<_>>().join(".");
            lines.push((format!("{key} = {value}"), origin.to_string()));
        }
    }
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .max()
        .unwrap_or(0)
        .min(60);
    let mut text = String::new();
    for (line, origin) in lines {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{line:width$}  # {origin}");
    }
    Ok(text)
}

/// A key as TOML wants it: `SIGRTMIN+3` needs quotes.
fn quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.chars().all(bare) {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

fn as_json(settings: &Settings, origins: &Origins, with_origins: bool) -> Result<String, Error> {
    let mut answer = json!({
        "schema_version": 1,
        "settings": serde_json::to_value(settings)?,
    });
    if with_origins {
        answer["origins"] = origins
            .iter()
            .map(|(key, origin)| {
                let layer = origin.layer.to_string();
                (
                    key.to_owned(),
                    json!({ "layer": layer, "place": origin.place }),
                )
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
    }
    let mut text = serde_json::to_string_pretty(&answer)?;
    text.push('\n');
    Ok(text)
}
