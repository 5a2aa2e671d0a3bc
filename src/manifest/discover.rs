//! Finding the manifest of a directory.

use std::path::{Path, PathBuf};

/// The names under which a manifest is found.
pub const NAMES: [&str; 3] = ["kimi-shell.yaml", "kimi-shell.yml", "kimi-shell.toml"];

/// The names under which a file beside a manifest is laid over it.
pub const OVERRIDES: [&str; 3] = [
    "kimi-shell.override.yaml",
    "kimi-shell.override.yml",
    "kimi-shell.override.toml",
];

/// Why no manifest could be chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// Two stand side by side.
    #[error(
        "cannot choose between {} and {}: name one with `--file`, or remove the other",
        first.display(),
        second.display()
    )]
    Ambiguous {
        /// One of them.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
}

/// A manifest that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The manifest.
    pub manifest: PathBuf,
    /// What is laid over it, if it is there.
    pub over: Option<PathBuf>,
}

/// The manifest in a directory, or in the nearest one above it that has one, with what is laid over it.
pub fn discover(directory: &Path) -> Result<Option<Discovered>, DiscoverError> {
    for directory in directory.ancestors() {
        if let Some(manifest) = only(directory, &NAMES)? {
            let over = only(directory, &OVERRIDES)?;
            return Ok(Some(Discovered { manifest, over }));
        }
    }
    Ok(None)
}

/// The one of these names that is there.
fn only(directory: &Path, names: &[&str]) -> Result<Option<PathBuf>, DiscoverError> {
    let mut found = names
        .iter()
        .map(|name| directory.join(name))
        // Whatever it is: reading says why it cannot be used.
        .filter(|path| path.symlink_metadata().is_ok());
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(DiscoverError::Ambiguous { first, second }),
        (found, _) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_directory_with_a_manifest_counts() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.path().join("kimi-shell.yml"), "").unwrap();
        let found = |at: &Path| discover(at).unwrap().map(|found| found.manifest);
        assert_eq!(found(&deep), Some(root.path().join("kimi-shell.yml")));
        fs::write(root.path().join("a/kimi-shell.toml"), "").unwrap();
        assert_eq!(found(&deep), Some(root.path().join("a/kimi-shell.toml")));
        assert_eq!(found(root.path()), Some(root.path().join("kimi-shell.yml")));
    }

    #[test]
    fn what_is_laid_over_a_manifest_stands_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a");
        fs::create_dir_all(&deep).unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("kimi-shell.yaml"), "").unwrap();
        fs::write(deep.join("kimi-shell.override.yaml"), "").unwrap();
        let over = |directory: &Path| discover(directory).unwrap().unwrap().over;
        assert_eq!(over(&deep), None);
        fs::write(at("kimi-shell.override.toml"), "").unwrap();
        assert_eq!(over(&deep), Some(at("kimi-shell.override.toml")));
    }

    #[test]
    fn two_in_one_directory_are_refused() {
        for (first, second) in [
            (NAMES[0], NAMES[2]),
            (NAMES[1], NAMES[2]),
            (OVERRIDES[0], OVERRIDES[1]),
        ] {
            let root = tempfile::tempdir().unwrap();
            for name in ["kimi-shell.yaml", first, second] {
                fs::write(root.path().join(name), "").unwrap();
            }
            assert!(
                matches!(discover(root.path()), Err(DiscoverError::Ambiguous { .. })),
                "{first} and {second}"
            );
        }
    }
}
