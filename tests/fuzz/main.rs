//! Fuzzing of whatever comes in from outside, without tools: a small corpus, seeded mutations, and inputs that lead somewhere
//! new are mutated further. What once went wrong is kept under `regressions` and tried first.
//!
//! `KIMI_FUZZ_SECONDS` says how long each target is tried, `KIMI_SEED` replays a run; an input that fails is left in the
//! temporary directory, and its path is told.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says by which input"
)]

mod mutate;
#[path = "../../examples/bridge/request.rs"]
#[expect(dead_code, reason = "what is done with a request is another matter")]
mod request;
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use kimi_actors::os::clock::{self, Clock};
use mutate::{Random, mutated};

/// Longer than this no input of a few kilobytes may take, on any machine.
const HANGS: Duration = Duration::from_secs(10);

fn duration() -> Duration {
    let is_full = std::env::var("KIMI_FULL").is_ok_and(|value| value == "1");
    let given = std::env::var("KIMI_FUZZ_SECONDS").ok();
    let seconds = given.map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(if is_full { 60 } else { 1 }))
}

/// The inputs that are kept under this name.
fn kept(kind: &str, target: &str) -> Vec<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let directory = root.join("tests/fuzz").join(kind).join(target);
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// What comes of an input, which is told of if it does not come to that.
fn tried(target: &str, run: fn(&[u8]) -> String, input: &[u8]) -> String {
    let clock = Clock::start();
    let came_of_it = catch_unwind(AssertUnwindSafe(|| run(input)));
    let took = clock.now().since_begin();
    if came_of_it.is_err() || took > HANGS {
        let path = std::env::temp_dir().join(format!("kimi-fuzz-{target}-{}", std::process::id()));
        fs::write(&path, input).unwrap();
        panic!(
            "{target} fails after {took:?} with the input in {}",
            path.display()
        );
    }
    came_of_it.unwrap()
}

fn fuzz(target: &str, run: fn(&[u8]) -> String) {
    let seed = std::env::var("KIMI_SEED").map_or_else(|_| clock::seed(), |it| it.parse().unwrap());
    eprintln!("KIMI_SEED={seed}");
    for input in kept("regressions", target) {
        tried(target, run, &input);
    }
    let mut inputs = kept("corpus", target);
    assert!(!inputs.is_empty(), "there is something to begin with");
    let mut ends: BTreeSet<String> = inputs
        .iter()
        .map(|input| tried(target, run, input))
        .collect();
    let (mut random, mut count) = (Random(seed), 0_u64);
    let clock = Clock::start();
    while clock.now().since_begin() < duration() {
        let (one, other) = (random.below(inputs.len()), random.below(inputs.len()));
        let input = mutated(&inputs[one], &inputs[other], &mut random);
        count += 1;
        if ends.insert(tried(target, run, &input)) {
            inputs.push(input);
        }
    }
    eprintln!("{target}: {count} inputs came to {} ends", ends.len());
    assert!(ends.len() > 1, "it is not always the same that comes of it");
}

macro_rules! fuzzed {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            fuzz(stringify!($target), targets::$target);
        }
    )*};
}
fuzzed!(manifest_yaml manifest_toml interpolation env_file bridge sd_notify procfile log_pattern);
