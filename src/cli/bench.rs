//! `bench`: what this machine reaches, against the thresholds.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use crate::cli::{Context, Error, FileArgs, out};
use crate::exit_code;
use crate::performance::{Figure, Measured, Value, measure, validate_performance};
use crate::quantity::size_text;
use crate::settings::Thresholds;

/// What `bench` takes.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,

    /// The format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: BenchOutput,
}

/// In which format the figures are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BenchOutput {
    /// A table
    #[default]
    Table,
    /// JSON
    Json,
}

/// Measures, prints the table, and fails if a threshold is violated.
pub fn run(args: &BenchArgs, context: &Context) -> Result<ExitCode, Error> {
    let thresholds = context.settings()?.thresholds;
    let measured = measure()?;
    let violations = violations(&measured, &thresholds);
    let text = match args.output {
        BenchOutput::Table => table(&measured, &violations),
        BenchOutput::Json => format!("{}\n", as_json(&measured, &violations)),
    };
    out::print(&text).map_err(Error::Output)?;
    let code = if violations.is_empty() {
        exit_code::DONE
    } else {
        exit_code::FAILED
    };
    Ok(ExitCode::from(code))
}

/// What is violated, and by which figure.
fn violations(measured: &Measured, thresholds: &Thresholds) -> Vec<(&'static str, String)> {
    let of = |figure: &Figure| {
        let name = figure.name;
        let violations = validate_performance(&figure.judged, thresholds).violations;
        violations
            .into_iter()
            .map(move |violation| (name, violation.to_string()))
    };
    measured.0.iter().flat_map(of).collect()
}

fn table(measured: &Measured, violations: &[(&str, String)]) -> String {
    let mut text = String::new();
    for figure in &measured.0 {
        let (median, spread) = shown(figure.value);
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{:<36}{median:>20}  {spread}", figure.name);
    }
    text.push_str("\nMedians of 7 rounds, with the quartiles; commands are lines of four warm shells at once.\n");
    if violations.is_empty() {
        text.push_str("Every threshold is kept.\n");
    }
    for (name, violation) in violations {
        let _infallible = writeln!(text, "VIOLATED  {name}: {violation}");
    }
    text
}

fn shown(value: Value) -> (String, String) {
    match value {
        Value::OpsPerSec(spread) => (
            format!("{} ops/sec", grouped(spread.median)),
            format!(
                "[{}-{}]  {:.6} ms avg",
                grouped(spread.low),
                grouped(spread.high),
                1e3 / spread.median
            ),
        ),
        Value::Milliseconds(spread) => (
            format!("{:.6} ms", spread.median),
            format!("[{:.6}-{:.6}]", spread.low, spread.high),
        ),
        Value::Bytes(bytes) => (size_text(bytes), String::new()),
    }
}

/// A whole number with a comma after each third digit.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn as_json(measured: &Measured, violations: &[(&str, String)]) -> Json {
    let figures: serde_json::Map<String, Json> = measured
        .0
        .iter()
        .map(|figure| {
            let value = match figure.value {
                Value::OpsPerSec(spread) => {
                    json!({ "ops_per_sec": spread.median, "low": spread.low, "high": spread.high })
                }
                Value::Milliseconds(spread) => {
                    json!({ "ms": spread.median, "low": spread.low, "high": spread.high })
                }
                Value::Bytes(bytes) => json!({ "bytes": bytes }),
            };
            (figure.key.to_owned(), value)
        })
        .collect();
    let violations: Vec<Json> = violations
        .iter()
        .map(|(figure, violation)| json!({ "figure": figure, "message": violation }))
        .collect();
    json!({
        "schema_version": 1,
        "valid": violations.is_empty(),
        "figures": figures,
        "violations": violations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in [
            (0.4, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (1_234_567.2, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
