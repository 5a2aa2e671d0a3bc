//! Several manifests as one: each is laid over those before it.
//!
//! Maps are merged key by key. Anything else (a scalar, a list, `command` and `depends_on` lists too) is replaced whole. A
//! `depends_on` that is a list on one side and a map on the other is merged as maps. A later file takes a key away by giving
//! it nothing (`db: null`, which TOML cannot say): a service, a variable, a probe.

use std::collections::{HashMap, HashSet};

use crate::document::{Content, Entry, Node, ScalarKind};

/// Lays a tree over another.
pub(super) fn lay_over(base: &mut Node, over: Node) {
    match (&mut base.content, over.content) {
        (Content::Map(entries), Content::Map(over)) => lay_entries(entries, over),
        (_, content) => {
            *base = Node {
                span: over.span,
                content,
            }
        }
    }
}

fn lay_entries(base: &mut Vec<Entry>, over: Vec<Entry>) {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (at, entry) in base.iter().enumerate() {
        places.entry(entry.key.clone()).or_insert(at);
    }
    let mut gone: HashSet<usize> = HashSet::new();
    for entry in over {
        // A key that stands twice in one file stays there twice, so that it is reported.
        match places.remove(&entry.key) {
            None => base.push(entry),
            Some(at) if is_null(&entry.value) => {
                gone.insert(at);
            }
            Some(at) => lay_entry(&mut base[at], entry),
        }
    }
    let mut places = 0..;
    base.retain(|_| places.next().is_none_or(|at| !gone.contains(&at)));
}

fn lay_entry(base: &mut Entry, mut over: Entry) {
    if base.key == "depends_on" {
        match (&mut base.value.content, &mut over.value.content) {
            (before @ Content::List(_), Content::Map(_)) => list_as_map(before),
            (Content::Map(_), later @ Content::List(_)) => list_as_map(later),
            _ => {}
        }
    }
    let is_map = |node: &Node| matches!(node.content, Content::Map(_));
    // A map belongs to who began it, any other value to who wrote it last.
    if !is_map(&base.value) || !is_map(&over.value) {
        base.key_span = over.key_span;
    }
    lay_over(&mut base.value, over.value);
}

fn is_null(node: &Node) -> bool {
    node.scalar()
        .is_some_and(|scalar| scalar.kind == ScalarKind::Null)
}

/// Names as keys of empty maps; what is no name stays, and is reported by the decoder.
fn list_as_map(content: &mut Content) {
    let Content::List(items) = content else {
        return;
    };
    if items.iter().any(|item| item.scalar().is_none()) {
        return;
    }
    let entry = |item: &Node| {
        Some(Entry {
            key: item.scalar()?.text.clone(),
            key_span: item.span,
            value: Node {
                span: item.span,
                content: Content::Map(Vec::new()),
            },
        })
    };
    *content = Content::Map(items.iter().filter_map(entry).collect());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::document::{self, Format, Source, write};

    fn merged(texts: &[&str]) -> String {
        let mut trees = texts.iter().map(|text| {
            let source = Arc::new(Source {
                name: "a.yaml".to_owned(),
                text: (*text).to_owned(),
            });
            document::parse(&source, Format::Yaml).unwrap()
        });
        let mut base = trees.next().unwrap();
        trees.for_each(|over| lay_over(&mut base, over));
        write::yaml(&base, &write::unveiled)
    }

    #[test]
    fn maps_merge_and_all_else_is_replaced() {
        for (texts, expected) in [
            (["a: 1\nb: 2\n", "b: 3\nc: 4\n"], "a: 1\nb: 3\nc: 4\n"),
            (
                ["a: {b: {c: 1, d: 2}}", "a: {b: {d: 3}}"],
                "a:\n  b:\n    c: 1\n    d: 3\n",
            ),
            (["a: [1, 2]", "a: [3]"], "a: [3]\n"),
            (["a: {b: 1}", "a: never"], "a: never\n"),
            (["a: never", "a: {b: 1}"], "a:\n  b: 1\n"),
            (["a: 1\nb: 2\n", "a: null\nc: ~\n"], "b: 2\nc: null\n"),
            (["a: 1", "a: 2\na: 3"], "a: 2\na: 3\n"),
            (["a: 1\na: 2", "a: 3"], "a: 3\na: 2\n"),
        ] {
            assert_eq!(merged(&texts), expected, "{texts:?}");
        }
        assert_eq!(merged(&["a: 1", "a: 2", "a: 3"]), "a: 3\n");
    }

    #[test]
    fn lists_and_maps_of_dependencies_merge_as_maps() {
        for (texts, expected) in [
            (
                [
                    "depends_on: [a, b]",
                    "depends_on: {b: {condition: started}}",
                ],
                "depends_on:\n  a: {}\n  b:\n    condition: started\n",
            ),
            (
                [
                    "depends_on: {a: {condition: started}}",
                    "depends_on: [a, b]",
                ],
                "depends_on:\n  a:\n    condition: started\n  b: {}\n",
            ),
            (
                ["depends_on: [a, b]", "depends_on: [c]"],
                "depends_on: [c]\n",
            ),
            (
                ["depends_on: [a, b]", "depends_on: {a: null}"],
                "depends_on:\n  b: {}\n",
            ),
        ] {
            assert_eq!(merged(&texts), expected, "{texts:?}");
        }
    }
}
