//! A manifest as it is meant: with what its defaults and settings add, and without its secrets.
//!
//! It starts from what was written, so that no key is lost, and fills in what the rules say where nothing was written.

use kimi_actors::policy::order::{Rules, arrange};
use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::spec::{ChildRules, Dependency, Governor, StopSpec, SupervisorRules};

use crate::document::{Content, Entry, Node, Scalar, ScalarKind, Span};
use crate::manifest::Manifest;
use crate::quantity::duration_text;
use crate::secret;
use crate::settings::Settings;
use crate::words::Words;

/// The whole manifest: services, supervisors and settings.
pub fn manifest(manifest: &Manifest) -> Result<Node, toml::ser::Error> {
    let mut node = manifest.document.root.clone();
    drop_notes(&mut node);
    let rules = arrange(&manifest.rules).unwrap_or_else(|errors| {
        unreachable!("the rules of a manifest were arranged before: {errors:?}")
    });
    for place in &rules.places {
        match place.rules {
            Rules::Child(child) => {
                // Replicas stand in the file once, and differ in nothing that stands there.
                let service = child.name.as_str().split('.').next().unwrap_or_default();
                if let Some(node) = find(&mut node, &["services", service]) {
                    fill_service(node, child, manifest);
                }
            }
            Rules::Supervisor(supervisor) => {
                if let Some(node) = find(&mut node, &["supervisors", supervisor.name.as_str()]) {
                    fill_supervisor(node, supervisor);
                }
            }
        }
    }
    set(&mut node, "settings", settings(&manifest.settings)?);
    hide(&mut node);
    Ok(node)
}

/// The settings alone, without their secrets.
pub fn settings(settings: &Settings) -> Result<Node, toml::ser::Error> {
    let mut node = of_toml(&toml::Value::try_from(settings)?);
    hide(&mut node);
    Ok(node)
}

/// `x-…` says nothing to us.
fn drop_notes(node: &mut Node) {
    if let Content::Map(entries) = &mut node.content {
        entries.retain(|entry| !entry.key.starts_with("x-"));
        for entry in entries {
            // A variable may bear any name.
            if entry.key != "env" {
                drop_notes(&mut entry.value);
            }
        }
    }
}

fn fill_service(node: &mut Node, child: &ChildRules, manifest: &Manifest) {
    default(node, "type", text(child.kind.word()));
    let command = manifest.command(&child.name);
    if let Some(cwd) = command.and_then(|command| command.cwd.as_ref()) {
        set(node, "cwd", text(&cwd.display().to_string()));
    }
    if !child.depends_on.is_empty() {
        let on = child.depends_on.iter();
        let on = on.map(|dependency| (dependency.on.to_string(), of_dependency(dependency)));
        fill(node, "depends_on", map(on));
    }
    let bounds = [
        ("max_runtime", child.max_runtime),
        ("idle_timeout", child.idle_timeout),
    ];
    for (key, limit) in bounds {
        if let Some(limit) = limit {
            default(node, key, text(&duration_text(limit)));
        }
    }
    fill(node, "restart", of_restart(child.restart, &child.governor));
    fill(node, "stop", of_stop(child.stop));
}

fn of_dependency(dependency: &Dependency) -> Node {
    map([("condition".to_owned(), text(dependency.condition.word()))])
}

fn of_restart(restart: Restart, governor: &Governor) -> Node {
    let mut entries = vec![("policy", text(restart.word()))];
    if let Some(limit) = governor.limit {
        entries.push(("max_restarts", integer(limit.max_restarts)));
        entries.push(("window", text(&duration_text(limit.window))));
    }
    entries.push(("on_limit", text(governor.on_limit.word())));
    let backoff = &governor.backoff;
    let backoff = [
        ("initial", text(&duration_text(backoff.initial))),
        ("factor", float(backoff.factor)),
        ("max", text(&duration_text(backoff.max))),
        ("jitter", float(backoff.jitter)),
        ("reset_after", text(&duration_text(backoff.reset_after))),
    ];
    entries.push((
        "backoff",
        map(backoff.map(|(key, node)| (key.to_owned(), node))),
    ));
    map(entries
        .into_iter()
        .map(|(key, node)| (key.to_owned(), node)))
}

fn of_stop(stop: StopSpec) -> Node {
    map([
        ("signal".to_owned(), text(&stop.signal.to_string())),
        ("timeout".to_owned(), text(&duration_text(stop.grace()))),
    ])
}

fn fill_supervisor(node: &mut Node, rules: &SupervisorRules) {
    default(node, "strategy", text(rules.strategy.word()));
    if let Some(intensity) = rules.intensity {
        default(node, "max_restarts", integer(intensity.max_restarts));
        default(node, "window", text(&duration_text(intensity.window)));
    }
    default(node, "on_limit", text(rules.on_limit.word()));
    fill(node, "restart", of_restart(rules.restart, &rules.governor));
}

