//! Which services of a manifest count.

use std::collections::HashSet;

use crate::document::nearest::did_you_mean;
use crate::document::shape::{Grammar, Takes};
use crate::manifest::wire;
use crate::settings::Inputs;

/// The name of a profile.
pub(super) static PROFILE: Grammar = Grammar {
    expected: "the name of a profile",
    pattern: Some("^[A-Za-z0-9][A-Za-z0-9_.-]*$"),
    takes: Takes::Written,
    check: |text| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if is_name && text.bytes().all(is_part) {
            Ok(())
        } else {
            Err(format!(
                "`{text}` is no profile; expected letters, digits, `_`, `.` or `-`"
            ))
        }
    },
};

/// The profile that stands for all.
const ALL: &str = "*";

/// The services that count: those without profiles, those with an active one, and those that are asked for by name. To ask
/// for one activates its profiles, so that what it needs from them is there.
pub(super) fn active<'a>(wire: &wire::Manifest<'a>, inputs: &Inputs) -> HashSet<&'a str> {
    let asked =
        |service: &&wire::Service<'a>| inputs.names.iter().any(|name| name == service.name.value);
    let mut profiles: HashSet<&str> = inputs.profiles.iter().map(String::as_str).collect();
    profiles.extend(
        wire.services
            .iter()
            .filter(asked)
            .flat_map(|service| service.profiles.iter().copied()),
    );
    let counts = |service: &&wire::Service<'a>| {
        service.profiles.is_empty()
            || profiles.contains(ALL)
            || service.profiles.iter().any(|own| profiles.contains(own))
            || asked(service)
    };
    wire.services
        .iter()
        .filter(counts)
        .map(|service| service.name.value)
        .collect()
}

/// What is asked for and known by no service, each with what is said about it.
pub(super) fn unknown(wire: &wire::Manifest<'_>, inputs: &Inputs) -> Vec<(String, String)> {
    let known: HashSet<&str> = wire
        .services
        .iter()
        .flat_map(|service| service.profiles.iter().copied())
        .collect();
    let mut sorted: Vec<&str> = known.iter().copied().collect();
    sorted.sort_unstable();
    inputs
        .profiles
        .iter()
        .filter(|profile| *profile != ALL && !known.contains(profile.as_str()))
        .map(|profile| {
            let hint = did_you_mean(profile, sorted.iter().copied());
            let message = format!("no service has the profile `{profile}`{hint}");
            (profile.clone(), message)
        })
        .collect()
}
