//! A graph for people: the tree, then the waves of its start and its stop, at most 80 columns wide.

use std::fmt::Write as _;

use crate::graph::{Graph, NodeKind, StopWave, Wait};
use crate::quantity::duration_text;
use crate::words::Words;

const COLUMNS: usize = 80;
/// What names of the tree may take before what is said about them moves to the next line.
const WIDEST_NAME: usize = 34;

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Headings stand out.
    Coloured,
    /// Plain text.
    Plain,
}

pub(super) fn text(graph: &Graph, paint: Paint) -> String {
    let mut text = String::new();
    heading(&mut text, paint, "Tree");
    write_tree(graph, &mut text);
    text.push('\n');
    heading(&mut text, paint, "Start order");
    let width = numbers_width(graph);
    for (number, wave) in (1..).zip(&graph.start) {
        let names = wave
            .iter()
            .map(|child| graph.nodes[*child].name.to_string());
        let label = format!("  {number:>width$}  ");
        write_wrapped(&mut text, &label, &collapsed(names.collect()));
    }
    text.push('\n');
    heading(&mut text, paint, &format!("Stop order{}", limit(graph)));
    let graces: Vec<String> = graph
        .stop
        .iter()
        .map(|it| duration_text(it.grace))
        .collect();
    let grace_width = graces.iter().map(String::len).max().unwrap_or(0);
    for (number, (wave, grace)) in (1..).zip(graph.stop.iter().zip(&graces)) {
        let label = format!("  {number:>width$}  within {grace:grace_width$}  ");
        write_wrapped(&mut text, &label, &collapsed(stopped(graph, wave)));
    }
    if let Some(advice) = total(graph) {
        write_wrapped(&mut text, "  ", &words(&advice));
    }
    text
}

fn heading(text: &mut String, paint: Paint, heading: &str) {
    // Writing to a string cannot fail.
    let _infallible = match paint {
        Paint::Coloured => writeln!(text, "\x1b[1m{heading}\x1b[0m"),
        Paint::Plain => writeln!(text, "{heading}"),
    };
}

fn limit(graph: &Graph) -> String {
    match graph.limit {
        Some(limit) => format!(", at most {} in all", duration_text(limit)),
        None => ", as long as it takes".to_owned(),
    }
}

/// What people may want to change, if the graces do not fit.
fn total(graph: &Graph) -> Option<String> {
    let (total, limit) = (graph.total(), graph.limit?);
    (total > limit).then(|| {
        format!(
            "Together these would be {}: each wave gets its share of the {}. To give them more, set \
             `signals.graceful_shutdown_timeout`.",
            duration_text(total),
            duration_text(limit)
        )
    })
}

/// The names, each with its own grace if that is shorter than its wave's.
fn stopped(graph: &Graph, wave: &StopWave) -> Vec<String> {
    let named = |child: &usize| {
        let node = &graph.nodes[*child];
        match node.stop().map(kimi_actors::policy::spec::StopSpec::grace) {
            Some(grace) if grace < wave.grace => {
                format!("{} ({})", node.name, duration_text(grace))
            }
            Some(_) | None => node.name.to_string(),
        }
    };
    wave.children.iter().map(named).collect()
}

fn numbers_width(graph: &Graph) -> usize {
    graph.start.len().to_string().len()
}

/// A row of the tree: its lines to the left, its name, and what is said about it.
struct Row {
    /// What leads to the name.
    branch: String,
    /// What stands below the branch in the lines that follow.
    below: String,
    name: String,
    about: Vec<String>,
}

fn write_tree(graph: &Graph, text: &mut String) {
    let mut rows = Vec::new();
    collect_rows(graph, 0, (String::new(), String::new()), &mut rows);
    let length = |row: &Row| row.branch.len() + row.name.len();
    let column = rows
        .iter()
        .map(length)
        .filter(|length| *length <= WIDEST_NAME)
        .max()
        .unwrap_or(0)
        + 2;
    for row in rows {
        let first = format!("{}{}", row.branch, row.name);
        let below = format!("{:column$}", row.below);
        let label = if first.len() + 2 > column {
            text.push_str(first.trim_end());
            text.push('\n');
            below.clone()
        } else {
            format!("{first:column$}")
        };
        wrap(text, &label, &below, &row.about);
    }
}

fn collect_rows(
    graph: &Graph,
    index: usize,
    (branch, below): (String, String),
    rows: &mut Vec<Row>,
) {
    let node = &graph.nodes[index];
    let members_below = if node.members.is_empty() { "" } else { "|" };
    rows.push(Row {
        branch,
        below: format!("{below}{members_below}"),
        name: node.name.to_string(),
        about: about(graph, index),
    });
    let lines = shown_members(graph, &node.members);
    for (position, line) in lines.iter().enumerate() {
        let is_last = position + 1 == lines.len();
        let (mark, space) = if is_last {
            ("`-- ", "    ")
        } else {
            ("|-- ", "|   ")
        };
        let lead = (format!("{below}{mark}"), format!("{below}{space}"));
        match line {
            Line::Member(member) => collect_rows(graph, *member, lead, rows),
            Line::Replicas(name, of) => rows.push(Row {
                branch: lead.0,
                below: lead.1,
                name: name.clone(),
                about: about(graph, *of),
            }),
        }
    }
}

