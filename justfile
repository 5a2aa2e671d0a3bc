# The words for what is done every day. `.ci/run` does all of `check` and more.

# Everything that must hold before a change is shared
check: fmt lint test doc

fmt:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets -- -D warnings

test:
    cargo test --workspace

bench:
    cargo bench --workspace

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The demonstration, or your manifest
run *words="--all":
    cargo run --release -- start {{words}}
