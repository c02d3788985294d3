#!/usr/bin/env bash
# Lint and every test, and how long each part took.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.vigia/bin:$PATH"
started=$SECONDS

part() {
    local from=$SECONDS what=$1
    shift
    "$@"
    printf 'test: %s took %d s\n' "$what" $((SECONDS - from)) >&2
}

part 'lint' scripts/lint.sh
part 'compiling the tests' cargo build --quiet --workspace --bins --tests
part 'the images' scripts/build-images.sh --unoptimised
VIGIA_IMAGES=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/images
export VIGIA_IMAGES
# One more than there are cores: the tests on a cluster wait for most of their time.
part 'the tests' cargo nextest run --workspace --test-threads $(($(nproc) + 1))
part 'the doc tests' cargo test --quiet --workspace --doc
printf 'test: all is well after %d s\n' $((SECONDS - started)) >&2