/// Lays what was written over what holds without it; short forms, such as a list of names, become long ones.
fn fill(node: &mut Node, key: &str, whole: Node) {
    let filled = match (node.get(key), whole) {
        (Some(written), whole) if matches!(written.content, Content::Map(_)) => {
            over(written, whole)
        }
        (_, whole) => whole,
    };
    set(node, key, filled);
}

/// Both are maps: what stands in the first counts, in the order of the second.
fn over(written: &Node, mut whole: Node) -> Node {
    if let Content::Map(entries) = &written.content {
        for entry in entries {
            let value = match whole.get(&entry.key) {
                Some(below) if matches!(entry.value.content, Content::Map(_)) => {
                    over(&entry.value, below.clone())
                }
                Some(_) | None => entry.value.clone(),
            };
            set(&mut whole, &entry.key, value);
        }
    }
    whole
}

fn default(node: &mut Node, key: &str, value: Node) {
    if node.get(key).is_none() {
        set(node, key, value);
    }
}

fn set(node: &mut Node, key: &str, value: Node) {
    let Content::Map(entries) = &mut node.content else {
        return;
    };
    match entries.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => entry.value = value,
        None => entries.push(entry(key.to_owned(), value)),
    }
}

fn find<'a>(node: &'a mut Node, path: &[&str]) -> Option<&'a mut Node> {
    path.iter()
        .try_fold(node, |node, key| match &mut node.content {
            Content::Map(entries) => entries
                .iter_mut()
                .find(|entry| entry.key == *key)
                .map(|entry| &mut entry.value),
            Content::Scalar(_) | Content::List(_) => None,
        })
}

/// Hides every environment value, and whatever else looks like a secret.
fn hide(node: &mut Node) {
    match &mut node.content {
        Content::Scalar(scalar) => hide_text(scalar, |text| secret::line(text).into_owned()),
        Content::List(items) => hide_list(items),
        Content::Map(entries) => {
            for entry in entries {
                if entry.key == "env" || secret::is_name_of_secret(&entry.key) {
                    hide_all(&mut entry.value);
                } else {
                    hide(&mut entry.value);
                }
            }
        }
    }
}

/// The items may be arguments, where one says what the next one is.
fn hide_list(items: &mut [Node]) {
    let texts: Vec<String> = items
        .iter()
        .map(|item| {
            item.scalar()
                .map_or_else(String::new, |scalar| scalar.text.clone())
        })
        .collect();
    let shown = secret::arguments(texts.iter().map(String::as_str));
    for (item, shown) in items.iter_mut().zip(shown) {
        match &mut item.content {
            Content::Scalar(scalar) if scalar.text != shown => {
                *scalar = hidden(shown.into_owned());
            }
            // A line for a shell is an argument too.
            Content::Scalar(scalar) => hide_text(scalar, |text| secret::line(text).into_owned()),
            Content::List(_) | Content::Map(_) => hide(item),
        }
    }
}

fn hide_all(node: &mut Node) {
    match &mut node.content {
        Content::Scalar(scalar) => *scalar = hidden(secret::HIDDEN.to_owned()),
        Content::List(items) => items.iter_mut().for_each(hide_all),
        Content::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| hide_all(&mut entry.value)),
    }
}

fn hide_text(scalar: &mut Scalar, shown: impl FnOnce(&str) -> String) {
    if scalar.kind == ScalarKind::Text {
        scalar.text = shown(&scalar.text);
    }
}

fn hidden(text: String) -> Scalar {
    Scalar {
        text,
        kind: ScalarKind::Text,
    }
}

fn of_toml(value: &toml::Value) -> Node {
    match value {
        toml::Value::Table(table) => map(table
            .iter()
            .map(|(key, value)| (key.clone(), of_toml(value)))),
        toml::Value::Array(items) => node(Content::List(items.iter().map(of_toml).collect())),
        toml::Value::String(value) => text(value),
        toml::Value::Integer(value) => scalar(value.to_string(), ScalarKind::Integer),
        toml::Value::Float(value) => float(*value),
        toml::Value::Boolean(value) => scalar(value.to_string(), ScalarKind::Bool),
        toml::Value::Datetime(value) => scalar(value.to_string(), ScalarKind::Datetime),
    }
}

fn map(entries: impl IntoIterator<Item = (String, Node)>) -> Node {
    let entries = entries.into_iter().map(|(key, value)| entry(key, value));
    node(Content::Map(entries.collect()))
}

fn entry(key: String, value: Node) -> Entry {
    Entry {
        key,
        key_span: Span::default(),
        value,
    }
}

fn text(text: &str) -> Node {
    scalar(text.to_owned(), ScalarKind::Text)
}

fn integer(number: u32) -> Node {
    scalar(number.to_string(), ScalarKind::Integer)
}

/// With a point, so that it stays what it is.
fn float(number: f64) -> Node {
    scalar(format!("{number:?}"), ScalarKind::Float)
}

fn scalar(text: String, kind: ScalarKind) -> Node {
    node(Content::Scalar(Scalar { text, kind }))
}

fn node(content: Content) -> Node {
    Node {
        span: Span::default(),
        content,
    }
}
