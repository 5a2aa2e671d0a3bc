//! A graph for programs.

use std::time::Duration;

use serde::Serialize;

use crate::graph::{Edge, Graph, Node, NodeKind, StopWave, Wait};
use crate::words::Words;

/// The version of the shape below.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Whole<'a> {
    schema_version: u32,
    nodes: Vec<OfNode<'a>>,
    edges: Vec<OfEdge<'a>>,
    start: Vec<Vec<&'a str>>,
    stop: OfStop<'a>,
}

#[derive(Serialize)]
struct OfNode<'a> {
    name: &'a str,
    kind: &'static str,
    supervisor: Option<&'a str>,
    /// From 1, as in `start`.
    wave: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_restarts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout_ms: Option<u64>,
}

#[derive(Serialize)]
struct OfEdge<'a> {
    from: &'a str,
    to: &'a str,
    /// A condition, or `listed`.
    condition: &'static str,
}

#[derive(Serialize)]
struct OfStop<'a> {
    waves: Vec<OfWave<'a>>,
    total_ms: u64,
    /// `null`: as long as it takes.
    limit_ms: Option<u64>,
}

#[derive(Serialize)]
struct OfWave<'a> {
    children: Vec<&'a str>,
    timeout_ms: u64,
}

pub(super) fn text(graph: &Graph) -> serde_json::Result<String> {
    let whole = Whole {
        schema_version: SCHEMA_VERSION,
        nodes: graph
            .nodes
            .iter()
            .map(|node| of_node(graph, node))
            .collect(),
        edges: graph
            .edges
            .iter()
            .map(|edge| of_edge(graph, edge))
            .collect(),
        start: graph.start.iter().map(|wave| names(graph, wave)).collect(),
        stop: OfStop {
            waves: graph.stop.iter().map(|wave| of_wave(graph, wave)).collect(),
            total_ms: millis(graph.total()),
            limit_ms: graph.limit.map(millis),
        },
    };
    let mut text = serde_json::to_string_pretty(&whole)?;
    text.push('\n');
    Ok(text)
}

fn of_node<'a>(graph: &'a Graph, node: &'a Node) -> OfNode<'a> {
    let (kind, strategy, intensity) = match &node.kind {
        NodeKind::Service { .. } => ("service", None, None),
        NodeKind::Task { .. } => ("task", None, None),
        NodeKind::Supervisor {
            strategy,
            intensity,
        } => ("supervisor", Some(strategy.word()), *intensity),
    };
    OfNode {
        name: node.name.as_str(),
        kind,
        supervisor: node.parent.map(|parent| name(graph, parent)),
        wave: node.wave + 1,
        strategy,
        max_restarts: intensity.map(|intensity| intensity.max_restarts),
        window_ms: intensity.map(|intensity| millis(intensity.window)),
        stop_signal: node.stop().map(|stop| stop.signal.to_string()),
        stop_timeout_ms: node.stop().map(|stop| millis(stop.grace())),
    }
}

fn of_edge<'a>(graph: &'a Graph, edge: &Edge) -> OfEdge<'a> {
    OfEdge {
        from: name(graph, edge.from),
        to: name(graph, edge.to),
        condition: match edge.wait {
            Wait::Condition(condition) => condition.word(),
            Wait::Listed => "listed",
        },
    }
}

fn of_wave<'a>(graph: &'a Graph, wave: &StopWave) -> OfWave<'a> {
    OfWave {
        children: names(graph, &wave.children),
        timeout_ms: millis(wave.grace),
    }
}

fn names<'a>(graph: &'a Graph, nodes: &[usize]) -> Vec<&'a str> {
    nodes.iter().map(|node| name(graph, *node)).collect()
}

fn name(graph: &Graph, node: usize) -> &str {
    graph.nodes[node].name.as_str()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
