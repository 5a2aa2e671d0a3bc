//! Mistakes without the values of variables.
//!
//! What is said about a value that came through a variable is what would be said about the mention of it: the document is
//! looked through once more as it was written, and those words are used. So nothing that a variable holds can get into a
//! message, whoever has worded it.

use crate::document::problem::Problem;
use crate::document::{Content, Document, Node};

/// The same mistakes, in the words that the document as it was written deserves.
pub(super) fn conceal(
    document: &Document,
    told: Vec<Problem>,
    mut as_written: Vec<Problem>,
) -> Vec<Problem> {
    told.into_iter()
        .map(|problem| {
            let same = as_written
                .iter()
                .position(|other| other.place == problem.place);
            match same {
                Some(at) => as_written.remove(at),
                None => alone(document, problem),
            }
        })
        .collect()
}

/// A mistake that is one only because of what the variables hold.
fn alone(document: &Document, problem: Problem) -> Problem {
    let here = document.locate(&problem.place);
    let message = match here.and_then(|span| document.written_at(span)) {
        Some(written) => format!("the value of `{written}` cannot be used here"),
        None => masked(document, &document.root, problem.message),
    };
    Problem {
        message,
        expected: None,
        ..problem
    }
}

/// A message with values of variables replaced by their mentions. Short ones are no secrets, and part of many a word.
fn masked(document: &Document, node: &Node, message: String) -> String {
    const SHORTEST: usize = 4;
    match &node.content {
        Content::Scalar(scalar) => match document.through_variable(node) {
            Some(written) if scalar.text.len() >= SHORTEST => {
                message.replace(&scalar.text, written)
            }
            Some(_) | None => message,
        },
        Content::List(items) => items
            .iter()
            .fold(message, |message, item| masked(document, item, message)),
        Content::Map(entries) => entries.iter().fold(message, |message, entry| {
            masked(document, &entry.value, message)
        }),
    }
}
