//! A graph for Mermaid: a flowchart in which supervisors are frames.

use std::fmt::Write as _;

use crate::graph::{Graph, NodeKind, Wait};
use crate::words::Words;

pub(super) fn text(graph: &Graph) -> String {
    let mut text = String::from("flowchart LR\n");
    for member in &graph.nodes[0].members {
        write_node(graph, *member, 1, &mut text);
    }
    for edge in &graph.edges {
        let (line, label) = match edge.wait {
            Wait::Condition(condition) => ("-->", condition.word()),
            Wait::Listed => ("-.->", "listed"),
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  n{} {line}|{label}| n{}", edge.from, edge.to);
    }
    text
}

/// Nodes are known by their numbers: a name such as `end` is a word of Mermaid's.
fn write_node(graph: &Graph, index: usize, depth: usize, text: &mut String) {
    let node = &graph.nodes[index];
    let (indent, name) = ("  ".repeat(depth), label(node.name.as_str()));
    // Writing to a string cannot fail.
    let _infallible = match &node.kind {
        NodeKind::Service { .. } => writeln!(text, "{indent}n{index}[\"{name}\"]"),
        NodeKind::Task { .. } => writeln!(text, "{indent}n{index}([\"{name}\"])"),
        NodeKind::Supervisor { strategy, .. } => {
            let strategy = strategy.word();
            writeln!(text, "{indent}subgraph n{index}[\"{name}: {strategy}\"]")
        }
    };
    if let NodeKind::Supervisor { .. } = node.kind {
        for member in &node.members {
            write_node(graph, *member, depth + 1, text);
        }
        text.push_str(&indent);
        text.push_str("end\n");
    }
}

/// Within quotes, `#` begins the code of a character.
fn label(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_end_their_quotes() {
        assert_eq!(label("a\"b#c"), "a#quot;b#35;c");
    }
}
