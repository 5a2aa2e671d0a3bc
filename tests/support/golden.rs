//! Answers that are kept: `tests/golden` holds them, and they are compared letter by letter.

use std::fs;
use std::path::PathBuf;

/// Says to write the answers down instead: `KIMI_BLESS=1 cargo test`. Read the difference before it is committed.
const BLESS: &str = "KIMI_BLESS";

/// Fails if the answer is not the one that is kept under this name.
pub fn assert_golden(name: &str, answer: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os(BLESS).is_some_and(|bless| bless == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, answer).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == answer,
        "{name} is not what it was; with {BLESS}=1 this is kept instead:\n{answer}"
    );
}