/// A line below a supervisor.
enum Line {
    Member(usize),
    /// Replicas that differ in nothing but their numbers.
    Replicas(String, usize),
}

fn shown_members(graph: &Graph, members: &[usize]) -> Vec<Line> {
    let names: Vec<String> = members
        .iter()
        .map(|member| graph.nodes[*member].name.to_string())
        .collect();
    let shown = collapsed(names);
    let is_collapsed = shown.len() < members.len();
    match (shown.as_slice(), members.first()) {
        ([name], Some(first)) if is_collapsed => vec![Line::Replicas(plain(name), *first)],
        _ => members.iter().map(|member| Line::Member(*member)).collect(),
    }
}

/// Without the comma that separates it from the next.
fn plain(name: &str) -> String {
    name.trim_end_matches(',').to_owned()
}

fn about(graph: &Graph, index: usize) -> Vec<String> {
    let node = &graph.nodes[index];
    let what = match &node.kind {
        NodeKind::Service { .. } => "service".to_owned(),
        NodeKind::Task { .. } => "task".to_owned(),
        NodeKind::Supervisor {
            strategy,
            intensity: Some(intensity),
        } => format!(
            "{}, at most {} restarts in {}",
            strategy.word(),
            intensity.max_restarts,
            duration_text(intensity.window)
        ),
        NodeKind::Supervisor {
            strategy,
            intensity: None,
        } => strategy.word().to_owned(),
    };
    let waits: Vec<String> = graph
        .edges_into(index)
        .map(|edge| {
            let (name, condition) = (&graph.nodes[edge.from].name, edge.wait);
            match condition {
                Wait::Condition(condition) => format!("{name} ({})", condition.word()),
                Wait::Listed => format!("{name} (listed)"),
            }
        })
        .collect();
    if waits.is_empty() {
        words(&what)
    } else {
        words(&format!("{what}, after {}", waits.join(", ")))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The names with commas between them; three or more replicas that follow each other are one: `web.1...web.9`.
fn collapsed(names: Vec<String>) -> Vec<String> {
    let mut groups: Vec<(String, String, usize)> = Vec::new();
    for name in names {
        match groups.last_mut() {
            Some((_, last, count)) if after(last).as_ref() == Some(&name) => {
                *last = name;
                *count += 1;
            }
            Some(_) | None => groups.push((name.clone(), name, 1)),
        }
    }
    let mut shown: Vec<String> = groups
        .into_iter()
        .flat_map(|(first, last, count)| match count {
            1 => vec![first],
            2 => vec![first, last],
            _ => vec![format!("{first}...{last}")],
        })
        .collect();
    if let Some((_, before)) = shown.split_last_mut() {
        for name in before {
            name.push(',');
        }
    }
    shown
}

/// The replica that follows one.
fn after(name: &str) -> Option<String> {
    let (base, number) = name.rsplit_once('.')?;
    let number: u32 = number.parse().ok()?;
    Some(format!("{base}.{}", number + 1))
}

fn write_wrapped(text: &mut String, label: &str, words: &[String]) {
    wrap(text, label, &" ".repeat(label.len()), words);
}

/// Words after a label; lines that follow begin with what stands below the label.
fn wrap(text: &mut String, label: &str, below: &str, words: &[String]) {
    let mut line = label.to_owned();
    let mut is_empty = true;
    for word in words {
        if !is_empty && line.len() + 1 + word.len() > COLUMNS {
            text.push_str(line.trim_end());
            text.push('\n');
            below.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn replicas_that_follow_each_other_are_one() {
        for (names, shown) in [
            (&["a", "b"][..], &["a,", "b"][..]),
            (&["w.1", "w.2", "w.3"], &["w.1...w.3"]),
            (&["w.1", "w.2"], &["w.1,", "w.2"]),
            (
                &["a", "w.9", "w.10", "w.11", "w.13"],
                &["a,", "w.9...w.11,", "w.13"],
            ),
            (&["w.1", "x.2", "x.3"], &["w.1,", "x.2,", "x.3"]),
            (&[], &[]),
        ] {
            assert_eq!(collapsed(strings(names)), strings(shown));
        }
    }

    #[test]
    fn lines_break_between_words_and_keep_what_stands_below() {
        let mut text = String::new();
        let word = "x".repeat(30);
        let words = strings(&[&word, &word, &word]);
        wrap(&mut text, "|-- ", "|   ", &words);
        assert_eq!(text, format!("|-- {word} {word}\n|   {word}\n"));
    }
}
