//! What a bench says: a question, a line a figure, and at the end one line a figure for programs.

use std::io::Write;
use std::process::ExitCode;

use crate::support::sample::{Pairs, count, lower_bound, median, quantile};

/// What is wanted of a ratio or a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// What we would like.
    pub(crate) aim: f64,
    /// Beyond this the bench fails.
    pub(crate) gate: f64,
}

/// Collects figures and prints them.
#[derive(Debug)]
pub(crate) struct Report {
    summary: Vec<String>,
    is_passed: bool,
}

impl Report {
    /// Begins with the question that the bench answers.
    pub(crate) fn begin(question: &str) -> Self {
        say(&format!(
            "\n{question}\n({} pairs; medians, with the quartiles in brackets)",
            count()
        ));
        say(&format!(
            "  {:<34}{:>26}{:>26}{:>7}  bound",
            "", "ours", "reference", "ratio"
        ));
        Self {
            summary: Vec::new(),
            is_passed: true,
        }
    }

    /// One figure of both sides.
    pub(crate) fn compare(&mut self, name: &str, unit: &str, pairs: &Pairs) {
        self.compare_to(name, unit, pairs, None);
    }

    /// The same, with what is wanted of the ratio.
    pub(crate) fn compare_to(
        &mut self,
        name: &str,
        unit: &str,
        pairs: &Pairs,
        wanted: Option<Wanted>,
    ) {
        let ratios = pairs.ratios();
        let (ratio, bound) = (median(&ratios), lower_bound(&ratios));
        say(&format!(
            "  {:<34}{:>26}{:>26}{ratio:>7.2}  {}{}",
            format!("{name}, {unit}"),
            with_spread(&pairs.ours),
            with_spread(&pairs.reference),
            bound.map_or_else(|| "-".to_owned(), |bound| format!("{bound:.2}")),
            self.judge(ratio, bound, wanted),
        ));
        self.summary.push(format!(
            r#"{{"figure":"{name}","unit":"{unit}","ours":{:.4},"reference":{:.4},"ratio":{ratio:.4},"bound":{}{}}}"#,
            median(&pairs.ours),
            median(&pairs.reference),
            number(bound),
            limits(wanted),
        ));
    }

    /// One figure that is wanted as such, beside what the reference has.
    pub(crate) fn absolute(&mut self, name: &str, unit: &str, pairs: &Pairs, wanted: Wanted) {
        let (value, bound) = (median(&pairs.ours), lower_bound(&pairs.ours));
        say(&format!(
            "  {:<34}{:>26}{:>26}{:>7}  {}{}",
            format!("{name}, {unit}"),
            with_spread(&pairs.ours),
            with_spread(&pairs.reference),
            "",
            bound.map_or_else(|| "-".to_owned(), |bound| format!("{bound:.2}")),
            self.judge(value, bound, Some(wanted)),
        ));
        self.summary.push(format!(
            r#"{{"figure":"{name}","unit":"{unit}","ours":{value:.4},"reference":{:.4},"bound":{}{}}}"#,
            median(&pairs.reference),
            number(bound),
            limits(Some(wanted)),
        ));
    }

    /// One figure without a counterpart.
    pub(crate) fn alone(&mut self, name: &str, unit: &str, samples: &[f64]) {
        say(&format!(
            "  {:<34}{:>26}",
            format!("{name}, {unit}"),
            with_spread(samples)
        ));
        self.summary.push(format!(
            r#"{{"figure":"{name}","unit":"{unit}","ours":{:.4}}}"#,
            median(samples)
        ));
    }

    /// Something to know about the figures.
    pub(crate) fn note(text: &str) {
        say(&format!("  {text}"));
    }

    /// Something that must hold.
    pub(crate) fn require(&mut self, name: &str, holds: Result<(), String>) {
        let (passed, text) = match holds {
            Ok(()) => (true, "yes".to_owned()),
            Err(why) => (false, format!("NO: {why}")),
        };
        self.is_passed &= passed;
        say(&format!("  {name}: {text}"));
        self.summary
            .push(format!(r#"{{"figure":"{name}","passed":{passed}}}"#));
    }

    /// Prints the lines for programs; the code says whether every gate was passed.
    pub(crate) fn end(self) -> ExitCode {
        for line in &self.summary {
            say(line);
        }
        if self.is_passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// A gate fails only where even the bound is beyond it.
    fn judge(&mut self, value: f64, bound: Option<f64>, wanted: Option<Wanted>) -> String {
        let Some(Wanted { aim, gate }) = wanted else {
            return String::new();
        };
        if bound.is_some_and(|bound| bound > gate) {
            self.is_passed = false;
            return format!("  FAILED: gate {gate}");
        }
        let reached = if value <= aim { "reached" } else { "missed" };
        format!("  gate {gate} passed, aim {aim} {reached}")
    }
}

fn with_spread(samples: &[f64]) -> String {
    let digits = if median(samples).abs() < 100.0 { 2 } else { 0 };
    let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| quantile(samples, share));
    format!("{middle:.digits$} [{low:.digits$}-{high:.digits$}]")
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("{value:.4}"))
}

fn limits(wanted: Option<Wanted>) -> String {
    wanted.map_or_else(String::new, |Wanted { aim, gate }| {
        format!(r#","aim":{aim},"gate":{gate}"#)
    })
}

fn say(line: &str) {
    // Whoever closed the output does not want to read it.
    drop(writeln!(std::io::stdout(), "{line}"));
}
