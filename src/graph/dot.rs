//! A graph for Graphviz, in which supervisors are clusters.

use std::fmt::Write as _;

use crate::graph::{Graph, NodeKind, Wait};
use crate::words::Words;

pub(super) fn text(graph: &Graph) -> String {
    let mut text = String::from(
        "digraph \"kimi-shell\" {\n  rankdir=LR;\n  compound=true;\n  node [shape=box];\n",
    );
    for member in &graph.nodes[0].members {
        write_node(graph, *member, 1, &mut text);
    }
    for edge in &graph.edges {
        // An edge joins nodes only; one of a cluster joins a node in it, and is cut where it meets the cluster.
        let (Some(from), Some(to)) = (last_leaf(graph, edge.from), first_leaf(graph, edge.to))
        else {
            continue;
        };
        let mut attributes = match edge.wait {
            Wait::Condition(condition) => format!("label={}", quoted(condition.word())),
            Wait::Listed => "label=\"listed\", style=dashed".to_owned(),
        };
        for (end, leaf, attribute) in [(edge.from, from, "ltail"), (edge.to, to, "lhead")] {
            if end != leaf {
                // Writing to a string cannot fail.
                let _infallible = write!(attributes, ", {attribute}=\"cluster_{end}\"");
            }
        }
        let (from, to) = (name(graph, from), name(graph, to));
        let _infallible = writeln!(text, "  {from} -> {to} [{attributes}];");
    }
    text.push_str("}\n");
    text
}

fn write_node(graph: &Graph, index: usize, depth: usize, text: &mut String) {
    let node = &graph.nodes[index];
    let (indent, name) = ("  ".repeat(depth), name(graph, index));
    // Writing to a string cannot fail.
    let _infallible = match &node.kind {
        NodeKind::Service { .. } => writeln!(text, "{indent}{name};"),
        NodeKind::Task { .. } => writeln!(text, "{indent}{name} [style=rounded];"),
        NodeKind::Supervisor { strategy, .. } => {
            let label = quoted(&format!("{}: {}", node.name, strategy.word()));
            writeln!(
                text,
                "{indent}subgraph \"cluster_{index}\" {{\n{indent}  label={label};"
            )
        }
    };
    if let NodeKind::Supervisor { .. } = node.kind {
        for member in &node.members {
            write_node(graph, *member, depth + 1, text);
        }
        text.push_str(&indent);
        text.push_str("}\n");
    }
}

fn first_leaf(graph: &Graph, node: usize) -> Option<usize> {
    leaf(graph, node, |members| members.first().copied())
}

fn last_leaf(graph: &Graph, node: usize) -> Option<usize> {
    leaf(graph, node, |members| members.last().copied())
}

fn leaf(graph: &Graph, mut node: usize, pick: impl Fn(&[usize]) -> Option<usize>) -> Option<usize> {
    while !graph.nodes[node].is_child() {
        node = pick(&graph.nodes[node].members)?;
    }
    Some(node)
}

fn name(graph: &Graph, node: usize) -> String {
    quoted(graph.nodes[node].name.as_str())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_their_quotes() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
