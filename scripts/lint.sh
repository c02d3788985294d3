#!/usr/bin/env bash
# rustfmt, clippy, shellcheck, helm lint: everything that reads and does not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.vigia/bin:$PATH"

say() { printf 'lint: %s\n' "$*" >&2; }

say rustfmt
cargo fmt --all --check

say 'lock files of the fuzz crates'
# Workspaces of their own, whose lock files no other build looks at.
for folder in */fuzz; do
    cargo metadata --locked --format-version 1 --manifest-path "$folder/Cargo.toml" >/dev/null ||
        { say "$folder/Cargo.lock is stale: run cargo fetch there"; exit 1; }
done

say clippy
cargo clippy --quiet --workspace --all-targets --all-features -- --deny warnings

say shellcheck
git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck --external-sources

say 'helm lint'
# That an API server takes what is rendered, strictly, is tested in tests/api/chart.rs.
all=networkPolicy.enabled=true,operator.store.existingClaim=shared
all+=,monitoring.podMonitor=true,monitoring.rules=true,monitoring.dashboard=true
for values in '' "$all"; do
    helm lint --strict --quiet charts/vigia --set "$values"
done
