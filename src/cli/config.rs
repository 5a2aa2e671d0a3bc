//! `config`: the manifest with all that is filled in, and the settings with who set them.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::{Context, Error, FileArgs, out};
use crate::document::{Format, Node, write};
use crate::manifest::{self, Manifest};
use crate::settings::{Effective, Origins, Settings};
use crate::{resolved, secret};

/// What `config` takes.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,

    /// Print the settings only, as in the user's file
    #[arg(long)]
    pub settings: bool,

    /// Print the settings only, each with the layer that set it, and where
    #[arg(long)]
    pub origins: bool,

    /// The format [default: yaml; of settings: toml]
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub output: Option<ConfigOutput>,
}

/// In which format configuration is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigOutput {
    /// YAML
    Yaml,
    /// TOML
    Toml,
    /// JSON, always with both manifest and settings
    Json,
}

/// Prints the configuration. Secrets are hidden.
pub fn run(args: &ConfigArgs, context: &Context) -> Result<ExitCode, Error> {
    let text = if args.settings || args.origins {
        settings_of(args, context)?
    } else {
        let manifest = context.manifest_or_demonstration(&[])?;
        match args.output {
            Some(ConfigOutput::Json) => as_json(Some(&manifest), &manifest.settings, None)?,
            Some(ConfigOutput::Toml) => document(&manifest, Format::Toml)?,
            Some(ConfigOutput::Yaml) | None => document(&manifest, Format::Yaml)?,
        }
    };
    out::print(&text).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}

fn document(whole: &Manifest, format: Format) -> Result<String, Error> {
    let mut node = resolved::manifest(whole)?;
    manifest::escape_dollars(&mut node);
    Ok(as_text(&node, format))
}

/// What must not be shown was taken out before.
fn as_text(node: &Node, format: Format) -> String {
    match format {
        Format::Yaml => write::yaml(node, &write::unveiled),
        Format::Toml => write::toml(node, &write::unveiled),
    }
}

fn as_value(node: &Node) -> Result<serde_json::Value, Error> {
    Ok(serde_json::from_str(&write::json(node, &write::unveiled))?)
}

/// Settings need no manifest.
fn settings_of(args: &ConfigArgs, context: &Context) -> Result<String, Error> {
    let manifest = match context.manifest_locations()? {
        Some(locations) => Some(Manifest::load(locations, &context.inputs)?),
        None => None,
    };
    let Effective { settings, origins } = match &manifest {
        Some(manifest) => Effective {
            settings: manifest.settings.clone(),
            origins: manifest.origins.clone(),
        },
        None => Effective::load(&context.inputs)?,
    };
    match (args.output.unwrap_or(ConfigOutput::Toml), args.origins) {
        (ConfigOutput::Json, with_origins) => as_json(
            manifest.as_ref(),
            &settings,
            with_origins.then_some(&origins),
        ),
        (ConfigOutput::Toml, false) => Ok(as_text(&resolved::settings(&settings)?, Format::Toml)),
        (ConfigOutput::Yaml, false) => Ok(as_text(&resolved::settings(&settings)?, Format::Yaml)),
        (ConfigOutput::Toml, true) => with_origins(&settings, &origins, Format::Toml),
        (ConfigOutput::Yaml, true) => with_origins(&settings, &origins, Format::Yaml),
    }
}

/// One key a line, by its whole name.
fn with_origins(settings: &Settings, origins: &Origins, format: Format) -> Result<String, Error> {
    let tree = toml::Value::try_from(settings)?;
    let mut lines: Vec<(String, String)> = Vec::new();
    for (key, origin) in origins.iter() {
        let names: Vec<&str> = key.split('.').collect();
        let value = names.iter().try_fold(&tree, |value, name| value.get(name));
        if let Some(value) = value {
            let value = value.to_string();
            let value = secret::line(&value);
            let line = match format {
                Format::Toml => {
                    let key: Vec<String> = names.into_iter().map(quoted).collect();
                    format!("{} = {value}", key.join("."))
                }
                // A value of TOML within a line is one of YAML, but for tables, which have no origin of their own.
                Format::Yaml => format!("{key}: {value}"),
            };
            lines.push((line, origin.to_string()));
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

fn as_json(
    manifest: Option<&Manifest>,
    settings: &Settings,
    origins: Option<&Origins>,
) -> Result<String, Error> {
    let mut answer = json!({
        "schema_version": 1,
        "settings": as_value(&resolved::settings(settings)?)?,
    });
    if let Some(manifest) = manifest {
        answer["manifest"] = as_value(&resolved::manifest(manifest)?)?;
    }
    if let Some(origins) = origins {
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
