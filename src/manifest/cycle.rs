//! Who waits for whom in a manifest, and where that goes round.

use std::collections::{HashMap, HashSet};

use crate::document::Span;
use crate::manifest::wire::{self, At, Dependency};

/// Names that wait for each other, in the order of waiting, and where one of them says so.
pub(super) struct Cycle<'a> {
    pub(super) names: Vec<&'a str>,
    pub(super) span: Span,
}

/// A moment in the start of a member. A supervisor has begun before its first member begins, and is done after its last.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Moment<'a> {
    Begun(&'a str),
    Done(&'a str),
}

impl<'a> Moment<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Begun(name) | Self::Done(name) => name,
        }
    }
}

/// What each moment waits for, and where that is written.
type Waits<'a> = HashMap<Moment<'a>, Vec<(Moment<'a>, Span)>>;

fn waits<'a>(wire: &wire::Manifest<'a>) -> Waits<'a> {
    let mut waits: Waits<'a> = HashMap::new();
    for service in &wire.services {
        let name = service.name.value;
        waits
            .entry(Moment::Done(name))
            .or_default()
            .push((Moment::Begun(name), service.name.span));
        for Dependency { on, .. } in &service.depends_on {
            waits
                .entry(Moment::Begun(name))
                .or_default()
                .push((Moment::Done(on.value), on.span));
        }
    }
    for supervisor in &wire.supervisors {
        let name = supervisor.name.value;
        let mut before: Option<&str> = None;
        for At { value: child, span } in &supervisor.children {
            let begun = waits.entry(Moment::Begun(child)).or_default();
            begun.push((Moment::Begun(name), *span));
            if let Some(before) = before {
                begun.push((Moment::Done(before), *span));
            }
            before = Some(child);
            waits
                .entry(Moment::Done(name))
                .or_default()
                .push((Moment::Done(child), *span));
        }
    }
    waits
}

/// The first cycles that a walk along all waits closes.
///
/// The walk keeps its own stack: a chain of dependencies may be as long as a file.
pub(super) fn cycles<'a>(wire: &wire::Manifest<'a>) -> Vec<Cycle<'a>> {
    const MOST: usize = 20;
    let waits = waits(wire);
    let mut done: HashSet<Moment<'a>> = HashSet::new();
    let mut cycles = Vec::new();
    for start in wire.names().map(Moment::Done) {
        let mut path: Vec<(Moment<'a>, usize)> = vec![(start, 0)];
        let mut on_path: HashMap<Moment<'a>, usize> = HashMap::from([(start, 0)]);
        while let Some((here, next)) = path.last_mut() {
            let here = *here;
            let wait = waits.get(&here).and_then(|waits| waits.get(*next));
            *next += 1;
            match wait {
                None => {
                    done.insert(here);
                    on_path.remove(&here);
                    path.pop();
                }
                Some((on, span)) => {
                    if let Some(first) = on_path.get(on) {
                        if cycles.len() == MOST {
                            return cycles;
                        }
                        cycles.push(Cycle {
                            names: names_of(&path[*first..]),
                            span: *span,
                        });
                    } else if !done.contains(on) {
                        on_path.insert(*on, path.len());
                        path.push((*on, 0));
                    }
                }
            }
        }
    }
    cycles
}

/// The names on a path, each once in a row.
fn names_of<'a>(path: &[(Moment<'a>, usize)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = path.iter().map(|(moment, _)| moment.name()).collect();
    names.dedup();
    while names.len() > 1 && names.first() == names.last() {
        names.pop();
    }
    names
}
