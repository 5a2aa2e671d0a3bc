//! Finding the manifest of a directory.

use std::path::{Path, PathBuf};

/// The names under which a manifest is found.
pub const NAMES: [&str; 3] = ["kimi-shell.yaml", "kimi-shell.yml", "kimi-shell.toml"];

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

/// The manifest in a directory, or in the nearest one above it that has one.
pub fn discover(directory: &Path) -> Result<Option<PathBuf>, DiscoverError> {
    for directory in directory.ancestors() {
        let mut found = NAMES
            .iter()
            .map(|name| directory.join(name))
            // Whatever it is: reading says why it cannot be used.
            .filter(|path| path.symlink_metadata().is_ok());
        match (found.next(), found.next()) {
            (None, _) => {}
            (Some(path), None) => return Ok(Some(path)),
            (Some(first), Some(second)) => {
                return Err(DiscoverError::Ambiguous { first, second });
            }
        }
    }
    Ok(None)
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
        let found = |at: &Path| discover(at).unwrap();
        assert_eq!(found(&deep), Some(root.path().join("kimi-shell.yml")));
        fs::write(root.path().join("a/kimi-shell.toml"), "").unwrap();
        assert_eq!(found(&deep), Some(root.path().join("a/kimi-shell.toml")));
        assert_eq!(found(root.path()), Some(root.path().join("kimi-shell.yml")));
    }

    #[test]
    fn two_in_one_directory_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for name in ["kimi-shell.yaml", "kimi-shell.toml"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert!(matches!(
            discover(root.path()),
            Err(DiscoverError::Ambiguous { .. })
        ));
    }
}
